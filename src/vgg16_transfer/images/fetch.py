"""[stage] A path or an address → data/raw/<dataset>.archive, md5-checked."""

from __future__ import annotations

import os.path
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pooch
import requests
from tqdm import tqdm

from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images.archives import ArchiveError, open_archive

if TYPE_CHECKING:
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


def fetch(name: str, source: str | None, md5: str | None, layout: Layout, out: Path) -> None:
    """Brings a dataset's pictures to ``out`` as one archive, or leaves ``out`` untouched.

    A folder is packed into a plain tar, so that whatever a dataset came as, DVC tracks one file.

    Args:
        name: Of the dataset, for error messages.
        source: Path or http(s) address; None for the known address of the layout. A path may
            begin with ``~`` and lead to a folder of pictures.
        md5: Of the archive; required for an address other than the known one.
        layout: Decides the known address.
        out: The archive to write, unless it is there and has the md5. A download that broke off
            waits beside it, to be continued.

    Raises:
        FetchError: There is no source, it can't be reached, its md5 is another one, or what it
            holds is no archive that can be read whole.
        ArchiveError: The source is a folder that can't be read.
    """
    expected = md5 or (_KNOWN[layout].md5 if source is None and layout in _KNOWN else None)
    if expected and out.exists() and file_md5(out) == expected:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.incoming")
    try:
        if source is None or urlsplit(source).scheme in {"http", "https"}:
            address = _address(name, source, md5, layout)
            download(address, temporary, part=out.with_name(f".{out.name}.part"))
            source = address.url
        else:
            # Unlike pathlib's, this expanduser leaves the ~ of an unknown user as it is.
            path = Path(os.path.expanduser(source))  # noqa: PTH111
            _bring(path, temporary, f"datasets.{name}", md5, layout)
        with open_archive(temporary):
            pass
        temporary.replace(out)
    except ArchiveError as error:
        if error.path != temporary:
            raise
        raise FetchError(f"{source}: {error.problem}") from None
    finally:
        temporary.unlink(missing_ok=True)


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


def _bring(source: Path, out: Path, key: str, md5: str | None, layout: Layout) -> None:
    if not source.exists():
        how = f"; {_WHERE_TO_ASK[layout]}" if layout in _WHERE_TO_ASK else ""
        raise FetchError(f"params.yaml: {key}.source: no such file or folder: {source}{how}")
    if source.is_dir():
        if md5 is not None:
            raise FetchError(f"params.yaml: {key}.md5: a folder has no md5; leave the key out")
        _pack(source, out)
        return
    shutil.copyfile(source, out)
    found = file_md5(out)
    if md5 is not None and found != md5:
        raise FetchError(
            f"params.yaml: {key}.md5 is {md5}, but {source} has {found}; "
            "write that there if this is the file you mean"
        )


def _pack(folder: Path, out: Path) -> None:
    """Packs a folder's files into a tar whose bytes depend on nothing but names and contents."""
    with open_archive(folder) as archive, tarfile.open(out, "w") as tar:
        for name in tqdm(archive.names(), desc=f"pack {folder.name}", unit="file", disable=None):
            path = folder / name
            member = tarfile.TarInfo(name)
            member.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(member, file)
