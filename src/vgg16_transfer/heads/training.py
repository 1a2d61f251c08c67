"""How one head is trained: softmax regression by mini-batches, every epoch measured.

A kernel that starts at zero and follows gradients of pictures never leaves the span of the training
features: each step adds a sum of feature vectors, and momentum and weight decay only scale what is
there. So for ``sgd`` the features are first written in an orthonormal basis Q of that span,
X = Z Qᵀ with Q from a thin QR of Xᵀ; the same steps on Z (n pictures by n numbers, instead of n by
up to 200,704) give the kernel W', and Q W' is the kernel that training on X would have given.
``adam`` scales each coordinate by itself, which a rotation changes: it trains on X.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from vgg16_transfer.heads import softmax

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from vgg16_transfer.params import Trial

    Floats = npt.NDArray[np.float32]

MEASURES = ("loss", "accuracy", "top5_accuracy")
"""Recorded after every epoch, for every role."""


class Pictures(NamedTuple):
    """Pictures as a head sees them.

    Attributes:
        features: Shape (n, width), float32.
        labels: Shape (n,), whole numbers from 0.
    """

    features: Floats
    labels: npt.NDArray[np.int64]


class Fit(NamedTuple):
    """A trained head's weights, and how it got there.

    Attributes:
        kernel: Shape (width, classes).
        bias: Shape (classes,).
        history: One row per epoch: ``epoch`` from 1, and ``<role>_<measure>``, measured on all
            pictures of the role when the epoch is over.
    """

    kernel: Floats
    bias: Floats
    history: pd.DataFrame


def fit(trial: Trial, roles: Mapping[str, Pictures], classes: int) -> Fit:
    """Trains a head on the role ``train`` and measures it on every role.

    Args:
        trial: The setting.
        roles: ``train``, ``test``, and ``validation`` if there is one.
        classes: Number of classes.
    """
    inputs = {role: pictures.features for role, pictures in roles.items()}
    for layer in softmax.front(trial):
        inputs = {role: layer(features).numpy() for role, features in inputs.items()}
    basis = row_space(inputs["train"]) if trial.optimizer == "sgd" else None
    if basis is not None:
        inputs = {role: features @ basis for role, features in inputs.items()}
    rotated = {role: Pictures(inputs[role], roles[role].labels) for role in roles}
    kernel, bias, history = _descend(trial, rotated, classes)
    return Fit(kernel if basis is None else basis @ kernel, bias, history)


def row_space(features: Floats) -> Floats | None:
    """An orthonormal basis of what the rows span, or None if it has no fewer dimensions.

    Args:
        features: Shape (n, width).

    Returns:
        Shape (width, n), with orthonormal columns.
    """
    n, width = features.shape
    return np.linalg.qr(features.T).Q if n < width else None


def _descend(
    trial: Trial, roles: Mapping[str, Pictures], classes: int
) -> tuple[Floats, Floats, pd.DataFrame]:
    dense = keras.layers.Dense(classes, kernel_initializer="zeros")
    dense.build((None, roles["train"].features.shape[1]))
    optimizer = _optimizer(trial)
    optimizer.build(dense.trainable_variables)
    tensors = {role: (tf.constant(x), tf.constant(y)) for role, (x, y) in roles.items()}
    train_x, train_y = tensors["train"]

    def step(batch: tf.Tensor) -> None:
        # The last batch of an epoch may be short: it is padded with -1, and those weigh nothing.
        weights = tf.cast(batch >= 0, tf.float32)
        x, y = tf.gather(train_x, tf.maximum(batch, 0)), tf.gather(train_y, tf.maximum(batch, 0))
        with tf.GradientTape() as tape:
            surprise = tf.nn.sparse_softmax_cross_entropy_with_logits(y, dense(x))
            loss = tf.reduce_sum(weights * surprise) / tf.reduce_sum(weights)
            loss += trial.weight_decay * tf.nn.l2_loss(dense.kernel)
        gradients = tape.gradient(loss, dense.trainable_variables)
        optimizer.apply(gradients, dense.trainable_variables)

    def epoch(order: tf.Tensor) -> tf.Tensor:
        for batch in order:
            step(batch)
        return tf.stack([_measure(y, dense(x)) for x, y in tensors.values()])

    orders = _orders(trial, len(train_y))
    run_epoch = tf.function(epoch)
    measured = np.stack([run_epoch(order).numpy() for order in orders])
    columns = [f"{role}_{measure}" for role in tensors for measure in MEASURES]
    history = pd.DataFrame(measured.reshape(trial.epochs, -1), columns=columns)
    history.insert(0, "epoch", np.arange(1, trial.epochs + 1))
    return dense.kernel.numpy(), dense.bias.numpy(), history


def measure(labels: npt.NDArray[np.int64], logits: Floats) -> dict[str, float]:
    """How good logits of shape (n, classes) are for labels of shape (n,), by ``MEASURES``."""
    measured = _measure(tf.constant(labels), tf.constant(logits)).numpy()
    return dict(zip(MEASURES, map(float, measured), strict=True))


def _measure(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    right = tf.equal(tf.argmax(logits, axis=1), labels)
    among_five = tf.nn.in_top_k(labels, logits, 5)
    return tf.stack([tf.reduce_mean(tf.cast(m, tf.float32)) for m in (loss, right, among_five)])


def _optimizer(trial: Trial) -> keras.optimizers.Optimizer:
    if trial.optimizer == "adam":
        return keras.optimizers.Adam(trial.learning_rate)
    return keras.optimizers.SGD(trial.learning_rate, momentum=trial.momentum)


def _orders(trial: Trial, pictures: int) -> npt.NDArray[np.int64]:
    """Which pictures make which step: shape (epochs, steps, batch size), padded with -1."""
    batch_size = min(trial.batch_size, pictures)
    steps = -(-pictures // batch_size)
    orders = np.full((trial.epochs, steps * batch_size), -1)
    random = np.random.default_rng(trial.seed)
    for order in orders:
        order[:pictures] = random.permutation(pictures)
    return orders.reshape(trial.epochs, steps, batch_size)
