"""Features of pictures: an array, or a part of a store that is read when it is needed.

A pooling layer is wide: 4,112 pictures of ``block3_pool`` are 3.3 GB of float32. A head needs a few
numbers for each pair of pictures, their inner products, and these are sums over columns. So wide
features stay in the store. A *block*, which is a piece of columns of all training pictures, is read
at a time, and its products are added. Blocks depend on the layer's width alone, so the sums have
the same bits on any machine of one kind, whatever its memory.

All functions here take both. For arrays they are what NumPy does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    import numpy.typing as npt

    from vgg16_transfer.backbones.store import FeatureStore

    Floats = npt.NDArray[np.float32]
    Chosen: TypeAlias = slice | npt.NDArray[np.int64] | npt.NDArray[np.bool_]
    Features: TypeAlias = "Floats | Stored"

IN_MEMORY = 256 << 20
"""Bytes of features as float32 that are read at once. More than that stays in the store."""

AT_ONCE = 64
"""Whole rows of a store that are held at a time."""

_ROWS = 1024  # rows of a block that is multiplied by that of the training pictures

_SHORTEST = 1e-12  # as in keras.layers.UnitNormalization


class Stored:
    """Rows of a store. Indexed by a slice, it reads these rows.

    Attributes:
        shape: Number of pictures, and width.
        unit: Whether rows are scaled to length 1.
    """

    def __init__(
        self, store: FeatureStore, layer: str, sha256s: Sequence[str], *, unit: bool = False
    ) -> None:
        self._store = store
        self._layer = layer
        self._sha256s = list(sha256s)
        self.shape = len(sha256s), math.prod(store.shapes[layer])
        self.unit = unit
        self._inverse: Floats | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Floats:
        features = self._store.rows(self._layer, self._sha256s[rows])
        if self.unit:
            return of_length_one(features)
        return features

    @property
    def pieces(self) -> list[slice]:
        """Columns that can be read without the others."""
        return self._store.pieces(self._layer)

    @property
    def inverse_lengths(self) -> Floats:
        """What scales each row to length 1, shape (n,). Computing them takes a pass."""
        if self._inverse is None:
            squares = np.zeros(len(self))
            for piece in self.pieces:
                for rows in _parts(len(self), _ROWS):
                    squares[rows] += _squares(self.columns(piece, rows))
            self._inverse = _inverse_lengths(squares)
        return self._inverse

    def columns(self, piece: slice, rows: slice = slice(None)) -> Floats:
        """Reads some columns of some rows, which are not scaled."""
        return self._store.rows(self._layer, self._sha256s[rows], piece)

    def know_squares(self, squares: npt.NDArray[np.float64]) -> None:
        """Takes the squares of the rows' lengths, which spares a pass."""
        self._inverse = _inverse_lengths(squares)

    def select(self, rows: Chosen) -> Stored:
        """Some of the rows. Nothing is read."""
        chosen = np.array(self._sha256s, object)[rows].tolist()
        return Stored(self._store, self._layer, chosen, unit=self.unit)

    def of_length_one(self) -> Stored:
        """The same rows, scaled to length 1."""
        return Stored(self._store, self._layer, self._sha256s, unit=True)


def of_store(store: FeatureStore, layer: str, sha256s: Sequence[str]) -> Features:
    """Features of pictures: an array, if it is small, or where they are in the store.

    Args:
        store: Feature store.
        layer: A layer of the store.
        sha256s: sha256 of each picture.

    Raises:
        FeaturesError: The store has no such layer or picture, or an array that is read is damaged.
    """
    store.rows(layer, [])  # the layer is there, or it is said which are
    stored = Stored(store, layer, sha256s)
    small = math.prod(stored.shape) * np.dtype(np.float32).itemsize <= IN_MEMORY
    return store.rows(layer, sha256s) if small else stored


def held(features: Features) -> Floats:
    """All rows as an array."""
    return features[:] if isinstance(features, Stored) else features


def select(features: Features, rows: Chosen) -> Features:
    """Some of the rows."""
    return features.select(rows) if isinstance(features, Stored) else features[rows]


def of_length_one(features: Floats) -> Floats:
    """Rows of an array, scaled to length 1."""
    return features * _inverse_lengths(_squares(features))[:, np.newaxis]


def products(
    features: Features, others: Mapping[str, Features]
) -> tuple[Floats, dict[str, Floats]]:
    """Inner products of features with themselves and with others. Each row is read once.

    Args:
        features: Shape (n, width).
        others: Each of shape (m, width).

    Returns:
        The inner products of all pairs of rows, shape (n, n); and those of the rows of each of the
        others with the rows of ``features``, shape (m, n).
    """
    everything = {"": features, **others}
    stored = [each for each in everything.values() if isinstance(each, Stored)]
    if not stored:
        arrays = {name: held(each) for name, each in others.items()}
        x = held(features)
        return x @ x.T, {name: each @ x.T for name, each in arrays.items()}
    sums = {
        name: np.zeros((len(each), len(features)), np.float32) for name, each in everything.items()
    }
    squares = {name: np.zeros(len(each)) for name, each in everything.items()}
    for piece in stored[0].pieces:
        block = _columns(features, piece)
        sums[""] += block @ block.T
        squares[""] += _squares(block)
        for name, each in others.items():
            for rows in _parts(len(each), _ROWS):
                part = _columns(each, piece, rows)
                sums[name][rows] += part @ block.T
                squares[name][rows] += _squares(part)
    for name, each in everything.items():
        if isinstance(each, Stored):
            each.know_squares(squares[name])
    for name, each in everything.items():
        if isinstance(each, Stored) and each.unit:
            sums[name] *= each.inverse_lengths[:, np.newaxis]
        if isinstance(features, Stored) and features.unit:
            sums[name] *= features.inverse_lengths
    return sums.pop(""), sums


def combined(features: Features, coefficients: Floats) -> Floats:
    """Sums of rows, each times its coefficients: Xᵀ A.

    Args:
        features: X, shape (n, width).
        coefficients: A, shape (n, classes).

    Returns:
        Shape (width, classes).
    """
    if not isinstance(features, Stored):
        return features.T @ coefficients
    if features.unit:
        coefficients = coefficients * features.inverse_lengths[:, np.newaxis]
    out = np.empty((features.shape[1], coefficients.shape[1]), np.float32)
    for piece in features.pieces:
        np.matmul(features.columns(piece).T, coefficients, out=out[piece])
    return out


def times(features: Features, kernel: Floats) -> Floats:
    """The product of features and a kernel of shape (width, classes)."""
    if not isinstance(features, Stored):
        return features @ kernel
    return np.concatenate([features[rows] @ kernel for rows in _parts(len(features), AT_ONCE)])


def _columns(features: Features, piece: slice, rows: slice = slice(None)) -> Floats:
    return features.columns(piece, rows) if isinstance(features, Stored) else features[rows, piece]


def _parts(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _squares(block: Floats) -> npt.NDArray[np.float64]:
    """The sum of the squares of each row."""
    squares: npt.NDArray[np.float64] = np.einsum("ij,ij->i", block, block, dtype=np.float64)
    return squares


def _inverse_lengths(squares: npt.NDArray[np.float64]) -> Floats:
    lengths = np.maximum(np.sqrt(squares), _SHORTEST)
    inverse: Floats = (1 / lengths).astype(np.float32)
    return inverse
