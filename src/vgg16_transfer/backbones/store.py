"""Features on disk: one file per layer, to which chunks are appended, and an index of the chunks.

``<layer>.rows`` has the activations of the layer, one *row* per picture, flattened. A row is cut
into *pieces* of columns of at most 64 KiB, and each piece is encoded separately. So what is read is
what is asked for: some pictures, or some columns of them. The first line of ``index.jsonl`` has the
shapes of the layers, the width of their pieces and the *recipe*, which is everything that decides
the numbers of a row. Each further line describes a chunk of rows that were written together: the
sha256 of its pictures and, for each layer, where its bytes start, and the length and digest of each
piece.

A piece's digest covers its bytes, the recipe, layer, shape, picture and columns. So a row is
returned only if its bytes were written for that picture and recipe. Bytes that are missing, changed
or exchanged with another piece are noticed. An edited index is noticed too.

A chunk's line is written after its bytes are on the disk. If the process is killed, only what it
wrote since it last settled the store is lost: see :meth:`FeatureStore.settle`.

Format 1, of earlier versions, is read too. Its files are named ``<layer>.zst``, and all rows of
a chunk are one piece.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zstandard

from vgg16_transfer.artifacts import reading
from vgg16_transfer.backbones.encoding import decode, encode, widened
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import numpy.typing as npt

    Block = npt.NDArray[np.floating[Any]]
    Floats = npt.NDArray[np.float32]
    Shapes = Mapping[str, tuple[int, ...]]

CHUNK = 32
"""Rows that are written together."""

INDEX = "index.jsonl"

FORMAT = 2
"""The format that is written."""

_FORMATS = (1, FORMAT)

_PIECE = 1 << 16
"""Bytes of a piece, at most. Half as many would double the index, which is read whole."""

_DIGEST = 32  # hexadecimal digits of sha256 that are kept of each piece


class FeaturesError(InputError):
    """A store that is missing or damaged, has no such layer or picture, or can't be written."""


class Part(NamedTuple):
    """Position of a chunk's bytes in the file of one layer.

    Attributes:
        start: Start of the bytes.
        lengths: Number of bytes of each piece: all pieces of the first row, then of the next one.
        digests: The digest of each piece; see ``FeatureStore._digest``.
    """

    start: int
    lengths: tuple[int, ...]
    digests: tuple[str, ...]

    @property
    def end(self) -> int:
        """Where the bytes end."""
        return self.start + sum(self.lengths)


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

    def __init__(
        self, path: Path, recipe: dict[str, Any], shapes: Shapes, written: int = FORMAT
    ) -> None:
        self._path = path
        self._format = written
        self.recipe = recipe
        self.shapes = dict(shapes)
        self._chunks: list[Chunk] = []
        self._places: dict[str, tuple[int, int]] = {}  # chunk and row in it, by picture
        self._unsettled: list[Chunk] = []
        self._block: tuple[tuple[str, int], Floats] = (("", -1), np.empty((0, 0), np.float32))
        self._columns: dict[str, list[slice]] = {}
        self._begun: dict[str, hashlib._Hash] = {}
        size = np.dtype(recipe["dtype"]).itemsize
        for layer, shape in self.shapes.items():
            width = int(np.prod(shape))
            old = written != FORMAT
            self._columns[layer] = [slice(0, width)] if old else _pieces(width, size)
            meaning = [self.recipe, layer, list(shape)]
            self._begun[layer] = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())

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
            written = header["format"]
            if written not in _FORMATS:
                raise ValueError(f"its format is {written}, not {FORMAT}")
            np.dtype(header["recipe"]["dtype"])
            shapes = {layer: tuple(map(int, shape)) for layer, shape in header["shapes"].items()}
            store = cls(path, dict(header["recipe"]), shapes, written)
        for line in lines:
            chunk = store._chunk(line)
            if chunk is not None:
                store._add(chunk)
        return store

    @classmethod
    def create(cls, path: Path, recipe: dict[str, Any], shapes: Shapes) -> FeatureStore:
        """Creates an empty store at a path that does not exist."""
        path.mkdir(parents=True)
        header = {"format": FORMAT, "recipe": recipe, "shapes": shapes}
        store = cls(path, recipe, shapes)
        for layer in shapes:
            store._file(layer).touch()
        (path / INDEX).write_text(json.dumps(header) + "\n", encoding="utf-8")
        return cls.open(path)

    def pieces(self, layer: str) -> list[slice]:
        """The columns that can be read without the others, from the first to the last.

        Args:
            layer: A layer of the store.
        """
        return self._columns[layer]

    def rows(self, layer: str, sha256s: Sequence[str], columns: slice = slice(None)) -> Floats:
        """Reads the features of some pictures. Only the pieces that these are in are decoded.

        Args:
            layer: Layer name.
            sha256s: sha256 of each picture.
            columns: Which columns to read.

        Returns:
            Shape (n, columns), float32, in the order of ``sha256s``.

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
        asked = range(int(np.prod(self.shapes[layer])))[columns]
        pieces = [
            (number, piece)
            for number, piece in enumerate(self.pieces(layer))
            if piece.start < asked.stop and asked.start < piece.stop
        ]
        out = np.empty((len(sha256s), len(asked)), np.float32)
        places = [self._places[sha256] for sha256 in sha256s]
        with self._opened(layer) as file:
            # In the order of the file, whatever the order of the pictures is.
            for position in sorted(range(len(places)), key=places.__getitem__):
                for number, piece in pieces:
                    numbers = self._numbers(layer, places[position], number, file)
                    first, last = max(piece.start, asked.start), min(piece.stop, asked.stop)
                    out[position, first - asked.start : last - asked.start] = numbers[
                        first - piece.start : last - piece.start
                    ]
        return out

    def intact(self, layers: Iterable[str]) -> set[str]:
        """The sha256 of the pictures whose rows are undamaged in all these layers."""
        names = list(layers)
        return {
            sha256
            for chunk, undamaged in zip(self._chunks, self._undamaged(names), strict=True)
            for sha256, row_is in zip(chunk.pictures, undamaged, strict=True)
            if row_is
        }

    def append(self, pictures: Sequence[str], blocks: Mapping[str, Block]) -> None:
        """Adds a chunk at the end, and settles the store.

        Args:
            pictures: sha256 of each picture.
            blocks: Features by layer, shape (len(pictures), width), in the recipe's number format.
        """
        self.write(pictures, blocks)
        self.settle()

    def write(self, pictures: Sequence[str], blocks: Mapping[str, Block]) -> None:
        """Adds a chunk at the end, which is lost if the process is killed before :meth:`settle`.

        Args:
            pictures: sha256 of each picture.
            blocks: Features by layer, shape (len(pictures), width), in the recipe's number format.
        """
        parts: dict[str, Part] = {}
        chunk = Chunk(tuple(pictures), parts)
        for layer in self.shapes:
            block = np.asarray(blocks[layer], dtype=self.recipe["dtype"])
            pieces = self.pieces(layer)
            contents = [encode(row[piece]) for row in block for piece in pieces]
            digests = [self._digest(layer, chunk, *each) for each in enumerate(contents)]
            with self._file(layer).open("ab") as file:
                parts[layer] = Part(file.tell(), tuple(map(len, contents)), tuple(digests))
                file.write(b"".join(contents))
        self._unsettled.append(chunk)
        self._add(chunk)

    def settle(self) -> None:
        """Writes what :meth:`write` has added to the disk: first the bytes, then the index.

        So a line of the index never exists before its bytes, whenever the machine stops.
        """
        if not self._unsettled:
            return
        for layer in self.shapes:
            with self._file(layer).open("ab") as file:
                _settle(file)
        with (self._path / INDEX).open("a", encoding="utf-8") as index:
            for chunk in self._unsettled:
                index.write(json.dumps(chunk._asdict(), separators=(",", ":")) + "\n")
            _settle(index)
        self._unsettled = []

    def keep(self, pictures: Sequence[str]) -> int:
        """Keeps the first chunks of an unfinished store, so that the store can be completed.

        The first chunk with other pictures or damaged bytes is removed, and all chunks after it.

        Args:
            pictures: sha256 of the picture of each row of the complete store, in order.

        Returns:
            Number of rows that are kept.
        """
        rows, kept = 0, 0
        for chunk, undamaged in zip(self._chunks, self._undamaged(list(self.shapes)), strict=True):
            expected = tuple(pictures[rows : rows + CHUNK])
            if chunk.pictures != expected or not all(undamaged):
                break
            rows, kept = rows + len(expected), kept + 1
        chunks, self._chunks, self._places = self._chunks[:kept], [], {}
        for layer in self.shapes:
            end = max((chunk.parts[layer].end for chunk in chunks), default=0)
            with self._file(layer).open("ab") as file:
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

    def _undamaged(self, layers: Sequence[str]) -> Iterator[list[bool]]:
        """For each chunk, whether each of its rows has its bytes in all these layers."""
        with ExitStack() as stack:
            files = {layer: stack.enter_context(self._opened(layer)) for layer in layers}
            for chunk in self._chunks:
                rows = [True] * len(chunk.pictures)
                for layer, file in files.items():
                    pieces = range(len(chunk.parts[layer].lengths))
                    whole = [self._bytes(layer, chunk, n, file) is not None for n in pieces]
                    for row in range(len(rows)):
                        rows[row] &= all(whole[n] for n in self._pieces_of(layer, row))
                yield rows

    def _numbers(
        self, layer: str, place: tuple[int, int], number: int, file: BinaryIO | None
    ) -> Floats:
        """Decodes a piece of the row at a place.

        Raises:
            FeaturesError: Its bytes are damaged.
        """
        index, row = place
        chunk = self._chunks[index]
        of_chunk = self._pieces_of(layer, row)[number]
        if self._format == 1 and self._block[0] == (layer, index):
            return self._block[1][row, :]
        content = self._bytes(layer, chunk, of_chunk, file)
        if content is None:
            raise FeaturesError(
                f"{self._file(layer)}: the row of picture {chunk.pictures[row][:12]} is damaged; "
                f"run dvc repro --single-item --force features@{self._dataset}, which computes "
                "what is damaged again"
            )
        dtype = self.recipe["dtype"]
        if self._format == 1:
            block = widened(np.frombuffer(zstandard.ZstdDecompressor().decompress(content), dtype))
            self._block = ((layer, index), block.reshape(len(chunk.pictures), -1))
            return self._block[1][row, :]
        piece = self.pieces(layer)[number]
        return decode(content, dtype, piece.stop - piece.start)

    def _pieces_of(self, layer: str, row: int) -> range:
        """Numbers of a row's pieces among the pieces of its chunk."""
        if self._format == 1:
            return range(1)
        count = len(self.pieces(layer))
        return range(row * count, (row + 1) * count)

    def _bytes(self, layer: str, chunk: Chunk, piece: int, file: BinaryIO | None) -> bytes | None:
        """The bytes of a piece, or None if they are damaged."""
        part = chunk.parts[layer]
        if file is None:
            return None
        try:
            file.seek(part.start + sum(part.lengths[:piece]))
            content = file.read(part.lengths[piece])
        except (OSError, ValueError, OverflowError, MemoryError):  # places that no file has
            return None
        return (
            content if self._digest(layer, chunk, piece, content) == part.digests[piece] else None
        )

    def _digest(self, layer: str, chunk: Chunk, piece: int, content: bytes) -> str:
        """sha256 over the recipe, the layer, its shape, the pictures, the columns and the bytes."""
        if self._format == 1:
            meaning = [self.recipe, layer, list(self.shapes[layer]), list(chunk.pictures)]
            digest = hashlib.sha256(json.dumps(meaning, sort_keys=True).encode())
            digest.update(content)
            return digest.hexdigest()
        row, number = divmod(piece, len(self.pieces(layer)))
        digest = self._begun[layer].copy()
        digest.update(f"{chunk.pictures[row]} {number} ".encode())
        digest.update(content)
        return digest.hexdigest()[:_DIGEST]

    @contextmanager
    def _opened(self, layer: str) -> Iterator[BinaryIO | None]:
        """The file of a layer, or None if there is none that can be read."""
        try:
            file = self._file(layer).open("rb")
        except OSError:
            yield None
            return
        with file:
            yield file

    def _file(self, layer: str) -> Path:
        return self._path / f"{layer}.{'zst' if self._format == 1 else 'rows'}"

    def _chunk(self, line: str) -> Chunk | None:
        """The chunk of a line of the index. None if the line is incomplete or damaged."""
        try:
            raw = json.loads(line)
            pictures = tuple(map(str, raw["pictures"]))
            parts = {}
            for layer in self.shapes:
                start, lengths, digests = raw["parts"][layer]
                if self._format == 1:
                    lengths, digests = [lengths], [digests]
                if not all(isinstance(n, int) and n >= 0 for n in (start, *lengths)):
                    return None
                expected = self._pieces_of(layer, len(pictures) - 1).stop if pictures else 0
                if not len(lengths) == len(digests) == expected:
                    return None
                parts[layer] = Part(start, tuple(lengths), tuple(map(str, digests)))
            return Chunk(pictures, parts)
        except (ValueError, LookupError, TypeError):
            return None


def _pieces(width: int, size: int) -> list[slice]:
    """Cuts a row into pieces of about the same number of columns."""
    count = max(1, -(-width * size // _PIECE))
    ends = [width * number // count for number in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _settle(file: Any) -> None:
    """Flushes a file to disk, so that a line of the index never exists before its bytes."""
    file.flush()
    os.fsync(file.fileno())
