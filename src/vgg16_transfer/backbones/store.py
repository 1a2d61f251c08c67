"""Features on disk: one file per layer, to which chunks are appended, and an index of the chunks.

``<layer>.zst`` has chunks of rows. Each chunk is compressed separately. A row is one picture's
activations, flattened. The first line of ``index.jsonl`` has the shapes of the layers and the
*recipe*, which is everything that decides the numbers of a row. Each further line describes a
chunk: the sha256 of its pictures and, for each layer, the start, length and digest of its bytes.

A chunk's digest covers its bytes, the recipe, layer, shape and pictures. So a row is returned only
if its bytes were written for that picture and recipe. Bytes that are missing, changed or exchanged
with another chunk are noticed. An edited index is noticed too.

A chunk's line is written after its bytes. If the process is killed, at most one chunk is lost.
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
"""Rows per chunk. If a run is killed, at most so many pictures are lost."""

INDEX = "index.jsonl"

_FORMAT = 1
_LEVEL = 1  # a higher level takes twice the time and saves 1 % of the bytes


class FeaturesError(InputError):
    """A store that is missing or damaged, has no such layer or picture, or can't be written."""


class Part(NamedTuple):
    """Position of a chunk's bytes in the file of one layer.

    Attributes:
        start: Start of the bytes.
        length: Number of bytes.
        digest: See ``FeatureStore._digest``.
    """

    start: int
    length: int
    digest: str


class Chunk(NamedTuple):
    """Rows that are written together.

    Attributes:
        pictures: sha256 of each row's picture.
        parts: Position of the chunk's bytes, by layer.
    """

    pictures: tuple[str, ...]
    parts: dict[str, Part]


class FeatureStore:
    """A store on disk, complete or unfinished.

    Attributes:
        recipe: Everything that decides the numbers of a row, except its picture.
        shapes: Shape of one picture's activations, by layer: (height, width, channels) or (units,).
        ids: sha256 of each row's picture.
    """

    def __init__(self, path: Path, recipe: dict[str, Any], shapes: Shapes) -> None:
        self._path = path
        self.recipe = recipe
        self.shapes = dict(shapes)
        self._chunks: list[Chunk] = []
        self._places: dict[str, tuple[int, int]] = {}  # chunk and row in it, by picture

    @property
    def ids(self) -> list[str]:
        """The sha256 of the pictures, in the order of their rows."""
        return [sha256 for chunk in self._chunks for sha256 in chunk.pictures]

    @property
    def _dataset(self) -> str:
        """The dataset's name. Stores of other networks than the default are folders of it."""
        nested = (self._path.parent / INDEX).exists()
        return (self._path.parent if nested else self._path).name

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Opens the store at a path. Lines of its index that can't be read are ignored.

        Raises:
            FeaturesError: The store is missing, or the first line of its index is damaged.
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
        """Creates an empty store at a path that does not exist."""
        path.mkdir(parents=True)
        header = {"format": _FORMAT, "recipe": recipe, "shapes": shapes}
        for layer in shapes:
            _file(path, layer).touch()
        (path / INDEX).write_text(json.dumps(header) + "\n", encoding="utf-8")
        return cls.open(path)

    def rows(self, layer: str, sha256s: Sequence[str]) -> npt.NDArray[np.float32]:
        """Reads the features of some pictures.

        Args:
            layer: Layer name.
            sha256s: sha256 of each picture.

        Returns:
            Shape (n, width), float32, in the order of ``sha256s``.

        Raises:
            FeaturesError: The store has no such layer or picture, or the bytes of a picture are
                damaged.
        """
        if layer not in self.shapes:
            raise FeaturesError(
                f"{self._path}: holds no {layer}, only {', '.join(self.shapes)}; run dvc repro"
            )
        missing = [sha256 for sha256 in sha256s if sha256 not in self._places]
        if missing:
            raise FeaturesError(
                f"{self._path}: lacks {len(missing)} pictures, {missing[0]} first; run dvc repro"
            )
        places = np.array([self._places[sha256] for sha256 in sha256s]).reshape(-1, 2)
        out = np.empty((len(places), int(np.prod(self.shapes[layer]))), dtype=np.float32)
        for index in np.unique(places[:, 0]):
            block = self._read(layer, self._chunks[index])
            if block is None:
                rows = len(self._chunks[index].pictures)
                raise FeaturesError(
                    f"{_file(self._path, layer)}: chunk {index} of {rows} pictures is damaged; run "
                    f"dvc repro --single-item --force features@{self._dataset}, which computes "
                    "what is damaged again"
                )
            in_chunk = places[:, 0] == index
            out[in_chunk] = block[places[in_chunk, 1]]
        return out

    def intact(self, layers: Iterable[str]) -> set[str]:
        """The sha256 of the pictures whose rows are undamaged in all these layers."""
        names = list(layers)
        return {
            sha256
            for chunk in self._chunks
            if all(self._bytes(layer, chunk) is not None for layer in names)
            for sha256 in chunk.pictures
        }

    def append(self, pictures: Sequence[str], blocks: Mapping[str, Block]) -> None:
        """Adds a chunk at the end.

        Args:
            pictures: sha256 of each picture.
            blocks: Features by layer, shape (len(pictures), width), in the recipe's number format.
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
        """Keeps the first chunks of an unfinished store, so that the store can be completed.

        The first chunk with other pictures or damaged bytes is removed, and all chunks after it.

        Args:
            pictures: sha256 of the picture of each row of the complete store, in order.

        Returns:
            Number of rows that are kept.
        """
        rows, kept = 0, 0
        for chunk in self._chunks:
            expected = tuple(pictures[rows : rows + CHUNK])
            intact = all(self._bytes(layer, chunk) is not None for layer in self.shapes)
            if chunk.pictures != expected or not intact:
                break
            rows, kept = rows + len(expected), kept + 1
        chunks, self._chunks, self._places = self._chunks[:kept], [], {}
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
            self._places[sha256] = (len(self._chunks), row)
        self._chunks.append(chunk)

    def _read(self, layer: str, chunk: Chunk) -> Block | None:
        """The rows of a chunk, or None if their bytes are damaged."""
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
        except (OSError, ValueError, OverflowError, MemoryError):  # places that no file has
            return None
        return content if self._digest(layer, chunk.pictures, content) == digest else None

    def _digest(self, layer: str, pictures: Sequence[str], content: bytes) -> str:
        """sha256 over the recipe, the layer, its shape, the chunk's pictures and its bytes."""
        meaning = [self.recipe, layer, list(self.shapes[layer]), list(pictures)]
        digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
        digest.update(content)
        return digest.hexdigest()


def _file(path: Path, layer: str) -> Path:
    return path / f"{layer}.zst"


def _chunk(line: str, shapes: Shapes) -> Chunk | None:
    """The chunk of a line of the index. None if the line is incomplete or damaged."""
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
    """Flushes a file to disk, so that a line of the index never exists before its bytes."""
    file.flush()
    os.fsync(file.fileno())
