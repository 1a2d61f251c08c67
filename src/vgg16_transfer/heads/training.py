"""How one head is trained: softmax regression by mini-batches, every epoch measured.

A kernel W that starts at zero and follows gradients of pictures never leaves the span of the
training features: each step adds a sum of feature vectors, and momentum and weight decay only scale
what is there. So W = Xᵀ A, with a row of coefficients A for each training picture, and the step
W ← W - η Xᵀ R is the step A ← A - η R. Pools are wide (up to 200,704) and pictures few, so ``sgd``
trains A on the n x n inner products X Xᵀ, with the steps that training W on X would take, and makes
W at the end (docs/training.md). ``adam`` scales each coordinate of W by itself: it trains on X.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pandas as pd

from vgg16_transfer.heads import softmax
from vgg16_transfer.heads.loss import Soft, gradient, log_softmax

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import keras
    import numpy.typing as npt

    from vgg16_transfer.params import Trial

    Floats = npt.NDArray[np.float32]

_TOP = 5


class Pictures(NamedTuple):
    """Pictures as a head sees them.

    Attributes:
        features: Shape (n, width), float32.
        labels: Shape (n,), whole numbers from 0; -1 where only a teacher labels the picture.
    """

    features: Floats
    labels: npt.NDArray[np.int64]


class Fit(NamedTuple):
    """A trained head's weights, and how it got there.

    Attributes:
        kernel: Shape (width, classes).
        bias: Shape (classes,).
        history: One row per epoch: ``epoch`` from 1, and ``<role>_<measure>``, measured on all
            pictures of the role when the epoch is over. Training that diverges, so that a loss is
            not finite any more, ends with the epoch before: then there are fewer rows.
    """

    kernel: Floats
    bias: Floats
    history: pd.DataFrame


def fit(
    trial: Trial,
    shape: Sequence[int],
    lesson: Pictures,
    roles: Mapping[str, Pictures],
    classes: int,
    teacher_logits: Floats | None = None,
) -> Fit:
    """Trains a head and measures it after every epoch.

    Numbers that overflow on the way are no warning: the loss shows it.

    Args:
        trial: The setting.
        shape: Of one picture's activations of the trial's layer.
        lesson: What is learned from.
        roles: What is measured on: ``train``, ``test``, and ``validation`` if there is one.
        classes: Number of classes.
        teacher_logits: What a teacher says of the lesson's pictures, shape (n, classes).
    """
    layers = softmax.front(trial, shape)
    x = _through(layers, lesson.features)
    dual = trial.optimizer == "sgd" and len(x) < x.shape[1]
    learned: Floats = x @ x.T if dual else x
    rows = {}
    for role, pictures in roles.items():
        if pictures is lesson:
            rows[role] = learned
        else:
            features = _through(layers, pictures.features)
            rows[role] = features @ x.T if dual else features
    weights: Floats = np.zeros((learned.shape[1], classes), np.float32)
    bias: Floats = np.zeros(classes, np.float32)
    optimizers = _optimizer(trial, weights), _optimizer(trial, bias)
    history: list[dict[str, float]] = []
    with np.errstate(over="ignore", invalid="ignore"):
        for epoch in orders(trial, len(x)):
            for batch in epoch:
                soft = _soft(trial, teacher_logits, batch)
                inputs = learned[batch]
                residual = gradient(inputs @ weights + bias, lesson.labels[batch], soft)
                slope: Floats = np.zeros_like(weights)
                if dual:
                    slope[batch] = residual
                else:
                    np.matmul(inputs.T, residual, out=slope)
                if trial.weight_decay:
                    slope += np.float32(trial.weight_decay) * weights
                optimizers[0].step(weights, slope)
                optimizers[1].step(bias, residual.sum(axis=0))
            row = {
                f"{role}_{name}": value
                for role, pictures in roles.items()
                for name, value in measure(pictures.labels, rows[role] @ weights + bias).items()
            }
            if not finite(row):
                break
            history.append(row)
        return Fit(x.T @ weights if dual else weights, bias, as_history(history))


def finite(row: Mapping[str, float]) -> bool:
    """Whether all losses of an epoch are numbers: those of a head that diverged are not."""
    return all(math.isfinite(value) for name, value in row.items() if name.endswith("_loss"))


def as_history(rows: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """The measures of one epoch after the other, numbered from 1."""
    frame = pd.DataFrame(list(rows))
    frame.insert(0, "epoch", np.arange(1, len(rows) + 1))
    return frame


def measure(labels: npt.NDArray[np.int64], logits: Floats) -> dict[str, float]:
    """How good logits of shape (n, classes) are for labels (n,), by ``records.MEASURES``.

    Of logits that are not finite the loss is not either; the accuracies then say nothing.
    """
    of_true = logits[np.arange(len(labels)), labels]
    with np.errstate(over="ignore", invalid="ignore"):  # the loss shows it
        loss = -log_softmax(logits)[np.arange(len(labels)), labels]
    better = np.count_nonzero(logits > of_true[:, np.newaxis], axis=1)
    right = logits.argmax(axis=1) == labels
    return {
        "loss": float(loss.mean()),
        "accuracy": float(right.mean()),
        "top5_accuracy": float((better < _TOP).mean()),
    }


class _Optimizer(Protocol):
    def step(self, weights: Floats, slope: Floats) -> None:
        """Moves weights, in place, down a slope of the same shape."""


class _Momentum:
    """Gradient descent with momentum, as in Keras: v ← μ v - η g, w ← w + v."""

    def __init__(self, trial: Trial, weights: Floats) -> None:
        self._rate = np.float32(trial.learning_rate)
        self._momentum = np.float32(trial.momentum)
        self._velocity = np.zeros_like(weights)

    def step(self, weights: Floats, slope: Floats) -> None:
        self._velocity *= self._momentum
        self._velocity -= self._rate * slope
        weights += self._velocity


class _Adam:
    """Adam (Kingma & Ba 2015, algorithm 1, in the form before section 2.1), as in Keras."""

    def __init__(self, trial: Trial, weights: Floats) -> None:
        self._rate = trial.learning_rate
        self._mean, self._square = np.zeros_like(weights), np.zeros_like(weights)
        self._steps = 0

    def step(self, weights: Floats, slope: Floats) -> None:
        self._steps += 1
        self._mean += np.float32(1 - 0.9) * (slope - self._mean)
        self._square += np.float32(1 - 0.999) * (slope**2 - self._square)
        rate = self._rate * np.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        weights -= np.float32(rate) * self._mean / (np.sqrt(self._square) + np.float32(1e-7))


def _optimizer(trial: Trial, weights: Floats) -> _Optimizer:
    return _Momentum(trial, weights) if trial.optimizer == "sgd" else _Adam(trial, weights)


def _through(layers: Sequence[keras.Layer], features: Floats) -> Floats:
    for layer in layers:
        features = layer(features).numpy()
    return features


def _soft(trial: Trial, logits: Floats | None, batch: npt.NDArray[np.int64]) -> Soft | None:
    if logits is None:
        return None
    return Soft(logits[batch], trial.teacher_temperature, trial.teacher_weight)


def orders(trial: Trial, pictures: int) -> list[list[npt.NDArray[np.int64]]]:
    """Which pictures make which step, epoch after epoch; an epoch's last step may be short."""
    random = np.random.default_rng(trial.seed)
    starts = range(trial.batch_size, pictures, trial.batch_size)
    return [np.split(random.permutation(pictures), starts) for _ in range(trial.epochs)]
