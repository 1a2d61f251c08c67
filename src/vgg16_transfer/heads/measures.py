"""How good a head is: one row per measure. Adding a measure is adding a row.

From the table follow the columns of ``history.csv`` and ``trials.csv``, the tables of the page and
of the terminal, the metrics of MLflow and DVC, and the rows of the model card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vgg16_transfer.heads.loss import log_softmax

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int64]

_TOP = 5


class Measure(NamedTuple):
    """A number that says how good logits are.

    Attributes:
        name: Its name in files and in MLflow.
        function: Labels, shape (n,), and logits, shape (n, classes) → the number.
        title: What a figure's axis says.
        heading: Column of the tables, in per cent; None keeps it out of them.
        card: Row of the model card, in per cent, and of DVC's metrics; None keeps it out of both.
        every_epoch: Whether it is computed after every epoch, or only for the finished head.
    """

    name: str
    function: Callable[[Labels, Floats], float]
    title: str
    heading: str | None = None
    card: str | None = None
    every_epoch: bool = True


def _accuracy(labels: Labels, logits: Floats) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def _mean_class_recall(labels: Labels, logits: Floats) -> float:
    """Each class counts alike, however many pictures it has."""
    right = logits.argmax(axis=1) == labels
    counts = np.bincount(labels)
    recalls = np.bincount(labels, weights=right)[counts > 0] / counts[counts > 0]
    return float(recalls.mean())


def _top5_accuracy(labels: Labels, logits: Floats) -> float:
    of_true = logits[np.arange(len(labels)), labels]
    better = np.count_nonzero(logits > of_true[:, np.newaxis], axis=1)
    return float((better < _TOP).mean())


def _cross_entropy(labels: Labels, logits: Floats) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite shows it
        return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


MEASURES = (
    Measure("accuracy", _accuracy, "accuracy", "accuracy, %", "test pictures"),
    Measure(
        "mean_class_recall",
        _mean_class_recall,
        "mean class recall",
        "class recall, %",
        "test pictures, mean over classes",
        every_epoch=False,
    ),
    Measure("top5_accuracy", _top5_accuracy, "top-5 accuracy", "top 5, %"),
    Measure("loss", _cross_entropy, "cross-entropy"),
)
"""In the order of columns. All are measured for every role, as ``<role>_<name>``."""

NAMES = tuple(measure.name for measure in MEASURES)
EVERY_EPOCH = tuple(measure.name for measure in MEASURES if measure.every_epoch)


def measure(labels: Labels, logits: Floats, *, every_epoch: bool = False) -> dict[str, float]:
    """The measures of logits.

    Of logits that are not finite the loss is not either; the accuracies then say nothing.

    Args:
        labels: Shape (n,).
        logits: Shape (n, classes).
        every_epoch: Only those that are computed after every epoch.
    """
    return {
        measure.name: measure.function(labels, logits)
        for measure in MEASURES
        if measure.every_epoch or not every_epoch
    }
