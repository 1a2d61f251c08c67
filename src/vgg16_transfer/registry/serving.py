"""A registered classifier over HTTP: MLflow's scoring server, which also takes pictures as files.

MLflow's ``/invocations`` takes tables. Here, its body may also be a picture (``image/jpeg`` and
others) or a form with pictures (``multipart/form-data``). These become the table that MLflow takes,
so the answers are MLflow's own. Requests wait for one of a few slots before their bodies are read,
and a body has a largest size, so many clients can't fill the memory.
"""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from vgg16_transfer.registry.registry import INPUT
from vgg16_transfer.tracking import mlflow_private

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Sequence

    from mlflow.pyfunc import PyFuncModel
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_PICTURES = 64
"""Pictures of one request. More would take longer than MLflow waits for an answer."""

_AT_ONCE = 4  # requests whose bodies are in memory
_WAITING = 500  # requests; others are refused
_SECONDS = 30  # for a body to arrive
_PATH = "/invocations"
_JSON, _FORM = "application/json", "multipart/form-data"
_TYPES = f"image/jpeg or another image type, {_FORM}, or {_JSON}"
_HOW = f"send a picture with its Content-Type, a form with files named '{INPUT}', or JSON"


class _RefusedError(Exception):
    """A request that is answered with a status and one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        self.status, self.sentence = status, sentence
        super().__init__(sentence)

    def response(self) -> JSONResponse:
        """An answer in the form of MLflow's own."""
        kind = "INVALID_PARAMETER_VALUE" if self.status == HTTPStatus.BAD_REQUEST else "BAD_REQUEST"
        return JSONResponse({"error_code": kind, "message": self.sentence}, self.status)


class TakesPictures:
    """Turns requests with pictures into requests that MLflow's scoring server takes.

    Args:
        app: MLflow's scoring server.
        max_mb: Largest body of a request, in megabytes.
    """

    def __init__(self, app: ASGIApp, max_mb: int) -> None:
        self._app = app
        self._max_mb = max_mb
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, as ASGI has it."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", _PATH):
            await self._app(scope, receive, send)
            return
        if self._waiting >= _WAITING:
            sentence = f"{_WAITING} requests are waiting already; try again later"
            full = _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, sentence)
            await full.response()(scope, receive, send)
            return
        self._waiting += 1
        try:
            async with self._slots:
                await self._answer(scope, receive, send)
        finally:
            self._waiting -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            table = await self._table(scope, receive)
        except ClientDisconnect:
            return
        except _RefusedError as refused:
            await refused.response()(scope, receive, send)
            return
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name not in {b"content-type", b"content-length", b"transfer-encoding"}
        ]
        length = str(len(table)).encode()
        headers += [(b"content-type", _JSON.encode()), (b"content-length", length)]
        await self._app({**scope, "headers": headers}, _replay(table, receive), send)

    async def _table(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request, as the JSON that MLflow takes.

        Raises:
            _RefusedError: It is too large, too slow, empty or malformed, or of another type.
        """
        headers = Headers(scope=scope)
        given = headers.get("content-type", "")
        kind = given.partition(";")[0].strip().lower()
        async with _in_time():
            body = await self._body(headers, receive)
        if not body:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, f"the request has no body; {_HOW}")
        if kind == _JSON:
            _check_json(body)
            return body
        if kind == _FORM:
            return _as_table(await _files(scope, body))
        if kind.startswith("image/"):
            return _as_table([body])
        problem = f"Content-Type '{given}' is not taken" if given else "there is no Content-Type"
        raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{problem}; send {_TYPES}")

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """Reads the body. One that is too large is read to its end as well, but not kept.

        A client that still sends would not see the answer.
        """
        most = self._max_mb * 1_000_000
        too_large = int(headers.get("content-length", "0")) > most
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(piece)
            too_large = too_large or size > most
            if too_large:
                pieces.clear()
            else:
                pieces.append(piece)
        if too_large:
            raise _RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the request is larger than {self._max_mb} MB; send fewer or smaller pictures, or "
                "start the server with a larger --max-mb",
            )
        return b"".join(pieces)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_SECONDS):
            yield
    except TimeoutError:
        raise _RefusedError(
            HTTPStatus.REQUEST_TIMEOUT, f"the request did not arrive within {_SECONDS} s; try again"
        ) from None


def _check_json(body: bytes) -> None:
    """Refuses what MLflow would answer with a traceback, with all of the body, or after hours."""
    try:
        table = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _RefusedError(
            HTTPStatus.BAD_REQUEST, f"the body is no valid JSON: {reason}"
        ) from None
    fields = list(table.values()) if isinstance(table, dict) else []
    fields += [column for field in fields if isinstance(field, dict) for column in field.values()]
    _check_count(max((len(field) for field in fields if isinstance(field, list)), default=0))


def _check_count(pictures: int) -> None:
    if pictures > MAX_PICTURES:
        raise _RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the request has {pictures} pictures, more than {MAX_PICTURES}; send several requests",
        )


async def _files(scope: Scope, body: bytes) -> list[bytes]:
    """The pictures in a form.

    Raises:
        _RefusedError: The form is malformed, or has another part than pictures.
    """
    request = Request(scope, _replay(body))
    try:
        async with request.form(max_files=MAX_PICTURES, max_fields=MAX_PICTURES) as form:
            contents = []
            for name, part in form.multi_items():
                if name != INPUT or not isinstance(part, UploadFile):
                    raise _RefusedError(
                        HTTPStatus.BAD_REQUEST,
                        f"the form has a part '{name}' that is no file named '{INPUT}'; send "
                        f"files of that name alone, as curl --form {INPUT}=@FILE",
                    )
                contents.append(await part.read())
    except (MultiPartException, HTTPException) as error:
        reason = error.message if isinstance(error, MultiPartException) else error.detail
        raise _RefusedError(HTTPStatus.BAD_REQUEST, f"the form can't be read: {reason}") from None
    if not contents:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, f"the form has no file named '{INPUT}'")
    return contents


def _as_table(contents: Sequence[bytes]) -> bytes:
    rows = [{INPUT: base64.b64encode(content).decode()} for content in contents]
    return json.dumps({"dataframe_records": rows}).encode()


def _replay(body: bytes, rest: Receive | None = None) -> Receive:
    """An ASGI channel that gives a body again, and then what else comes, such as a hang-up."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await rest() if rest else {"type": "http.disconnect"}

    return receive


def application(model: PyFuncModel, max_mb: int, origins: Sequence[str] = ()) -> Any:
    """The ASGI application of a classifier.

    Args:
        model: The classifier, as MLflow loads it.
        max_mb: Largest body of a request, in megabytes.
        origins: Sites whose pages may read the answers, such as ``https://example.org``.
    """
    app = TakesPictures(mlflow_private.scoring_app(model), max_mb)
    if not origins:
        return app
    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=["POST"], allow_headers=["Content-Type"]
    )


def serve(app: Any, listener: socket.socket) -> None:
    """Answers requests until the process is told to end.

    Args:
        app: An ASGI application.
        listener: A bound socket.
    """
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=10)
    uvicorn.Server(config).run(sockets=[listener])
