"""A row of NETWORKS as a Keras model: architecture, layers, preprocessing, forward pass, tail.

The architectures are Keras's own. Features of the layer ``predictions`` are its logits, before the
softmax: a head divides them by its temperature and softens them itself.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from vgg16_transfer.errors import InputError
from vgg16_transfer.networks import LAST, NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

_CLASSES = 1000
"""Of ImageNet: outputs of the layer ``predictions``."""

_COLOURS = 3


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


def architecture(name: str, *, dense: bool, image_size: int) -> keras.Model:
    """Keras's network without weights.

    Args:
        name: A key of ``NETWORKS``.
        dense: Whether with the layers behind the convolutions; the last one gives logits.
        image_size: Side of the input, in pixels.
    """
    return _build(name, None, dense=dense, image_size=image_size)


def imagenet(name: str) -> keras.Model:
    """Keras's network with the ImageNet weights that Keras downloads, and with its dense layers.

    Args:
        name: A key of ``NETWORKS``.

    Raises:
        WeightsError: The download failed.
    """
    row = NETWORKS[name]
    try:
        return _build(name, "imagenet", dense=bool(row.dense), image_size=row.image_size)
    except Exception as error:  # noqa: BLE001 - Keras raises a bare one for an address that does not answer
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"backbone.weights: imagenet of {name} can't be had: {reason}") from None


def load(name: str, weights: Path, image_size: int) -> keras.Model:
    """A network with the weights of a file, with the dense layers if the file holds them.

    Args:
        name: A key of ``NETWORKS``.
        weights: A Keras weights file: ``.weights.h5``, or the older ``.h5``.
        image_size: Side of the input, in pixels.

    Raises:
        WeightsError: The file is missing, or holds the weights of another network.
    """
    try:
        network = architecture(name, dense=_holds_dense(weights), image_size=image_size)
        with warnings.catch_warnings():
            # Keras only warns of layers that it leaves at random.
            warnings.simplefilter("error", UserWarning)
            network.load_weights(weights)
    except FileNotFoundError:
        raise WeightsError(f"{weights}: no such file") from None
    except (OSError, ValueError, KeyError, UserWarning) as error:
        reason = str(error).split("\n", 1)[0]
        raise WeightsError(f"{weights}: does not hold the weights of {name}: {reason}") from None
    network.trainable = False
    return network


def tap(name: str, network: keras.Model, layers: Sequence[str]) -> Tapped:
    """Cuts a network off behind the deepest of some layers and lets it give all of them.

    Args:
        name: A key of ``NETWORKS``; decides the preprocessing.
        network: The network, or what is left of it up to these layers.
        layers: Names of its layers.

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
        return dict(tapped(preprocess(name, pictures), training=False))

    return Tapped(
        shapes={layer: tuple(output.shape[1:]) for layer, output in outputs.items()},
        batch_size=32 if tf.config.list_physical_devices("GPU") else 1,
        _call=tf.function(call, reduce_retracing=True),
    )


def preprocess(name: str, pictures: tf.Tensor) -> tf.Tensor:
    """What a network was trained on, as Keras says it; for VGG16, BGR minus the mean of ImageNet.

    Args:
        name: A key of ``NETWORKS``.
        pictures: Shape (n, height, width, 3), RGB, 0 to 255.
    """
    return _module(name).preprocess_input(tf.cast(pictures, tf.float32))


def between(network: keras.Model, below: str, layer: str) -> list[keras.layers.Layer]:
    """The part of a network from one layer's activations to those of another one.

    Args:
        network: A network, whose own layers the part has. They are trainable from then on.
        below: Ends a block: every connection from below passes it.
        layer: Lies above it, or is the same.

    Returns:
        What to apply one after the other: the layers themselves if they are a chain, one model if
        connections skip some of them, and nothing if the two are one layer.
    """
    if below == layer:
        return []
    names = [each.name for each in network.layers]
    above = network.layers[names.index(below) + 1 : names.index(layer) + 1]
    for each in above:
        each.trainable = True
    before = [network.get_layer(below), *above]
    if all(each.input is last.output for last, each in itertools.pairwise(before)):
        return list(above)
    start = network.get_layer(below).output
    start.name = "activations"  # Keras would number it, and a saved head would hold the number
    return [keras.Model(start, network.get_layer(layer).output, name="fine_tuned")]


def convolutions(network: keras.Model) -> list[keras.layers.Layer]:
    """All convolutions of a network, depthwise ones as well, from the picture upwards."""
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return [layer for layer in _flat(network) if isinstance(layer, kinds)]


def weighted(network: keras.Model) -> list[keras.layers.Layer]:
    """All layers of a network with a kernel: convolutions and dense ones."""
    return [layer for layer in _flat(network) if getattr(layer, "kernel", None) is not None]


def fan_in(layer: keras.layers.Layer) -> int:
    """How many numbers one output of a layer adds up."""
    shape = layer.kernel.shape
    alone = isinstance(layer, keras.layers.DepthwiseConv2D)  # each channel by itself
    return int(np.prod(shape[:2] if alone else shape[:-1]))


def first_kernels(network: keras.Model) -> npt.NDArray[np.float32]:
    """The kernels that see colours, shape (height, width, 3, n)."""
    seen = (layer.get_weights()[0] for layer in convolutions(network))
    return next(kernel for kernel in seen if kernel.shape[2] == _COLOURS)


def digest(network: keras.Model) -> str:
    """sha256 over the convolutions: kernel (HWIO), then bias, as little-endian float32."""
    sha256 = hashlib.sha256()
    for layer in convolutions(network):
        for weight in layer.get_weights():
            sha256.update(np.ascontiguousarray(weight, dtype="<f4").tobytes())
    return sha256.hexdigest()


def _build(name: str, weights: str | None, *, dense: bool, image_size: int) -> keras.Model:
    constructor = getattr(_module(name), NETWORKS[name].model.rpartition(".")[2])
    network = constructor(
        weights=weights,
        include_top=dense,
        # Keras would number the input, and the number would end up in the weights file.
        input_tensor=keras.Input((image_size, image_size, 3), name="pictures"),
        classifier_activation=None,
    )
    if LAST not in NETWORKS[name].layers:
        return network
    return keras.Model(network.input, keras.layers.Identity(name=LAST)(network.output))


@functools.cache
def _module(name: str) -> Any:
    return importlib.import_module(f"keras.applications.{NETWORKS[name].model.rpartition('.')[0]}")


def _flat(network: keras.Model) -> list[keras.layers.Layer]:
    """Layers of a network, with those of models within it in their places."""
    flat = []
    for layer in network.layers:
        flat += _flat(layer) if isinstance(layer, keras.Model) else [layer]
    return flat


def _holds_dense(weights: Path) -> bool:
    shapes: list[tuple[int, ...]] = []
    with h5py.File(weights) as file:
        file.visititems(lambda _, node: shapes.append(getattr(node, "shape", ())))
    return any(len(shape) == 2 and shape[1] == _CLASSES for shape in shapes)  # noqa: PLR2004
