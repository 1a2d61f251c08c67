"""Features on disk: a Zarr v3 group that can be killed at any moment and continued.

``ids`` holds the sha256 of each row's picture; every layer is an array of one flattened row per
picture, in chunks of ``CHUNK`` rows. A row exists once its id is written, and a chunk's ids are
written after its rows, in one rename. Checksums turn a flipped bit into rows that are missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Block = npt.NDArray[np.floating[Any]]

CHUNK = 32
"""Rows per chunk: what a killed run loses at most, in pictures."""

_SHA256_BYTES = 32
_NO_ID = bytes(_SHA256_BYTES).hex()


class FeaturesError(InputError):
    """A store that is missing, lacks what is asked of it, or can't be written."""


class FeatureStore:
    """A store on disk, whole or still growing.

    Attributes:
        recipe: All that decides the numbers of a row, other than its picture.
        shapes: Of one picture's activations, by layer.
        ids: sha256 of each row's picture; zeros where the row does not exist yet.
        row_of: Row by sha256, for rows that exist.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self._path = path
        self._group = group
        attributes = group.attrs.asdict()
        self.recipe = cast("dict[str, Any]", attributes["recipe"])
        self.shapes = {
            layer: tuple(shape) for layer, shape in cast("Any", attributes["shapes"]).items()
        }
        self.ids = [row.tobytes().hex() for row in group["ids"][:]]
        self.row_of = {sha256: row for row, sha256 in enumerate(self.ids) if sha256 != _NO_ID}

    @classmethod
    def open(cls, path: Path) -> FeatureStore | None:
        """The store at a path, or None if there is none, or none that can be read."""
        try:
            return cls(path, zarr.open_group(path, mode="r+", zarr_format=3))
        except (OSError, ValueError, KeyError, RuntimeError):
            return None

    @classmethod
    def create(
        cls, path: Path, recipe: dict[str, Any], shapes: dict[str, tuple[int, ...]], rows: int
    ) -> FeatureStore:
        """An empty store with room for some rows; replaces what stood at the path."""
        attributes = {"recipe": recipe, "shapes": {k: list(shape) for k, shape in shapes.items()}}
        group = zarr.create_group(path, zarr_format=3, overwrite=True, attributes=attributes)
        _create_array(group, "ids", (rows, _SHA256_BYTES), "uint8")
        for layer, shape in shapes.items():
            _create_array(group, layer, (rows, int(np.prod(shape))), recipe["dtype"])
        return cls(path, group)

    def rows(self, layer: str, sha256s: Sequence[str]) -> npt.NDArray[np.float32]:
        """The features of some pictures.

        Returns:
            Shape (n, width), float32, in the order asked for.

        Raises:
            FeaturesError: The store lacks the layer or a picture, or is damaged.
        """
        if layer not in self.shapes:
            raise FeaturesError(
                f"{self._path}: holds no {layer}, only {', '.join(self.shapes)}; run dvc repro"
            )
        absent = [sha256 for sha256 in sha256s if sha256 not in self.row_of]
        if absent:
            raise FeaturesError(
                f"{self._path}: lacks {len(absent)} pictures, {absent[0]} first; run dvc repro"
            )
        rows = np.array([self.row_of[sha256] for sha256 in sha256s])
        out = np.empty((len(rows), int(np.prod(self.shapes[layer]))), dtype=np.float32)
        for start in np.unique(rows // CHUNK * CHUNK):
            block = self.read(layer, int(start))
            if block is None:
                raise FeaturesError(
                    f"{self._path}: rows {start} to {start + CHUNK} of {layer} are damaged; "
                    f"run dvc repro, which computes them again"
                )
            inside = rows // CHUNK * CHUNK == start
            out[inside] = block[rows[inside] - start]
        return out

    def copy(self, start: int, ids: Sequence[str], sources: Sequence[FeatureStore]) -> list[int]:
        """Begins the chunk at row ``start`` with what other stores hold of it.

        Args:
            start: A multiple of ``CHUNK``.
            ids: Of the chunk's pictures.
            sources: Stores of the same recipe.

        Returns:
            Which of the chunk's rows, counted from ``start``, are in none of the sources. If none
            is missing, the chunk is whole.
        """
        blocks = self._empty(len(ids))
        missing = set(range(len(ids)))
        for source in sources:
            if not set(self.shapes) <= set(source.shapes):
                continue
            theirs = {row: source.row_of[ids[row]] for row in missing if ids[row] in source.row_of}
            for chunk in sorted({row // CHUNK * CHUNK for row in theirs.values()}):
                found = {layer: source.read(layer, chunk) for layer in blocks}
                here = {
                    ours: row - chunk
                    for ours, row in theirs.items()
                    if chunk <= row < chunk + CHUNK
                }
                for layer, block in found.items():
                    if block is not None:
                        blocks[layer][list(here)] = block[list(here.values())]
                if all(block is not None for block in found.values()):
                    missing -= set(here)
        self._write(start, blocks)
        if not missing:
            self._commit(start, ids)
        return sorted(missing)

    def fill(
        self, start: int, ids: Sequence[str], rows: Sequence[int], values: dict[str, Block]
    ) -> None:
        """Completes the chunk that :meth:`copy` began.

        Args:
            start: A multiple of ``CHUNK``.
            ids: Of the chunk's pictures.
            rows: What :meth:`copy` returned.
            values: By layer, shape (len(rows), width).
        """
        blocks = self._empty(len(ids))
        for layer, block in blocks.items():
            if len(rows) < len(ids):
                block[:] = self._group[layer][start : start + len(ids)]
            block[rows] = values[layer]
        self._write(start, blocks)
        self._commit(start, ids)

    def _empty(self, rows: int) -> dict[str, Block]:
        return {
            layer: np.zeros((rows, int(np.prod(shape))), dtype=self.recipe["dtype"])
            for layer, shape in self.shapes.items()
        }

    def read(self, layer: str, start: int) -> Block | None:
        """A chunk of a layer, or None if its bytes are damaged."""
        try:
            return np.asarray(self._group[layer][start : start + CHUNK])
        except (OSError, ValueError, RuntimeError):
            return None

    def _write(self, start: int, blocks: dict[str, Block]) -> None:
        for layer, block in blocks.items():
            self._group[layer][start : start + len(block)] = block

    def _commit(self, start: int, ids: Sequence[str]) -> None:
        raw = np.frombuffer(bytes.fromhex("".join(ids)), dtype=np.uint8)
        self._group["ids"][start : start + len(ids)] = raw.reshape(len(ids), _SHA256_BYTES)
        self.ids[start : start + len(ids)] = ids
        self.row_of |= {sha256: start + row for row, sha256 in enumerate(ids)}


def _create_array(group: zarr.Group, name: str, shape: tuple[int, int], dtype: str) -> None:
    group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=(CHUNK, shape[1]),
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
        # A chunk of zeros is a result, too: absent, it could not be told from a missing file.
        config={"write_empty_chunks": True},
    )
