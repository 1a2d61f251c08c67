"""What lies on disk: written whole or not at all, and believed only after it was checked.

Everything that a stage writes goes through :func:`replacing`, and everything that a later one reads
through :func:`reading`. Features and heads carry digests and say themselves what they are made of;
:mod:`vgg16_transfer.lineage.locked` compares the rest with dvc.lock.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

MEND = "run dvc repro or dvc pull"
"""The end of most sentences about damage: what a stage made, it makes again."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_ALLOWED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


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
        ArtifactError: The disk is full, or may not be written to.
    """
    beside = path.with_name(f".{path.name}.incoming")
    remove(beside)  # what a killed process left
    try:
        with room(path, "run this again"):
            beside.mkdir(parents=True)
            fresh = beside / path.name
            yield fresh
            put(fresh, path)
    finally:
        remove(beside)


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
        if error.errno in _NOT_ALLOWED:
            raise ArtifactError(
                path, f"can't be written ({error.strerror}); allow it; {remedy}"
            ) from None
        if error.errno not in _NO_ROOM:
            raise
        raise ArtifactError(
            path, f"no room to write it ({error.strerror}); make room; {remedy}"
        ) from None


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
