"""Logs a study to MLflow while it trains.

Training never waits for the store, and no failure of the store costs a result: whatever a run lacks
when the study is over, :mod:`~vgg16_transfer.tracking.publish` adds. Importing this module does not
import MLflow.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vgg16_transfer.heads.watching import milliseconds
from vgg16_transfer.lineage.origins import rounded
from vgg16_transfer.tracking.background import Background, Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    import numpy.typing as npt
    from mlflow.entities import Run

    from vgg16_transfer.heads.watching import Ended
    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Study
    from vgg16_transfer.tracking.study_runs import StudyRuns


class StudyLogger(Logger):
    """Logs the runs of a study: what its watcher is told, in the same order.

    Args:
        study: The study.
        open_runs: Opens the store.
        publish: Logs what the store does not have, of a study that is over, given its lineage and
            the names of the trials whose runs are complete. Returns a sentence.
    """

    def __init__(
        self,
        study: Study,
        open_runs: Callable[[], StudyRuns],
        publish: Callable[[Lineage, set[str]], str],
    ) -> None:
        self._trials = {study.trial_name(trial): trial for trial in study.trials()}
        self._open = open_runs
        self._publish = publish
        self._opened: StudyRuns | None = None
        self._completed: set[str] = set()
        self._active: dict[str, tuple[Run, set[int]]] = {}  # with the epochs that it has
        self._monitor: Any = None

    @property
    def _runs(self) -> StudyRuns:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def began(self, trial: str, started: int) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        if self._runs.is_taken(trial):
            return
        known = trial in self._runs.existing
        run = self._runs.start(trial, self._trials[trial], started)
        self._active[trial] = run, self._runs.epochs_of(run) if known else set()
        # Trials on a cluster run side by side: one monitor of this machine is enough.
        if self._trials[trial].approach == "end_to_end" and self._monitor is None:
            self._monitor = self._runs.monitor(run)

    def epoch(self, trial: str, epoch: int, timestamp: int, measured: Mapping[str, float]) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        # The last epoch is measured again, as all roles and measures are, once the trial is over.
        if trial not in self._active or epoch == self._trials[trial].epochs:
            return
        run, logged = self._active[trial]
        if epoch not in logged:
            self._runs.log_epoch(run, epoch, timestamp, measured)
            logged.add(epoch)

    def kernels(
        self, trial: str, epoch: int, kernels: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        if trial in self._active:
            self._runs.log_kernels(self._active[trial][0], epoch, kernels)

    def ended(self, trial: str, ended: Ended) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        if trial not in self._active:
            return
        self._end_monitor()
        run, logged = self._active.pop(trial)
        self._runs.finish(run, ended.record, ended.heads, rounded(ended.times._asdict()), logged)
        self._completed.add(trial)

    def broke(self, trial: str, why: str, status: str = "FAILED") -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        if trial in self._active:
            self._end_monitor()
            run, _ = self._active.pop(trial)
            self._runs.stop(run, status, why)

    def publish(self, lineage: Lineage) -> str:
        """Completes the runs of a study that is over. See :func:`.log.log_study`."""
        self._end_monitor()
        self._opened = None
        self._active.clear()
        return self._publish(lineage, self._completed)

    def stop(self, status: str, why: str) -> None:
        """Ends the runs that are not over.

        Args:
            status: ``FAILED`` or ``KILLED``.
            why: What happened.
        """
        if self._opened is not None:
            for trial in list(self._active):
                self.broke(trial, why, status)
            self._opened.stop_study(status, why)

    def beat(self) -> None:
        """Tells other processes that the runs are still being logged."""
        if self._opened is not None:
            self._opened.sign(run for run, _ in self._active.values())

    def _end_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None


class Live:
    """A watcher of a study that has its runs logged; see :class:`~.heads.watching.Watch`.

    Args:
        logger: Logs them, in a process of its own.
    """

    def __init__(self, logger: Background[StudyLogger]) -> None:
        self._logger = logger

    def began(self, trial: str, started: int) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._logger.send(StudyLogger.began, trial, started)

    def epoch(self, trial: str, epoch: int, measured: Mapping[str, float]) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._logger.send(StudyLogger.epoch, trial, epoch, milliseconds(), measured)

    def kernels(
        self, trial: str, epoch: int, kernels: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._logger.send(StudyLogger.kernels, trial, epoch, kernels)

    def ended(self, trial: str, ended: Ended) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._logger.send(StudyLogger.ended, trial, ended)

    def broke(self, trial: str, why: str) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._logger.send(StudyLogger.broke, trial, why)

    def publish(self, lineage: Lineage) -> str:
        """Waits until the runs of a study that is over are complete.

        Args:
            lineage: Lineage of the study's results.

        Returns:
            A sentence with the number of runs.

        Raises:
            LoggingEndedError: The process that logs was killed.
            Exception: Whatever the store raised.
        """
        return self._logger.ask(StudyLogger.publish, lineage)


@contextmanager
def live_runs(make: Callable[[], StudyLogger]) -> Iterator[Live]:
    """Logs a study in the background. If it fails or is killed, so do its runs that are not over.

    Args:
        make: Makes what logs it, in the process that does.
    """
    with Background(make) as logger:
        yield Live(logger)
