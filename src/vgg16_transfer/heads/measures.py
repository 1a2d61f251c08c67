"""Measures of heads, one row each. To add a measure, add a row.

The table decides the columns of ``history.csv`` and ``trials.csv``, the tables of the page and of
the terminal, the metrics of MLflow and DVC, and the rows of the model card.
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
    """A number that is computed from labels and logits.

    Attributes:
        name: Name in files and in MLflow.
        function: Labels, shape (n,), and logits, shape (n, classes) → the number.
        title: Title of a figure's axis.
        heading: Column heading of the tables, in per cent. None leaves the measure out of them.
        card: Title of the row of the model card, in per cent. Such measures are also among DVC's
            metrics. None leaves the measure out of both.
        every_epoch: Whether the measure is computed after every epoch, or only for the finished
            head.
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
    """The mean of the classes' recalls. Each class has the same weight."""
    correct = logits.argmax(axis=1) == labels
    counts = np.bincount(labels)
    recalls = np.bincount(labels, weights=correct)[counts > 0] / counts[counts > 0]
    return float(recalls.mean())


def _top5_accuracy(labels: Labels, logits: Floats) -> float:
    true_logits = logits[np.arange(len(labels)), labels]
    better = np.count_nonzero(logits > true_logits[:, np.newaxis], axis=1)
    return float((better < _TOP).mean())


def _cross_entropy(labels: Labels, logits: Floats) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # the result is then not finite
        return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


MEASURES = (
    Measure("loss", _cross_entropy, "cross-entropy"),
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
)
"""The measures in the order of columns. A role's measure is named ``<role>_<name>``."""

NAMES = tuple(measure.name for measure in MEASURES)
EVERY_EPOCH = tuple(measure.name for measure in MEASURES if measure.every_epoch)


def measure(labels: Labels, logits: Floats, *, every_epoch: bool = False) -> dict[str, float]:
    """Computes measures, by name.

    If logits are not finite, the loss is not finite, and the accuracies have no meaning.

    Args:
        labels: Shape (n,).
        logits: Shape (n, classes).
        every_epoch: Whether to compute only the measures that are needed after every epoch.
    """
    return {
        measure.name: measure.function(labels, logits)
        for measure in MEASURES
        if measure.every_epoch or not every_epoch
    }
