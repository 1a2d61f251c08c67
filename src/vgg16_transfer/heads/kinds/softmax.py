"""Softmax regression by mini-batches, every epoch measured.

A kernel W that starts at zero and follows gradients of pictures never leaves the span of the
training features: each step adds a sum of feature vectors, and momentum and weight decay only scale
what is there. So W = Xᵀ A, with a row of coefficients A for each training picture, and the step
W ← W - η Xᵀ R is the step A ← A - η R. Pools are wide (up to 200,704) and pictures few, so ``sgd``
trains A on the n x n inner products X Xᵀ, with the steps that training W on X would take, and makes
W at the end (docs/training.md). ``adam`` scales each coordinate of W by itself: it trains on X.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from vgg16_transfer.heads import base
from vgg16_transfer.heads.base import Fitted
from vgg16_transfer.heads.loss import Soft, gradient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from vgg16_transfer.heads.base import Floats, Pictures
    from vgg16_transfer.params import Trial


def fit(
    trial: Trial,
    shape: Sequence[int],
    training: Pictures,
    roles: Mapping[str, Pictures],
    classes: int,
    teacher_logits: Floats | None = None,
) -> Fitted:
    """Trains a head and measures it after every epoch; see :class:`~vgg16_transfer.heads.base.Fit`.

    Numbers that overflow on the way are no warning: the loss shows it.
    """
    layers = base.front(trial, shape)
    x = base.through(layers, training.features)
    dual = trial.optimizer == "sgd" and len(x) < x.shape[1]
    learned: Floats = x @ x.T if dual else x
    rows = {}
    for role, pictures in roles.items():
        if pictures is training:
            rows[role] = learned
        else:
            features = base.through(layers, pictures.features)
            rows[role] = features @ x.T if dual else features
    weights: Floats = np.zeros((learned.shape[1], classes), np.float32)
    bias: Floats = np.zeros(classes, np.float32)
    optimizers = _optimizer(trial, weights), _optimizer(trial, bias)
    history: list[dict[str, float]] = []
    with np.errstate(over="ignore", invalid="ignore"):
        for epoch in base.orders(trial, len(x)):
            for batch in epoch:
                soft = _soft(trial, teacher_logits, batch)
                inputs = learned[batch]
                residual = gradient(inputs @ weights + bias, training.labels[batch], soft)
                slope: Floats = np.zeros_like(weights)
                if dual:
                    slope[batch] = residual
                else:
                    np.matmul(inputs.T, residual, out=slope)
                if trial.weight_decay:
                    slope += np.float32(trial.weight_decay) * weights
                optimizers[0].step(weights, slope)
                optimizers[1].step(bias, residual.sum(axis=0))
            logits = {role: rows[role] @ weights + bias for role in roles}
            row = base.measure_roles(roles, logits)
            if not base.finite(row):
                break
            history.append(row)
        kernel = x.T @ weights if dual else weights
    model = base.linear(trial, shape, kernel, bias)
    return Fitted(model, base.as_history(history), finished=len(history) == trial.epochs)


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


def _soft(trial: Trial, logits: Floats | None, batch: npt.NDArray[np.int64]) -> Soft | None:
    if logits is None:
        return None
    return Soft(logits[batch], trial.teacher_temperature, trial.teacher_weight)
