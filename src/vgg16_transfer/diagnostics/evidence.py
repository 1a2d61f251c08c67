"""Numbers that explain a head's predictions: confusions, nearest neighbours, activation maps.

They are about one trial of a study, which is chosen by its setting and not by its accuracy. This
module does not need TensorFlow, which takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vgg16_transfer.head_kinds import HEAD_KINDS
from vgg16_transfer.networks import DENSE_LAYERS

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    import numpy.typing as npt
    import pandas as pd

    from vgg16_transfer.backbones.store import FeatureStore
    from vgg16_transfer.params import Study, Trial

    Floats = npt.NDArray[np.float32]

_BATCH = 128
"""Number of training pictures that are compared at once, to limit memory."""

_TINY = np.float32(1e-6)
"""Smallest length by which Keras divides when it scales features to length 1."""


class Pair(NamedTuple):
    """Test pictures of one class that were predicted as another class.

    Attributes:
        true: True class of the pictures.
        predicted: Predicted class.
        paths: Paths of the pictures.
        of: Number of test pictures of the true class.
    """

    true: str
    predicted: str
    paths: tuple[str, ...]
    of: int


class Neighbour(NamedTuple):
    """A training picture that is near another picture.

    Attributes:
        path: Path of the training picture.
        class_name: Class of the training picture.
        similarity: Cosine similarity of the features of the two pictures.
    """

    path: str
    class_name: str
    similarity: float


def chosen_trial(study: Study, finished: Container[str]) -> Trial | None:
    """Chooses the trial that is explained; None if all trials failed.

    It is the finished trial with the most samples per class, then the first seed, then the last
    value of each other axis.

    Args:
        study: The study.
        finished: Names of the trials that did not fail.
    """

    def order(trial: Trial) -> list[int]:
        indices = {field: values.index(getattr(trial, field)) for field, values in grid.items()}
        return [
            -trial.samples_per_class,
            indices.pop("seed", 0),
            *(-index for index in indices.values()),
        ]

    grid = {axis: study.grid[axis] for axis in study.axes}
    candidates = [trial for trial in study.trials() if study.trial_name(trial) in finished]
    return min(candidates, key=order, default=None)


def chosen_probes(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """Chooses test pictures to show: half of them predicted correctly, if there are enough.

    Both halves are spread evenly over the pictures, so that nobody selects them.

    Args:
        predictions: Rows of ``predictions.csv`` of one trial.
        count: Number of pictures.

    Returns:
        The chosen rows, correct predictions first.
    """
    is_right = (predictions["true"] == predictions["predicted"]).to_numpy()
    right, wrong = np.flatnonzero(is_right), np.flatnonzero(~is_right)
    of_wrong = min(len(wrong), max(count // 2, count - len(right)))
    of_right = min(len(right), count - of_wrong)
    return predictions.iloc[[*_evenly(right, of_right), *_evenly(wrong, of_wrong)]]


def confused_pairs(predictions: pd.DataFrame) -> list[Pair]:
    """Pairs of classes that a head confuses, sorted by count, then by name.

    Args:
        predictions: Rows of ``predictions.csv`` of one trial.
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
    """Training pictures nearest to each given picture by cosine similarity, the nearest first.

    Args:
        trial: The trial; it decides the layer and pooling of the features. For a fine-tuned
            network, the features are those before fine-tuning.
        store: Store of the features.
        sha256s: Hashes of the given pictures.
        train: Rows of a manifest: the training pictures.
        count: Number of training pictures per given picture.

    Raises:
        FeaturesError: The store lacks the layer or a picture, or is damaged.
    """

    def unit(hashes: Sequence[str]) -> Floats:
        rows = pooled(trial, store.rows(trial.layer, hashes), store.shapes[trial.layer])
        return rows / _length(rows)

    queries = unit(sha256s)
    batches = (train["sha256"].iloc[i : i + _BATCH].tolist() for i in range(0, len(train), _BATCH))
    similarity = np.concatenate([queries @ unit(batch).T for batch in batches], axis=1)
    return [
        [
            Neighbour(train["path"].iloc[i], train["class_name"].iloc[i], float(row[i]))
            for i in np.argsort(-row, kind="stable")[:count]
        ]
        for row in similarity
    ]


def pooled(trial: Trial, rows: Floats, shape: Sequence[int]) -> Floats:
    """Applies a head's temperature and pooling to activations, as ``heads.softmax`` does in Keras.

    The features are not scaled to length 1.

    Args:
        trial: The trial with the settings.
        rows: Activations of a layer, shape (n, width).
        shape: Shape of the activations of one picture.

    Returns:
        Shape (n, width), or (n, channels) if the trial averages a pool.
    """
    if trial.layer == "predictions":
        powers = np.exp((rows - rows.max(axis=1, keepdims=True)) / np.float32(trial.temperature))
        rows = powers / powers.sum(axis=1, keepdims=True)
    if trial.pooling == "average":
        rows = rows.reshape(len(rows), -1, shape[-1]).mean(axis=1)
    return rows


def has_maps(trial: Trial) -> bool:
    """Whether activation maps exist.

    The layer must have positions, the head a weight per class and feature, and the network must not
    be fine-tuned.
    """
    linear = HEAD_KINDS[trial.head].linear
    return linear and trial.layer not in DENSE_LAYERS and trial.fine_tune_from == "none"


def activation_map(trial: Trial, activations: Floats, weights: Floats) -> Floats:
    """Share of each position in a class's logit (Zhou et al. 2016, eq. 2).

    The logit is the sum of all shares and the bias. If the head scales features to length 1, the
    shares are scaled in the same way. A flattened pool has separate weights for every position.

    Args:
        trial: The trial with the settings; its layer is convolutional.
        activations: Activations of one picture, shape (height, width, channels).
        weights: The class's column of the head's kernel, shape (height * width * channels,), or
            (channels,) if the trial averages the pool.

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
    features = pooled(trial, activations.reshape(1, -1), activations.shape)
    scaled: Floats = shares / _length(features)
    return scaled


def focus(shares: Floats) -> float:
    """Smallest fraction of positions, 0 to 1, that gives half of the sum of positive shares."""
    positive = np.sort(np.maximum(shares, 0), axis=None)[::-1]
    needed = np.searchsorted(np.cumsum(positive), positive.sum() / 2) + 1
    return float(needed / positive.size)


def _length(rows: Floats) -> Floats:
    length: Floats = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.maximum(length, _TINY, dtype=np.float32)


def _evenly(rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    return rows[np.arange(count) * len(rows) // max(count, 1)]
