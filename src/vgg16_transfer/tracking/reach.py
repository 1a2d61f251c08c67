"""What a store that can't be used says: one sentence that names the remedy, not a traceback."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import requests
from mlflow.exceptions import InvalidUrlException, MlflowException
from sqlalchemy.exc import SQLAlchemyError

from vgg16_transfer.tracking.mlflow_private import RETRY_LOGGERS
from vgg16_transfer.tracking.mlflow_store import TrackingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vgg16_transfer.tracking.mlflow_store import Store

_REFUSALS = {
    HTTPStatus.UNAUTHORIZED: "refuses the credentials; set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD to those of a user whom the server knows",
    HTTPStatus.FORBIDDEN: "does not permit this to the user whom MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD name; its admin can, or name another user",
}


class TrackingUnreachableError(TrackingError):
    """An MLflow store that does not answer, or not as one would."""


class TrackingRefusedError(TrackingError):
    """An MLflow store that knows the user not, or not as one who may do this."""


@contextmanager
def reached(store: Store) -> Iterator[None]:
    """Whatever goes wrong between here and the store becomes a sentence.

    Raises:
        TrackingUnreachableError: The store can't be reached, broke off, or can't be written to.
        TrackingRefusedError: It does not take the credentials, or does not permit what was tried.
    """
    levels = {name: logging.getLogger(name).level for name in RETRY_LOGGERS}
    for name in RETRY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        status = _status(error)
        if status in _REFUSALS:
            raise TrackingRefusedError(f"{store}: {_REFUSALS[status]}") from None
        # What MLflow calls a bad request is a mistake of this package, but for a bad address and
        # what the database itself refuses.
        refused = isinstance(error, InvalidUrlException) or isinstance(
            error.__cause__, SQLAlchemyError
        )
        if status == HTTPStatus.BAD_REQUEST and not refused:
            raise
        gone = status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        problem = "can't be reached" if gone and store.database is None else "can't be used"
        raise TrackingUnreachableError(f"{store}: {problem}: {_reason(error)}") from None
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _status(error: Exception) -> HTTPStatus | None:
    """What the server answered, or None if it did not."""
    if isinstance(error, MlflowException):
        return HTTPStatus(error.get_http_status_code())
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return HTTPStatus(error.response.status_code)
    return None


def _reason(error: BaseException) -> str:
    """The cause that all the others come from: where network or disk failed, not who noticed."""
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    # Pillow tries something else first, and the full disk is then noticed on the way.
    failed = [one for one in chain if isinstance(one, (OSError, sqlite3.Error))]
    cause = (failed or chain)[-1]
    said = str(cause)
    if isinstance(cause, OSError) and cause.strerror:
        said = f"{cause.strerror} ({cause.filename})" if cause.filename else cause.strerror
    return " ".join(said.partition("\n")[0].split()) or type(cause).__name__
