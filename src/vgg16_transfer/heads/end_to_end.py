"""The report's first approach: pictures stream into the frozen network and the head, under fit.

The *tail* is the trained part: the fine-tuned blocks, if any, and the head. The input of the tail
is the deepest layer whose activations are cached. So the tail can be measured and used without the
layers below. Only training pictures pass through the frozen part, because augmentation may change
them in every epoch. With ``augment_copies`` they pass it once for each copy, and the epochs take
turns.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from vgg16_transfer.backbones import base
from vgg16_transfer.heads import base as heads
from vgg16_transfer.heads import model_files
from vgg16_transfer.heads.augmentation import augment
from vgg16_transfer.heads.linear import front
from vgg16_transfer.heads.model_files import KerasHead
from vgg16_transfer.heads.watching import Progress
from vgg16_transfer.images import pictures
from vgg16_transfer.networks import DEFAULT, cached_layer
from vgg16_transfer.optimizers import OPTIMIZERS, move, rates

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vgg16_transfer.heads.base import Pictures
    from vgg16_transfer.images.source import Source
    from vgg16_transfer.params import Trial


_ALONE = Progress()

_NAME = 36
"""Characters of a trial's name in its line, so that the line fits a terminal."""


def fit(
    trial: Trial,
    weights: Path,
    source: Source,
    sha256s: Mapping[str, str],
    roles: Mapping[str, Pictures],
    classes: int,
    recipe: Mapping[str, Any],
    progress: Progress = _ALONE,
) -> heads.Fitted:
    """Trains a head, and the blocks below it that the trial fine-tunes.

    After each epoch, everything that is needed to go on is kept. A training that was killed goes
    on after the last complete epoch, and its result is the same to the bit.

    Args:
        trial: The trial's setting.
        weights: Output of the stage ``weights``.
        source: The source that has the training pictures.
        sha256s: sha256 of each training picture, by name in the source, in the order of
            ``roles["train"]``.
        roles: Pictures to measure the tail on, by role. Their features are the activations of the
            cached layer. ``early_stopping`` needs the role ``validation``.
        classes: Number of classes.
        recipe: How these features were made: ``network``, ``image_size``, in pixels, and
            ``resize``.
        progress: Who is told of each epoch, and where epochs are kept.

    Returns:
        The tail and its history. The tail's input has the shape (n, width of the cached layer).

    Raises:
        ArchiveError: The source, or a picture in it, can't be read.
        SourceError: The source does not have these pictures.
        WeightsError: The weights are missing, or have no such layer.
    """
    name = recipe.get("network", DEFAULT)
    network = base.load(name, weights, recipe["image_size"])
    cached = cached_layer(name, trial.layer, trial.fine_tune_from)
    labels = roles["train"].labels
    orders = np.array([np.concatenate(epoch) for epoch in heads.orders(trial, len(labels))])
    steps = math.ceil(len(labels) / trial.batch_size)
    tail = make_tail(trial, network, cached, classes)
    frozen = _Frozen(name, network, cached)
    # The activations of copies are there when an epoch begins.
    below = keras.layers.Identity() if trial.augment_copies else frozen
    model = _EndToEnd(trial, below, tail, steps)
    training = _Training(trial, model, roles, _identity(trial, sha256s, recipe), progress)
    done = training.resume()
    if done < trial.epochs and not training.over:
        files = _read(source, sha256s)
        if trial.augment_copies:
            copies = _copies(trial, frozen, files, recipe, progress.name)
            batches = _taking_turns(trial, copies, labels, orders, done)
        else:
            batches = stream(trial, files, labels, orders, recipe, done)
        with _bar(progress.name, trial.epochs * steps, done * steps) as training.bar:
            model.fit(
                batches,
                initial_epoch=done,
                epochs=trial.epochs,
                shuffle=False,
                steps_per_epoch=steps,
                callbacks=[training],
                verbose=0,
            )
    if not training.diverged:
        training.tell_kernels()
    return heads.Fitted(KerasHead(tail), heads.as_history(training.rows), not training.diverged)


def stream(
    trial: Trial,
    files: Sequence[bytes],
    labels: npt.NDArray[np.int64],
    orders: npt.NDArray[np.int64],
    recipe: Mapping[str, Any],
    done: int = 0,
) -> tf.data.Dataset:
    """Streams the batches of all epochs. A batch is decoded while the one before it is trained on.

    Args:
        trial: The trial's setting. The seed of a picture's augmentation is made of the trial's
            seed, the epoch and the picture's index in ``files``.
        files: Bytes of each picture file.
        labels: Shape (n,).
        orders: Shape (epochs, n): the order of the pictures in each epoch, as indices of ``files``.
        recipe: As for :func:`fit`.
        done: Number of epochs to leave out, because they are done.

    Returns:
        Pictures of shape (batch, image_size, image_size, 3), RGB, integers from 0 to 255, and
        their labels. The last batch of an epoch may be smaller than the others.
    """
    size, resize = recipe["image_size"], recipe["resize"]

    def decode(row: int) -> npt.NDArray[np.uint8]:
        return pictures.to_square(pictures.decode(files[row]), size, resize)

    def example(epoch: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        picture = tf.numpy_function(decode, [row], tf.uint8, stateful=False)
        picture = tf.ensure_shape(picture, (size, size, 3))
        seed = tf.random.fold_in(tf.stack([tf.constant(trial.seed, tf.int64), epoch]), row)
        return augment(picture, trial.augment, seed), tf.gather(labels, row)

    def batches(epoch: tf.Tensor, order: tf.Tensor) -> tf.data.Dataset:
        rows = tf.data.Dataset.from_tensor_slices(order)
        examples = rows.map(lambda row: example(epoch, row), num_parallel_calls=tf.data.AUTOTUNE)
        return examples.batch(trial.batch_size)

    epochs = np.arange(done, len(orders), dtype=np.int64)
    left = tf.data.Dataset.from_tensor_slices((epochs, orders[done:]))
    return left.flat_map(batches).prefetch(1)


def _copies(
    trial: Trial, frozen: _Frozen, files: Sequence[bytes], recipe: Mapping[str, Any], name: str
) -> list[npt.NDArray[np.float32]]:
    """What the frozen part makes of each copy of the pictures, in the order of the files.

    Copy c is what :func:`stream` makes in epoch c. Without augmentation all copies are the same.
    """
    count = 1 if trial.augment == "none" else min(trial.augment_copies, trial.epochs)
    orders = np.tile(np.arange(len(files)), (count, 1))
    unlabelled = np.zeros(len(files), np.int64)
    rows = []
    with tqdm(total=orders.size, desc=f"{name}: copies", unit="picture", disable=None) as bar:
        for pictures, _ in stream(trial, files, unlabelled, orders, recipe):
            rows.append(frozen(pictures).numpy())
            bar.update(len(pictures))
    return np.split(np.concatenate(rows), count)


def _taking_turns(
    trial: Trial,
    copies: Sequence[npt.NDArray[np.float32]],
    labels: npt.NDArray[np.int64],
    orders: npt.NDArray[np.int64],
    done: int,
) -> tf.data.Dataset:
    """The batches of :func:`stream`, with activations of copies instead of pictures."""

    def batches() -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
        for epoch, order in enumerate(orders[done:], done):
            for start in range(0, len(order), trial.batch_size):
                rows = order[start : start + trial.batch_size]
                yield copies[epoch % len(copies)][rows], labels[rows]

    width = copies[0].shape[1]
    signature = (tf.TensorSpec((None, width), tf.float32), tf.TensorSpec((None,), tf.int64))
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(1)


def make_tail(trial: Trial, network: keras.Model, cached: str, classes: int) -> keras.Model:
    """Makes the trained part: the layers of the network above the cached layer, and the head.

    Args:
        trial: The trial's setting.
        network: A frozen network. Its layers above ``cached`` are moved into the tail, not copied,
            and become trainable. Batch normalisation keeps its statistics, because the statistics
            of a few pictures are too noisy.
        cached: The cached layer. No layer below it is trained.
        classes: Number of classes.

    Returns:
        A model with input shape (n, width of the cached layer) and output shape (n, classes). The
        weights of its head are 0.
    """
    shape, head_input = (network.get_layer(name).output.shape[1:] for name in (cached, trial.layer))
    above = base.between(network, cached, trial.layer)
    blocks = [keras.layers.Reshape(shape, name="activations"), *above] if above else []
    if above and len(head_input) > 1:
        blocks.append(keras.layers.Flatten(name="flattened"))
    return keras.Sequential(
        [
            keras.Input((math.prod(shape),), name="features"),
            *blocks,
            *model_files.layers_of(front(trial, head_input)),
            keras.layers.Dense(
                classes, activation="softmax", kernel_initializer="zeros", name="softmax"
            ),
        ],
        name="head",
    )


class _Frozen(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Pictures → flattened activations of a layer, a few pictures at a time.

    A batch of 256 would need 6.6 GB for the first convolutions alone. Also, on a CPU, small parts
    give exactly the cached activations, before these were rounded.
    """

    def __init__(self, name: str, network: keras.Model, layer: str) -> None:
        super().__init__(name="frozen", trainable=False)
        tapped = base.tap(name, network, [layer])
        self._network_name = name
        self._at_once = tapped.batch_size
        self._width = math.prod(tapped.shapes[layer])
        self.network = keras.Model(network.input, network.get_layer(layer).output)

    def call(self, batch: tf.Tensor) -> tf.Tensor:
        count = tf.shape(batch)[0]
        padded = tf.pad(batch, [[0, -count % self._at_once], [0, 0], [0, 0], [0, 0]])
        parts = tf.reshape(padded, (-1, self._at_once, *batch.shape[1:]))
        # Two parts run in parallel: one computes while the other waits for its slowest thread.
        outputs = tf.map_fn(
            self._forward, parts, fn_output_signature=tf.float32, parallel_iterations=2
        )
        return tf.reshape(outputs, (-1, self._width))[:count]

    def _forward(self, part: tf.Tensor) -> tf.Tensor:
        return self.network(base.preprocess(self._network_name, part), training=False)


class _EndToEnd(keras.Model):  # type: ignore[misc]  # Keras has no types
    """The frozen network and the tail. Fine-tuned blocks and the head have separate step sizes."""

    def __init__(
        self, trial: Trial, frozen: keras.layers.Layer, tail: keras.Model, per_epoch: int
    ) -> None:
        super().__init__(name="end_to_end")
        self.frozen = frozen
        self.tail = tail
        self._trial = trial
        self._moved = tail.trainable_variables
        slots = OPTIMIZERS[trial.optimizer].slots
        self._slots = [
            [tf.Variable(tf.zeros_like(variable.value)) for _ in range(slots)]
            for variable in self._moved
        ]
        self._step = tf.Variable(0, dtype=tf.int64)
        of_head, of_blocks = (
            tf.constant(rates(trial, per_epoch, rate), tf.float32)
            for rate in (trial.learning_rate, trial.fine_tune_learning_rate)
        )
        blocks = len(self._moved) - 2  # the last two are the head's kernel and bias
        self._sizes = [*[of_blocks] * blocks, of_head, of_head]
        self._decays = [*[False] * blocks, True, False]
        self.compile(jit_compile=False)

    def state(self) -> list[Any]:
        """Everything that training changes."""
        return [
            *self.tail.variables,
            *(slot for slots in self._slots for slot in slots),
            self._step,
        ]

    def call(self, batch: tf.Tensor) -> tf.Tensor:
        return self.tail(self.frozen(batch))

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        batch, labels = data
        features = self.frozen(batch)
        with tf.GradientTape() as tape:
            logits = model_files.softmax_input(self.tail, features)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, [variable.value for variable in self._moved])
        sizes = [tf.gather(steps, self._step) for steps in self._sizes]
        self._step.assign_add(1)
        step = tf.cast(self._step, tf.float32)
        for variable, gradient, slots, size, decay in zip(
            self._moved, gradients, self._slots, sizes, self._decays, strict=True
        ):
            weights, new_slots = move(
                self._trial, variable.value, gradient, tuple(slots), step, size, decay=decay
            )
            variable.assign(weights)
            for slot, new in zip(slots, new_slots, strict=True):
                slot.assign(new)
        return {"loss": loss}


class _Training(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """What happens at the end of each epoch: the tail is measured, the epoch is kept and told.

    Attributes:
        rows: The measures of each complete epoch, on the cached features of every role.
        diverged: Whether a loss was not finite. That epoch is not complete.
        bar: The progress bar, which counts steps.
    """

    def __init__(
        self,
        trial: Trial,
        model: _EndToEnd,
        roles: Mapping[str, Pictures],
        identity: str,
        progress: Progress,
    ) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []
        self.diverged = False
        self.bar: Any = None
        self._trial = trial
        self._trained = model
        self._roles = roles
        self._identity = identity
        self._progress = progress

    def resume(self) -> int:
        """Sets the model to the last epoch that was kept. Returns the number of complete epochs."""
        if self._progress.kept is not None:
            self.rows = self._progress.kept.load(self._identity, self._trained.state())
        if not self.rows:
            self.tell_kernels()
        return len(self.rows)

    @property
    def over(self) -> bool:
        """Whether the loss on validation pictures has not improved for too many epochs."""
        patience = self._trial.early_stopping
        if not patience or not self.rows:
            return False
        losses = [row["validation_loss"] for row in self.rows]
        return len(losses) - 1 - losses.index(min(losses)) >= patience

    def tell_kernels(self) -> None:
        """Tells the kernels of the first and the last convolution that is trained, if there are."""
        layers = base.convolutions(self._trained.tail)
        kernels = {layer.name: layer.get_weights()[0] for layer in layers[:1] + layers[-1:]}
        if kernels:
            self._progress.watch.kernels(self._progress.name, len(self.rows), kernels)

    def on_train_batch_end(self, _batch: int, logs: Mapping[str, Any]) -> None:
        if not self.bar.disable:
            epoch, loss = len(self.rows) + 1, float(logs["loss"])
            said = f"epoch {epoch} of {self._trial.epochs}, loss {loss:.4g}"
            self.bar.set_postfix_str(said, refresh=False)
        self.bar.update()

    def on_epoch_end(self, *_: object, **__: object) -> None:
        head = KerasHead(self._trained.tail)
        logits = {role: head.logits(features) for role, (features, _labels) in self._roles.items()}
        row = heads.measure_roles(self._roles, logits)
        if not heads.finite(row):
            self.diverged = self._trained.stop_training = True
            return
        self.rows.append(row)
        name, watch, kept = self._progress
        if kept is not None:
            kept.save(self._identity, self._trained.state(), self.rows)
        self._trained.stop_training = self.over
        watch.epoch(name, len(self.rows), row)
        last = self.over or len(self.rows) == self._trial.epochs
        every = self._trial.log_filters_every
        if every and len(self.rows) % every == 0 and not last:
            self.tell_kernels()


def _bar(name: str, steps: int, done: int) -> Any:
    """A line with the name of a trial, its epoch, loss and time left. Only on a terminal."""
    shown = name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[-_NAME // 2 :]}"
    line = "{desc}: {percentage:.0f} %{postfix}, {remaining} left"
    return tqdm(total=steps, initial=done, desc=shown, bar_format=line, leave=False, disable=None)


def _identity(trial: Trial, sha256s: Mapping[str, str], recipe: Mapping[str, Any]) -> str:
    """sha256 of the setting, the training pictures in their order, and how features were made."""
    content = [trial.model_dump(), list(sha256s.values()), dict(recipe)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(source: Source, sha256s: Mapping[str, str]) -> list[bytes]:
    """Reads the files, and returns them in the order of the names.

    The files are read once, in the archive's order, and kept in memory: every epoch has a different
    order, and a .tar.gz can only be read forwards.
    """
    with source.open() as opened:
        opened.check_names(sha256s)
        names = [name for name in opened.archive.names() if name in sha256s]
        content = {name: opened.read(name, sha256s[name]) for name in names}
    return [content[name] for name in sha256s]
