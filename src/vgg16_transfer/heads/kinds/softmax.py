"""Softmax regression by mini-batches. Every epoch is measured.

A kernel W that starts at zero stays in the span of the training features: each gradient step adds a
sum of feature vectors, and momentum and weight decay only scale vectors of the span. So W = Xᵀ A,
where A has a row of coefficients for each training picture. The step W ← W - η Xᵀ R is then the
step A ← A - η R.

Pooling layers are wide (up to 200,704) and pictures are few. So a linear optimiser (``sgd``,
``nesterov``) trains A on the n x n inner products X Xᵀ. Its steps are those of training W on X. The
kernel W is computed at the end (docs/training.md). ``adam`` scales each coordinate of W separately,
so it trains on X.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vgg16_transfer.heads import base
from vgg16_transfer.heads.base import Fitted
from vgg16_transfer.heads.linear import Linear, front, through
from vgg16_transfer.heads.loss import Soft, gradient
from vgg16_transfer.heads.rows import combined, held, products
from vgg16_transfer.optimizers import OPTIMIZERS, move, rates

if TYPE_CHECKING:
    import numpy.typing as npt

    from vgg16_transfer.heads.base import Data, Floats
    from vgg16_transfer.params import Trial


def fit(trial: Trial, data: Data) -> Fitted:
    """Trains a head and measures it after every epoch; see :class:`~vgg16_transfer.heads.base.Fit`.

    Overflow gives no warning, because the loss is then not finite.
    """
    training, roles, shape, classes, teacher_logits = data
    steps = front(trial, shape)
    x = through(steps, training.features)
    optimizer = OPTIMIZERS[trial.optimizer]
    dual = optimizer.linear and len(x) < x.shape[1]
    measured = {
        role: through(steps, pictures.features)
        for role, pictures in roles.items()
        if pictures is not training
    }
    if dual:
        learned, rows = products(x, measured)
    else:
        learned, rows = held(x), {role: held(features) for role, features in measured.items()}
    rows |= {role: learned for role, pictures in roles.items() if pictures is training}
    weights: Floats = np.zeros((learned.shape[1], classes), np.float32)
    bias: Floats = np.zeros(classes, np.float32)
    weight_slots, bias_slots = ((np.zeros_like(w),) * optimizer.slots for w in (weights, bias))
    epochs = base.orders(trial, len(x))
    sizes = iter(rates(trial, len(epochs[0]), trial.learning_rate))
    step = 0
    history = base.Epochs(roles, classes)
    with np.errstate(over="ignore", invalid="ignore"):
        for epoch in epochs:
            for batch in epoch:
                step, rate = step + 1, next(sizes)
                soft = _soft(trial, teacher_logits, batch)
                inputs = learned[batch]
                residual = gradient(inputs @ weights + bias, training.labels[batch], soft)
                slope: Floats = np.zeros_like(weights)
                if dual:
                    slope[batch] = residual
                else:
                    np.matmul(inputs.T, residual, out=slope)
                weights, weight_slots = move(
                    trial, weights, slope, weight_slots, step, rate, decay=True
                )
                slope = residual.sum(axis=0)
                bias, bias_slots = move(trial, bias, slope, bias_slots, step, rate)
            history.add({role: rows[role] @ weights + bias for role in roles})
            if not history.finite:
                break
        history.measure()
        kernel = combined(x, weights) if dual else weights
    head = Linear(trial, shape, kernel, bias)
    return Fitted(head, base.as_history(history.rows), history.finite)


def _soft(trial: Trial, logits: Floats | None, batch: npt.NDArray[np.int64]) -> Soft | None:
    if logits is None:
        return None
    return Soft(logits[batch], trial.teacher_temperature, trial.teacher_weight)
