"""Features on disk: one growing file per layer, and an index that says what its bytes must be.

``<layer>.zst`` holds chunks of rows, one after the other, each compressed by itself. A row is one
picture's activations, flattened. ``index.jsonl`` begins with a line of all that decides a row's
numbers (the *recipe*) and the shapes of the layers; then every chunk has a line: the sha256 of its
pictures and, for each layer, where its bytes begin, how many they are, and their digest.

A chunk's digest covers its bytes together with recipe, layer, shape and pictures. So a row is
served only if its bytes are those that were written for that picture and recipe: a byte that is
lost, changed, or swapped for another chunk's, and an index that was edited, are all noticed.

A chunk's line is written after its bytes. A process that is killed loses at most one chunk.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zstandard

from vgg16_transfer.artifacts import reading
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Block = npt.NDArray[np.floating[Any]]
    Shapes = Mapping[str, tuple[int, ...]]

CHUNK = 32
"""Rows per chunk: what a killed run loses at most, in pictures."""

INDEX = "index.jsonl"

_FORMAT = 1
_LEVEL = 1  # more takes twice the time and saves a hundredth


class FeaturesError(InputError):
    """A store that is missing, damaged, lacks what is asked of it, or can't be written."""


class Part(NamedTuple):
    """Where a chunk's rows of one layer lie.

    Attributes:
        start: Of its bytes in the layer's file.
        length: How many they are.
        digest: See :func:`_digest`.
    """

    start: int
    length: int
    digest: str


class Chunk(NamedTuple):
    """Some rows.

    Attributes:
        pictures: sha256 of each row's picture.
        parts: By layer.
    """

    pictures: tuple[str, ...]
    parts: dict[str, Part]


class FeatureStore:
    """A store on disk, whole or still growing.

    Attributes:
        recipe: All that decides the numbers of a row, other than its picture.
        shapes: Of one picture's activations, by layer: (height, width, channels) or (units,).
        ids: sha256 of each row's picture.
    """

    def __init__(self, path: Path, recipe: dict[str, Any], shapes: Shapes) -> None:
        self._path = path
        self.recipe = recipe
        self.shapes = dict(shapes)
        self._chunks: list[Chunk] = []
        self._place: dict[str, tuple[int, int]] = {}  # of a picture: its chunk, and its row there

    @property
    def ids(self) -> list[str]:
        """The pictures in the order of their rows."""
        return [sha256 for chunk in self._chunks for sha256 in chunk.pictures]

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """The store at a path. Lines of its index that can't be read are chunks it has not got.

        Raises:
            FeaturesError: There is none, or the first line of its index is damaged.
        """
        with reading(path / INDEX, FeaturesError):
            first, *lines = (path / INDEX).read_text(encoding="utf-8").split("\n")
            header = json.loads(first)
            if header["format"] != _FORMAT:
                raise ValueError(f"its format is {header['format']}, not {_FORMAT}")
            np.dtype(header["recipe"]["dtype"])
            shapes = {layer: tuple(map(int, shape)) for layer, shape in header["shapes"].items()}
            store = cls(path, dict(header["recipe"]), shapes)
        for line in lines:
            chunk = _chunk(line, shapes)
            if chunk is not None:
                store._add(chunk)
        return store

    @classmethod
    def create(cls, path: Path, recipe: dict[str, Any], shapes: Shapes) -> FeatureStore:
        """An empty store at a path where nothing stands."""
        path.mkdir(parents=True)
        header = {"format": _FORMAT, "recipe": recipe, "shapes": shapes}
        for layer in shapes:
            _file(path, layer).touch()
        (path / INDEX).write_text(json.dumps(header) + "\n", encoding="utf-8")
        return cls.open(path)

    def rows(self, layer: str, sha256s: Sequence[str]) -> npt.NDArray[np.float32]:
        """The features of some pictures.

        Returns:
            Shape (n, width), float32, in the order asked for.

        Raises:
            FeaturesError: The store lacks the layer or a picture, or its bytes are not those that
                were written for it.
        """
        if layer not in self.shapes:
            raise FeaturesError(
                f"{self._path}: holds no {layer}, only {', '.join(self.shapes)}; run dvc repro"
            )
        absent = [sha256 for sha256 in sha256s if sha256 not in self._place]
        if absent:
            raise FeaturesError(
                f"{self._path}: lacks {len(absent)} pictures, {absent[0]} first; run dvc repro"
            )
        places = np.array([self._place[sha256] for sha256 in sha256s]).reshape(-1, 2)
        out = np.empty((len(places), int(np.prod(self.shapes[layer]))), dtype=np.float32)
        for index in np.unique(places[:, 0]):
            block = self._read(layer, self._chunks[index])
            if block is None:
                rows = len(self._chunks[index].pictures)
                raise FeaturesError(
                    f"{_file(self._path, layer)}: chunk {index} of {rows} pictures is damaged; run "
                    f"dvc repro --single-item --force features@{self._path.name}, which computes "
                    "what is damaged again"
                )
            inside = places[:, 0] == index
            out[inside] = block[places[inside, 1]]
        return out

    def intact(self, layers: Iterable[str]) -> set[str]:
        """The pictures whose rows of all these layers are as they were written."""
        wanted = list(layers)
        return {
            sha256
            for chunk in self._chunks
            if all(self._bytes(layer, chunk) is not None for layer in wanted)
            for sha256 in chunk.pictures
        }

    def append(self, pictures: Sequence[str], blocks: Mapping[str, Block]) -> None:
        """Adds a chunk at the end.

        Args:
            pictures: sha256 of each.
            blocks: By layer, shape (len(pictures), width), in the recipe's number format.
        """
        parts = {}
        for layer in self.shapes:
            block = np.ascontiguousarray(blocks[layer], dtype=self.recipe["dtype"])
            content = zstandard.ZstdCompressor(level=_LEVEL).compress(block.tobytes())
            with _file(self._path, layer).open("ab") as file:
                parts[layer] = Part(
                    file.tell(), len(content), self._digest(layer, pictures, content)
                )
                file.write(content)
                _settle(file)
        chunk = Chunk(tuple(pictures), parts)
        with (self._path / INDEX).open("a", encoding="utf-8") as index:
            index.write(json.dumps(chunk._asdict()) + "\n")
            _settle(index)
        self._add(chunk)

    def keep(self, pictures: Sequence[str]) -> int:
        """Cuts a growing store off behind what is whole of some pictures, to go on from there.

        Args:
            pictures: sha256 of those that its rows must be, in order.

        Returns:
            How many rows there are.
        """
        rows, kept = 0, 0
        for chunk in self._chunks:
            expected = tuple(pictures[rows : rows + CHUNK])
            whole = all(self._bytes(layer, chunk) is not None for layer in self.shapes)
            if chunk.pictures != expected or not whole:
                break
            rows, kept = rows + len(expected), kept + 1
        chunks, self._chunks, self._place = self._chunks[:kept], [], {}
        for layer in self.shapes:
            end = max((sum(chunk.parts[layer][:2]) for chunk in chunks), default=0)
            with _file(self._path, layer).open("ab") as file:
                file.truncate(end)
        with (self._path / INDEX).open("r+", encoding="utf-8") as index:
            for _ in range(1 + kept):
                index.readline()
            index.truncate(index.tell())
        for chunk in chunks:
            self._add(chunk)
        return rows

    def _add(self, chunk: Chunk) -> None:
        for row, sha256 in enumerate(chunk.pictures):
            self._place[sha256] = (len(self._chunks), row)
        self._chunks.append(chunk)

    def _read(self, layer: str, chunk: Chunk) -> Block | None:
        """A chunk's rows, or None if their bytes are not what the index says."""
        content = self._bytes(layer, chunk)
        if content is None:
            return None
        raw = zstandard.ZstdDecompressor().decompress(content)
        flat: Block = np.frombuffer(raw, dtype=self.recipe["dtype"])
        return flat.reshape(len(chunk.pictures), -1)

    def _bytes(self, layer: str, chunk: Chunk) -> bytes | None:
        start, length, digest = chunk.parts[layer]
        try:
            with _file(self._path, layer).open("rb") as file:
                file.seek(start)
                content = file.read(length)
        except OSError:
            return None
        return content if self._digest(layer, chunk.pictures, content) == digest else None

    def _digest(self, layer: str, pictures: Sequence[str], content: bytes) -> str:
        """sha256 over all that a chunk's bytes stand for, and the bytes themselves."""
        stands_for = [self.recipe, layer, list(self.shapes[layer]), list(pictures)]
        digest = hashlib.sha256(json.dumps(stands_for, sort_keys=True).encode())
        digest.update(content)
        return digest.hexdigest()


def _file(path: Path, layer: str) -> Path:
    return path / f"{layer}.zst"


def _chunk(line: str, shapes: Shapes) -> Chunk | None:
    """A line of the index, or None if it is none: the end of a store that was killed, or damage."""
    try:
        raw = json.loads(line)
        parts = {layer: Part(*raw["parts"][layer]) for layer in shapes}
        numbers = [number for part in parts.values() for number in part[:2]]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            return None
        return Chunk(tuple(map(str, raw["pictures"])), parts)
    except (ValueError, LookupError, TypeError):
        return None


def _settle(file: Any) -> None:
    """Brings what was written to the disk, so that a line is never there before its bytes."""
    file.flush()
    os.fsync(file.fileno())
