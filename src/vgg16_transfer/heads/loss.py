"""What a head is taught with: labels, a teacher's softened probabilities, or both.

The loss is α·T²·CE(teacher at T, head at T) + (1-α)·CE(labels, head at 1) (Hinton, Vinyals & Dean
2015, section 2). Gradients are with respect to the head's logits, and those of the soft part shrink
like 1/T²: hence the factor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

UNLABELLED = -1
"""Stands for the label of a picture that only the teacher labels."""


class Soft(NamedTuple):
    """What a teacher says.

    Attributes:
        logits: The teacher's, shape (n, classes).
        temperature: T.
        weight: α.
    """

    logits: Floats
    temperature: float
    weight: float


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """The softmax of z / T, row by row."""
    exponentials = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def log_softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Its logarithm, without overflow and without the logarithm of 0."""
    shifted = (logits - logits.max(axis=1, keepdims=True)) / temperature
    logarithms: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logarithms


def loss(logits: Floats, labels: npt.NDArray[np.int64], soft: Soft | None = None) -> float:
    """The loss of a batch: the mean over its pictures, of the labels over those that have one.

    Args:
        logits: The head's, shape (n, classes).
        labels: Shape (n,); ``UNLABELLED`` where there is none.
        soft: What the teacher says of the same pictures, if there is one.
    """
    labelled = np.flatnonzero(labels != UNLABELLED)
    surprise = -log_softmax(logits[labelled])[np.arange(len(labelled)), labels[labelled]]
    hard = float(surprise.mean()) if len(labelled) else 0.0
    if soft is None:
        return hard
    targets = softmax(soft.logits, soft.temperature)
    crossed = -(targets * log_softmax(logits, soft.temperature)).sum(axis=1).mean()
    return soft.weight * soft.temperature**2 * float(crossed) + (1 - soft.weight) * hard


def gradient(logits: Floats, labels: npt.NDArray[np.int64], soft: Soft | None = None) -> Floats:
    """The derivative of :func:`loss` by the logits, shape (n, classes)."""
    labelled = np.flatnonzero(labels != UNLABELLED)
    residual = np.zeros_like(logits)
    if len(labelled):
        residual[labelled] = softmax(logits[labelled])
        residual[labelled, labels[labelled]] -= 1
        residual /= len(labelled)
    if soft is None:
        return residual
    apart = softmax(logits, soft.temperature) - softmax(soft.logits, soft.temperature)
    scale = soft.weight * soft.temperature / len(logits)
    return np.float32(1 - soft.weight) * residual + np.float32(scale) * apart
