"""What stands before MLflow's scoring server: how many requests it lets in, and for how long."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from vgg16_transfer.registry import serving
from vgg16_transfer.registry.serving import TakesPictures

JPEG = (b"content-type", b"image/jpeg")


class Scoring:
    """Stands in for MLflow's server: notes the bodies, and how many it answers at once."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.scopes: list[Any] = []
        self.now = self.most = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.now += 1
        self.most = max(self.most, self.now)
        self.bodies.append((await receive()).get("body"))
        await asyncio.sleep(0)
        self.now -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def ask(
    app: TakesPictures,
    receive: Callable[[], Awaitable[Any]],
    method: str = "POST",
    path: str = "/invocations",
    headers: tuple[tuple[bytes, bytes], ...] = (JPEG,),
) -> tuple[int, Any]:
    """The status of an answer, and its JSON."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
    await app(scope, receive, send)
    return (sent[0]["status"], json.loads(sent[1]["body"])) if sent else (0, None)


async def whole() -> dict[str, Any]:
    return {"type": "http.request", "body": b"picture", "more_body": False}


async def never() -> Any:
    await asyncio.Event().wait()


def test_a_picture_becomes_the_table_that_mlflow_takes() -> None:
    scoring = Scoring()
    forwarded = (b"x-request-id", b"7")
    length = (b"content-length", b"7")
    app = TakesPictures(scoring, 1)
    assert asyncio.run(ask(app, whole, headers=(JPEG, length, forwarded))) == (200, {})
    assert json.loads(scoring.bodies[0]) == {"dataframe_records": [{"picture": "cGljdHVyZQ=="}]}
    assert scoring.scopes[0]["headers"] == [
        forwarded,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(scoring.bodies[0])).encode()),
    ]


def test_other_pages_are_left_to_mlflow() -> None:
    scoring = Scoring()
    app = TakesPictures(scoring, 1)
    for method, path in (("GET", "/ping"), ("GET", "/invocations"), ("POST", "/ping")):
        assert asyncio.run(ask(app, whole, method, path)) == (200, {})
    assert scoring.bodies == [b"picture"] * 3


def test_a_few_requests_are_answered_at_once_and_the_others_wait() -> None:
    scoring = Scoring()

    async def many() -> list[tuple[int, Any]]:
        app = TakesPictures(scoring, 1)
        return await asyncio.gather(*(ask(app, whole) for _ in range(50)))

    assert asyncio.run(many()) == [(200, {})] * 50
    assert scoring.most == serving._AT_ONCE


def test_a_body_that_does_not_arrive_gives_its_place_to_others(monkeypatch) -> None:
    monkeypatch.setattr(serving, "_SECONDS", 0.01)

    async def many() -> list[tuple[int, Any]]:
        app = TakesPictures(Scoring(), 1)
        slow = [ask(app, never) for _ in range(2 * serving._AT_ONCE)]
        return await asyncio.gather(*slow, ask(app, whole))

    *refused, answer = asyncio.run(many())
    assert answer == (200, {})
    assert {status for status, _ in refused} == {408}
    assert refused[0][1]["message"] == "the request did not arrive within 0.01 s; try again"


def test_more_than_can_wait_are_refused_at_once(monkeypatch) -> None:
    monkeypatch.setattr(serving, "_WAITING", 3)

    async def many() -> list[tuple[int, Any]]:
        app = TakesPictures(Scoring(), 1)
        return await asyncio.gather(*(ask(app, whole) for _ in range(5)))

    answers = asyncio.run(many())
    assert [status for status, _ in answers] == [200, 200, 200, 503, 503]
    assert answers[-1][1]["message"] == "3 requests are waiting already; try again later"


@pytest.mark.parametrize("after", [0, 1])
def test_a_client_that_hangs_up_gets_no_answer(after: int) -> None:
    scoring = Scoring()
    messages = [
        {"type": "http.request", "body": b"pic", "more_body": True},
        {"type": "http.disconnect"},
    ][1 - after :]

    async def receive() -> Any:
        return messages.pop(0)

    assert asyncio.run(ask(TakesPictures(scoring, 1), receive)) == (0, None)
    assert scoring.bodies == []
