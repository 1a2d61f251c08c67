"""What all kinds of heads share: training data, result and measures."""

from __future__ import annotations

import importlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import keras
import numpy as np
import pandas as pd

from vgg16_transfer.heads import model_files, threads
from vgg16_transfer.heads.measures import measure
from vgg16_transfer.heads.rows import AT_ONCE, Stored, held

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from vgg16_transfer.heads.rows import Features
    from vgg16_transfer.params import Trial

    Floats = npt.NDArray[np.float32]


class Pictures(NamedTuple):
    """Input of a head: features and labels of pictures.

    Attributes:
        features: Shape (n, width), float32. Wide ones stay in their store; see
            :mod:`~vgg16_transfer.heads.rows`.
        labels: Shape (n,), integers from 0. -1 means that only a teacher labels the picture.
    """

    features: Features
    labels: npt.NDArray[np.int64]


class Fitted(NamedTuple):
    """A trained head and its training history.

    Attributes:
        model: Input shape (n, height * width * channels), output shape (n, classes). Each output
            row sums to 1.
        history: One row per epoch: ``epoch`` from 1, and ``<role>_<measure>``, measured on all
            pictures of the role at the end of the epoch. A kind without epochs has one row.
        finished: False if a loss was not finite after an epoch. The history then ends before that
            epoch.
    """

    model: keras.Model
    history: pd.DataFrame
    finished: bool


class Data(NamedTuple):
    """What a head is trained and measured on.

    Attributes:
        training: The training data.
        roles: Pictures to measure the head on, by role: ``train``, ``test``, and ``validation`` if
            the split has it. Only ``validation`` may influence training.
        shape: Shape of one picture's activations of the trial's layer: (height, width, channels) or
            (units,).
        classes: Number of classes.
        teacher_logits: Logits of a teacher for the training data, shape (n, classes). Only for
            kinds whose row in ``HEAD_KINDS`` has the key ``teacher_layer``.
    """

    training: Pictures
    roles: Mapping[str, Pictures]
    shape: Sequence[int]
    classes: int
    teacher_logits: Floats | None = None


class Fit(Protocol):
    """Signature of the function ``fit`` that each module in heads/kinds/ must have."""

    def __call__(self, trial: Trial, data: Data) -> Fitted:
        """Trains a head.

        Args:
            trial: The trial's setting.
            data: What to train and measure it on.

        Returns:
            The head, and its history with the measures of every role.
        """


def fit_of(kind: str) -> Fit:
    """The function ``fit`` of a kind of head.

    Args:
        kind: A key of ``HEAD_KINDS``.
    """
    module = importlib.import_module(f"vgg16_transfer.heads.kinds.{kind}")
    fit = cast("Fit", module.fit)

    def fit_in_few_threads(trial: Trial, data: Data) -> Fitted:
        count = len(data.training.labels)
        step = 2 * count * min(trial.batch_size, count) * data.classes
        with threads.enough_for(step):
            return fit(trial, data)

    return fit_in_few_threads


def front(trial: Trial, shape: Sequence[int]) -> list[keras.Layer]:
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
        Layers to apply in this order. Input shape (n, height * width * channels), output shape
        (n, width).
    """
    layers: list[keras.Layer] = []
    if trial.layer == "predictions":
        layers.append(keras.layers.Rescaling(1 / trial.temperature, name="temperature"))
        layers.append(keras.layers.Softmax(name="source_softmax"))
    if trial.pooling == "average":
        layers.append(keras.layers.Reshape(tuple(shape), name="positions"))
        layers.append(keras.layers.GlobalAveragePooling2D(name="average"))
    if trial.normalise == "l2":
        layers.append(keras.layers.UnitNormalization(name="unit_length"))
    return layers


def through(layers: Sequence[keras.Layer], features: Features) -> Features:
    """Applies the layers of :func:`front` to features. Features stay in their store if they can."""
    if isinstance(features, Stored):
        if all(isinstance(layer, keras.layers.UnitNormalization) for layer in layers):
            return features.of_length_one() if layers else features
        starts = range(0, len(features), AT_ONCE)
        parts = [held(through(layers, features[row : row + AT_ONCE])) for row in starts]
        return np.concatenate(parts)
    for layer in layers:
        features = layer(features).numpy()
    return features


def linear(trial: Trial, shape: Sequence[int], kernel: Floats, bias: Floats) -> keras.Model:
    """A head whose logits are linear in the features.

    Args:
        trial: The trial's setting. It decides the layers before the softmax.
        shape: Shape of one picture's activations of the trial's layer.
        kernel: Shape (width, classes).
        bias: Shape (classes,).

    Returns:
        A model with input shape (n, height * width * channels) and output shape (n, classes). Each
        output row sums to 1.
    """
    model = keras.Sequential(
        [
            keras.Input((math.prod(shape),), name="features"),
            *front(trial, shape),
            keras.layers.Dense(len(bias), activation="softmax", name="softmax"),
        ],
        name="head",
    )
    model.get_layer("softmax").set_weights([kernel, bias])
    return model


def at_once(
    model: keras.Model, roles: Mapping[str, Pictures], logits: Mapping[str, Floats]
) -> Fitted:
    """The result of a kind of head without epochs.

    Args:
        model: The head.
        roles: Pictures to measure the head on, by role.
        logits: The head's logits by role, shape (n, classes).

    Returns:
        The head, and a history of one row, or of no row if a loss is not finite.
    """
    row = measure_roles(roles, logits)
    finished = finite(row)
    return Fitted(model, as_history([row] if finished else []), finished)


def logits(model: keras.Model, features: Features) -> Floats:
    """Logits of a head, shape (n, classes), up to a constant in each row.

    Probabilities near 0 and 1 would lose precision, so they are used only if the head's last layer
    is no softmax.

    Args:
        model: A head.
        features: Shape (n, width).
    """
    if getattr(model.layers[-1], "activation", None) is keras.activations.softmax:
        return model_files.in_parts(partial(softmax_input, model), features)
    return log_probabilities(model, features)


def softmax_input(model: keras.Model, features: Any) -> Any:
    """The input of the softmax of a head's last layer, as a tensor.

    Args:
        model: A head whose layers are a chain, with a softmax at its end.
        features: Shape (n, width), an array or a tensor.
    """
    *layers, last = model.layers
    for layer in layers:
        fixed = {"training": False} if isinstance(layer, keras.Model) else {}
        features = layer(features, **fixed)
    return keras.ops.matmul(features, last.kernel) + last.bias


def log_probabilities(model: keras.Model, features: Features) -> Floats:
    """Logarithms of a head's probabilities, shape (n, classes), without the logarithm of 0."""
    tiny = np.finfo(np.float32).tiny
    logarithms: Floats = np.log(np.maximum(model_files.probabilities(model, features), tiny))
    return logarithms


def measure_roles(
    roles: Mapping[str, Pictures], logits: Mapping[str, Floats], *, every_epoch: bool = True
) -> dict[str, float]:
    """Computes the measures of every role.

    Args:
        roles: The pictures by role.
        logits: Logits by role, shape (n, classes).
        every_epoch: Whether to compute only the measures that are needed after every epoch.

    Returns:
        The measures, by the name ``<role>_<measure>``.
    """
    return {
        f"{role}_{name}": value
        for role, pictures in roles.items()
        for name, value in measure(pictures.labels, logits[role], every_epoch=every_epoch).items()
    }


def finite(row: Mapping[str, float]) -> bool:
    """Whether all losses of an epoch are finite. If not, the head has diverged."""
    return all(math.isfinite(value) for name, value in row.items() if name.endswith("_loss"))


def as_history(rows: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """The history: one row per epoch, with the column ``epoch`` from 1."""
    frame = pd.DataFrame(list(rows))
    frame.insert(0, "epoch", np.arange(1, len(rows) + 1))
    return frame


def orders(trial: Trial, pictures: int) -> list[list[npt.NDArray[np.int64]]]:
    """Batches of each epoch, as row numbers of the training data.

    The last batch of an epoch may be smaller than the others.
    """
    random = np.random.default_rng(trial.seed)
    starts = range(trial.batch_size, pictures, trial.batch_size)
    return [np.split(random.permutation(pictures), starts) for _ in range(trial.epochs)]
