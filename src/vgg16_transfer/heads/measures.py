"""Measures of heads, one row each. To add a measure, add a row.

The table decides the columns of ``history.csv`` and ``trials.csv``, the tables of the page and of
the terminal, the metrics of MLflow, and the rows of the model card.
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
_BINS = 15


class Measure(NamedTuple):
    """A number that is computed from labels and logits.

    Attributes:
        name: Name in files and in MLflow.
        function: Labels, shape (n,), and logits, shape (n, classes) → the number.
        title: Title of a figure's axis.
        heading: Column heading of the tables, in per cent. None leaves the measure out of them.
        card: Title of the row of the model card, in per cent. None leaves the measure out of it.
        every_epoch: Whether the measure is computed after every epoch, or only for the finished
            head.
        together: Whether the function also takes the logits of several epochs, shape (epochs, n,
            classes), and then returns a number for each. That is faster.
    """

    name: str
    function: Callable[[Labels, Floats], float | Floats]
    title: str
    heading: str | None = None
    card: str | None = None
    every_epoch: bool = True
    together: bool = False


def _accuracy(labels: Labels, logits: Floats) -> Floats:
    accuracy: Floats = (logits.argmax(axis=-1) == labels).mean(axis=-1)
    return accuracy


def _mean_class_recall(labels: Labels, logits: Floats) -> float:
    """The mean of the classes' recalls. Each class has the same weight."""
    correct = logits.argmax(axis=1) == labels
    counts = np.bincount(labels)
    recalls = np.bincount(labels, weights=correct)[counts > 0] / counts[counts > 0]
    return float(recalls.mean())


def _top5_accuracy(labels: Labels, logits: Floats) -> Floats:
    """Of equal logits, that of the first class counts as larger, as for the predicted class.

    A head that counts votes gives most classes none, so that ties are common.
    """
    true = _of_labels(labels, logits)[..., np.newaxis]
    earlier = np.arange(logits.shape[-1]) < labels[:, np.newaxis]
    better = np.count_nonzero((logits > true) | ((logits == true) & earlier), axis=-1)
    accuracy: Floats = (better < _TOP).mean(axis=-1)
    return accuracy


def _cross_entropy(labels: Labels, logits: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # the result is then not finite
        entropy: Floats = -_of_labels(labels, log_softmax(logits)).mean(axis=-1)
    return entropy


def _of_labels(labels: Labels, values: Floats) -> Floats:
    """The values of the pictures' own classes, of shape (..., n, classes)."""
    where = np.broadcast_to(labels[:, np.newaxis], (*values.shape[:-1], 1))
    return np.take_along_axis(values, where, axis=-1)[..., 0]


def _probabilities(logits: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        probabilities: Floats = np.exp(log_softmax(logits))
    return probabilities


def _brier(labels: Labels, logits: Floats) -> float:
    """Mean squared distance of the probabilities from the truth, from 0 to 2 (Brier 1950)."""
    truth = np.eye(logits.shape[1])[labels]
    return float(np.square(_probabilities(logits) - truth).sum(axis=1).mean())


def _calibration_error(labels: Labels, logits: Floats) -> float:
    """Expected calibration error of the predicted class, in bins of equally many pictures.

    Nixon et al. 2019, Measuring calibration in deep learning, eq. 3 for the top prediction. Bins of
    equal width would leave most bins empty.
    """
    probabilities = _probabilities(logits)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    # Pictures with the same confidence are in one order on every machine.
    order = np.lexsort((correct, confidence))
    bins = np.array_split(order, min(_BINS, len(order)))
    gaps = [len(rows) * abs(confidence[rows].mean() - correct[rows].mean()) for rows in bins]
    return float(sum(gaps) / len(labels))


def _above_chance(labels: Labels, logits: Floats) -> float:
    """Accuracy between chance and 1: 0 for guessing one of the classes, 1 for no mistake."""
    chance = 1 / logits.shape[1]
    return float((_accuracy(labels, logits) - chance) / (1 - chance))


MEASURES = (
    Measure("loss", _cross_entropy, "cross-entropy", together=True),
    Measure("accuracy", _accuracy, "accuracy", "accuracy, %", "test pictures", together=True),
    Measure(
        "mean_class_recall",
        _mean_class_recall,
        "mean class recall",
        "class recall, %",
        "test pictures, mean over classes",
        every_epoch=False,
    ),
    Measure("top5_accuracy", _top5_accuracy, "top-5 accuracy", "top 5, %", together=True),
    Measure(
        "calibration_error",
        _calibration_error,
        "expected calibration error",
        "calibration error, %",
        "expected calibration error",
        every_epoch=False,
    ),
    Measure("brier_score", _brier, "Brier score", every_epoch=False),
    Measure(
        "accuracy_above_chance",
        _above_chance,
        "accuracy, from chance to 1",
        every_epoch=False,
    ),
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
        measure.name: float(measure.function(labels, logits))
        for measure in MEASURES
        if measure.every_epoch or not every_epoch
    }


def measure_epochs(labels: Labels, logits: Floats) -> list[dict[str, float]]:
    """Computes the measures that are needed after every epoch, of several epochs at once.

    The numbers are those of :func:`measure`, to the last bit.

    Args:
        labels: Shape (n,).
        logits: Shape (epochs, n, classes).

    Returns:
        The measures of each epoch, by name.
    """
    columns = [
        measure.function(labels, logits)
        if measure.together
        else [measure.function(labels, epoch) for epoch in logits]
        for measure in MEASURES
        if measure.every_epoch
    ]
    rows = np.array(columns, np.float64).T.tolist()
    return [dict(zip(EVERY_EPOCH, row, strict=True)) for row in rows]
