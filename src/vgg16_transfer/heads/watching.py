"""What a study tells those who watch it train: each trial, and each epoch that takes long.

Watching costs a study no result: nothing that a watcher does may raise an error, or take time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from vgg16_transfer.heads.checkpoints import Checkpoint
    from vgg16_transfer.heads.records import Record


def milliseconds() -> int:
    """The time now, in milliseconds since 1970, as MLflow counts it."""
    return time.time_ns() // 10**6


class Times(NamedTuple):
    """When a trial was trained, and how long its parts took.

    Attributes:
        started: Milliseconds since 1970.
        ended: Milliseconds since 1970.
        fit_seconds: Seconds to train the head, in all processes that worked on it.
        features_seconds: Seconds to read its features from the store; 0 if the trial before used
            the same.
        pictures_per_second: Training pictures times epochs, by ``fit_seconds``.
    """

    started: int
    ended: int
    fit_seconds: float
    features_seconds: float
    pictures_per_second: float


class Ended(NamedTuple):
    """A trial that is over.

    Attributes:
        record: What was measured, or why the trial failed.
        heads: Where the file of its head is: the first of these paths that exists.
        times: How long it took.
    """

    record: Record
    heads: tuple[Path, ...]
    times: Times


class Watch(Protocol):
    """Whoever watches a study train."""

    def began(self, trial: str, started: int) -> None:
        """A trial begins.

        Args:
            trial: Trial name.
            started: Milliseconds since 1970.
        """

    def epoch(self, trial: str, epoch: int, measured: Mapping[str, float]) -> None:
        """An epoch of a trial is over.

        Args:
            trial: Trial name.
            epoch: Number of the epoch, from 1. No epoch is told twice, also if the trial is killed
                and goes on. One may be missing if it was killed in between: the record of
                :meth:`ended` has all.
            measured: The measures, by the name ``<role>_<measure>``.
        """

    def kernels(
        self, trial: str, epoch: int, kernels: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        """Kernels of a trial that fine-tunes: before training, in between if asked for, and after.

        Args:
            trial: Trial name.
            epoch: Number of complete epochs; 0 is before training. After training, an epoch may be
                told again by a process that goes on.
            kernels: Of the first and the last convolution that is trained, by layer: shape (height,
                width, input channels, kernels), or (height, width, channels, 1) if depthwise.
        """

    def ended(self, trial: str, ended: Ended) -> None:
        """A trial is over, and its results are stored."""

    def broke(self, trial: str, why: str) -> None:
        """A trial ended with an error, such as a full memory. The others go on."""


class Nobody:
    """Watches nothing."""

    def began(self, trial: str, started: int) -> None:
        """See :class:`Watch`."""

    def epoch(self, trial: str, epoch: int, measured: Mapping[str, float]) -> None:
        """See :class:`Watch`."""

    def kernels(
        self, trial: str, epoch: int, kernels: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        """See :class:`Watch`."""

    def ended(self, trial: str, ended: Ended) -> None:
        """See :class:`Watch`."""

    def broke(self, trial: str, why: str) -> None:
        """See :class:`Watch`."""


class Recorder(Nobody):
    """Keeps what a trial tells on the way, so that it can be told elsewhere.

    Attributes:
        events: Name of a method of :class:`Watch`, and its arguments, in order.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []

    def epoch(self, *arguments: Any) -> None:
        """See :class:`Watch`."""
        self.events.append(("epoch", arguments))

    def kernels(self, *arguments: Any) -> None:
        """See :class:`Watch`."""
        self.events.append(("kernels", arguments))


class Progress(NamedTuple):
    """Who hears of a trial while it is trained, and where its epochs are kept.

    Attributes:
        name: Trial name.
        watch: Is told of each epoch, after the epoch is kept. So no epoch is told twice.
        kept: Training goes on after the epoch that it has. By default, no epoch is kept.
    """

    name: str = "only"
    watch: Watch = Nobody()
    kept: Checkpoint | None = None
