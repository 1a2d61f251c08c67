"""Corrects the artifact addresses in a workspace's own store after it was moved or copied.

MLflow records absolute addresses of experiments, runs, logged models and registered versions.
After a move they point to nothing. After a copy they point to the original workspace.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from pathlib import Path

ARTIFACTS = "mlartifacts"

KIND = ("mlflow.experimentKind", "custom_model_development")
"""The tag of every experiment of this project. MLflow's UI chooses the pages to show by it."""

_WAIT = 60  # seconds to wait for another process that writes

# By table and column: a pattern of what MLflow appends to the address of an experiment.
_COLUMNS = {
    ("experiments", "artifact_location"): "",
    ("runs", "artifact_uri"): "/[^/]+/artifacts",
    ("logged_models", "artifact_location"): "/models/[^/]+/artifacts",
    ("model_versions", "source"): "/.+",
    ("model_versions", "storage_location"): "/.+",
}


def correct_addresses(database: Path, artifacts: Path) -> str | None:
    """Changes addresses in another workspace's artifacts folder to the folder of this workspace.

    It changes only experiments of this project, in one transaction. If all addresses are correct,
    it only reads the store.

    Args:
        database: SQLite database of an MLflow store. The caller makes sure that no other process
            corrects it at the same time.
        artifacts: Current folder of the artifacts: ``mlartifacts`` beside the database.

    Returns:
        The former folder of the artifacts, or None if nothing was changed.

    Raises:
        sqlite3.Error: The database can't be read or written.
    """
    prefix = f"{artifacts.as_uri()}/"
    with closing(sqlite3.connect(database, timeout=_WAIT)) as connection:
        moved = list(_moved(connection, prefix))
        with connection:
            for table, column, old, new, _ in moved:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {column} = ?",  # noqa: S608
                    (new, old),
                )
    return moved[0][-1] if moved else None


def _moved(connection: sqlite3.Connection, prefix: str) -> list[tuple[str, str, str, str, str]]:
    """Table, column, old address, new address and old folder of each address to change.

    Args:
        connection: The database.
        prefix: Address of the current folder, with a slash at the end.
    """
    names = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM experiments JOIN experiment_tags USING (experiment_id) "
            "WHERE key = ? AND value = ?",
            KIND,
        )
    }
    moved = []
    for (table, column), ending in _COLUMNS.items():
        pattern = re.compile(rf"file://(?P<folder>/.*/)?{ARTIFACTS}/(?P<name>[^/]+){ending}")
        rows = connection.execute(
            f"SELECT DISTINCT {column} FROM {table} "  # noqa: S608
            f"WHERE {column} LIKE 'file://%/{ARTIFACTS}/%' AND substr({column}, 1, ?) <> ?",
            (len(prefix), prefix),
        )
        for (old,) in rows:
            match = pattern.fullmatch(old)
            if match and unquote(match["name"]) in names:
                new = prefix + old[match.start("name") :]
                moved.append((table, column, old, new, unquote(old[7 : match.start("name") - 1])))
    return moved
