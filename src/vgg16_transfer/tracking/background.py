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

from vgg16_transfer.errors import TERMINATED, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection
    from typing import Self

_HEARTBEAT = 20  # seconds between calls of Logger.beat
_PATIENCE = 10  # seconds that the process has, once the stage is over


LOST = "the process that trained was killed, perhaps because the memory was full"
"""Why a stage ended that said nothing."""


class LoggingEndedError(InputError):
    """The process that logs was killed."""


class Logger:
    """What the process has: an object whose methods the stage calls."""

    def beat(self) -> None:
        """Is called every 20 seconds."""

    def stop(self, status: str, why: str) -> None:
        """Is called when the stage ended early. The process then ends.

        Args:
            status: ``FAILED`` or ``KILLED``, as MLflow says it.
            why: What happened.
        """


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

    It is a context, at whose end the process ends within seconds. If the stage fails or is killed,
    the object is told how instead of all that waits. Ctrl-C and SIGTERM often reach all processes
    of a stage: they are left to the stage.

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

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        last = _Call(_nothing) if error is None else _Call(_stop, ending(error))
        self._calls.put(last._replace(last=True))
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
        _tried(partial(logger.stop, "KILLED", LOST))


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


def ending(error: BaseException) -> tuple[str, str]:
    """The status of a stage that an error ended, and what happened."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "interrupted (Ctrl-C)"
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        return "KILLED", "terminated (SIGTERM)"
    status = "FAILED" if isinstance(error, Exception) else "KILLED"
    return status, str(error).partition("\n")[0] or type(error).__name__


def _beat(logger: Logger) -> None:
    logger.beat()


def _stop(logger: Logger, status: str, why: str) -> None:
    logger.stop(status, why)


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
