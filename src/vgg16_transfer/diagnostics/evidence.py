"""What a head goes by, in numbers: what it confuses, what lies near, and what each position adds.

All of it is about one trial of a study, which is chosen by its setting and never by what it
reaches. Nothing here needs TensorFlow, which takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vgg16_transfer.params import DENSE_LAYERS, Trial

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    import numpy.typing as npt
    import pandas as pd

    from vgg16_transfer.backbones.store import FeatureStore
    from vgg16_transfer.params import Study

    Floats = npt.NDArray[np.float32]

_BATCH = 128
"""Training pictures that are compared at once: all of a wide pool's need not fit in memory."""

_TINY = np.float32(1e-6)
"""Keras takes features for no shorter than this when it scales them to length 1."""


class Pair(NamedTuple):
    """Two classes that met.

    Attributes:
        true: The pictures' own class.
        predicted: What they were taken for.
        paths: Theirs.
        of: How many test pictures their class has.
    """

    true: str
    predicted: str
    paths: tuple[str, ...]
    of: int


class Neighbour(NamedTuple):
    """A training picture near another picture.

    Attributes:
        path: Its path.
        class_name: Its class.
        similarity: The cosine of the angle between the features of the two.
    """

    path: str
    class_name: str
    similarity: float


def chosen_trial(study: Study, finished: Container[str]) -> Trial | None:
    """The trial that is shown: the first seed, most samples per class, the last of all else.

    If that one failed, it is the next by the same order, and None if all of them did.

    Args:
        study: Of which one trial is shown.
        finished: Names of the trials that did not fail.
    """

    def order(trial: Trial) -> list[int]:
        places = {field: values.index(getattr(trial, field)) for field, values in grid.items()}
        return [
            -trial.samples_per_class,
            places.pop("seed"),
            *(-place for place in places.values()),
        ]

    grid = study.grid
    candidates = [trial for trial in study.trials() if study.trial_name(trial) in finished]
    return min(candidates, key=order, default=None)


def chosen_probes(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Test pictures to show: half of them recognised, as far as there are enough of both kinds.

    Both halves are spread evenly over the pictures as they come, so nobody picks the pretty ones.

    Args:
        predictions: One trial's rows of ``predictions.csv``.
        count: How many.

    Returns:
        Some of the rows, those that are right first.
    """
    is_right = (predictions["true"] == predictions["predicted"]).to_numpy()
    right, wrong = np.flatnonzero(is_right), np.flatnonzero(~is_right)
    of_wrong = min(len(wrong), max(count // 2, count - len(right)))
    of_right = min(len(right), count - of_wrong)
    return predictions.iloc[[*_evenly(right, of_right), *_evenly(wrong, of_wrong)]]


def confused_pairs(predictions: pd.DataFrame) -> list[Pair]:
    """The pairs of classes that a head confuses, most often first, and then by the alphabet.

    Args:
        predictions: One trial's rows of ``predictions.csv``.
    """
    size = predictions["true"].value_counts()
    wrong = predictions[predictions["true"] != predictions["predicted"]]
    pairs = [
        Pair(str(true), str(predicted), tuple(rows["path"]), int(size[str(true)]))
        for (true, predicted), rows in wrong.groupby(["true", "predicted"])
    ]
    return sorted(pairs, key=lambda pair: (-len(pair.paths), pair))


def nearest(
    trial: Trial, store: FeatureStore, sha256s: Sequence[str], train: pd.DataFrame, count: int
) -> list[list[Neighbour]]:
    """The training pictures nearest to some pictures by cosine similarity, the nearest first.

    Args:
        trial: Decides the features; of a network that was fine-tuned, those that it began with.
        store: Where they are.
        sha256s: Of the pictures.
        train: Rows of a manifest.
        count: How many training pictures for each.

    Raises:
        FeaturesError: The store lacks the layer or a picture, or is damaged.
    """

    def unit(of: Sequence[str]) -> Floats:
        rows = pooled(trial, store.rows(trial.layer, of), store.shapes[trial.layer])
        return rows / _length(rows)

    wanted = unit(sha256s)
    batches = (train["sha256"].iloc[i : i + _BATCH].tolist() for i in range(0, len(train), _BATCH))
    similarity = np.concatenate([wanted @ unit(batch).T for batch in batches], axis=1)
    return [
        [
            Neighbour(train["path"].iloc[i], train["class_name"].iloc[i], float(row[i]))
            for i in np.argsort(-row, kind="stable")[:count]
        ]
        for row in similarity
    ]


def pooled(trial: Trial, rows: Floats, shape: Sequence[int]) -> Floats:
    """Features as a head weighs them, but for their length: what ``heads.softmax`` does in Keras.

    Args:
        trial: The setting.
        rows: A layer's activations, shape (n, width).
        shape: Of one picture's.

    Returns:
        Shape (n, width), or (n, channels) where the trial averages a pool.
    """
    if trial.layer == "predictions":
        powers = np.exp((rows - rows.max(axis=1, keepdims=True)) / np.float32(trial.temperature))
        rows = powers / powers.sum(axis=1, keepdims=True)
    if trial.pooling == "average":
        rows = rows.reshape(len(rows), -1, shape[-1]).mean(axis=1)
    return rows


def has_maps(trial: Trial) -> bool:
    """Whether what a head weighs has positions, and is what the store holds."""
    return trial.layer not in DENSE_LAYERS and trial.fine_tune_from == "none"


def activation_map(trial: Trial, activations: Floats, weights: Floats) -> Floats:
    """What each position adds to a class's logit (Zhou et al. 2016, eq. 2).

    The positions' shares and the bias sum to the logit: where the head scales features to length 1,
    so is the map. A flattened pool has weights of its own for every position.

    Args:
        trial: The setting; its layer is convolutional.
        activations: One picture's, shape (height, width, channels).
        weights: The class's column of the head's kernel, shape (height * width * channels,), or
            (channels,) where the trial averages the pool.

    Returns:
        Shape (height, width).
    """
    height, width, channels = activations.shape
    if trial.pooling == "average":
        shares: Floats = activations @ weights / np.float32(height * width)
    else:
        shares = (activations * weights.reshape(height, width, channels)).sum(axis=2)
    if trial.normalise == "none":
        return shares
    weighed = pooled(trial, activations.reshape(1, -1), activations.shape)
    scaled: Floats = shares / _length(weighed)
    return scaled


def focus(shares: Floats) -> float:
    """The part of a map's positions that half of what speaks for the class comes from, 0 to 1."""
    positive = np.sort(np.maximum(shares, 0), axis=None)[::-1]
    needed = np.searchsorted(np.cumsum(positive), positive.sum() / 2) + 1
    return float(needed / positive.size)


def _length(rows: Floats) -> Floats:
    length: Floats = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.maximum(length, _TINY, dtype=np.float32)


def _evenly(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    return rows[np.arange(count) * len(rows) // max(count, 1)]
