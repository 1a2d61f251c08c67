"""Where an own store says that its artifacts lie, after the workspace was moved or copied.

MLflow records absolute addresses: of experiments, runs, logged models and registered versions.
In a moved workspace they lead nowhere, and in a copy they lead into the original.
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
"""The tag of an experiment that this project made; it also says which pages MLflow's UI shows."""

_WAIT = 60  # seconds for another process that writes

# By table and column: what MLflow puts behind the address of an experiment.
_COLUMNS = {
    ("experiments", "artifact_location"): "",
    ("runs", "artifact_uri"): "/[^/]+/artifacts",
    ("logged_models", "artifact_location"): "/models/[^/]+/artifacts",
    ("model_versions", "source"): "/.+",
    ("model_versions", "storage_location"): "/.+",
}


def mend(database: Path, artifacts: Path) -> str | None:
    """Makes addresses below another root's artifacts lead to those of this workspace.

    Only experiments that this project made are mended, in one transaction. A store that is right
    already is only read.

    Args:
        database: A SQLite store of MLflow's; the caller sees to it that no other process mends it.
        artifacts: Where the artifacts lie now: ``mlartifacts`` beside the database.

    Returns:
        The folder in which the artifacts lay, or None if nothing was to be mended.

    Raises:
        sqlite3.Error: The database can't be read or written.
    """
    here = f"{artifacts.as_uri()}/"
    with closing(sqlite3.connect(database, timeout=_WAIT)) as connection:
        moved = list(_moved(connection, here))
        with connection:
            for table, column, old, new, _ in moved:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? WHERE {column} = ?",  # noqa: S608
                    (new, old),
                )
    return moved[0][-1] if moved else None


def _moved(connection: sqlite3.Connection, here: str) -> list[tuple[str, str, str, str, str]]:
    """Table, column, old address, new address, old folder of all that lie elsewhere."""
    names = {
        name
        for (name,) in connection.execute(
            "SELECT name FROM experiments JOIN experiment_tags USING (experiment_id) "
            "WHERE key = ? AND value = ?",
            KIND,
        )
    }
    moved = []
    for (table, column), behind in _COLUMNS.items():
        pattern = re.compile(rf"file://(?P<folder>/.*/)?{ARTIFACTS}/(?P<name>[^/]+){behind}")
        rows = connection.execute(
            f"SELECT DISTINCT {column} FROM {table} "  # noqa: S608
            f"WHERE {column} LIKE 'file://%/{ARTIFACTS}/%' AND substr({column}, 1, ?) <> ?",
            (len(here), here),
        )
        for (old,) in rows:
            found = pattern.fullmatch(old)
            if found and unquote(found["name"]) in names:
                new = here + old[found.start("name") :]
                moved.append((table, column, old, new, unquote(old[7 : found.start("name") - 1])))
    return moved
