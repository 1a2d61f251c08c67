"""[stage] A path or a URL → data/raw/<dataset>, checked.

A local folder or archive is not copied: ``data/raw/<dataset>`` is a link to it. DVC hashes the
target of the link, so it sees every change there. A download is stored at ``data/raw/<dataset>``
itself.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

from vgg16_transfer.artifacts import alone, link_target, located, put, remove, replacing, room
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images.archives import ArchiveError, open_archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vgg16_transfer.params import Layout

_BLOCK = 1 << 16  # bytes; at most this much is lost when a connection breaks
_ATTEMPTS = 5
_TIMEOUT_S = 60.0


class FetchError(InputError):
    """A source that could not be fetched; the message says what to do instead."""


@dataclass(frozen=True)
class Address:
    """A URL, and the md5 of the file there."""

    url: str
    md5: str


CALTECH256 = Address(
    "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar",
    "67b4f42ca05d46448c6bb8ecd2220f6d",
)
"""Griffin, Holub, Perona: Caltech-256 (2007), CaltechDATA, CC BY 4.0; 1,183,006,720 bytes."""

_KNOWN: dict[Layout, Address] = {"caltech256": CALTECH256}

_WHERE_TO_ASK: dict[Layout, str] = {
    "urban_tribes": "Urban Tribes has no public address: ask its authors (Kwak, Murillo, "
    "Belhumeur, Kriegman, Belongie, BMVC 2013) for the archive, copy it to this machine, "
    "and set datasets.NAME.source to its path"
}


def fetch(
    name: str,
    source: str | None,
    md5: str | None,
    layout: Layout,
    *,
    out: Path,
    home: Path | None = None,
    encoding: str | None = None,
) -> None:
    """Links or downloads a dataset's pictures to ``out``. On errors, ``out`` is left unchanged.

    Args:
        name: Dataset name, used in error messages.
        source: Path or http(s) URL; None for the known URL of the layout. A path may begin with
            ``~``, may be relative to the current folder, and may contain links.
        md5: md5 of the archive; required for every URL but the known ones.
        layout: Layout of the dataset; it decides the known URL.
        out: Path of the link or of the download. A download with the right md5 is not repeated. An
            interrupted download is kept in the same folder, and continued by the next call.
        home: Second folder in which a relative path is looked for, after the current folder.
        encoding: Encoding of the names in an archive that does not record it.

    Raises:
        FetchError: The source is missing, can't be reached, has another md5, or is not an archive
            that can be read completely. Or a folder has files that DVC can't hash.
        ArchiveError: The source can't be read.
    """
    if source is None or urlsplit(source).scheme in {"http", "https"}:
        address = _address(name, source, md5, layout)
        if out.is_symlink() or not out.is_file() or file_md5(out) != address.md5:
            _download_archive(address, out, encoding)
        return
    path = _local(name, source, md5, layout, home)
    _check_place(name, path, out)
    with open_archive(path, encoding):
        pass
    if path.is_dir():
        _check_folder(name, path, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    target = link_target(path, out.parent)
    if out.is_symlink() and out.readlink() == target:
        return
    link = out.with_name(f".{out.name}.incoming")
    with room(out, "run this again"), alone(out):
        remove(link)
        link.symlink_to(target)
        put(link, out)


def _download_archive(address: Address, out: Path, encoding: str | None) -> None:
    try:
        with replacing(out) as fresh:
            download(address, fresh, part=out.with_name(f".{out.name}.part"))
            with open_archive(fresh, encoding):
                pass
    except ArchiveError as error:
        raise FetchError(f"{address.url}: {error.problem}") from None


def download(address: Address, out: Path, part: Path) -> None:
    """Downloads a file with a progress bar, and continues an interrupted download.

    Args:
        address: URL of the file, and its md5.
        out: File to write; it is written completely or not at all.
        part: File with the bytes received so far; kept when the connection breaks, removed at the
            end.

    Raises:
        FetchError: The network fails, the server answers with an error, or the md5 is wrong.
    """
    remedy = (
        f"or download it elsewhere, check that its md5 is {address.md5}, and write its path in "
        "params.yaml"
    )
    try:
        pooch.retrieve(
            address.url,
            known_hash=f"md5:{address.md5}",
            fname=out.name,
            path=out.parent,
            downloader=_ResumingDownloader(part),
        )
    except requests.HTTPError as error:
        status = error.response.status_code
        raise FetchError(
            f"{address.url}: the server answered {status}; check the address, {remedy}"
        ) from None
    except requests.RequestException as error:
        kept = f"; {part.stat().st_size:,} bytes are kept" if part.exists() else ""
        raise FetchError(
            f"{address.url}: could not be reached ({type(error).__name__}){kept}; "
            f"run this again to go on, {remedy}"
        ) from None
    except ValueError:
        part.unlink(missing_ok=True)
        raise FetchError(
            f"{address.url}: the download does not have the md5 {address.md5} and was deleted; "
            f"run this again, {remedy}"
        ) from None
    part.unlink(missing_ok=True)


class _ResumingDownloader:
    """A downloader for pooch that continues an interrupted download, which pooch itself can't."""

    def __init__(self, part: Path) -> None:
        self._part = part

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._continue(url)
                break
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ):
                if attempt == _ATTEMPTS or not self._part.exists():
                    raise
        shutil.copyfile(self._part, output_file)

    def _continue(self, url: str) -> None:
        received = self._part.stat().st_size if self._part.exists() else 0
        # md5 and range refer to the file itself, so the server must not compress it.
        headers = {"Accept-Encoding": "identity"}
        if received:
            headers["Range"] = f"bytes={received}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                return  # all bytes were received before; the md5 is checked later
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            length = response.headers.get("Content-Length")
            with (
                self._part.open("ab" if resumed else "wb") as file,
                tqdm(
                    desc=f"download {self._part.stem.lstrip('.')}",
                    initial=received if resumed else 0,
                    total=int(length) + (received if resumed else 0) if length else None,
                    unit="B",
                    unit_scale=True,
                    disable=None,
                ) as bar,
            ):
                for block in response.iter_content(_BLOCK):
                    file.write(block)
                    bar.update(len(block))


def _address(name: str, source: str | None, md5: str | None, layout: Layout) -> Address:
    if source is None:
        if layout in _KNOWN:
            return Address(_KNOWN[layout].url, md5 or _KNOWN[layout].md5)
        how = _WHERE_TO_ASK.get(layout, "set it to the path or URL of the pictures")
        raise FetchError(f"params.yaml: datasets.{name}.source is missing; {how}")
    if md5 is None:
        raise FetchError(
            f"params.yaml: datasets.{name}.md5 is missing; it is needed to check the download"
        )
    return Address(source, md5)


def _local(name: str, source: str, md5: str | None, layout: Layout, home: Path | None) -> Path:
    """Path of a local source, after a check that it exists and has the right md5."""
    key = f"params.yaml: datasets.{name}"
    path = located(source, home)
    if not path.exists():
        how = f"; {_WHERE_TO_ASK[layout]}" if layout in _WHERE_TO_ASK else ""
        raise FetchError(f"{key}.source: no such file or folder: {source}{how}")
    if md5 is None:
        return path
    if path.is_dir():
        raise FetchError(f"{key}.md5: a folder has no md5; remove the key")
    actual = file_md5(path)
    if actual != md5:
        raise FetchError(
            f"{key}.md5 is {md5}, but {source} has {actual}; "
            f"if this is the right file, set md5 to {actual}"
        )
    return path


def _check_place(name: str, path: Path, out: Path) -> None:
    """Raises an error if the link would take the place of somebody's pictures."""
    source, link = (Path(os.path.abspath(each)) for each in (path, out))  # noqa: PTH100 - links stay
    if source.is_relative_to(link):
        raise FetchError(
            f"params.yaml: datasets.{name}.source: {path} lies where this stage writes its link; "
            "move the pictures out of data/raw, and set source to their new place"
        )
    if out.is_dir() and not out.is_symlink():
        raise FetchError(
            f"{out}: is a folder, and this stage writes a link there; move it away, or remove it "
            "if it is a copy of the source"
        )


def _check_folder(name: str, folder: Path, out: Path) -> None:
    """Raises an error if a folder has files or links that DVC can't track."""
    if out.parent.resolve().is_relative_to(folder.resolve()):
        raise FetchError(
            f"params.yaml: datasets.{name}.source: {folder} contains data/raw of this workspace; "
            "set source to the folder with the classes"
        )
    for entry in _entries(folder):
        if entry.is_symlink() and entry.is_dir():
            raise FetchError(
                f"{entry.path}: is a link to a folder, and DVC does not see changes in that "
                "folder; replace the link by the folder, or by links to its files (cp -rs)"
            )
        if not entry.is_dir() and not entry.is_file():
            kind = "a broken link" if entry.is_symlink() else "not a regular file"
            raise FetchError(f"{entry.path}: is {kind}, which DVC can't hash; remove it")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))
