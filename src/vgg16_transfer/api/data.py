"""Pictures in classes, and their splits."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pooch

from vgg16_transfer.api import html
from vgg16_transfer.api.checked import check
from vgg16_transfer.artifacts import located
from vgg16_transfer.errors import InputError
from vgg16_transfer.images import pictures
from vgg16_transfer.images.manifests import COLUMNS, read_manifest, read_manifests
from vgg16_transfer.images.proposals import propose
from vgg16_transfer.images.source import Source
from vgg16_transfer.images.splits import write_surveyed
from vgg16_transfer.networks import LAST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from vgg16_transfer.images.survey import Picture
    from vgg16_transfer.params import Dataset, Layout

_DIGITS = 12
_SHOWN = 4
_CLASSES = 20


@dataclass(frozen=True, repr=False)
class Data:
    """Pictures in classes, split into training, validation and test, once per seed.

    Attributes:
        name: Name made of the source's name.
        settings: What an entry of ``datasets`` in params.yaml would hold.
        notes: What one should know about the pictures: one sentence each.
        folder: Where features and studies of the source are kept.
        splits: Folder of the manifests; see :mod:`~vgg16_transfer.images.manifests`.
        source: Where the pictures are.
        surveyed: All usable pictures, sorted by path.
    """

    name: str
    settings: Dataset
    notes: tuple[str, ...]
    folder: Path
    splits: Path
    source: Source
    surveyed: tuple[Picture, ...]

    @property
    def class_names(self) -> list[str]:
        """The classes, sorted."""
        return sorted({picture.class_name for picture in self.surveyed})

    @property
    def pictures(self) -> pd.DataFrame:
        """All usable pictures: ``path``, ``class_name``, ``width`` and ``height`` in pixels."""
        rows = [(picture.path, picture.class_name, *picture.size) for picture in self.surveyed]
        return pd.DataFrame(rows, columns=["path", "class_name", "width", "height"])

    def split(self, seed: int = 0) -> pd.DataFrame:
        """One split: ``path``, ``label``, ``class_name``, ``sha256``, ``role`` and ``rank``.

        Args:
            seed: One of ``settings.split.seeds``.
        """
        return read_manifest(self.splits / f"{seed}.csv")

    def read(self, path: str) -> bytes:
        """The bytes of a picture.

        Args:
            path: Path of a usable picture, as in ``pictures``.

        Raises:
            InputError: There is no such picture, or it has changed since.
        """
        (content,) = self.read_all([path])
        return content

    def read_all(self, paths: Iterable[str]) -> Iterator[bytes]:
        """The bytes of several pictures, one after the other. The source is opened once.

        Args:
            paths: Paths of usable pictures.

        Raises:
            InputError: There is no such picture, or it has changed since.
        """
        with self.source.open() as opened:
            for path in paths:
                if path not in self._sha256s:
                    raise InputError(f"{path}: is not among the pictures of {self.name}")
                yield opened.read(path, self._sha256s[path])

    def thumbnails(self, paths: Sequence[str]) -> list[str]:
        """Small squares of pictures, as HTML.

        Args:
            paths: Paths of usable pictures.
        """
        shown = zip(paths, self.read_all(paths), strict=True)
        return [html.thumbnail(pictures.decode(content), path) for path, content in shown]

    @functools.cached_property
    def _sha256s(self) -> dict[str, str]:
        return {picture.path: picture.sha256 for picture in self.surveyed}

    def manifest(self) -> pd.DataFrame:
        """All usable pictures as one manifest, for their features.

        Its test pictures are those that any split tests on: nothing is calibrated with them.
        """
        labels = {name: label for label, name in enumerate(self.class_names)}
        splits = read_manifests(self.splits)
        tested = {path for frame in splits for path in frame.loc[frame["role"] == "test", "path"]}
        rows = [
            (
                each.path,
                labels[each.class_name],
                each.class_name,
                each.sha256,
                "test" if each.path in tested else "train",
                rank,
            )
            for rank, each in enumerate(self.surveyed)
        ]
        return pd.DataFrame(rows, columns=COLUMNS)

    def __repr__(self) -> str:
        pictures, classes = len(self.surveyed), len(self.class_names)
        return f"<Data {self.name}: {pictures} pictures of {classes} classes>"

    def _repr_html_(self) -> str:
        """Classes, numbers of pictures, and a few pictures of each."""
        of_class: dict[str, list[Picture]] = {name: [] for name in self.class_names}
        for picture in self.surveyed:
            of_class[picture.class_name].append(picture)
        shown = [members[:_SHOWN] for members in list(of_class.values())[:_CLASSES]]
        drawn = iter(self.thumbnails([each.path for members in shown for each in members]))
        rows = [
            [html.text(name), str(len(of_class[name])), "".join(itertools.islice(drawn, len(few)))]
            for name, few in zip(of_class, shown, strict=False)
        ]
        more = len(of_class) - _CLASSES
        notes = [f"and {more} more classes"] * (more > 0) + list(self.notes)
        table = html.table(["class", "pictures", "such as"], rows)
        return table + "".join(f"<p>{html.text(note)}</p>" for note in notes)


def dataset(
    source: str | Path,
    *,
    layout: Layout | None = None,
    split: Mapping[str, Any] | None = None,
    leave_out: Iterable[str] | None = None,
    encoding: str | None = None,
    folder: str | Path | None = None,
) -> Data:
    """Looks at pictures in classes, and splits them.

    Args:
        source: A folder, .tar, .tar.gz or .zip, which is read in place.
        layout: How classes are laid out; by default, it is recognised. docs/datasets.md shows all
            layouts.
        split: Keys of a dataset's ``split``, such as ``train_per_class``, in place of those that
            fit the smallest class.
        leave_out: Classes to leave out, in place of those with too few pictures.
        encoding: Encoding of the names in an old archive, such as ``cp932``.
        folder: Where to keep splits, features and studies; by default, a folder of this source in
            the user's cache.

    Raises:
        InputError: There is no such source, it can't be read, has fewer than two classes, or can't
            be split like this.
    """
    path = located(str(source), None)
    if not path.exists():
        raise InputError(f"{source}: no such file or folder")
    path = Path(os.path.abspath(path))  # noqa: PTH100 - links stay
    proposal = propose(
        path, str(path), [LAST], layout=layout, leave_out=leave_out, encoding=encoding
    )
    settings = proposal.dataset
    if split is not None:
        settings = check(proposal.name, settings, split=split).dataset(proposal.name)
    kept = Path(folder) if folder else _kept_at(path, proposal.name)
    digest = _digest(json.dumps(settings.model_dump(), sort_keys=True))
    splits = kept / "splits" / digest / proposal.name
    written = write_surveyed(proposal.name, settings, proposal.surveyed, splits)
    notes = tuple(dict.fromkeys([*proposal.notes, *written.notes]))
    of_source = tuple(sorted(proposal.surveyed.pictures))
    return Data(proposal.name, settings, notes, kept, splits, Source(path, encoding), of_source)


def _kept_at(path: Path, name: str) -> Path:
    return cache() / "datasets" / f"{name}-{_digest(str(path))}"


def cache() -> Path:
    """The folder of what is kept for the next time; XDG_CACHE_HOME moves it."""
    return Path(pooch.os_cache("vgg16-transfer"))


def _digest(words: str) -> str:
    return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
