r"""Files of an archive or folder, read in place: nothing is ever unpacked to disk.

A tar is indexed once by its headers; a file is then one positioned read, so random access costs no
full re-read. A .tar.gz can only be read forwards: ask for its files in the order of :meth:`names`.

In an archive, which anyone may have made, names and links that lead out of it are refused. In a
folder, links are followed: whoever put one there, on their own disk, means what it leads to.

An old zip or tar does not say how its names are encoded. They are UTF-8 if all of them can be read
as UTF-8; otherwise whoever opens the archive names the encoding. In a zip without one ``/``, which
old Windows programs make, ``\`` separates folders.
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
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075  # the extra field in which Info-ZIP keeps a name as UTF-8
# The likeliest of each writing first: Japanese, Western, Cyrillic, Chinese, Korean, Greek.
_CODE_PAGES = ("cp932", "cp850", "cp866", "gbk", "cp1252", "cp1251", "cp949", "big5", "cp1253")
_PREVIEWS = 5
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
        """The names of all regular files, in the order in which reading them is cheapest.

        Raises:
            ArchiveError: Their encoding is not known.
        """

    def folders(self) -> list[str]:
        """The names of all folders, those without a file as well, sorted.

        Raises:
            ArchiveError: Their encoding is not known.
        """

    def size(self, name: str) -> int:
        """How many bytes a file holds."""

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            ArchiveError: The file's bytes are damaged or can't be read.
        """


@contextmanager
def open_archive(path: Path, encoding: str | None = None) -> Iterator[Archive]:
    """Opens a .tar, .tar.gz (or .bz2, .xz), .zip or folder; which one it is, its content says.

    Args:
        path: Where it is. Errors about a link name what the link leads to.
        encoding: Encoding of the names in an archive that does not say it, such as ``cp932``.

    Raises:
        ArchiveError: There is nothing at the path, it is none of these, it is cut off, or a
            member is not safe to read: a link, encrypted, or of a name that leads out.
    """
    if path.is_symlink():
        path = path.resolve()
    if not path.exists():
        raise ArchiveError(path, "no such file or folder")
    if path.is_dir():
        yield _Folder(path)
    elif _begin(path).startswith(_ZIP_BEGINS):
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
        self._names: list[str] = []
        self._folders: list[str] = []
        try:
            for entry, is_folder in _entries(path):
                listed = self._folders if is_folder else self._names
                listed.append(entry.relative_to(path).as_posix())
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
        try:
            return (self._path / name).read_bytes()
        except OSError as error:
            raise ArchiveError(self._path, f"'{name}' can't be read: {error}") from None


class _Raw(NamedTuple):
    """A member's name as the archive holds it, and whether the archive says that it is UTF-8."""

    name: bytes
    is_utf8: bool


class _Named:
    """Members of an archive by name, once it is known how the names are encoded."""

    def __init__(
        self, path: Path, raw: list[_Raw], encoding: str | None, *, old_windows: bool = False
    ) -> None:
        self._path = path
        self._problem = ""
        self.spelled: list[str] = []
        try:
            self.spelled = _decode(path, raw, encoding)
        except ArchiveError as error:
            # An archive that is only checked, as after a download, need not have readable names.
            self._problem = error.problem
            for one in raw:
                _check_name(path, one.name.decode("latin-1"))
        for name in self.spelled:
            _check_name(path, name)
        if old_windows and not any("/" in name for name in self.spelled):
            self.spelled = [name.replace("\\", "/") for name in self.spelled]

    def check(self) -> None:
        if self._problem:
            raise ArchiveError(self._path, self._problem)


class _Zip:
    def __init__(self, path: Path, zipped: zipfile.ZipFile, encoding: str | None) -> None:
        self._path = path
        self._zip = zipped
        infos = zipped.infolist()
        self._names = _Named(
            path, [_raw_zip_name(one) for one in infos], encoding, old_windows=True
        )
        for info in infos:
            if info.external_attr >> 16 & _UNIX_FILE_TYPE == _UNIX_LINK:
                raise ArchiveError(path, _link_problem(info.filename))
            if info.flag_bits & 1:
                raise ArchiveError(
                    path, f"member '{info.filename}' is encrypted; repack it without"
                )
        # Of a name that comes twice, the last member counts, in the place of the first.
        self._members = dict(zip(self._names.spelled, infos, strict=bool(self._names.spelled)))

    def names(self) -> list[str]:
        self._names.check()
        return [name for name in self._members if not name.endswith("/")]

    def folders(self) -> list[str]:
        explicit = [name.rstrip("/") for name in self._members if name.endswith("/")]
        return _all_folders(self.names(), explicit)

    def size(self, name: str) -> int:
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        try:
            return self._zip.read(self._members[name])
        except _DAMAGE as error:
            raise ArchiveError(self._path, f"member '{name}' is damaged: {error}") from None


class _Tar:
    def __init__(
        self, path: Path, tar: tarfile.TarFile, file: BinaryIO, encoding: str | None
    ) -> None:
        self._path = path
        # Of a compressed tar, tar.fileobj is the decompressed stream; of a plain one, the file.
        self._stream = tar.fileobj if tar.fileobj is not None else file
        self._lock = threading.Lock()
        members = _members(path, tar)
        raw = [_raw_tar_name(one) for one in members]
        self._names = _Named(path, raw, encoding)
        self._members = {}
        self._empty = []
        for name, one in zip(self._names.spelled, members, strict=False):
            if one.isreg():
                self._members[name] = (one.offset_data, one.size)
            elif one.isdir():
                self._empty.append(name)

    def names(self) -> list[str]:
        self._names.check()
        return list(self._members)

    def folders(self) -> list[str]:
        return _all_folders(self.names(), self._empty)

    def size(self, name: str) -> int:
        return self._members[name][1]

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


def _entries(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, bool]]:
    """Every file and folder below a folder, and whether it is a folder.

    Broken links, and links back to a folder above, are passed by.
    """
    real = folder.resolve()
    for path in folder.iterdir():
        if path.is_dir():
            if path.resolve() not in above | {real}:
                yield path, True
                yield from _entries(path, above | {real})
        elif path.is_file():
            yield path, False


def _all_folders(names: list[str], explicit: list[str]) -> list[str]:
    """The folders that an archive lists, and those that the names of its files imply."""
    folders = {PurePosixPath(name) for name in explicit}
    for name in [*names, *explicit]:
        folders.update(PurePosixPath(name).parents)
    return sorted(folder.as_posix() for folder in folders if folder.parts)


def _raw_tar_name(member: tarfile.TarInfo) -> _Raw:
    raw = member.name.encode("utf-8", "surrogateescape")
    # A name in a header of its own (PAX) is UTF-8, unless what packed it knew no better.
    return _Raw(raw, is_utf8="path" in member.pax_headers and _fits("utf-8", [raw]))


def _raw_zip_name(info: zipfile.ZipInfo) -> _Raw:
    if info.flag_bits & _UTF8_FLAG:
        return _Raw(info.filename.encode("utf-8", "surrogatepass"), is_utf8=True)
    # zipfile reads what has no mark as code page 437, which knows every byte.
    raw = info.orig_filename.encode("cp437").partition(b"\0")[0]
    extra = info.extra
    while len(extra) >= 4:  # noqa: PLR2004 - a header of two short numbers
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        # Version, checksum of the name that it stands for, name.
        if kind == _UNICODE_PATH and field[1:5] == struct.pack("<L", zlib.crc32(raw)):
            return _Raw(field[5:], is_utf8=True)
    return _Raw(raw, is_utf8=False)


def _decode(path: Path, raw: list[_Raw], encoding: str | None) -> list[str]:
    """The names as text.

    Raises:
        ArchiveError: They are not UTF-8 and no encoding is given, or it is the wrong one.
    """
    unmarked = [one.name for one in raw if not one.is_utf8]
    strange = [name for name in unmarked if not name.isascii()]
    if not strange or (encoding is None and _fits("utf-8", strange)):
        encoding = "utf-8"
    if encoding is None:
        likely = [page for page in _CODE_PAGES if _fits(page, strange)][:_PREVIEWS]
        read = ", ".join(f"{page} reads '{strange[0].decode(page)}'" for page in likely)
        read = f" ({read})" if read else ""
        first = strange[0].decode("utf-8", "surrogateescape")
        raise ArchiveError(
            path,
            f"{len(strange)} names such as {first!a} are not UTF-8; rename those files, or set "
            f"datasets.NAME.encoding in params.yaml to their encoding{read}",
        )
    try:
        return [one.name.decode("utf-8" if one.is_utf8 else encoding) for one in raw]
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


def _members(path: Path, tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    """Every file and folder, once all of it was read and nothing is unsafe."""
    members = []
    try:
        for member in tar:
            if member.issym() or member.islnk():
                raise ArchiveError(path, _link_problem(member.name))
            if member.issparse():
                raise ArchiveError(
                    path, f"member '{member.name}' is stored sparse; repack it without"
                )
            if member.size < 0:
                raise ArchiveError(path, _CUT_OFF)  # and tarfile would go back and forth for ever
            if member.isreg() or member.isdir():
                members.append(member)
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
