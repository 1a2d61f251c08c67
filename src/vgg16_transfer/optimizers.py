"""Optimisers, one row each. To add an optimiser, add a row.

A rule uses only arithmetic that works for NumPy arrays and TensorFlow tensors. So heads on cached
features and end-to-end training share one implementation. Keras's optimisers are too slow for heads
on cached features: a step is 10 microseconds of arithmetic, and takes 40 to 130 times as long in
Keras (docs/training.md). tests/test_optimizers.py compares each row with Keras's optimiser.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from vgg16_transfer.params import Trial

    Slots = tuple[Any, ...]

_MEAN_DECAY, _SQUARE_DECAY, _TINY = 0.9, 0.999, 1e-7  # Keras's defaults


class Optimizer(NamedTuple):
    """An update rule and its state.

    Attributes:
        what: One line for docs/params.md.
        rule: (trial, weights, gradient, slots, step, rate) → weights and slots after the step.
            Weights, gradient and each slot have one shape. Steps are counted from 1.
        slots: Number of arrays that are kept from step to step. They start at zero.
        linear: Whether the change of the weights is linear in the gradients. Then a head can be
            trained in the span of its training features.
        decoupled: Whether weight decay is a separate step (Loshchilov & Hutter 2019) and not part
            of the gradient.
    """

    what: str
    rule: Callable[[Trial, Any, Any, Slots, Any, Any], tuple[Any, Slots]]
    slots: int
    linear: bool = False
    decoupled: bool = False


def _sgd(
    trial: Trial, weights: Any, gradient: Any, slots: Slots, _step: Any, rate: Any
) -> tuple[Any, Slots]:
    """Velocity v ← μ v - η g; weights w ← w + v."""
    velocity = trial.momentum * slots[0] - rate * gradient
    return weights + velocity, (velocity,)


def _nesterov(
    trial: Trial, weights: Any, gradient: Any, slots: Slots, _step: Any, rate: Any
) -> tuple[Any, Slots]:
    """Velocity v ← μ v - η g; weights w ← w + μ v - η g (Sutskever et al. 2013)."""
    velocity = trial.momentum * slots[0] - rate * gradient
    return weights + (trial.momentum * velocity - rate * gradient), (velocity,)


def _adam(
    _trial: Trial, weights: Any, gradient: Any, slots: Slots, step: Any, rate: Any
) -> tuple[Any, Slots]:
    """Kingma & Ba 2015, algorithm 1, in the form before section 2.1."""
    mean = slots[0] + (1 - _MEAN_DECAY) * (gradient - slots[0])
    square = slots[1] + (1 - _SQUARE_DECAY) * (gradient**2 - slots[1])
    rate = rate * (1 - _SQUARE_DECAY**step) ** 0.5 / (1 - _MEAN_DECAY**step)
    return weights - rate * mean / (square**0.5 + _TINY), (mean, square)


OPTIMIZERS = {
    "sgd": Optimizer("gradient descent with `momentum`", _sgd, slots=1, linear=True),
    "nesterov": Optimizer("the same with Nesterov's momentum", _nesterov, slots=1, linear=True),
    "adam": Optimizer("Adam, slow on wide layers", _adam, slots=2),
    "adamw": Optimizer("Adam with decoupled weight decay", _adam, slots=2, decoupled=True),
}
"""The optimisers, by the name that params.yaml uses."""


def move(
    trial: Trial,
    weights: Any,
    gradient: Any,
    slots: Slots,
    step: Any,
    rate: Any,
    *,
    decay: bool = False,
) -> tuple[Any, Slots]:
    """Makes one step of the trial's optimiser.

    Args:
        trial: The trial's setting.
        weights: An array or tensor, which is not changed.
        gradient: Gradient of the loss without weight decay.
        slots: State of the optimiser: ``OPTIMIZERS[trial.optimizer].slots`` arrays.
        step: Counted from 1.
        rate: Step size; see :func:`rates`.
        decay: Whether ``trial.weight_decay`` shrinks these weights.

    Returns:
        Weights and slots after the step.
    """
    row = OPTIMIZERS[trial.optimizer]
    if decay and trial.weight_decay:
        if row.decoupled:
            weights = weights - rate * trial.weight_decay * weights
        else:
            gradient = gradient + trial.weight_decay * weights
    return row.rule(trial, weights, gradient, slots, step, rate)


def rates(trial: Trial, per_epoch: int, rate: float) -> list[float]:
    """Step sizes of all steps.

    They rise linearly during the warm-up. Then they are constant, or fall to 0 as half a cosine
    (Loshchilov & Hutter 2017, eq. 5, without restarts).

    Args:
        trial: The trial's setting, with epochs, schedule and warm-up.
        per_epoch: Number of steps of an epoch.
        rate: The largest step size.
    """
    warm, steps = trial.warmup_epochs * per_epoch, trial.epochs * per_epoch
    sizes = []
    for step in range(steps):
        if step < warm:
            sizes.append(rate * step / warm)
        elif trial.schedule == "cosine":
            sizes.append(rate * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2)
        else:
            sizes.append(rate)
    return sizes
