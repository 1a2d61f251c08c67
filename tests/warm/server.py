"""Imports what commands need, and forks a process for each command that clients ask for.

    python server.py SOCKET

It prints ``ready``, and ends when its standard input does.
"""

import gc
import importlib
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

from vgg16_transfer.quiet import silence_tensorflow

MODULES = (
    "vgg16_transfer.tracking.log",  # before MLflow, which reads what this sets
    "keras",
    "vgg16_transfer.backbones.features",
    "vgg16_transfer.heads.end_to_end",
    "vgg16_transfer.reporting.report",
    "vgg16_transfer.cli",
    "vgg16_transfer.lineage.lineage",
    "vgg16_transfer.tracking.publish",
    "vgg16_transfer.tracking.reach",
    "vgg16_transfer.tracking.system",
    "mlflow.pyfunc",
    "mlflow.store.tracking.rest_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "dvc.cli",
    "dvc.commands.repro",
    "dvc.repo",
    "dvc.stage.serialize",
)


def import_all() -> dict[str, str]:
    """Imports what most commands need, in the order in which commands do.

    Returns:
        The environment variables that were set meanwhile, as defaults of what a user sets.
    """
    before = os.environ.copy()
    silence_tensorflow(fast=True)
    for module in MODULES:
        importlib.import_module(module)
    return {name: value for name, value in os.environ.items() if name not in before}


def run(arguments: list[str]) -> NoReturn:
    """Runs a command as its script does."""
    script = Path(sys.executable).with_name(Path(arguments[0]).name)
    sys.argv = [str(script), *arguments[1:]]
    module = "dvc.cli" if script.name == "dvc" else "vgg16_transfer.cli"
    sys.exit(sys.modules[module].main())


def received(connection: socket.socket) -> tuple[list[str], list[int]]:
    """The strings and the three files that a client sends."""
    head, files, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        request = stream.read(int.from_bytes(head, "big"))
    return request.decode("utf-8", "surrogateescape").split("\0"), files


def attend(connection: socket.socket, defaults: dict[str, str]) -> None:
    """Forks a command, waits for its end and tells the client its exit code. Never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    (count, *strings), files = received(connection)
    arguments, folder = strings[: int(count)], strings[int(count)]
    variables = (string.split("=", 1) for string in strings[int(count) + 1 :])
    process = os.fork()
    if process == 0:
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(defaults | dict(variables))
        run(arguments)
    for file in files:
        os.close(file)
    _, status = os.waitpid(process, 0)
    connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def main() -> None:
    """Waits for clients, until the process that started this one closes its standard input."""
    defaults = import_all()
    gc.collect()
    gc.freeze()  # forked processes then share these pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes that attend
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        print("ready", flush=True)  # noqa: T201
        while True:
            readable, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in readable:
                return
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                attend(connection, defaults)
            connection.close()


if __name__ == "__main__":
    main()
