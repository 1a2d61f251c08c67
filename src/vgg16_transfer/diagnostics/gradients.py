"""[stage] Back-propagation against central differences → reports/gradients/<dataset>.csv.

The report's table: for weights ω_jk of the softmax and ω_ij of the layer below it, how far
(L(ω + ε) - L(ω - ε)) / 2ε lies from what back-propagation gives, all in float64. The layer below is
the one that the network's row names. For VGG16 that is fc2 where the weights hold it, and otherwise
the last convolution, with its pool and the scaling to length 1 between the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.features import decode
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
"""Weights of each layer; a sample, since every one of them costs two forward passes."""

STEP = 1e-5
"""ε: smaller drowns in rounding, larger crosses more kinks of ReLU and pool."""

_SEED = 0
_CONVOLUTION = 4  # the rank of its kernel


class Linear(NamedTuple):
    """A layer whose weights are checked, and all that stands between it and the loss.

    Attributes:
        weights: What the report calls them.
        layer: Its name.
        below: What comes in: shape (n, height, width, channels) or (n, units).
        kernel: HWIO of a convolution, or (units, outputs).
        bias: Shape (outputs,).
        above: From the layer's output, before any activation function, to the loss.
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
    """Writes the table: one row per layer, with the columns that :func:`compare` names.

    Args:
        backbone: How pictures enter the network.
        weights: What the stage ``weights`` wrote.
        manifest: Its first training pictures, of as many classes as there are, make the loss.
        source: Where the pictures are.
        out: File to write.

    Raises:
        WeightsError: The weights are missing, or another network's.
        SourceError: The source does not hold the pictures.
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
    """The layer below and a head on it: mean cross-entropy of the softmax of features of length 1.

    The head's weights are random, since a head of zeros passes no gradient on; features of length 1
    and weights of variance 1 make logits of variance 1, so that the softmax is not saturated.

    Args:
        layer: Name of the layer below, or None to check the head alone.
        below: What comes into it; see :class:`Linear`.
        weights: Its kernel and bias, if there is such a layer. After a convolution comes its pool.
        labels: Shape (n,).
        classes: Number of classes.
        random: Where the head's weights come from.

    Returns:
        ω_ij, if there is such a layer, and ω_jk.
    """

    def unit_length(activations: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(tf.reshape(activations, (len(labels), -1)), axis=1)

    def features(outputs: tf.Tensor) -> tf.Tensor:
        activations = tf.nn.relu(outputs)
        if weights and weights[0].ndim == _CONVOLUTION:
            activations = tf.nn.max_pool2d(activations, 2, 2, "VALID")
        return unit_length(activations)

    def loss(logits: tf.Tensor) -> tf.Tensor:
        crossed = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return tf.reduce_mean(crossed)

    outputs = features(_respond(below, weights[0]) + weights[1]) if weights else unit_length(below)
    unit = outputs.numpy()
    kernel, bias = random.standard_normal((unit.shape[1], classes)), np.zeros(classes)
    head = Linear("ω_jk", "softmax", unit, kernel, bias, loss)
    if layer is None or weights is None:
        return (head,)

    def above(out: tf.Tensor) -> tf.Tensor:
        return loss(features(out) @ kernel + bias)

    return (Linear("ω_ij", layer, below, weights[0], weights[1], above), head)


def sample(linear: Linear, count: int, random: np.random.Generator) -> list[tuple[int, ...]]:
    """Places of different weights of a layer's kernel, all equally likely."""
    size = linear.kernel.size
    chosen = random.choice(size, min(count, size), replace=False)
    return [tuple(map(int, np.unravel_index(place, linear.kernel.shape))) for place in chosen]


def backpropagate(linear: Linear) -> Doubles:
    """The derivative of the loss by every weight of a layer's kernel, in the kernel's shape."""
    kernel = tf.constant(linear.kernel)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = linear.above(_respond(linear.below, kernel) + linear.bias)
    gradient: Doubles = tape.gradient(loss, kernel).numpy()
    return gradient


def differentiate(linear: Linear, places: Sequence[tuple[int, ...]], step: float = STEP) -> Doubles:
    """The derivative of the loss by some weights, by central differences.

    A weight moves no output channel but its own, so that one alone is computed anew: a convolution
    of 512 channels at the price of one.

    Args:
        linear: The layer.
        places: Of the weights in its kernel; the last index is the output channel.
        step: ε.

    Returns:
        Shape (len(places),).
    """
    outputs = _respond(linear.below, linear.kernel) + linear.bias
    channels = np.arange(len(linear.bias))

    def loss(kernel: tf.Tensor, channel: tf.Tensor) -> tf.Tensor:
        moved = _respond(linear.below, kernel) + tf.gather(linear.bias, channel)
        return linear.above(tf.where(channels == channel, moved, outputs))

    compiled = tf.function(loss)

    def moved_by(distance: float, place: tuple[int, ...]) -> float:
        *inner, channel = place
        kernel = linear.kernel[..., channel : channel + 1].copy()
        kernel[(*inner, 0)] += distance
        return float(compiled(tf.constant(kernel), tf.constant(channel, tf.int64)))

    slopes = [(moved_by(step, place) - moved_by(-step, place)) / (2 * step) for place in places]
    return np.array(slopes)


def compare(linear: Linear, places: Sequence[tuple[int, ...]]) -> dict[str, str | int | float]:
    """A row of the table.

    Returns:
        ``weights``, ``layer``, how many were ``checked``, the ``average`` and the ``max`` of
        abs(difference - back-propagation), and, to hold them against, ``gradient``: the average
        size of what back-propagation gives for the same weights.
    """
    gradient = backpropagate(linear)
    backward = np.array([gradient[place] for place in places])
    apart = np.abs(differentiate(linear, places) - backward)
    return {
        "weights": linear.weights,
        "layer": linear.layer,
        "checked": len(places),
        "average": float(apart.mean()),
        "max": float(apart.max()),
        "gradient": float(np.abs(backward).mean()),
    }


def _respond(below: Doubles, kernel: tf.Tensor) -> tf.Tensor:
    if len(kernel.shape) == _CONVOLUTION:
        return tf.nn.conv2d(below, kernel, strides=1, padding="SAME")
    return tf.matmul(below, kernel)
