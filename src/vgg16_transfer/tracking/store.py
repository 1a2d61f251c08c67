"""Where runs go: the store that MLFLOW_TRACKING_URI names, or SQLite at the DVC root."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

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
from mlflow.environment_variables import MLFLOW_ALLOW_FILE_STORE
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils.uri import is_local_uri
from sqlalchemy.exc import SQLAlchemyError

from vgg16_transfer.errors import InputError

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"

_SQLITE = "sqlite:///"
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # which pages the UI shows first


class TrackingError(InputError):
    """An MLflow store that can't be used."""


@dataclass(frozen=True)
class Store:
    """An MLflow store, and where the artifacts of a new experiment go.

    Attributes:
        uri: Absolute, so that it means the same in every folder.
        artifacts: Folder for artifacts, or None where the server decides.
    """

    uri: str
    artifacts: Path | None

    def client(self) -> mlflow.MlflowClient:
        """A client; the tables of a fresh SQLite store are made first, by one process at a time.

        Raises:
            TrackingError: The store can't be opened.
        """
        if is_local_uri(self.uri) and not MLFLOW_ALLOW_FILE_STORE.get():
            raise TrackingError(
                f"{self.uri}: MLflow keeps no runs in folders any more; set MLFLOW_TRACKING_URI to "
                f"sqlite:///mlflow.db or a server's address (mlflow migrate-filestore moves runs)"
            )
        mlflow.set_tracking_uri(self.uri)
        try:
            if not self.uri.startswith(_SQLITE):
                return mlflow.MlflowClient(self.uri)
            database = Path(self.uri.removeprefix(_SQLITE))
            database.parent.mkdir(parents=True, exist_ok=True)
            # Processes that fill a fresh database at once see each other's half-made tables.
            with FileLock(database.with_name(f".{database.name}.lock")):
                client = mlflow.MlflowClient(self.uri)
                client.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            reason = " ".join(str(error).partition("\n")[0].split())
            raise TrackingError(f"{self.uri}: can't be opened: {reason}") from None
        return client

    def experiment(self, client: mlflow.MlflowClient, name: str) -> str:
        """The id of an experiment, which is made if there is none of that name."""
        found = client.get_experiment_by_name(name)
        if found is None:
            location = (self.artifacts / name).as_uri() if self.artifacts else None
            try:
                return str(client.create_experiment(name, location, tags=_KIND))
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
                found = client.get_experiment_by_name(name)  # another process was faster
        if found is None or found.lifecycle_stage != "active":
            raise TrackingError(
                f"{self.uri}: experiment '{name}' was deleted; restore it with "
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
        return Store(f"{_SQLITE}{root / DATABASE}", root / ARTIFACTS)
    if uri.startswith(_SQLITE):
        database = root / uri.removeprefix(_SQLITE)
        return Store(f"{_SQLITE}{database}", database.parent / ARTIFACTS)
    return Store(uri, None)
