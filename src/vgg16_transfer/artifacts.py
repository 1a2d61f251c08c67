"""What lies on disk: written whole or not at all, and believed only after it was checked.

Everything that a stage writes goes through :func:`replacing`, and everything that a later one reads
through :func:`reading`. Features and heads carry digests and say themselves what they are made of;
:mod:`vgg16_transfer.lineage.locked` compares the rest with dvc.lock.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

MEND = "run dvc repro or dvc pull"
"""The end of most sentences about damage: what a stage made, it makes again."""

BUSY_AFTER = 5
"""Seconds to wait for another process that writes the same output."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_ALLOWED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR})


class ArtifactError(InputError):
    """A file or folder that is missing, damaged or can't be written.

    Attributes:
        path: Which one.
    """

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Writes a file or folder whole or not at all.

    Args:
        path: What to write. Its folder is made.

    Yields:
        A path of the same name in a folder beside, to write to. When the block is over, what lies
        there takes the place of ``path``; when it fails, ``path`` stays as it was.

    Raises:
        ArtifactError: The disk is full, or may not be written to, or another process writes there.
    """
    beside = path.with_name(f".{path.name}.incoming")
    with room(path, "run this again"), alone(path):
        remove(beside)  # what a killed process left
        try:
            beside.mkdir(parents=True)
            fresh = beside / path.name
            yield fresh
            put(fresh, path)
        finally:
            remove(beside)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keeps other processes from writing the same output meanwhile.

    The operating system gives the lock back when a process is killed.

    Args:
        path: What is written. Its folder is made.

    Raises:
        ArtifactError: Another process has been writing it for the last seconds.
    """
    lock = path.with_name(f".{path.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock, timeout=BUSY_AFTER)
    try:
        held.acquire()
    except Timeout:
        raise ArtifactError(
            path, "is busy: another process is writing it; wait for its end, or stop it"
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            lock.unlink()
        held.release()


@contextmanager
def room(path: Path, remedy: str) -> Iterator[None]:
    """Turns a disk that is full or may not be written to into one sentence.

    Args:
        path: What is written.
        remedy: What to do when there is room; the end of the sentence.

    Raises:
        ArtifactError: The disk is full, or may not be written to.
    """
    try:
        yield
    except OSError as error:
        problem = unwritable(error)
        if problem is None:
            raise
        raise ArtifactError(path, f"{problem}; {remedy}") from None


def unwritable(error: OSError) -> str | None:
    """What to say of a place that can't be written to, and what to do; None of any other error."""
    if error.errno in _NOT_ALLOWED:
        return f"can't be written ({error.strerror}); allow it"
    if error.errno in _NO_ROOM:
        return f"no room to write it ({error.strerror}); make room"
    if error.errno in _IN_THE_WAY:
        return f"can't be written ({error.strerror}); move away what is there instead of a folder"
    return None


def put(fresh: Path, path: Path) -> None:
    """Moves a whole file or folder to its place, and removes what stood there.

    Args:
        fresh: Lies on the same file system.
        path: Where to.
    """
    retired = path.with_name(f".{path.name}.retired")
    remove(retired)  # what a killed process left
    if (fresh.is_dir() or path.is_dir()) and (path.exists() or path.is_symlink()):
        path.rename(retired)  # a folder is replaced by no single call
    fresh.replace(path)
    remove(retired)


def located(source: str, home: Path | None) -> Path:
    """The path that a source in params.yaml means; nothing need be there.

    Args:
        source: A path. It may begin with ``~``, and may be relative to the current folder.
        home: Second folder in which a relative path is looked for.
    """
    # For an unknown user, this expanduser keeps the ~ of the path, while pathlib's raises.
    path = Path(os.path.expanduser(source))  # noqa: PTH111
    return path if home is None or path.exists() else home / path


def link_target(path: Path, folder: Path) -> Path:
    """What a link in a folder holds to lead to a path.

    A relative path stays relative, so that a workspace can be moved and copied.
    """
    return path if path.is_absolute() else Path(os.path.relpath(path, folder))


def remove(path: Path) -> None:
    """Removes a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def reading(
    path: Path, error: type[InputError] = InputError, *, mend: str = MEND, what: str = "file"
) -> Iterator[None]:
    """Turns whatever goes wrong while something is read into one sentence that names it.

    Args:
        path: What is read.
        error: What to raise.
        mend: What to do about it; the end of the sentence.
        what: What is missing if nothing is there.

    Raises:
        InputError: ``error``: it is missing or damaged. Another InputError passes unchanged.
    """
    try:
        yield
    except FileNotFoundError:
        raise error(f"{path}: no such {what}; {mend}") from None
    except InputError:
        raise
    except Exception as problem:  # noqa: BLE001 - readers raise anything on bytes that aren't theirs
        said = problem.strerror if isinstance(problem, OSError) else None
        reason = " ".join((said or str(problem)).partition("\n")[0].split())
        reason = reason or type(problem).__name__
        raise error(f"{path}: is damaged ({reason}); {mend}") from None
