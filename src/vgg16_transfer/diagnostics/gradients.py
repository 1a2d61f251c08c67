"""[stage] Check of back-propagation by central differences → reports/gradients/<dataset>.csv.

The table has the differences between (L(ω + ε) - L(ω - ε)) / 2ε and the gradient of
back-propagation, for weights ω_jk of the softmax and ω_ij of the layer below it, all in float64.
The network's row names the layer below. For VGG16 it is fc2 if the weights have it, otherwise the
last convolution. It is followed by ReLU, the pool of the convolution and the scaling to length 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.decoding import decode
from vgg16_transfer.images.manifests import read_manifest
from vgg16_transfer.networks import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vgg16_transfer.images.source import Source
    from vgg16_transfer.params import Backbone

    Doubles = npt.NDArray[np.float64]

PICTURES = 8
CHECKED = 100
"""Number of weights to check in each layer: every weight costs two forward passes."""

STEP = 1e-5
"""ε: smaller steps have larger rounding errors, larger steps cross more kinks of ReLU and pool."""

_SEED = 0
_CONVOLUTION = 4  # rank of a convolution's kernel


class Linear(NamedTuple):
    """A layer whose weights are checked, and the functions between it and the loss.

    Attributes:
        weights: Name of the weights in the table.
        layer: Name of the layer.
        below: Input of the layer: shape (n, height, width, channels) or (n, units).
        kernel: HWIO for a convolution, otherwise shape (units, outputs).
        bias: Shape (outputs,).
        above: Function from the layer's output, before its activation function, to the loss.
    """

    weights: str
    layer: str
    below: Doubles
    kernel: Doubles
    bias: Doubles
    above: Callable[[tf.Tensor], tf.Tensor]


def write_gradients(
    backbone: Backbone, *, weights: Path, manifest: Path, source: Source, out: Path
) -> None:
    """Writes the table: one row per layer, with the columns of :func:`compare`.

    Args:
        backbone: Settings of the network and of its input pictures.
        weights: Output of the stage ``weights``.
        manifest: Manifest of a split. The loss is that of its first ``PICTURES`` training pictures,
            from as many classes as possible.
        source: Source of the dataset's pictures.
        out: File to write.

    Raises:
        WeightsError: The weights are missing, or are those of another network.
        SourceError: The source lacks a picture, or the picture has changed.
    """
    network = base.load(backbone.network, weights, backbone.image_size)
    row = NETWORKS[backbone.network]
    dense = row.dense and any(layer.name == row.dense[-1] for layer in network.layers)
    layer, below = row.checked[0 if dense else 1] if row.checked else (None, row.layers[-1])
    rows = read_manifest(manifest)
    chosen = rows[rows["role"] == "train"].sort_values(["rank", "label"]).head(PICTURES)
    tapped = base.tap(backbone.network, network, [below])
    with source.open() as pictures:
        activations = [
            tapped.forward(decode(pictures.read(path, sha256), backbone)[np.newaxis])[below]
            for path, sha256 in zip(chosen["path"], chosen["sha256"], strict=True)
        ]
    random = np.random.default_rng(_SEED)
    checked = chain(
        layer,
        np.concatenate(activations).astype(np.float64),
        [weight.astype(np.float64) for weight in network.get_layer(layer).get_weights()]
        if layer
        else None,
        chosen["label"].to_numpy(),
        rows["label"].nunique(),
        random,
    )
    table = pd.DataFrame([compare(linear, sample(linear, CHECKED, random)) for linear in checked])
    with replacing(out) as fresh:
        table.to_csv(fresh, index=False, float_format="%.4g", lineterminator="\n")


def chain(
    layer: str | None,
    below: Doubles,
    weights: Sequence[Doubles] | None,
    labels: npt.NDArray[np.int64],
    classes: int,
    random: np.random.Generator,
) -> tuple[Linear, ...]:
    """Builds a layer and a softmax head on it. Their loss is the mean cross-entropy.

    The head's weights are random, because a head of zeros passes no gradient to the layer below.
    Features of length 1 and weights of variance 1 give logits of variance 1, so the softmax is not
    saturated.

    Args:
        layer: Name of the layer below the head, or None to check the head alone.
        below: Input of the layer; see :class:`Linear`.
        weights: Kernel and bias of the layer, if there is one. A convolution is followed by a pool.
        labels: Labels of the pictures, shape (n,).
        classes: Number of classes.
        random: Generator for the head's weights.

    Returns:
        The layer with ω_ij, if there is one, and the head with ω_jk.
    """

    def unit_length(activations: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(tf.reshape(activations, (len(labels), -1)), axis=1)

    def features(outputs: tf.Tensor) -> tf.Tensor:
        activations = tf.nn.relu(outputs)
        if weights and weights[0].ndim == _CONVOLUTION:
            activations = tf.nn.max_pool2d(activations, 2, 2, "VALID")
        return unit_length(activations)

    def loss(logits: tf.Tensor) -> tf.Tensor:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.reduce_mean(losses)

    if weights:
        outputs = features(_linear_output(below, weights[0]) + weights[1])
    else:
        outputs = unit_length(below)
    unit = outputs.numpy()
    kernel, bias = random.standard_normal((unit.shape[1], classes)), np.zeros(classes)
    head = Linear("ω_jk", "softmax", unit, kernel, bias, loss)
    if layer is None or weights is None:
        return (head,)

    def above(out: tf.Tensor) -> tf.Tensor:
        return loss(features(out) @ kernel + bias)

    return (Linear("ω_ij", layer, below, weights[0], weights[1], above), head)


def sample(linear: Linear, count: int, random: np.random.Generator) -> list[tuple[int, ...]]:
    """Random indices of different weights in a layer's kernel, uniformly distributed."""
    size = linear.kernel.size
    chosen = random.choice(size, min(count, size), replace=False)
    return [tuple(map(int, np.unravel_index(index, linear.kernel.shape))) for index in chosen]


def backpropagate(linear: Linear) -> Doubles:
    """Gradient of the loss for every weight of a layer's kernel, in the kernel's shape."""
    kernel = tf.constant(linear.kernel)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = linear.above(_linear_output(linear.below, kernel) + linear.bias)
    gradient: Doubles = tape.gradient(loss, kernel).numpy()
    return gradient


def differentiate(linear: Linear, places: Sequence[tuple[int, ...]], step: float = STEP) -> Doubles:
    """Gradient of the loss for some weights, by central differences.

    A weight changes only its own output channel. Only that channel is computed again, which makes a
    convolution of 512 channels as cheap as one of a single channel.

    Args:
        linear: The layer.
        places: Indices of the weights in its kernel; the last index is the output channel.
        step: ε.

    Returns:
        Shape (len(places),).
    """
    outputs = _linear_output(linear.below, linear.kernel) + linear.bias
    channels = np.arange(len(linear.bias))

    def loss(kernel: tf.Tensor, channel: tf.Tensor) -> tf.Tensor:
        changed = _linear_output(linear.below, kernel) + tf.gather(linear.bias, channel)
        return linear.above(tf.where(channels == channel, changed, outputs))

    compiled = tf.function(loss)

    def loss_at(distance: float, place: tuple[int, ...]) -> float:
        *inner, channel = place
        kernel = linear.kernel[..., channel : channel + 1].copy()
        kernel[(*inner, 0)] += distance
        return float(compiled(tf.constant(kernel), tf.constant(channel, tf.int64)))

    slopes = [(loss_at(step, place) - loss_at(-step, place)) / (2 * step) for place in places]
    return np.array(slopes)


def compare(linear: Linear, places: Sequence[tuple[int, ...]]) -> dict[str, str | int | float]:
    """Compares both gradients of some weights; a row of the table.

    Returns:
        ``weights``, ``layer``, number of ``checked`` weights, ``average`` and ``max`` of
        abs(central difference - back-propagation), and for scale ``gradient``: the average absolute
        value of back-propagation for the same weights.
    """
    gradient = backpropagate(linear)
    backward = np.array([gradient[place] for place in places])
    differences = np.abs(differentiate(linear, places) - backward)
    return {
        "weights": linear.weights,
        "layer": linear.layer,
        "checked": len(places),
        "average": float(differences.mean()),
        "max": float(differences.max()),
        "gradient": float(np.abs(backward).mean()),
    }


def _linear_output(below: Doubles, kernel: tf.Tensor) -> tf.Tensor:
    if len(kernel.shape) == _CONVOLUTION:
        return tf.nn.conv2d(below, kernel, strides=1, padding="SAME")
    return tf.matmul(below, kernel)
