"""Every part of MLflow that MLflow does not document as its Python interface, in one place.

Any minor version of MLflow can change these parts. pyproject.toml therefore sets an upper bound,
and tests/tracking/test_mlflow_private.py names the version that was tested.

This module travels with registered models: it imports only MLflow, and what costs time is imported
inside the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.environment_variables import MLFLOW_ALLOW_FILE_STORE
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.utils.uri import get_uri_scheme, is_local_uri

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.pyfunc import PyFuncModel

RETRY_LOGGERS = ("urllib3.connectionpool", "mlflow.store.db.utils")
"""The first logs a line for each retry. The second prints a traceback before it raises."""


def is_missing(error: MlflowException) -> bool:
    """Whether a store answered that it has no object of that name or id."""
    return bool(error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST))


def is_missing_run(error: MlflowException) -> bool:
    """Whether a store answered that it has no run of that id, or that it can't be an id."""
    return is_missing(error) or error.error_code == ErrorCode.Name(INVALID_PARAMETER_VALUE)


def is_duplicate(error: MlflowException) -> bool:
    """Whether a store answered that it already has an object of that name."""
    return bool(error.error_code == ErrorCode.Name(RESOURCE_ALREADY_EXISTS))


def is_refused_folder(uri: str) -> bool:
    """Whether a tracking URI is a local folder, which MLflow no longer accepts as a store."""
    return is_local_uri(uri) and not MLFLOW_ALLOW_FILE_STORE.get()


def is_database(uri: str) -> bool:
    """Whether a tracking URI is a database that MLflow opens without a server."""
    return get_uri_scheme(uri) in DATABASE_ENGINES


def limit_connection_attempts(attempts: int) -> None:
    """Sets how often MLflow tries to connect to a database; it waits longer after each attempt."""
    from mlflow.store.db import utils  # noqa: PLC0415 - takes a second, and a server needs none

    utils.MAX_RETRY_COUNT = attempts


def scoring_app(model: PyFuncModel) -> Any:
    """The ASGI application of ``mlflow models serve``: /ping, /version and /invocations.

    Args:
        model: The model that answers.
    """
    from mlflow.pyfunc import scoring_server  # noqa: PLC0415 - most commands serve nothing

    return scoring_server.init(model)


def bad_request(message: str, reason: str) -> MlflowException:
    """An error that MLflow's scoring server answers with status 400.

    Args:
        message: The message of the answer.
        reason: Is sent beside it; :func:`reason` reads it.
    """
    error = MlflowException.invalid_parameter_value(message, reason=reason)
    # The scoring server prepends the request to the message; the one set here replaces both.
    error.json_kwargs["message"] = message
    return error


def reason(error: MlflowException) -> str:
    """The reason of an error that :func:`bad_request` made, or the message of another one."""
    return str(error.json_kwargs.get("reason", error.message))


def write_environment(folder: Path, requirements: list[str]) -> dict[str, str]:
    """Writes the files that say what a logged model needs to be loaded.

    ``mlflow.pyfunc.save_model`` writes them too, but it imports every package that it names.

    Args:
        folder: Folder of the model.
        requirements: Requirements of pip besides MLflow, of the version that is installed.

    Returns:
        The arguments of ``mlflow.pyfunc.add_to_model`` that name these files.
    """
    from mlflow.utils.environment import _mlflow_conda_env, _PythonEnv  # noqa: PLC0415

    pinned = [f"mlflow=={mlflow.__version__}", *requirements]
    _mlflow_conda_env(path=str(folder / "conda.yaml"), additional_pip_deps=pinned)
    (folder / "requirements.txt").write_text("\n".join(pinned), encoding="utf-8")
    _PythonEnv.current().to_yaml(str(folder / "python_env.yaml"))
    return {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
