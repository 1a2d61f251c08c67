"""Imports TensorFlow without the lines that it logs meanwhile.

On processors that oneDNN supports, TensorFlow 2.21 writes four lines to stderr in every process.
TF_CPP_MIN_LOG_LEVEL does not change that (https://github.com/tensorflow/tensorflow/issues/100442).
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_LOGGED = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|[IW]\d{4} |\d{4}.*: I "
)
"""The beginnings of lines that are no errors."""

_STDERR = 2


def keep_float32() -> None:
    """Has float32 be float32 on a GPU, unless the user says otherwise.

    NVIDIA's libraries would round the factors of products to 10 bits (TF32), and say nothing.
    """
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")


_NEEDLESS = ("jax", "matplotlib.pyplot", "sklearn")
"""Packages that TensorFlow and Keras import if they are there, for functions that no command uses.
They take a third of the time of the whole import."""


def silence_tensorflow(*, fast: bool = False) -> None:
    """Leaves out what TensorFlow logs, while it is imported and later. Errors are still printed.

    Args:
        fast: Whether to import it without packages that this process needs no function of, such as
            ``keras.wrappers``. Not for a process in which others use Keras too.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("tensorflow", "keras"):  # each imports the other
        if name not in sys.modules:
            silence(name, _NEEDLESS if fast else ())


def silence(name: str, without: Sequence[str] = ()) -> None:
    """When a package is imported, lines that it only logs are left out. Errors are still printed.

    Args:
        name: Package name.
        without: Packages that it does not find meanwhile, unless they are imported already.
    """
    sys.meta_path.insert(0, _Quiet(name, without))


class _Quiet(MetaPathFinder):
    """Finds a package as usual, once, and lets it run without its log lines."""

    def __init__(self, name: str, without: Sequence[str]) -> None:
        self._name = name
        self._without = without

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_quietly(module: ModuleType) -> None:
                with _filtered(), _hidden(self._without):
                    execute(module)

            spec.loader.exec_module = execute_quietly  # type: ignore[method-assign]
        return spec


@contextmanager
def _hidden(names: Sequence[str]) -> Iterator[None]:
    """Has imports of packages fail that are not imported yet."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None, as documented
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def muted() -> Iterator[None]:
    """Leaves out all that is written to stderr, also by libraries that are not written in Python.

    For libraries whose errors are exceptions, and whose other lines no user needs.
    """
    with Path(os.devnull).open("wb") as nowhere, _stderr_into(nowhere.fileno()):
        yield


@contextmanager
def _filtered() -> Iterator[None]:
    """Leaves out log lines of stderr, also those that are not written by Python."""
    with tempfile.TemporaryFile() as file:
        try:
            with _stderr_into(file.fileno()):
                yield
        finally:
            file.seek(0)
            for line in file:
                if not _LOGGED.match(line):
                    os.write(_STDERR, line)


@contextmanager
def _stderr_into(descriptor: int) -> Iterator[None]:
    """Writes what goes to stderr to another file, also what is not written by Python."""
    sys.stderr.flush()
    original = os.dup(_STDERR)
    os.dup2(descriptor, _STDERR)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(original, _STDERR)
        os.close(original)
