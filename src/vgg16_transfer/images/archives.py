"""Files of an archive or folder, read in place: nothing is ever unpacked to disk.

A tar is indexed once by its headers; a file is then one positioned read, so random access costs no
full re-read. A .tar.gz can only be read forwards: ask for its files in the order of :meth:`names`.

In an archive, which anyone may have made, names and links that lead out of it are refused. In a
folder, links are followed: whoever put one there, on their own disk, means what it leads to.
"""

from __future__ import annotations

import lzma
import struct
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
_BLOCK = 1 << 20
_TAR_BLOCK = 512
_ZIP_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")  # with its first file, or without any
_UNIX_FILE_TYPE = 0o170000
_UNIX_LINK = 0o120000

# What reading damaged bytes raises, format by format.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    OverflowError,  # a header's size that is out of all bounds
    MemoryError,  # the same
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_CUT_OFF = "is damaged, or cut off before its end; fetch it again"


class ArchiveError(InputError):
    """An archive that is missing, damaged, or not safe to read.

    Attributes:
        path: The archive.
        problem: What is wrong with it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class Archive(Protocol):
    """Named files that can be read one by one, from any thread."""

    def names(self) -> list[str]:
        """The names of all regular files, in the order in which reading them is cheapest."""

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            ArchiveError: The file's bytes are damaged or can't be read.
        """


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Opens a .tar, .tar.gz (or .bz2, .xz), .zip or folder; which one it is, its content says.

    Raises:
        ArchiveError: There is nothing at the path, it is none of these, it is cut off, or a
            member is not safe to read: a link, encrypted, or of a name that leads out.
    """
    if not path.exists():
        raise ArchiveError(path, "no such file or folder")
    if path.is_dir():
        yield _Folder(path)
    elif _begin(path).startswith(_ZIP_BEGINS):
        with _open_zip(path) as zipped:
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
        try:
            self._names = sorted(file.relative_to(path).as_posix() for file in _files(path))
        except OSError as error:
            raise ArchiveError(path, f"can't be read: {error}") from None
        for name in self._names:
            _check_name(path, name)

    def names(self) -> list[str]:
        return self._names

    def read(self, name: str) -> bytes:
        try:
            return (self._path / name).read_bytes()
        except OSError as error:
            raise ArchiveError(self._path, f"'{name}' can't be read: {error}") from None


class _Zip:
    def __init__(self, path: Path, zipped: zipfile.ZipFile) -> None:
        self._path = path
        self._zip = zipped
        for info in zipped.infolist():
            _check_name(path, info.filename)
            if info.external_attr >> 16 & _UNIX_FILE_TYPE == _UNIX_LINK:
                raise ArchiveError(path, _link_problem(info.filename))
            if info.flag_bits & 1:
                raise ArchiveError(
                    path, f"member '{info.filename}' is encrypted; repack it without"
                )

    def names(self) -> list[str]:
        return [name for name in dict.fromkeys(self._zip.namelist()) if not name.endswith("/")]

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(name)
        except _DAMAGE as error:
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
        except _DAMAGE as error:
            raise ArchiveError(self._path, f"member '{name}' is damaged: {error}") from None
        if len(content) < size:
            raise ArchiveError(self._path, f"is cut off inside member '{name}'; fetch it again")
        return content


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Every file below a folder; broken links, and links back to a folder above, are passed by."""
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files(path, above | {real})
        elif path.is_file():
            yield path


def _begin(path: Path) -> bytes:
    """The first bytes tell what an archive is: a tar whose last file is a zip ends like a zip."""
    try:
        with path.open("rb") as file:
            return file.read(len(_ZIP_BEGINS[0]))
    except OSError as error:
        raise ArchiveError(path, f"can't be read: {error}") from None


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _DAMAGE:
        raise ArchiveError(path, _CUT_OFF) from None


def _open_tar(path: Path, file: BinaryIO) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:*")
    except tarfile.ReadError:
        problem = (
            "is empty" if path.stat().st_size == 0 else "is not a .tar, .tar.gz, .zip or folder"
        )
        raise ArchiveError(path, problem) from None
    except _DAMAGE:  # of a .tar.gz that ends inside the first header
        raise ArchiveError(path, _CUT_OFF) from None


def _members(path: Path, tar: tarfile.TarFile) -> dict[str, tuple[int, int]]:
    """Position and size of every regular file, by name; of a name that comes twice, the last."""
    members = {}
    try:
        for member in tar:
            _check_name(path, member.name)
            if member.issym() or member.islnk():
                raise ArchiveError(path, _link_problem(member.name))
            if member.issparse():
                raise ArchiveError(
                    path, f"member '{member.name}' is stored sparse; repack it without"
                )
            if member.size < 0:
                raise ArchiveError(path, _CUT_OFF)  # and tarfile would go back and forth for ever
            if member.isreg():
                members[member.name] = (member.offset_data, member.size)
        # tarfile takes a missing end mark for the end: look for the block of zeros ourselves.
        assert tar.fileobj is not None  # noqa: S101 - open for reading
        tar.fileobj.seek(tar.offset)
        end_mark = tar.fileobj.read(_TAR_BLOCK)
        # What compression appends, its checksum of everything, is looked at when the end is read.
        while tar.fileobj.read(_BLOCK):
            pass
    except _DAMAGE:
        raise ArchiveError(path, _CUT_OFF) from None
    if end_mark != bytes(_TAR_BLOCK):
        raise ArchiveError(path, _CUT_OFF)
    return members


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise ArchiveError(
            path, f"member '{name}' leads out of the archive; repack it with plain relative names"
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ArchiveError(path, f"the name {name!a} is not UTF-8; rename that file") from None


def _link_problem(name: str) -> str:
    return f"member '{name}' is a link; repack it with the file itself"
