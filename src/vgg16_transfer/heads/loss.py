"""The loss of a head: from labels, from a teacher's softened probabilities, or from both.

The loss is α·T²·CE(teacher at T, head at T) + (1-α)·CE(labels, head at 1) (Hinton, Vinyals & Dean
2015, section 2). Gradients are with respect to the head's logits. The factor T² is needed because
the gradients of the soft part shrink like 1/T².
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

UNLABELLED = -1
"""The label of a picture that only the teacher labels."""


class Soft(NamedTuple):
    """The soft part of the loss, which compares the head with a teacher.

    Attributes:
        logits: Logits of the teacher, shape (n, classes).
        temperature: T in the loss.
        weight: α in the loss.
    """

    logits: Floats
    temperature: float
    weight: float


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Softmax of z / T, for each row."""
    exponentials = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    probabilities: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def log_softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Logarithm of the softmax of z / T, for each row, without overflow or logarithm of 0.

    Args:
        logits: Shape (..., classes).
        temperature: T.
    """
    shifted = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    logarithms: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return logarithms


def loss(logits: Floats, labels: npt.NDArray[np.int64], soft: Soft | None = None) -> float:
    """The loss of a batch.

    The soft part is the mean over all pictures, the hard part over the labelled pictures.

    Args:
        logits: Logits of the head, shape (n, classes).
        labels: Shape (n,); ``UNLABELLED`` for pictures without a label.
        soft: Logits of the teacher for the same pictures, or None without a teacher.
    """
    labelled = np.flatnonzero(labels != UNLABELLED)
    entropies = -log_softmax(logits[labelled])[np.arange(len(labelled)), labels[labelled]]
    hard = float(entropies.mean()) if len(labelled) else 0.0
    if soft is None:
        return hard
    targets = softmax(soft.logits, soft.temperature)
    cross_entropy = -(targets * log_softmax(logits, soft.temperature)).sum(axis=1).mean()
    return soft.weight * soft.temperature**2 * float(cross_entropy) + (1 - soft.weight) * hard


def gradient(logits: Floats, labels: npt.NDArray[np.int64], soft: Soft | None = None) -> Floats:
    """The gradient of :func:`loss` with respect to the logits, shape (n, classes)."""
    labelled = np.flatnonzero(labels != UNLABELLED)
    residual = np.zeros_like(logits)
    if len(labelled):
        residual[labelled] = softmax(logits[labelled])
        residual[labelled, labels[labelled]] -= 1
        residual /= len(labelled)
    if soft is None:
        return residual
    difference = softmax(logits, soft.temperature) - softmax(soft.logits, soft.temperature)
    scale = soft.weight * soft.temperature / len(logits)
    return np.float32(1 - soft.weight) * residual + np.float32(scale) * difference
