"""Where runs go: the store that MLFLOW_TRACKING_URI names, or SQLite at the DVC root."""

from __future__ import annotations

import glob
import os
import sqlite3
import sys
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

# Set before mlflow is imported, which reads it then: experiments are nobody else's business.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# It would draw a bar for every file.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Two lines of address for every run that is told would bury what a stage has to say.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
# A server that is restarted is waited for, 14 seconds; MLflow would wait four minutes for one that
# is gone, and two for each answer. No result depends on it: all can be told later.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from vgg16_transfer.errors import InputError
from vgg16_transfer.tracking import locations, mlflow_private
from vgg16_transfer.tracking.locations import ARTIFACTS, KIND

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = "mlflow.db"

_ATTEMPTS = 7  # to connect to a database server: 12 seconds, instead of MLflow's two minutes


class TrackingError(InputError):
    """An MLflow store that can't be used."""


@dataclass(frozen=True)
class Store:
    """An MLflow store, and where the artifacts of a new experiment go.

    Attributes:
        uri: Absolute, so that it means the same in every folder.
        artifacts: Folder for artifacts, or None where the server decides.
        database: The file of a SQLite store, or None.
    """

    uri: str
    artifacts: Path | None
    database: Path | None = None

    def __str__(self) -> str:
        """The address for people: without a password, and a file's path as the shell shows it."""
        if self.database:
            return f"sqlite:///{self.database}"
        try:
            return make_url(self.uri).render_as_string(hide_password=True)
        except (SQLAlchemyError, ValueError):
            return self.uri

    def client(self) -> mlflow.MlflowClient:
        """A client; the tables of a fresh SQLite store are made first, by one process at a time.

        Artifacts of a workspace that was moved or copied are found where they are now.

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
            # Processes that fill a fresh database at once see each other's half-made tables.
            with FileLock(self.database.with_name(f".{self.database.name}.lock")):
                if not self.database.exists() or not self.database.stat().st_size:
                    _make(self.database)
                # MLflow would try to open it for two minutes.
                sqlite3.connect(self.database).close()
                client = mlflow.MlflowClient(self.uri)
                client.search_experiments(max_results=1)
                before = locations.mend(self.database, self.artifacts)
        except ModuleNotFoundError as error:
            raise TrackingError(
                f"{self}: needs the Python package {error.name}; run pip install --constraint "
                f"constraints.txt --editable '.[team]'"
            ) from None
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            reason = " ".join(str(error).partition("\n")[0].split())
            raise TrackingError(f"{self}: can't be opened: {reason}") from None
        if before:
            tqdm.write(
                f"{self}: was moved or copied: artifacts are now those in {self.artifacts}, "
                f"no longer those in {before}",
                file=sys.stderr,
            )
        return client

    def experiment(self, client: mlflow.MlflowClient, name: str) -> str:
        """The id of an experiment, which is made if there is none of that name."""
        found = client.get_experiment_by_name(name)
        if found is None:
            location = (self.artifacts / name).as_uri() if self.artifacts else None
            try:
                return str(client.create_experiment(name, location, tags=dict([KIND])))
            except MlflowException as error:
                if not mlflow_private.is_duplicate(error):
                    raise
                found = client.get_experiment_by_name(name)  # another process was faster
        if found is None or found.lifecycle_stage != "active":
            raise TrackingError(
                f"{self}: experiment '{name}' was deleted; restore it with "
                f"mlflow experiments restore, or mlflow gc it"
            )
        return str(found.experiment_id)


def find_store(root: Path, uri: str | None) -> Store:
    """The store to use.

    Args:
        root: The DVC root: what DVC_ROOT holds in a stage, also when ``dvc exp run --temp`` runs it
            elsewhere, in a folder that is thrown away.
        uri: What MLFLOW_TRACKING_URI holds, if anything. A relative SQLite path is taken from the
            root as well.
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


def _make(database: Path) -> None:
    """Makes a fresh database beside its place, for MLflow can't go on with half of its tables."""
    # Under a name of its own, since MLflow keeps a connection to each address.
    fresh = database.with_name(f".{database.name}.{uuid.uuid4().hex}.fresh")
    try:
        address = URL.create("sqlite", database=str(fresh))
        mlflow.MlflowClient(_own(address, fresh.parent).uri).search_experiments(max_results=1)
        fresh.replace(database)
    finally:  # also what an earlier process left that was killed
        for left in database.parent.glob(f".{glob.escape(database.name)}.*.fresh*"):
            left.unlink(missing_ok=True)


def _own(address: URL, root: Path) -> Store:
    """A SQLite store: the one place where a path becomes an address of MLflow's.

    SQLAlchemy takes %20 in an address for a space, and ? for the beginning of options, so such a
    path is escaped. MLflow makes the folder of whatever follows sqlite:///, escapes and all, but
    leaves an address alone that names its driver.
    """
    database = root / (address.database or DATABASE)
    uri = f"sqlite:///{database}"
    if address.query or make_url(uri).database != str(database):
        whole = address.set(drivername="sqlite+pysqlite", database=str(database))
        uri = whole.render_as_string(hide_password=False)
    return Store(uri, database.parent / ARTIFACTS, database)
