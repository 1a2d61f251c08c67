"""Turns the failures of a store into one sentence that says what to do, without a traceback."""

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
    "MLFLOW_TRACKING_PASSWORD to those of a user of the server",
    HTTPStatus.FORBIDDEN: "does not permit this to the user in MLFLOW_TRACKING_USERNAME; ask the "
    "server's admin for the permission, or set another user",
}


class TrackingUnreachableError(TrackingError):
    """The MLflow store can't be reached, or its answer is not that of an MLflow store."""


class TrackingRefusedError(TrackingError):
    """The MLflow server rejected the user, or the user lacks permission."""


@contextmanager
def reached(store: Store) -> Iterator[None]:
    """Turns every failure between this process and the store into one sentence.

    Args:
        store: The store, whose address begins the sentence.

    Raises:
        TrackingUnreachableError: The store can't be reached or written to, or the connection broke.
        TrackingRefusedError: The server rejected the user, or the user lacks permission.
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
        # A bad request is a bug of this package, unless the address is wrong or the database itself
        # refused it.
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
    """The HTTP status of the server's answer, or None if it did not answer."""
    if isinstance(error, MlflowException):
        return HTTPStatus(error.get_http_status_code())
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return HTTPStatus(error.response.status_code)
    return None


def _reason(error: BaseException) -> str:
    """The first cause in a chain of errors: the failure of network or disk itself."""
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    # Pillow tries another way first, so the full disk is not always the first error of the chain.
    failures = [one for one in chain if isinstance(one, (OSError, sqlite3.Error))]
    cause = (failures or chain)[-1]
    message = str(cause)
    if isinstance(cause, OSError) and cause.strerror:
        message = f"{cause.strerror} ({cause.filename})" if cause.filename else cause.strerror
    return " ".join(message.partition("\n")[0].split()) or type(cause).__name__
