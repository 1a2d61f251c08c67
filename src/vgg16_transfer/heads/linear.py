"""Heads whose logits are linear in the features, in NumPy.

Their files are written without Keras as well. Importing TensorFlow takes several seconds, which is
more than training most studies. Keras reads the files; tests compare what it then computes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vgg16_transfer.heads import loss, saved, threads
from vgg16_transfer.heads.rows import AT_ONCE, Stored, held, of_length_one

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import keras
    import numpy.typing as npt

    from vgg16_transfer.heads.rows import Features
    from vgg16_transfer.heads.saved import MadeOf
    from vgg16_transfer.params import Trial

    Floats = npt.NDArray[np.float32]


class Step(NamedTuple):
    """A layer without weights in front of the trained part of a head.

    Attributes:
        layer: Name of the class in ``keras.layers``.
        config: Arguments of that class.
        function: The same in NumPy: rows → rows.
    """

    layer: str
    config: dict[str, Any]
    function: Callable[[Floats], Floats]


def front(trial: Trial, shape: Sequence[int]) -> list[Step]:
    """Layers before the trained part of a head. They have no weights.

    In this order:

    - If the layer is ``predictions``, the softmax at temperature T, softmax(z / T) (Hinton et al.
      2015, eq. 1). Features of this layer are the network's logits z.
    - With ``pooling: average``, the mean over the positions of the activation map.
    - With ``normalise: l2``, each picture's features are scaled to length 1.

    Args:
        trial: The trial's setting.
        shape: Shape of one picture's activations of the trial's layer: (height, width, channels) or
            (units,).

    Returns:
        Steps to apply in this order. Input shape (n, height * width * channels), output shape
        (n, width).
    """
    steps: list[Step] = []
    if trial.layer == "predictions":
        scale = 1 / trial.temperature
        rescaling = {"scale": scale, "offset": 0.0, "name": "temperature"}
        steps.append(Step("Rescaling", rescaling, lambda z: z * np.float32(scale)))
        steps.append(Step("Softmax", {"name": "source_softmax"}, loss.softmax))
    if trial.pooling == "average":
        maps = {"target_shape": list(shape), "name": "positions"}
        steps.append(Step("Reshape", maps, lambda x: x.reshape(-1, *shape)))
        average = {"name": "average"}
        steps.append(Step("GlobalAveragePooling2D", average, lambda x: x.mean(axis=(1, 2))))
    if trial.normalise == "l2":
        steps.append(Step("UnitNormalization", {"name": "unit_length"}, of_length_one))
    return steps


def through(steps: Sequence[Step], features: Features) -> Features:
    """Applies the steps of :func:`front` to features. Features stay in their store if they can."""
    if isinstance(features, Stored):
        if all(step.function is of_length_one for step in steps):
            return features.of_length_one() if steps else features
        starts = range(0, len(features), AT_ONCE)
        parts = [held(through(steps, features[row : row + AT_ONCE])) for row in starts]
        return np.concatenate(parts)
    for step in steps:
        features = step.function(features)
    return features


class Linear:
    """A head: the steps in front, and a softmax of a linear layer.

    See :class:`~vgg16_transfer.heads.base.Head` for its methods.

    Args:
        trial: The trial's setting. It decides the steps in front.
        shape: Shape of one picture's activations of the trial's layer.
        kernel: Shape (width, classes).
        bias: Shape (classes,).
    """

    scalable = True

    def __init__(self, trial: Trial, shape: Sequence[int], kernel: Floats, bias: Floats) -> None:
        self.kernel, self.bias = kernel, bias
        self._inputs = math.prod(shape)
        self._steps = front(trial, shape)

    def logits(self, features: Features) -> Floats:
        """Logits, shape (n, classes)."""
        behind = through(self._steps, features)
        starts = range(0, len(features), AT_ONCE)
        with threads.enough_for(2 * AT_ONCE * self.kernel.size):
            parts = [behind[row : row + AT_ONCE] @ self.kernel + self.bias for row in starts]
        return np.concatenate(parts)

    def probabilities(self, features: Features) -> Floats:
        """Class probabilities, shape (n, classes)."""
        return loss.softmax(self.logits(features))

    def scale(self, temperature: float) -> None:
        """Divides the logits by a temperature."""
        divisor = np.float32(temperature)
        self.kernel, self.bias = self.kernel / divisor, self.bias / divisor

    def to_keras(self) -> keras.Model:
        """The same head as a Keras model."""
        import keras  # noqa: PLC0415 - takes seconds

        model = keras.saving.deserialize_keras_object(self._config())
        model.get_layer("softmax").set_weights([self.kernel, self.bias])
        return model

    def save(self, path: Path, made_of: MadeOf | None = None) -> None:
        """Writes the head as a ``.keras`` file."""
        saved.write_dense(path, self._config(), "softmax", [self.kernel, self.bias], made_of)

    def _config(self) -> dict[str, Any]:
        """What Keras makes the model of. What is left out has Keras's default."""
        inputs = {"batch_shape": [None, self._inputs], "dtype": "float32", "name": "features"}
        dense = {"name": "softmax", "units": len(self.bias), "activation": "softmax"}
        layers = [
            _layer("InputLayer", inputs),
            *(_layer(step.layer, step.config) for step in self._steps),
            _layer("Dense", dense),
        ]
        return _layer("Sequential", {"name": "head", "layers": layers}, "keras")


def _layer(name: str, config: dict[str, Any], module: str = "keras.layers") -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}
