"""What every kind of head shares: its training data, its result, and how it is measured."""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import keras
import numpy as np
import pandas as pd

from vgg16_transfer.heads.measures import measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from vgg16_transfer.params import Trial

    Floats = npt.NDArray[np.float32]


class Pictures(NamedTuple):
    """Pictures as a head sees them.

    Attributes:
        features: Shape (n, width), float32.
        labels: Shape (n,), whole numbers from 0; -1 where only a teacher labels the picture.
    """

    features: Floats
    labels: npt.NDArray[np.int64]


class Fitted(NamedTuple):
    """A trained head, and how it got there.

    Attributes:
        model: Of shape (n, height * width * channels) → (n, classes), whose rows sum to 1.
        history: One row per epoch: ``epoch`` from 1, and ``<role>_<measure>``, measured on all
            pictures of the role when the epoch is over. A kind without epochs has one row.
        finished: False if a loss was not finite after an epoch: the history ends before it.
    """

    model: keras.Model
    history: pd.DataFrame
    finished: bool


class Fit(Protocol):
    """What a module in heads/kinds/ must have as ``fit``."""

    def __call__(
        self,
        trial: Trial,
        shape: Sequence[int],
        training: Pictures,
        roles: Mapping[str, Pictures],
        classes: int,
        teacher_logits: Floats | None = None,
    ) -> Fitted:
        """Trains a head.

        Args:
            trial: The setting.
            shape: Of one picture's activations of the trial's layer.
            training: The training data.
            roles: What is measured on: ``train``, ``test``, and ``validation`` if there is one.
                Only ``validation`` may decide anything.
            classes: Number of classes.
            teacher_logits: Logits of a teacher for the training data, shape (n, classes). Only for
                kinds whose row names ``teacher_layer``.
        """


def fit_of(kind: str) -> Fit:
    """The ``fit`` of a kind.

    Args:
        kind: A key of ``HEAD_KINDS``.
    """
    module = importlib.import_module(f"vgg16_transfer.heads.kinds.{kind}")
    return cast("Fit", module.fit)


def front(trial: Trial, shape: Sequence[int]) -> list[keras.Layer]:
    """What happens to features before they are weighed: nothing in it is trained.

    For the layer ``predictions``, whose features are VGG16's logits z, the softmax at temperature
    T, softmax(z / T) (Hinton et al. 2015, eq. 1); the mean over a pool's positions, if the trial
    asks for it; then, unless it says otherwise, each picture's features are scaled to length 1.

    Args:
        trial: The setting.
        shape: Of one picture's activations of the trial's layer: (height, width, channels) or
            (units,).

    Returns:
        Layers to apply one after the other, of shape (n, height * width * channels) → (n, width).
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


def through(layers: Sequence[keras.Layer], features: Floats) -> Floats:
    """Features behind some layers, such as those of :func:`front`."""
    for layer in layers:
        features = layer(features).numpy()
    return features


def linear(trial: Trial, shape: Sequence[int], kernel: Floats, bias: Floats) -> keras.Model:
    """A head whose logits are linear in the features.

    Args:
        trial: Decides what comes before the softmax.
        shape: Of one picture's activations of the trial's layer.
        kernel: Shape (width, classes).
        bias: Shape (classes,).

    Returns:
        A model of shape (n, height * width * channels) → (n, classes), whose rows sum to 1.
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
    """The result of a kind without epochs: its history has one row.

    Args:
        model: The head.
        roles: What is measured on.
        logits: Of the head, by role, shape (n, classes).
    """
    row = measure_roles(roles, logits)
    finished = finite(row)
    return Fitted(model, as_history([row] if finished else []), finished)


def measure_roles(
    roles: Mapping[str, Pictures], logits: Mapping[str, Floats], *, every_epoch: bool = True
) -> dict[str, float]:
    """The measures of every role, as ``<role>_<measure>``.

    Args:
        roles: The pictures.
        logits: By role, shape (n, classes).
        every_epoch: Only the measures that are computed after every epoch.
    """
    return {
        f"{role}_{name}": value
        for role, pictures in roles.items()
        for name, value in measure(pictures.labels, logits[role], every_epoch=every_epoch).items()
    }


def finite(row: Mapping[str, float]) -> bool:
    """Whether all losses of an epoch are numbers: those of a head that diverged are not."""
    return all(math.isfinite(value) for name, value in row.items() if name.endswith("_loss"))


def as_history(rows: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """The measures of one epoch after the other, numbered from 1."""
    frame = pd.DataFrame(list(rows))
    frame.insert(0, "epoch", np.arange(1, len(rows) + 1))
    return frame


def orders(trial: Trial, pictures: int) -> list[list[npt.NDArray[np.int64]]]:
    """Which pictures make which step, epoch after epoch; an epoch's last step may be short."""
    random = np.random.default_rng(trial.seed)
    starts = range(trial.batch_size, pictures, trial.batch_size)
    return [np.split(random.permutation(pictures), starts) for _ in range(trial.epochs)]
