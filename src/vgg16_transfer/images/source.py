"""Reads a dataset's pictures in place, and checks that they are those of the split."""

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
    """A source that lacks a picture that a split lists."""


class Source(NamedTuple):
    """Where a dataset's pictures are.

    Attributes:
        path: An archive, a folder, or a link to one.
        encoding: Encoding of the names in an archive that does not record it; see params.yaml.
    """

    path: Path
    encoding: str | None = None

    @contextmanager
    def open(self) -> Iterator[Pictures]:
        """Opens the source; see :func:`~vgg16_transfer.images.archives.open_archive` for errors."""
        with open_archive(self.path, self.encoding) as archive:
            yield Pictures(archive, self.path, frozenset(archive.names()))


class Pictures(NamedTuple):
    """An open source.

    Attributes:
        archive: Files of the source.
        path: Path of the source, used in error messages.
        names: Names of the files.
    """

    archive: Archive
    path: Path
    names: frozenset[str]

    def read(self, name: str, sha256: str) -> bytes:
        """Bytes of a picture that a split lists.

        Raises:
            ArchiveError: The file can't be read.
            SourceError: There is no such picture, or its bytes differ from those of the split.
        """
        self.check_names([name])
        content = self.archive.read(name)
        self.check(name, sha256, hashlib.sha256(content).hexdigest())
        return content

    def check_names(self, names: Iterable[str]) -> None:
        """Checks that the source has all of these files.

        Raises:
            SourceError: One is missing.
        """
        missing = [name for name in names if name not in self.names]
        if missing:
            raise SourceError(
                f"{self.path}: has no {missing[0]}, which the split lists ({len(missing)} "
                "missing); the source has changed since it was split: run dvc repro"
            )

    def check(self, name: str, expected: str, actual: str) -> None:
        """Compares the sha256 of a picture's bytes with the one in the split.

        Raises:
            SourceError: The two differ.
        """
        if actual != expected:
            raise SourceError(
                f"{self.path}: {name} is not the picture that was split; run dvc repro"
            )
