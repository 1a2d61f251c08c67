"""[stage] A path or an address → data/raw/<dataset>, checked.

A local source, folder or archive, is read in place: ``data/raw/<dataset>`` is a link to it. DVC
hashes what the link leads to, so it sees every change there, and nothing is copied. What is
downloaded lies there itself.
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

from vgg16_transfer.artifacts import put, remove, replacing
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images.archives import ArchiveError, open_archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vgg16_transfer.params import Layout

_BLOCK = 1 << 16  # as much as is lost when a connection breaks
_ATTEMPTS = 5
_TIMEOUT_S = 60.0


class FetchError(InputError):
    """Something that could not be fetched; the message says what to do instead."""


@dataclass(frozen=True)
class Address:
    """Where something can be downloaded, and the md5 that tells it arrived whole."""

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
    "Belhumeur, Kriegman, Belongie, BMVC 2013) for the archive, put it on this machine, "
    "and let datasets.NAME.source hold its path"
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
    """Brings a dataset's pictures to ``out``, or leaves ``out`` untouched.

    Args:
        name: Dataset name, used in error messages.
        source: Path or http(s) address; None for the known address of the layout. A path may
            begin with ``~``, be relative to the current folder, and lead through links.
        md5: Of the archive; required for an address other than the known one.
        layout: Decides the known address.
        out: A link to the local source, or what was downloaded. A download is not repeated if its
            md5 is right; one that broke off waits beside it, to be continued.
        home: Where a relative path is looked for if it is not below the current folder.
        encoding: Of the names in an archive that does not say.

    Raises:
        FetchError: There is no source, it can't be reached, its md5 is another one, what it holds
            is no archive that can be read whole, or a folder holds what DVC can't hash.
        ArchiveError: The source can't be read.
    """
    if source is None or urlsplit(source).scheme in {"http", "https"}:
        address = _address(name, source, md5, layout)
        if out.is_symlink() or not out.is_file() or file_md5(out) != address.md5:
            _bring(address, out, encoding)
        return
    path = _local(name, source, md5, layout, home)
    with open_archive(path, encoding):
        pass
    if path.is_dir():
        _check_folder(name, path, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # A relative path stays one, so that a workspace can be moved and copied.
    target = path if path.is_absolute() else Path(os.path.relpath(path, out.parent))
    if out.is_symlink() and out.readlink() == target:
        return
    link = out.with_name(f".{out.name}.incoming")
    remove(link)
    link.symlink_to(target)
    put(link, out)


def _bring(address: Address, out: Path, encoding: str | None) -> None:
    try:
        with replacing(out) as fresh:
            download(address, fresh, part=out.with_name(f".{out.name}.part"))
            with open_archive(fresh, encoding):
                pass
    except ArchiveError as error:
        raise FetchError(f"{address.url}: {error.problem}") from None


def download(address: Address, out: Path, part: Path) -> None:
    """Downloads a file with a progress bar, continuing where an earlier try broke off.

    Args:
        address: What to download, and its md5.
        out: Written whole or not at all.
        part: What has arrived so far; kept when the connection breaks, removed when done.

    Raises:
        FetchError: No network, the server refuses, or the bytes are not those of the md5.
    """
    remedy = f"or download it elsewhere, check that its md5 is {address.md5}, and give its path"
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
            f"{address.url}: what arrived does not have the md5 {address.md5} and was thrown away; "
            f"run this again, {remedy}"
        ) from None
    part.unlink(missing_ok=True)


class _ResumingDownloader:
    """Pooch's downloader interface, with what pooch lacks: a broken download is continued."""

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
        have = self._part.stat().st_size if self._part.exists() else 0
        # The md5 and the range are those of the bytes themselves, not of their compression.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                return  # everything was there already; the md5 decides
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            length = response.headers.get("Content-Length")
            with (
                self._part.open("ab" if resumed else "wb") as file,
                tqdm(
                    desc=f"download {self._part.stem.lstrip('.')}",
                    initial=have if resumed else 0,
                    total=int(length) + (have if resumed else 0) if length else None,
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
        how = _WHERE_TO_ASK.get(layout, "write the path or address of its pictures here")
        raise FetchError(f"params.yaml: datasets.{name}.source is missing; {how}")
    if md5 is None:
        raise FetchError(
            f"params.yaml: datasets.{name}.md5 is missing; a download is only trusted with its md5"
        )
    return Address(source, md5)


def _local(name: str, source: str, md5: str | None, layout: Layout, home: Path | None) -> Path:
    """Where a local source is, once it is known to be the one that is meant."""
    key = f"params.yaml: datasets.{name}"
    # Unlike pathlib's, this expanduser leaves the ~ of an unknown user as it is.
    path = Path(os.path.expanduser(source))  # noqa: PTH111
    if home is not None and not path.exists():
        path = home / path
    if not path.exists():
        how = f"; {_WHERE_TO_ASK[layout]}" if layout in _WHERE_TO_ASK else ""
        raise FetchError(f"{key}.source: no such file or folder: {source}{how}")
    if md5 is None:
        return path
    if path.is_dir():
        raise FetchError(f"{key}.md5: a folder has no md5; leave the key out")
    found = file_md5(path)
    if found != md5:
        raise FetchError(
            f"{key}.md5 is {md5}, but {source} has {found}; "
            "write that there if this is the file you mean"
        )
    return path


def _check_folder(name: str, folder: Path, out: Path) -> None:
    """Refuses what DVC would not see, or would stumble over, when it hashes a folder."""
    if out.parent.resolve().is_relative_to(folder.resolve()):
        raise FetchError(
            f"params.yaml: datasets.{name}.source: {folder} holds this workspace's own data/raw; "
            "name the folder that holds the classes"
        )
    for entry in _entries(folder):
        if entry.is_symlink() and entry.is_dir():
            raise FetchError(
                f"{entry.path}: is a link to a folder, and DVC does not see what changes behind "
                "it; put the folder itself there, or links to its files (cp -rs)"
            )
        if not entry.is_dir() and not entry.is_file():
            what = "a link that leads nowhere" if entry.is_symlink() else "no regular file"
            raise FetchError(f"{entry.path}: is {what}, which DVC can't hash; remove it")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))
