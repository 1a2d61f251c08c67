"""What all kinds of heads share: training data, result and measures.

Importing this module does not import Keras: that takes longer than training a study of heads.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import numpy as np
import pandas as pd

from vgg16_transfer.heads import threads
from vgg16_transfer.heads.measures import measure, measure_epochs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import keras
    import numpy.typing as npt

    from vgg16_transfer.heads.rows import Features
    from vgg16_transfer.heads.saved import MadeOf
    from vgg16_transfer.params import Trial

    Floats = npt.NDArray[np.float32]


_NUMBERS = 2**18  # logits that are measured at once: 1 MB


class Pictures(NamedTuple):
    """Input of a head: features and labels of pictures.

    Attributes:
        features: Shape (n, width), float32. Wide ones stay in their store; see
            :mod:`~vgg16_transfer.heads.rows`.
        labels: Shape (n,), integers from 0. -1 means that only a teacher labels the picture.
    """

    features: Features
    labels: npt.NDArray[np.int64]


class Head(Protocol):
    """A trained head: features of shape (n, height * width * channels) → n rows of classes."""

    @property
    def scalable(self) -> bool:
        """Whether the head ends in a softmax of its logits. One that counts votes does not."""

    def logits(self, features: Features) -> Floats:
        """Logits, shape (n, classes), up to a constant in each row."""

    def probabilities(self, features: Features) -> Floats:
        """Class probabilities, shape (n, classes), float32. Each row sums to 1."""

    def scale(self, temperature: float) -> None:
        """Divides the logits by a temperature, from now on. Only if the head is ``scalable``."""

    def to_keras(self) -> keras.Model:
        """The same head as a Keras model, whose outputs are the probabilities."""

    def save(self, path: Path, made_of: MadeOf | None = None) -> None:
        """Writes the head as a ``.keras`` file. The same head gives the same bytes.

        Args:
            path: The file to write. On errors, it is left unchanged.
            made_of: What the head was trained on, written to the file's metadata.
        """


class Fitted(NamedTuple):
    """A trained head and its training history.

    Attributes:
        head: The head.
        history: One row per epoch: ``epoch`` from 1, and ``<role>_<measure>``, measured on all
            pictures of the role at the end of the epoch. A kind without epochs has one row.
        finished: False if a loss was not finite after an epoch. The history then ends before that
            epoch.
    """

    head: Head
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


def at_once(head: Head, roles: Mapping[str, Pictures], logits: Mapping[str, Floats]) -> Fitted:
    """The result of a kind of head without epochs.

    Args:
        head: The head.
        roles: Pictures to measure the head on, by role.
        logits: The head's logits by role, shape (n, classes).

    Returns:
        The head, and a history of one row, or of no row if a loss is not finite.
    """
    row = measure_roles(roles, logits)
    finished = finite(row)
    return Fitted(head, as_history([row] if finished else []), finished)


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


class Epochs:
    """Measures a head after every epoch, several epochs at once, since calls of NumPy take time.

    Args:
        roles: The pictures by role.
        classes: How many classes there are.

    Attributes:
        rows: The measures of each epoch, by the name ``<role>_<measure>``, up to the last one with
            finite losses.
        finite: Whether all losses were finite.
    """

    def __init__(self, roles: Mapping[str, Pictures], classes: int) -> None:
        self.rows: list[dict[str, float]] = []
        self.finite = True
        self._roles = roles
        count = sum(len(pictures.labels) for pictures in roles.values())
        self._at_once = max(1, _NUMBERS // (count * classes))
        self._waiting: list[Mapping[str, Floats]] = []

    def add(self, logits: Mapping[str, Floats]) -> None:
        """Takes the logits of an epoch, by role."""
        self._waiting.append(logits)
        if len(self._waiting) == self._at_once:
            self.measure()

    def measure(self) -> None:
        """Measures the epochs that were not measured yet."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        of_roles = {
            role: measure_epochs(pictures.labels, np.stack([logits[role] for logits in waiting]))
            for role, pictures in self._roles.items()
        }
        for number in range(len(waiting)):
            row = {
                f"{role}_{name}": value
                for role, rows in of_roles.items()
                for name, value in rows[number].items()
            }
            self.finite = self.finite and finite(row)
            if not self.finite:
                return
            self.rows.append(row)


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
