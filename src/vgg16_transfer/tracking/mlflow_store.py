"""The MLflow store that runs are logged to: MLFLOW_TRACKING_URI, or SQLite at the DVC root."""

from __future__ import annotations

import glob
import sqlite3
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from vgg16_transfer.errors import InputError, redacted
from vgg16_transfer.tracking import locations, mlflow_private
from vgg16_transfer.tracking.locations import ARTIFACTS, KIND

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = "mlflow.db"

DESCRIPTION = "mlflow.note.content"
"""The tag of an experiment or a run that MLflow's UI shows as its description, in Markdown."""

_ATTEMPTS = 7  # to connect to a database server: 12 seconds, instead of MLflow's two minutes


class TrackingError(InputError):
    """The MLflow store can't be used."""


@dataclass(frozen=True)
class Store:
    """An MLflow store, and the folder for the artifacts of new experiments.

    Attributes:
        uri: Tracking URI. A path in it is absolute, so that it is valid in every folder.
        artifacts: Folder for artifacts, or None if the server chooses it.
        database: File of a SQLite store, or None for other stores.
    """

    uri: str
    artifacts: Path | None
    database: Path | None = None

    def __str__(self) -> str:
        """The address for messages: without user and password, with an unescaped file path."""
        return f"sqlite:///{self.database}" if self.database else redacted(self.uri)

    def client(self) -> mlflow.MlflowClient:
        """Opens the store.

        If a SQLite store is new, its tables are created first, by one process at a time. If the
        workspace was moved or copied, the addresses of its artifacts are corrected.

        Raises:
            TrackingError: The store can't be opened.
        """
        if mlflow_private.is_refused_folder(self.uri):
            raise TrackingError(
                f"{self}: MLflow keeps no runs in folders any more; set MLFLOW_TRACKING_URI to "
                f"sqlite:///mlflow.db or a server's address (mlflow migrate-filestore moves runs)"
            )
        mlflow.set_tracking_uri(self.uri)
        try:
            if self.database is None or self.artifacts is None:
                if mlflow_private.is_database(self.uri):
                    mlflow_private.limit_connection_attempts(_ATTEMPTS)
                return mlflow.MlflowClient(self.uri)
            self.database.parent.mkdir(parents=True, exist_ok=True)
            # Otherwise two processes could create the tables at the same time.
            with FileLock(self.database.with_name(f".{self.database.name}.lock")):
                if not self.database.exists() or not self.database.stat().st_size:
                    _create(self.database)
                # If it can't be opened, this raises at once; MLflow would try for two minutes.
                sqlite3.connect(self.database).close()
                client = mlflow.MlflowClient(self.uri)
                client.search_experiments(max_results=1)
                former = locations.correct_addresses(self.database, self.artifacts)
        except ModuleNotFoundError as error:
            raise TrackingError(
                f"{self}: needs the Python package {error.name}; run pip install --constraint "
                f"constraints.txt --editable '.[team]'"
            ) from None
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            reason = " ".join(str(error).partition("\n")[0].split())
            raise TrackingError(f"{self}: can't be opened: {reason}") from None
        if former:
            tqdm.write(
                f"{self}: was moved or copied: artifacts are now those in {self.artifacts}, "
                f"no longer those in {former}",
                file=sys.stderr,
            )
        return client

    def experiment(self, client: mlflow.MlflowClient, name: str, about: str = "") -> str:
        """The id of an experiment, which is created if it does not exist.

        Args:
            client: Client of the store.
            name: Name of the experiment.
            about: Description of a new experiment, in Markdown.

        Raises:
            TrackingError: The experiment was deleted.
        """
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            location = (self.artifacts / name).as_uri() if self.artifacts else None
            try:
                tags = dict([KIND]) | ({DESCRIPTION: about} if about else {})
                return str(client.create_experiment(name, location, tags=tags))
            except MlflowException as error:
                if not mlflow_private.is_duplicate(error):
                    raise
                experiment = client.get_experiment_by_name(
                    name
                )  # another process created it meanwhile
        if experiment is None or experiment.lifecycle_stage != "active":
            raise TrackingError(
                f"{self}: experiment '{name}' was deleted; restore it with "
                f"mlflow experiments restore, or mlflow gc it"
            )
        return str(experiment.experiment_id)


def find_store(root: Path, uri: str | None) -> Store:
    """The store to use.

    Args:
        root: The DVC root. In a stage, DVC_ROOT holds it; ``dvc exp run --temp`` runs the stage in
            another folder, which is deleted afterwards.
        uri: Tracking URI, such as the value of MLFLOW_TRACKING_URI; None or '' for the workspace's
            own store. A relative SQLite path is relative to the root.
    """
    root = root.resolve()
    if not uri:
        return _own(URL.create("sqlite", database=str(root / DATABASE)), root)
    try:
        address = make_url(uri)
    except (SQLAlchemyError, ValueError):
        return Store(uri, None)
    if address.get_backend_name() != "sqlite" or not address.database or "uri" in address.query:
        return Store(uri, None)
    return _own(address, root)


def _create(database: Path) -> None:
    """Creates a database under another name, then renames it.

    A killed process would leave a part of the tables, which MLflow can't complete.
    """
    # The name is unique, because MLflow keeps a connection to each address.
    fresh = database.with_name(f".{database.name}.{uuid.uuid4().hex}.fresh")
    try:
        address = URL.create("sqlite", database=str(fresh))
        mlflow.MlflowClient(_own(address, fresh.parent).uri).search_experiments(max_results=1)
        fresh.replace(database)
    finally:  # also removes what an earlier, killed process left
        for left in database.parent.glob(f".{glob.escape(database.name)}.*.fresh*"):
            left.unlink(missing_ok=True)


def _own(address: URL, root: Path) -> Store:
    """A SQLite store. Only this function turns a path into an address for MLflow.

    SQLAlchemy reads %20 in an address as a space, and ? as the start of options. Such a path is
    escaped. MLflow would create a folder with the escaped name after ``sqlite:///``, but not if the
    address names the driver.
    """
    database = root / (address.database or DATABASE)
    uri = f"sqlite:///{database}"
    if address.query or make_url(uri).database != str(database):
        full = address.set(drivername="sqlite+pysqlite", database=str(database))
        uri = full.render_as_string(hide_password=False)
    return Store(uri, database.parent / ARTIFACTS, database)
