r"""Reads the files of an archive or folder in place: nothing is unpacked to disk.

A tar is indexed once by its headers. After that, reading a file is one seek and one read. A .tar.gz
can only be read forwards: read its files in the order of :meth:`Archive.names`.

An archive may come from anyone, so links, and names that point outside of it, are refused. A folder
is on the user's own disk, so its links are followed.

An old zip or tar does not record the encoding of its names. They are taken as UTF-8 if all of them
are valid UTF-8; otherwise the caller has to give the encoding. Old Windows programs write ``\``
between folders: a zip without any ``/`` is read like that.
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
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, TypeVar

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

MAX_BYTES = 100_000_000
"""Bytes of the largest file that is read. A larger one is no picture that could be used."""

_READ_AHEAD = 64  # files
_BLOCK = 1 << 20
_TAR_BLOCK = 512
_ZIP_BEGINS = (b"PK\x03\x04", b"PK\x05\x06")  # a zip with files; an empty zip
_UNIX_FILE_TYPE = 0o170000
_UNIX_LINK = 0o120000

# Exceptions that the formats raise when they read damaged bytes.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    OverflowError,  # a header with an impossible size
    MemoryError,  # the same
    RecursionError,  # headers that refer to each other, a thousand times
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
_ZIP_SIZES = 14  # where checksum and sizes are in the header before a member
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # the extra field in which Info-ZIP keeps a name as UTF-8
# For each writing system, the most common one first: Japanese, Western, Cyrillic, Chinese, Korean,
# Greek.
_CODE_PAGES = ("cp932", "cp850", "cp866", "gbk", "cp1252", "cp1251", "cp949", "big5", "cp1253")
_PREVIEWS = 5
_CUT_OFF = "is damaged or incomplete; fetch it again"


class ArchiveError(InputError):
    """An archive that is missing, damaged, or not safe to read.

    Attributes:
        path: Path of the archive.
        problem: What is wrong with it.
    """

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class Archive(Protocol):
    """Named files that can be read one by one, from any thread."""

    def names(self) -> list[str]:
        """Names of all regular files, in the order that is fastest to read.

        Raises:
            ArchiveError: The encoding of the names is not known.
        """

    def folders(self) -> list[str]:
        """Names of all folders, sorted. Empty folders are included.

        Raises:
            ArchiveError: The encoding of the names is not known.
        """

    def size(self, name: str) -> int:
        """Size of a file in bytes."""

    def read(self, name: str) -> bytes:
        """Bytes of one file.

        Raises:
            ArchiveError: The file's bytes are damaged or can't be read, or are more than
                ``MAX_BYTES``.
        """


@contextmanager
def open_archive(path: Path, encoding: str | None = None) -> Iterator[Archive]:
    """Opens a .tar, .tar.gz (or .bz2, .xz), .zip or folder; the content decides which one it is.

    Args:
        path: Path of the archive or folder. If it is a link, errors name the target of the link.
        encoding: Encoding of the names, such as ``cp932``. Used if the archive does not record it.

    Raises:
        ArchiveError: The path does not exist, has another format, or is incomplete. Or a member is
            not safe to read: a link, encrypted, or with a name that points outside.
    """
    if path.is_symlink():
        path = path.resolve()
    if not path.exists():
        raise ArchiveError(path, "no such file or folder")
    if path.is_dir():
        yield _Folder(path)
    elif not path.is_file():
        raise ArchiveError(path, "is neither a file nor a folder")
    elif _first_bytes(path).startswith(_ZIP_BEGINS):
        with _open_zip(path) as zipped:
            yield _Zip(path, zipped, encoding)
    else:
        with path.open("rb") as file, _open_tar(path, file) as tar:
            yield _Tar(path, tar, file, encoding)


def map_files(
    archive: Archive,
    names: Iterable[str],
    function: Callable[[bytes], T],
    on_damage: Callable[[ArchiveError], T] | None = None,
) -> Iterator[T]:
    """Applies a function to files in threads, while the caller works on earlier results.

    Files are read one after the other in the given order, because a .tar.gz needs that. The number
    of files in memory is limited, and so is the sum of their sizes: to ``MAX_BYTES``.

    Args:
        archive: Archive to read from.
        names: Names of the files to read.
        function: Gets the bytes of a file; called in a thread.
        on_damage: Gives the result for a file that can't be read.

    Yields:
        The results, in the order of the names.

    Raises:
        ArchiveError: A file can't be read, and ``on_damage`` is not given.
    """
    with ThreadPoolExecutor() as pool:
        window: deque[tuple[int, Future[T]]] = deque()
        in_memory = 0
        for name in names:
            size = min(archive.size(name), MAX_BYTES)
            while window and (len(window) == _READ_AHEAD or in_memory + size > MAX_BYTES):
                done, future = window.popleft()
                yield future.result()
                in_memory -= done
            window.append((size, _submit(pool, archive, name, function, on_damage)))
            in_memory += size
        while window:
            yield window.popleft()[1].result()


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
        self._names: list[str] = []
        self._folders: list[str] = []
        try:
            for entry, is_folder in _entries(path):
                names = self._folders if is_folder else self._names
                names.append(entry.relative_to(path).as_posix())
        except OSError as error:
            raise ArchiveError(path, f"can't be read: {error}") from None
        self._names.sort()
        self._folders.sort()
        for name in self._names + self._folders:
            _check_name(path, name)

    def names(self) -> list[str]:
        return self._names

    def folders(self) -> list[str]:
        return self._folders

    def size(self, name: str) -> int:
        try:
            return (self._path / name).stat().st_size
        except OSError as error:
            raise ArchiveError(self._path, f"'{name}' can't be read: {error}") from None

    def read(self, name: str) -> bytes:
        _check_size(self._path, name, self.size(name))
        try:
            return (self._path / name).read_bytes()
        except OSError as error:
            raise ArchiveError(self._path, f"'{name}' can't be read: {error}") from None


class _RawName(NamedTuple):
    """A member's name in bytes, and whether the archive marks it as UTF-8."""

    name: bytes
    is_utf8: bool


class _DecodedNames:
    """Names of an archive's members as text. If they can't be decoded, :meth:`check` raises."""

    def __init__(
        self, path: Path, raw: list[_RawName], encoding: str | None, *, old_windows: bool = False
    ) -> None:
        self._path = path
        self._problem = ""
        self.decoded: list[str] = []
        try:
            self.decoded = _decode(path, raw, encoding)
        except ArchiveError as error:
            # After a download an archive is only checked: its names need not be readable.
            self._problem = error.problem
            for member in raw:
                _check_name(path, member.name.decode("latin-1"))
        for name in self.decoded:
            _check_name(path, name)
        if old_windows and not any("/" in name for name in self.decoded):
            self.decoded = [name.replace("\\", "/") for name in self.decoded]

    def check(self) -> None:
        if self._problem:
            raise ArchiveError(self._path, self._problem)


class _Zip:
    def __init__(self, path: Path, zipped: zipfile.ZipFile, encoding: str | None) -> None:
        self._path = path
        self._zip = zipped
        infos = zipped.infolist()
        raw = [_raw_zip_name(info) for info in infos]
        self._names = _DecodedNames(path, raw, encoding, old_windows=True)
        for info in infos:
            if info.external_attr >> 16 & _UNIX_FILE_TYPE == _UNIX_LINK:
                raise ArchiveError(path, _link_problem(info.filename))
            if info.flag_bits & 1:
                raise ArchiveError(
                    path, f"member '{info.filename}' is encrypted; repack it without encryption"
                )
        # If a name occurs twice, the last member is used, at the position of the first.
        self._members = dict(zip(self._names.decoded, infos, strict=bool(self._names.decoded)))

    def names(self) -> list[str]:
        self._names.check()
        return [name for name in self._members if not name.endswith("/")]

    def folders(self) -> list[str]:
        explicit = [name.rstrip("/") for name in self._members if name.endswith("/")]
        return _all_folders(self.names(), explicit)

    def size(self, name: str) -> int:
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        _check_size(self._path, name, self.size(name))
        info = self._members[name]
        try:
            content = self._zip.read(info)
        except _DAMAGE as error:
            raise ArchiveError(self._path, f"member '{name}' is damaged: {error}") from None
        # zipfile reads sizes from the list at the archive's end, and no checksum of an empty file.
        if not content and self._has_bytes(info):
            raise ArchiveError(self._path, f"member '{name}' is damaged: its size is lost")
        return content

    def _has_bytes(self, info: zipfile.ZipInfo) -> bool:
        """Whether the header before a member's bytes says that there are some.

        It does not say so if checksum and sizes come after the bytes.
        """
        with self._path.open("rb") as file:
            file.seek(info.header_offset + _ZIP_SIZES)
            header = file.read(12)
        checksum, _compressed, size = struct.unpack("<LLL", header.ljust(12, b"\0"))
        return bool(checksum or size)


class _Tar:
    def __init__(
        self, path: Path, tar: tarfile.TarFile, file: BinaryIO, encoding: str | None
    ) -> None:
        self._path = path
        # tar.fileobj is the decompressed stream of a compressed tar, or the file of a plain one.
        self._stream = tar.fileobj if tar.fileobj is not None else file
        self._lock = threading.Lock()
        members = _members(path, tar)
        raw = [_raw_tar_name(member) for member in members]
        self._names = _DecodedNames(path, raw, encoding)
        self._members = {}
        self._folders = []
        for name, member in zip(self._names.decoded, members, strict=False):
            if member.isreg():
                self._members[name] = (member.offset_data, member.size)
            elif member.isdir():
                self._folders.append(name)

    def names(self) -> list[str]:
        self._names.check()
        return list(self._members)

    def folders(self) -> list[str]:
        return _all_folders(self.names(), self._folders)

    def size(self, name: str) -> int:
        return self._members[name][1]

    def read(self, name: str) -> bytes:
        start, size = self._members[name]
        _check_size(self._path, name, size)
        try:
            with self._lock:
                self._stream.seek(start)
                content = self._stream.read(size)
        except _DAMAGE as error:
            raise ArchiveError(self._path, f"member '{name}' is damaged: {error}") from None
        if len(content) < size:
            raise ArchiveError(self._path, f"ends inside member '{name}'; fetch it again")
        return content


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Every file and folder below a folder, each with whether it is a folder.

    Broken links are skipped. A folder that links lead to is visited once, and only if it is not
    visited by its own path: folders that link to each other have more paths than can be read.
    """
    seen = {folder.resolve()}
    to_visit, links = [folder], deque[Path]()
    while to_visit or links:
        if not to_visit:
            link = links.popleft()
            if link.resolve() in seen:
                continue
            seen.add(link.resolve())
            yield link, True
            to_visit.append(link)
        for path in sorted(to_visit.pop().iterdir()):
            if not path.is_dir():
                if path.is_file():
                    yield path, False
            elif path.is_symlink():
                links.append(path)
            elif path.resolve() not in seen:  # a link may lead to a folder above this one
                seen.add(path.resolve())
                yield path, True
                to_visit.append(path)


def _all_folders(names: list[str], explicit: list[str]) -> list[str]:
    """Folders that an archive lists, and folders that appear only in the paths of its files."""
    folders = {PurePosixPath(name) for name in explicit}
    for name in [*names, *explicit]:
        folders.update(PurePosixPath(name).parents)
    return sorted(folder.as_posix() for folder in folders if folder.parts)


def _raw_tar_name(member: tarfile.TarInfo) -> _RawName:
    raw = member.name.encode("utf-8", "surrogateescape")
    # PAX headers store names as UTF-8, but some programs write other encodings there.
    return _RawName(raw, is_utf8="path" in member.pax_headers and _fits("utf-8", [raw]))


def _raw_zip_name(info: zipfile.ZipInfo) -> _RawName:
    if info.flag_bits & _UTF8_FLAG:
        return _RawName(info.filename.encode("utf-8", "surrogatepass"), is_utf8=True)
    # zipfile decodes a name without the UTF-8 flag as code page 437, which has all 256 bytes.
    raw = info.orig_filename.encode("cp437").partition(b"\0")[0]
    extra = info.extra
    while len(extra) >= 4:  # noqa: PLR2004 - a header of two 16-bit numbers
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        # The field: version, checksum of the name that it replaces, name.
        if kind == _UNICODE_PATH and field[1:5] == struct.pack("<L", zlib.crc32(raw)):
            return _RawName(field[5:], is_utf8=True)
    return _RawName(raw, is_utf8=False)


def _decode(path: Path, raw: list[_RawName], encoding: str | None) -> list[str]:
    """Names as text.

    Raises:
        ArchiveError: The names are not UTF-8 and no encoding is given, or the wrong one is.
    """
    unmarked = [member.name for member in raw if not member.is_utf8]
    not_ascii = [name for name in unmarked if not name.isascii()]
    if not not_ascii or (encoding is None and _fits("utf-8", not_ascii)):
        encoding = "utf-8"
    if encoding is None:
        likely = [page for page in _CODE_PAGES if _fits(page, not_ascii)][:_PREVIEWS]
        previews = ", ".join(f"{page} reads '{not_ascii[0].decode(page)}'" for page in likely)
        previews = f" ({previews})" if previews else ""
        first = not_ascii[0].decode("utf-8", "surrogateescape")
        raise ArchiveError(
            path,
            f"{len(not_ascii)} names such as {first!a} are not UTF-8; rename those files, or set "
            f"datasets.NAME.encoding in params.yaml to their encoding{previews}",
        )
    try:
        return [member.name.decode("utf-8" if member.is_utf8 else encoding) for member in raw]
    except UnicodeDecodeError as error:
        raise ArchiveError(
            path,
            f"the name {error.object!r} is not {error.encoding}; set datasets.NAME.encoding in "
            "params.yaml to the encoding of its names, or rename that file",
        ) from None


def _fits(encoding: str, names: list[bytes]) -> bool:
    """Whether all names can be read in an encoding."""
    try:
        for name in names:
            name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _first_bytes(path: Path) -> bytes:
    """The first bytes of a file decide its format: a tar that ends with a zip ends like a zip."""
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
    except _DAMAGE:  # a .tar.gz that ends inside the first header
        raise ArchiveError(path, _CUT_OFF) from None


def _members(path: Path, tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Every file and folder of a tar, after a check that it is complete and safe to read."""
    members = []
    try:
        for member in tar:
            if member.issym() or member.islnk():
                raise ArchiveError(path, _link_problem(member.name))
            if member.issparse():
                raise ArchiveError(
                    path, f"member '{member.name}' is stored sparse; repack it without sparse files"
                )
            if member.size < 0:
                raise ArchiveError(path, _CUT_OFF)  # otherwise tarfile loops for ever
            if member.isreg() or member.isdir():
                members.append(member)
        # tarfile accepts a tar without its end mark, a block of zeros, so check for it here.
        assert tar.fileobj is not None  # noqa: S101 - open for reading
        tar.fileobj.seek(tar.offset)
        end_mark = tar.fileobj.read(_TAR_BLOCK)
        # A compressed file ends with a checksum, which is verified when the end is read.
        while tar.fileobj.read(_BLOCK):
            pass
    except _DAMAGE:
        raise ArchiveError(path, _CUT_OFF) from None
    if end_mark != bytes(_TAR_BLOCK):
        raise ArchiveError(path, _CUT_OFF)
    return members


def _check_size(path: Path, name: str, size: int) -> None:
    if size > MAX_BYTES:
        megabytes = f"{size / 1e6:,.0f} MB, more than the {MAX_BYTES / 1e6:.0f} of any picture"
        raise ArchiveError(path, f"'{name}' holds {megabytes}")


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise ArchiveError(
            path,
            f"member '{name}' points outside of the archive; repack it with plain relative names",
        )
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ArchiveError(path, f"the name {name!a} is not UTF-8; rename that file") from None


def _link_problem(name: str) -> str:
    return f"member '{name}' is a link; repack it with the file instead"
