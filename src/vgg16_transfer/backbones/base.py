"""A row of NETWORKS as a Keras model: architecture, layers, preprocessing, forward pass, tail.

The architectures are those of keras.applications. Features of the layer ``predictions`` are its
logits, before the softmax. A head divides them by its temperature and applies the softmax.
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

from vgg16_transfer.errors import WeightsError
from vgg16_transfer.networks import LAST, NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

_CLASSES = 1000
"""Number of classes of ImageNet, and of outputs of the layer ``predictions``."""

_COLOURS = 3


@dataclass(frozen=True)
class Tapped:
    """A network that gives the activations of several layers in one forward pass.

    Attributes:
        shapes: Shape of one picture's activations, by layer: (height, width, channels) or (units,).
        batch_size: Pictures per call. This is 1 on a CPU: larger batches are not faster, and a
            picture's activations would depend, in their last bits, on the rest of the batch.
    """

    shapes: dict[str, tuple[int, ...]]
    batch_size: int
    _call: Callable[[npt.NDArray[np.uint8]], dict[str, tf.Tensor]]

    def forward(self, pictures: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        """Computes the activations of a few pictures.

        Args:
            pictures: Shape (n, image_size, image_size, 3), RGB, 0 to 255.

        Returns:
            Activations by layer, shape (n, …) as in ``shapes``, float32.
        """
        return {layer: output.numpy() for layer, output in self._call(pictures).items()}


def architecture(name: str, *, dense: bool, image_size: int) -> keras.Model:
    """A network of keras.applications, with untrained weights.

    Args:
        name: A key of ``NETWORKS``.
        dense: Whether to include the layers behind the convolutions. The last of them gives logits.
        image_size: Side of the input, in pixels.
    """
    return _build(name, None, dense=dense, image_size=image_size)


def imagenet(name: str) -> keras.Model:
    """A network with dense layers and with the ImageNet weights that Keras downloads.

    Args:
        name: A key of ``NETWORKS``.

    Raises:
        WeightsError: The download failed.
    """
    row = NETWORKS[name]
    try:
        return _build(name, "imagenet", dense=bool(row.dense), image_size=row.image_size)
    except Exception as error:  # noqa: BLE001 - Keras raises Exception if a server does not answer
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"backbone.weights: imagenet of {name} can't be had: {reason}") from None


def load(name: str, weights: Path, image_size: int) -> keras.Model:
    """Loads a network with the weights of a file. It has dense layers if the file has them.

    Args:
        name: A key of ``NETWORKS``.
        weights: A Keras weights file: ``.weights.h5``, or the older ``.h5``.
        image_size: Side of the input, in pixels.

    Raises:
        WeightsError: The file is missing, or has the weights of another network.
    """
    try:
        network = architecture(name, dense=_holds_dense(weights), image_size=image_size)
        with warnings.catch_warnings():
            # Keras gives only a warning if a layer keeps its random weights.
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
    """Makes a network that gives the activations of some layers.

    The layers behind the deepest of them are not computed.

    Args:
        name: A key of ``NETWORKS``. It decides the preprocessing.
        network: The network, with at least the layers up to these.
        layers: Layer names.

    Raises:
        WeightsError: The network has no such layer, because its weights do not have it.
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
    """Applies the preprocessing that a network was trained with, as Keras defines it.

    For VGG16, this is BGR minus the mean of ImageNet.

    Args:
        name: A key of ``NETWORKS``.
        pictures: Shape (n, height, width, 3), RGB, 0 to 255.
    """
    return _module(name).preprocess_input(tf.cast(pictures, tf.float32))


def between(network: keras.Model, below: str, layer: str) -> list[keras.layers.Layer]:
    """The part of a network above one layer, up to another layer.

    Args:
        network: A network. Its layers are returned, not copied, and become trainable.
        below: The last layer of a block. No connection skips it.
        layer: A layer above ``below``, or ``below`` itself.

    Returns:
        Layers to apply in this order. If no connection skips a layer, these are the network's
        layers. Otherwise, it is one model of them. The list is empty if both layers are the same.
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
    start.name = "activations"  # Keras would add a number, and a saved head would contain it
    return [keras.Model(start, network.get_layer(layer).output, name="fine_tuned")]


def convolutions(network: keras.Model) -> list[keras.layers.Layer]:
    """All convolutions of a network, with depthwise ones, in the order of its layers."""
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return [layer for layer in _flat(network) if isinstance(layer, kinds)]


def weighted(network: keras.Model) -> list[keras.layers.Layer]:
    """All layers of a network that have a kernel: convolutions and dense layers."""
    return [layer for layer in _flat(network) if getattr(layer, "kernel", None) is not None]


def fan_in(layer: keras.layers.Layer) -> int:
    """Number of inputs of one output of a layer."""
    shape = layer.kernel.shape
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)  # an output has one input channel
    return int(np.prod(shape[:2] if depthwise else shape[:-1]))


def first_kernels(network: keras.Model) -> npt.NDArray[np.float32]:
    """The kernels of the first convolution on colours, shape (height, width, 3, n)."""
    kernels = (layer.get_weights()[0] for layer in convolutions(network))
    return next(kernel for kernel in kernels if kernel.shape[2] == _COLOURS)


def digest(network: keras.Model) -> str:
    """sha256 over the convolutions: kernel (HWIO), then bias, as little-endian float32."""
    sha256 = hashlib.sha256()
    for layer in convolutions(network):
        for weight in layer.get_weights():
            sha256.update(np.ascontiguousarray(weight, dtype="<f4").tobytes())
    return sha256.hexdigest()


def _build(name: str, weights: str | None, *, dense: bool, image_size: int) -> keras.Model:
    constructor = getattr(_module(name), NETWORKS[name].title)
    network = constructor(
        weights=weights,
        include_top=dense,
        # Keras would add a number to the input's name, and the weights file would contain it.
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
    """Layers of a network. A model among them is replaced by its layers."""
    flat = []
    for layer in network.layers:
        flat += _flat(layer) if isinstance(layer, keras.Model) else [layer]
    return flat


def _holds_dense(weights: Path) -> bool:
    shapes: list[tuple[int, ...]] = []
    with h5py.File(weights) as file:
        file.visititems(lambda _, node: shapes.append(getattr(node, "shape", ())))
    return any(len(shape) == 2 and shape[1] == _CLASSES for shape in shapes)  # noqa: PLR2004
