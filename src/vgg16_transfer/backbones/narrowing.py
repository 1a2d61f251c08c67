"""Activations in the number format of the store, and what is too large for it.

A GPU narrows them before they are copied from it. That halves what is copied, and NumPy, which
needs 8 ns for a number, would limit it to some 300 pictures/s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from vgg16_transfer.backbones.base import Tapped
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from vgg16_transfer.backbones.engines.base import Network

    Rows = npt.NDArray[np.floating[Any]]


class OverflowInFeaturesError(InputError):
    """An activation is too large for the number format of the store.

    Attributes:
        layer: Layer of the activation.
        value: The largest activation.
    """

    def __init__(self, layer: str, value: float, dtype: str) -> None:
        self.layer = layer
        self.value = value
        super().__init__(
            f"params.yaml: backbone.dtype: {dtype} ends at {np.finfo(dtype).max:,.0f}, but {layer} "
            f"reaches {value:,.0f}; set backbone.dtype: float32"
        )


class Narrow(NamedTuple):
    """Activations of a layer, narrowed by a device, which may not have computed them yet, or here.

    Attributes:
        rows: Shape (n, width), in the number format of the store.
        largest: The largest absolute activation, before it was narrowed. NaN if one is NaN.
    """

    rows: tf.Tensor | Rows
    largest: tf.Tensor | float


class CastOnDevice:
    """A network whose activations are narrowed where they are computed.

    Attributes:
        shapes: Shape of one picture's activations, by layer.
        batch_size: Pictures per call.
    """

    def __init__(self, network: Tapped, dtype: str) -> None:
        self.shapes = network.shapes
        self.batch_size = network.batch_size
        # An edit of base.py would have all features of all users computed again.
        call = network._call  # noqa: SLF001

        def narrow(pictures: tf.Tensor) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
            return {layer: _narrow(output, dtype) for layer, output in call(pictures).items()}

        self._call = tf.function(narrow, reduce_retracing=True)

    def forward(self, pictures: npt.NDArray[np.uint8]) -> dict[str, Any]:
        """Starts to compute the activations of a few pictures.

        Args:
            pictures: Shape (n, image_size, image_size, 3), RGB, 0 to 255.

        Returns:
            A :class:`Narrow` by layer.
        """
        return {layer: Narrow(*pair) for layer, pair in self._call(pictures).items()}


def cast_on_device(network: Network, dtype: str) -> Network:
    """The network, which narrows its activations itself if TensorFlow runs it on a GPU.

    Args:
        network: A network, run by whatever engine.
        dtype: Number format of the store.
    """
    if isinstance(network, Tapped) and network.batch_size > 1:  # it is 1 on a CPU
        return CastOnDevice(network, dtype)
    return network


def narrow(output: npt.NDArray[np.float32] | Narrow, dtype: str) -> Narrow:
    """Activations in the number format of a store, as arrays, which another process can send.

    Args:
        output: Activations of n pictures, as a network gives them: of NumPy, or of a library whose
            arrays have the same methods. Narrow ones are not cast again.
        dtype: Number format of the store.
    """
    if isinstance(output, Narrow):
        rows = output.rows.numpy() if isinstance(output.rows, tf.Tensor) else output.rows
        return Narrow(rows, float(output.largest))
    with np.errstate(over="ignore"):  # narrowed() raises an error
        # Methods, and no functions of NumPy: an engine's array is narrowed where it is.
        rows, largest = output.reshape(len(output), -1).astype(dtype, copy=False), abs(output).max()
    return Narrow(np.asarray(rows), float(largest))


def narrowed(layer: str, output: npt.NDArray[np.float32] | Narrow, dtype: str) -> Rows:
    """Converts activations to rows of a store.

    Args:
        layer: Layer name, used in error messages.
        output: Activations of n pictures, as a network gives them.
        dtype: Number format of the store.

    Returns:
        Shape (n, width).

    Raises:
        OverflowInFeaturesError: An activation is too large for the number format.
    """
    rows, largest = narrow(output, dtype)
    if not largest <= float(np.finfo(dtype).max):
        raise OverflowInFeaturesError(layer, largest, dtype)
    return rows


def _narrow(output: tf.Tensor, dtype: str) -> tuple[tf.Tensor, tf.Tensor]:
    undefined = tf.reduce_any(tf.math.is_nan(output))  # a maximum may leave NaN out
    largest = tf.where(undefined, np.float32("nan"), tf.reduce_max(tf.abs(output)))
    return tf.cast(tf.reshape(output, (tf.shape(output)[0], -1)), dtype), largest
