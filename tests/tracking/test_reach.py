"""What is said of a store that can't be used: one sentence, whichever way it fails."""

import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import mlflow
import pytest
import requests

from vgg16_transfer.tracking.mlflow_store import Store, find_store
from vgg16_transfer.tracking.reach import (
    TrackingRefusedError,
    TrackingUnreachableError,
    reached,
)


class Answer(BaseHTTPRequestHandler):
    """Answers everything with the same status, or hangs up."""

    status: ClassVar[int] = 200

    def do_GET(self) -> None:
        if self.status:
            self.send_response(self.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def answering(monkeypatch) -> Iterator[Callable[[int], Store]]:
    """A store at a server that answers with a status, or hangs up at 0."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def make(status: int) -> Store:
        monkeypatch.setattr(Answer, "status", status)
        return find_store(Path(), f"http://127.0.0.1:{server.server_port}")

    yield make
    server.shutdown()
    server.server_close()


def ask(store: Store) -> None:
    with reached(store):
        store.experiment(store.client(), "animals")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0, "Remote end closed connection without response"),
        (500, "too many 500 error responses"),
        (503, "too many 503 error responses"),
    ],
)
def test_a_server_that_fails_is_named_with_the_reason(
    answering, status: int, reason: str, caplog
) -> None:
    store = answering(status)
    with caplog.at_level(logging.WARNING), pytest.raises(TrackingUnreachableError) as caught:
        ask(store)
    assert str(caught.value).startswith(f"{store.uri}: can't be reached: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caplog.records == []  # nothing of retries


def test_a_server_that_is_not_there_is_named(answering) -> None:
    with pytest.raises(TrackingUnreachableError) as caught:
        ask(Store("http://127.0.0.1:1", None))
    assert str(caught.value) == "http://127.0.0.1:1: can't be reached: Connection refused"


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(401, "refuses the credentials; set MLFLOW_TRACKING_USERNAME"), (403, "does not permit this")],
)
def test_a_server_that_refuses_is_told_from_one_that_is_gone(
    answering, status: int, sentence: str
) -> None:
    with pytest.raises(TrackingRefusedError, match=sentence):
        ask(answering(status))


@pytest.mark.parametrize(("status", "refused"), [(403, True), (404, False), (502, False)])
def test_an_artifact_that_is_not_taken_says_the_same(status: int, refused: bool) -> None:
    response = requests.Response()
    response.status_code = status
    store = Store("http://127.0.0.1:1", None)
    expected = TrackingRefusedError if refused else TrackingUnreachableError
    with pytest.raises(expected), reached(store):
        response.raise_for_status()


def test_a_mistake_of_our_own_stays_a_bug(store) -> None:
    client = store.client()
    run = client.create_run(store.experiment(client, "animals"))
    with pytest.raises(mlflow.MlflowException, match="Invalid value"), reached(store):
        client.log_metric(run.info.run_id, "=", 1.0)


def test_a_run_that_is_gone_is_a_sentence(store) -> None:
    with (
        pytest.raises(TrackingUnreachableError, match="can't be used: Run with id="),
        reached(store),
    ):
        store.client().log_metric("0" * 32, "accuracy", 1.0)
