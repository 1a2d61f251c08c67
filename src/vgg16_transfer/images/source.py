"""A dataset's pictures, read in place, and held against the split that names them."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.errors import InputError
from vgg16_transfer.images.archives import open_archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vgg16_transfer.images.archives import Archive


class SourceError(InputError):
    """A source that does not hold the pictures that a split names."""


class Source(NamedTuple):
    """Where a dataset's pictures are.

    Attributes:
        path: An archive, a folder, or a link to one.
        encoding: Of the names in an archive that does not say; see params.yaml.
    """

    path: Path
    encoding: str | None = None

    @contextmanager
    def open(self) -> Iterator[Pictures]:
        """Opens it; see :func:`~vgg16_transfer.images.archives.open_archive` for errors."""
        with open_archive(self.path, self.encoding) as archive:
            yield Pictures(archive, self.path, frozenset(archive.names()))


class Pictures(NamedTuple):
    """An open source.

    Attributes:
        archive: Its files.
        path: Of the source, used in error messages.
        names: Of its files.
    """

    archive: Archive
    path: Path
    names: frozenset[str]

    def read(self, name: str, sha256: str) -> bytes:
        """The bytes of the picture that a split names.

        Raises:
            ArchiveError: The file can't be read.
            SourceError: There is no such picture, or its bytes are others.
        """
        self.check_names([name])
        content = self.archive.read(name)
        self.check(name, sha256, hashlib.sha256(content).hexdigest())
        return content

    def check_names(self, names: Iterable[str]) -> None:
        """Looks whether all of these are there.

        Raises:
            SourceError: One is not.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise SourceError(
                f"{self.path}: has no {missing[0]}, which the split names ({len(missing)} are "
                "missing); it changed since it was split: run dvc repro"
            )

    def check(self, name: str, expected: str, found: str) -> None:
        """Compares the sha256 of a picture's bytes with that in the split.

        Raises:
            SourceError: They differ.
        """
        if found != expected:
            raise SourceError(
                f"{self.path}: {name} is not the picture that was split; run dvc repro"
            )
