"""Predicts the class whose mean training feature has the largest cosine with the features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vgg16_transfer.heads import base

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vgg16_transfer.heads.base import Fitted, Floats, Pictures
    from vgg16_transfer.params import Trial

SCALE = np.float32(20)
"""Turns cosines into logits. It changes the probabilities, but not the predicted class."""


def fit(
    trial: Trial,
    shape: Sequence[int],
    training: Pictures,
    roles: Mapping[str, Pictures],
    classes: int,
    teacher_logits: Floats | None = None,  # noqa: ARG001 - params refuse a teacher for this kind
) -> Fitted:
    """Averages the features of length 1; see :class:`~vgg16_transfer.heads.base.Fit`."""
    layers = base.front(trial, shape)
    x = base.through(layers, training.features)
    means = np.stack([x[training.labels == label].mean(axis=0) for label in range(classes)])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    kernel: Floats = SCALE * (means / np.maximum(lengths, np.finfo(np.float32).tiny)).T
    logits = {role: base.through(layers, each.features) @ kernel for role, each in roles.items()}
    model = base.linear(trial, shape, kernel, np.zeros(classes, np.float32))
    return base.at_once(model, roles, logits)
