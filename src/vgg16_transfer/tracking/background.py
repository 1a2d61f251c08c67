"""Logs in a process of its own: the stage neither waits for MLflow nor imports it.

Where the platform forks processes, this one has to be started before the stage imports libraries
that have threads.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe, Process
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, TypeVar

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection
    from typing import Self

_HEARTBEAT = 20  # seconds between calls of Logger.beat
_PATIENCE = 10  # seconds that the process has, once the stage is over


class LoggingEndedError(InputError):
    """The process that logs was killed."""


class Logger:
    """What the process has: an object whose methods the stage calls."""

    def beat(self) -> None:
        """Is called every 20 seconds."""

    def lost(self) -> None:
        """Is called when the stage was killed. The process then ends."""


L = TypeVar("L", bound=Logger)
P = ParamSpec("P")
R = TypeVar("R")


class _Call(NamedTuple):
    """A call of a method.

    Attributes:
        method: The method, as an attribute of its class.
        args: Its arguments.
        kwargs: Its named arguments.
        reply: Whether the stage waits for what it returns.
        last: Whether it is called instead of those that wait, and the process then ends.
    """

    method: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    reply: bool = False
    last: bool = False


class Background(Generic[L]):
    """A process with an object whose methods are called one after the other.

    It is a context, at whose end the process ends within seconds. Ctrl-C and SIGTERM, which often
    reach all processes of a stage, leave it to the stage to say what becomes of the runs.

    Args:
        make: Makes the object, in the process.
    """

    def __init__(self, make: Callable[[], L]) -> None:
        self._connection, theirs = Pipe()
        self._calls: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        arguments = (make, theirs, self._connection)
        self._process = Process(target=_serve, args=arguments, name="mlflow", daemon=True)
        self._process.start()
        theirs.close()
        threading.Thread(target=self._send, name="mlflow", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._calls.put(_Call(_nothing, last=True))
        try:
            self._process.join(_PATIENCE)
        finally:
            self._process.kill()
            self._process.join()

    def send(
        self, method: Callable[Concatenate[L, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Has a method called later. This neither waits nor fails.

        Once a method has failed, no others are called in this way.
        """
        self._calls.put(_Call(method, args, kwargs))

    def ask(self, method: Callable[Concatenate[L, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Has a method called after those before, and returns what it returns.

        Raises:
            LoggingEndedError: The process was killed.
            Exception: Whatever the method raised, or what made the object.
        """
        self._calls.put(_Call(method, args, kwargs, reply=True))
        try:
            returned, error = self._connection.recv()
        except (EOFError, OSError):
            raise LoggingEndedError(
                "the process that logs to MLflow was killed, perhaps because the memory was full"
            ) from None
        if error is not None:
            raise error
        result: R = returned
        return result

    def end(
        self, method: Callable[Concatenate[L, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Has a method called instead of all that wait. It is the last one."""
        self._calls.put(_Call(method, args, kwargs, last=True))

    def _send(self) -> None:
        """Hands the calls over, in a thread: this waits while the process is busy."""
        with suppress(OSError):  # the process was killed
            while True:
                self._connection.send(self._calls.get())


def _serve(make: Callable[[], Logger], connection: Connection, others: Connection) -> None:
    """What the process does: it calls the methods of the object, until the stage is over."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    others.close()  # otherwise this process would not see that the stage is gone
    made, unmade = _tried(make)
    logger = made or Logger()
    failed = unmade is not None
    try:
        for call in _received(connection):
            if failed and not call.reply and not call.last:
                continue
            returned, error = None, unmade
            if unmade is None:
                returned, error = _tried(partial(call.method, logger, *call.args, **call.kwargs))
            failed = failed or error is not None
            if call.reply:
                _reply(connection, returned, error)
    except (EOFError, OSError):  # the stage was killed
        _tried(logger.lost)


def _received(connection: Connection) -> Iterator[_Call]:
    """The calls of the stage, and every 20 seconds one of ``beat``.

    Raises:
        EOFError: The stage was killed.
        OSError: The stage was killed.
    """
    waiting: deque[_Call] = deque()
    beaten = time.monotonic()
    while True:
        while connection.poll(0 if waiting else _HEARTBEAT):
            call = connection.recv()
            if call.last:
                yield call
                return
            waiting.append(call)
        if time.monotonic() - beaten > _HEARTBEAT:
            beaten = time.monotonic()
            yield _Call(_beat)
        if waiting:
            yield waiting.popleft()


def _beat(logger: Logger) -> None:
    logger.beat()


def _nothing(_logger: Logger) -> None:
    """The last call, if there is none."""


def _tried(function: Callable[[], R]) -> tuple[R | None, Exception | None]:
    """What a function returns, or what it raises."""
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001 - no failure of logging costs a result
        return None, error


def _reply(connection: Connection, returned: object, error: Exception | None) -> None:
    with suppress(OSError):  # the stage was killed
        try:
            connection.send((returned, error))
        except (AttributeError, PicklingError, TypeError):  # an error that can't be sent
            connection.send((None, RuntimeError(f"{type(error).__name__}: {error}")))
