"""The k nearest training pictures by cosine vote for their classes (Wu et al. 2018, section 3.4).

The weight of a vote is exp(cosine / 0.07). The probability of a class is its share of all weights.
The head stores the features of every training picture, so its file is as large as these features.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import keras
import numpy as np

from vgg16_transfer.heads import base, model_files
from vgg16_transfer.heads.linear import front, through
from vgg16_transfer.heads.rows import held

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vgg16_transfer.heads.base import Data, Fitted
    from vgg16_transfer.params import Trial

TEMPERATURE = 0.07
"""τ of Wu et al. 2018, eq. 2."""


def fit(trial: Trial, data: Data) -> Fitted:
    """Stores the training features in a head; see :class:`~vgg16_transfer.heads.base.Fit`.

    With fewer training pictures than ``trial.neighbours``, all of them vote.
    """
    steps = front(trial, data.shape)
    stored = held(through(steps, data.training.features))
    layers, count = model_files.layers_of(steps), min(trial.neighbours, len(stored))
    model = _model(layers, data, count, len(stored))
    model.get_layer("cosines").set_weights([stored.T])
    votes = np.eye(data.classes, dtype=np.float32)[data.training.labels]
    model.get_layer("softmax").set_weights([votes])
    head = model_files.KerasHead(model)
    logits = {role: head.logits(each.features) for role, each in data.roles.items()}
    return base.at_once(head, data.roles, logits)


def _model(layers: Sequence[keras.Layer], data: Data, count: int, stored: int) -> keras.Model:
    """A model of Keras layers and operations only, so that it loads without this package."""
    pictures = keras.Input((math.prod(data.shape),), name="features")
    features = pictures
    for layer in layers:
        features = layer(features)
    cosines = keras.layers.Dense(stored, use_bias=False, name="cosines")(features)
    nearest = keras.ops.top_k(cosines, count)[0]
    votes = cosines >= keras.ops.min(nearest, axis=1, keepdims=True)
    weights = keras.layers.Softmax(name="weights")(cosines / TEMPERATURE, mask=votes)
    output = keras.layers.Dense(data.classes, use_bias=False, name="softmax")(weights)
    model = keras.Model(pictures, output, name="head")
    for number, operation in enumerate(model.operations):
        if not isinstance(operation, keras.Layer):
            # Keras numbers operations from the start of the process, so the file would differ.
            operation.name = f"operation_{number}"
    return model
