"""Predicts the class whose mean training feature has the largest cosine with the features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vgg16_transfer.heads import base
from vgg16_transfer.heads.linear import Linear, front, through
from vgg16_transfer.heads.rows import held, select, times

if TYPE_CHECKING:
    from vgg16_transfer.heads.base import Data, Fitted, Floats
    from vgg16_transfer.params import Trial

SCALE = np.float32(20)
"""Turns cosines into logits. It changes the probabilities, but not the predicted class."""


def fit(trial: Trial, data: Data) -> Fitted:
    """Averages the features of length 1; see :class:`~vgg16_transfer.heads.base.Fit`."""
    steps = front(trial, data.shape)
    x = through(steps, data.training.features)
    labels = data.training.labels
    means = np.stack([held(select(x, labels == c)).mean(axis=0) for c in range(data.classes)])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    kernel: Floats = SCALE * (means / np.maximum(lengths, np.finfo(np.float32).tiny)).T
    logits = {
        role: times(through(steps, each.features), kernel) for role, each in data.roles.items()
    }
    head = Linear(trial, data.shape, kernel, np.zeros(data.classes, np.float32))
    return base.at_once(head, data.roles, logits)
