"""Files of an archive or folder, read in place: nothing is ever unpacked to disk.

A tar is indexed once by its headers; a file is then one positioned read, so random access costs no
full re-read. A .tar.gz can only be read forwards: ask for its files in the order of :meth:`names`.
"""

from __future__ import annotations

import tarfile
import threading
import zipfile
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

_READ_AHEAD = 64
_TAR_BLOCK = 512
_UNIX_FILE_TYPE = 0o170000
_UNIX_LINK = 0o120000


class ArchiveError(InputError):
    """An archive that is missing, damaged, or not safe to read.

    Attributes:
        path: The archive.
    """

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}")


class Archive(Protocol):
    """Named files that can be read one by one, from any thread."""

    def names(self) -> list[str]:
        """The names of all regular files, in the order in which reading them is cheapest."""

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            ArchiveError: The file's bytes are damaged.
        """


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Opens a .tar, .tar.gz (or .bz2, .xz), .zip or folder; which one it is, its content says.

    Raises:
        ArchiveError: There is nothing at the path, it is none of these, it is cut off, or a
            member's name or link leads out of the archive.
    """
    if not path.exists():
        raise ArchiveError(path, "no such file or folder")
    if path.is_dir():
        yield _Folder(path)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            yield _Zip(path, zipped)
    else:
        with path.open("rb") as file, _open_tar(path, file) as tar:
            yield _Tar(path, tar, file)


def map_files(
    archive: Archive,
    names: Iterable[str],
    function: Callable[[bytes], T],
    on_damage: Callable[[ArchiveError], T] | None = None,
) -> Iterator[T]:
    """Applies a function to files in threads, while the caller works on what came before.

    The files are read one after the other, in the order given (which a .tar.gz needs); at most a
    fixed number of them is held in memory.

    Args:
        archive: What to read from.
        names: Files to read.
        function: Applied to the bytes of each, in some thread.
        on_damage: What stands for a file that can't be read.

    Yields:
        The results, in the order of the names.

    Raises:
        ArchiveError: A file can't be read, and ``on_damage`` is not given.
    """
    with ThreadPoolExecutor() as pool:
        window: deque[Future[T]] = deque()
        for name in names:
            window.append(_submit(pool, archive, name, function, on_damage))
            if len(window) == _READ_AHEAD:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()


def _submit(
    pool: ThreadPoolExecutor,
    archive: Archive,
    name: str,
    function: Callable[[bytes], T],
    on_damage: Callable[[ArchiveError], T] | None,
) -> Future[T]:
    try:
        content = archive.read(name)
    except ArchiveError as error:
        if on_damage is None:
            raise
        return pool.submit(on_damage, error)
    return pool.submit(function, content)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()


class _Zip:
    def __init__(self, path: Path, zipped: zipfile.ZipFile) -> None:
        self._path = path
        self._zip = zipped
        for info in zipped.infolist():
            _refuse_escapes(path, info.filename)
            if info.external_attr >> 16 & _UNIX_FILE_TYPE == _UNIX_LINK:
                raise ArchiveError(path, _link_problem(info.filename))
            if info.flag_bits & 1:
                raise ArchiveError(
                    path, f"member '{info.filename}' is encrypted; repack it without"
                )

    def names(self) -> list[str]:
        return [info.filename for info in self._zip.infolist() if not info.is_dir()]

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ArchiveError(self._path, f"member '{name}' is damaged: {error}") from None


class _Tar:
    def __init__(self, path: Path, tar: tarfile.TarFile, file: BinaryIO) -> None:
        self._path = path
        # Of a compressed tar, tar.fileobj is the decompressed stream; of a plain one, the file.
        self._stream = tar.fileobj if tar.fileobj is not None else file
        self._lock = threading.Lock()
        self._members = _members(path, tar)

    def names(self) -> list[str]:
        return list(self._members)

    def read(self, name: str) -> bytes:
        start, size = self._members[name]
        try:
            with self._lock:
                self._stream.seek(start)
                content = self._stream.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveError(self._path, f"member '{name}' is damaged: {error}") from None
        if len(content) < size:
            raise ArchiveError(self._path, f"is cut off inside member '{name}'; fetch it again")
        return content


def _open_tar(path: Path, file: BinaryIO) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:*")
    except tarfile.ReadError:
        problem = (
            "is empty" if path.stat().st_size == 0 else "is not a .tar, .tar.gz, .zip or folder"
        )
        raise ArchiveError(path, problem) from None


def _members(path: Path, tar: tarfile.TarFile) -> dict[str, tuple[int, int]]:
    """Position and size of every regular file, by name; of a name that comes twice, the last."""
    cut_off = ArchiveError(path, "is cut off before its end; fetch it again")
    members = {}
    try:
        for member in tar:
            _refuse_escapes(path, member.name)
            if member.issym() or member.islnk():
                raise ArchiveError(path, _link_problem(member.name))
            if member.isreg():
                members[member.name] = (member.offset_data, member.size)
        # tarfile takes a missing end mark for the end: look for the block of zeros ourselves.
        assert tar.fileobj is not None  # noqa: S101 - open for reading
        tar.fileobj.seek(tar.offset)
        end_mark = tar.fileobj.read(_TAR_BLOCK)
    except (tarfile.ReadError, EOFError, OSError, zlib.error):
        raise cut_off from None
    if end_mark != bytes(_TAR_BLOCK):
        raise cut_off
    return members


def _refuse_escapes(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise ArchiveError(
            path, f"member '{name}' leads out of the archive; repack it with plain relative names"
        )


def _link_problem(name: str) -> str:
    return f"member '{name}' is a link; repack it with the file itself"
