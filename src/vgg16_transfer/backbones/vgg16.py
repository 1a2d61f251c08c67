"""VGG16 (Simonyan & Zisserman 2014, configuration D): architecture, layers, preprocessing, forward.

The architecture is Keras's own. Features of the layer ``predictions`` are its logits, before the
softmax: a head divides them by its temperature and softens them itself.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import keras
import numpy as np
import tensorflow as tf

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

CONVOLUTIONS = [
    f"block{block}_conv{conv}"
    for block, convs in enumerate((2, 2, 3, 3, 3), start=1)
    for conv in range(1, convs + 1)
]
"""The 13 convolutions, from the picture upwards."""

DENSE = ["fc1", "fc2", "predictions"]

_FC1_KERNEL = (25088, 4096)


class WeightsError(InputError):
    """Weights that are missing, damaged, or do not hold what is asked of them."""


@dataclass(frozen=True)
class Tapped:
    """A network that gives the activations of several layers in one forward pass.

    Attributes:
        shapes: Of one picture's activations, by layer: (height, width, channels) or (units,).
        batch_size: Pictures per call. On a CPU one: it is as fast as more, and then a picture's
            numbers do not depend on which pictures it shares a batch with, to the last bit.
    """

    shapes: dict[str, tuple[int, ...]]
    batch_size: int
    _call: Callable[[npt.NDArray[np.uint8]], dict[str, tf.Tensor]]

    def forward(self, pictures: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        """Activations of a few pictures.

        Args:
            pictures: Shape (n, image_size, image_size, 3), RGB, 0 to 255.

        Returns:
            By layer, shape (n, …) as in ``shapes``, float32.
        """
        return {layer: output.numpy() for layer, output in self._call(pictures).items()}


def architecture(*, dense: bool, image_size: int) -> keras.Model:
    """Keras's VGG16 without weights; with its dense layers, the last one gives logits."""
    return keras.applications.VGG16(
        weights=None,
        include_top=dense,
        # Keras would number the input, and the number would end up in the weights file.
        input_tensor=keras.Input((image_size, image_size, 3), name="pictures"),
        classifier_activation=None,
        name="vgg16",
    )


def load(weights: Path, image_size: int) -> keras.Model:
    """VGG16 with the weights of a file, with the dense layers if the file holds them.

    Args:
        weights: A Keras weights file: ``.weights.h5``, or the older ``.h5``.
        image_size: Side of the input, in pixels.

    Raises:
        WeightsError: The file is missing, or no VGG16's.
    """
    try:
        dense = _holds_dense(weights)
        network = architecture(dense=dense, image_size=image_size)
        with warnings.catch_warnings():
            # Keras only warns of layers that it leaves at random.
            warnings.simplefilter("error", UserWarning)
            network.load_weights(weights)
    except FileNotFoundError:
        raise WeightsError(f"{weights}: no such file") from None
    except (OSError, ValueError, KeyError, UserWarning) as error:
        reason = str(error).split("\n", 1)[0]
        raise WeightsError(f"{weights}: does not hold the weights of a VGG16: {reason}") from None
    network.trainable = False
    return network


def tap(network: keras.Model, layers: Sequence[str]) -> Tapped:
    """Cuts a network off behind the deepest of some layers and lets it give all of them.

    Raises:
        WeightsError: The network has no such layer, because its weights do not hold it.
    """
    names = {layer.name for layer in network.layers}
    for layer in layers:
        if layer not in names:
            raise WeightsError(
                f"params.yaml: backbone.weights: these weights hold no {layer}; "
                "set backbone.weights: imagenet, or tap a convolutional layer"
            )
    outputs = {layer: network.get_layer(layer).output for layer in layers}
    tapped = keras.Model(network.input, outputs)

    def call(pictures: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(tapped(preprocess(pictures), training=False))

    return Tapped(
        shapes={layer: tuple(output.shape[1:]) for layer, output in outputs.items()},
        batch_size=32 if tf.config.list_physical_devices("GPU") else 1,
        _call=tf.function(call, reduce_retracing=True),
    )


def preprocess(pictures: tf.Tensor) -> tf.Tensor:
    """What VGG16 was trained on: BGR, minus (103.939, 116.779, 123.68), no scaling ("caffe").

    Args:
        pictures: Shape (n, height, width, 3), RGB, 0 to 255.
    """
    return keras.applications.vgg16.preprocess_input(tf.cast(pictures, tf.float32))


def digest(network: keras.Model, layers: Sequence[str] = CONVOLUTIONS) -> str:
    """sha256 over kernel (HWIO) then bias as little-endian float32, layer after layer."""
    sha256 = hashlib.sha256()
    for layer in layers:
        for weight in network.get_layer(layer).get_weights():
            sha256.update(np.ascontiguousarray(weight, dtype="<f4").tobytes())
    return sha256.hexdigest()


def _holds_dense(weights: Path) -> bool:
    shapes = []
    with h5py.File(weights) as file:
        file.visititems(lambda _, node: shapes.append(getattr(node, "shape", None)))
    return _FC1_KERNEL in shapes
