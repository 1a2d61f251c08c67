"""Logs a study to MLflow while it trains, in a thread of its own.

Training never waits for the store, and no failure of the store costs a result: whatever a run lacks
when the study is over, :mod:`~vgg16_transfer.tracking.publish` adds. Importing this module does not
import MLflow.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from vgg16_transfer.errors import TERMINATED
from vgg16_transfer.heads.watching import milliseconds
from vgg16_transfer.lineage.origins import rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    import numpy.typing as npt
    from mlflow.entities import Run

    from vgg16_transfer.heads.watching import Ended
    from vgg16_transfer.params import Study
    from vgg16_transfer.tracking.study_runs import StudyRuns

_HEARTBEAT = 20  # seconds between signs of life, which other processes look for
_PATIENCE = 10  # seconds that a stage which is ended early gives the store


class Live:
    """A watcher of a study that logs its runs; see :class:`~vgg16_transfer.heads.watching.Watch`.

    Args:
        study: The study.
        open_runs: Opens the store, in the thread.

    Attributes:
        completed: Names of the trials whose runs are logged completely.
    """

    def __init__(self, study: Study, open_runs: Callable[[], StudyRuns]) -> None:
        self._trials = {study.trial_name(trial): trial for trial in study.trials()}
        self._open = open_runs
        self._events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._log, name="mlflow", daemon=True)
        self._lock = threading.Lock()
        self._opened = False
        self._abandoned = False  # the stage is over, and logs all by itself
        self._hurried = False  # the stage is ended early: only what a run needs to end is logged
        self.completed: set[str] = set()
        self._active: dict[str, tuple[Run, set[int]]] = {}  # with the epochs that it has
        self._monitor: Any = None

    def began(self, trial: str, started: int) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._tell(self._began, trial, started)

    def epoch(self, trial: str, epoch: int, measured: Mapping[str, float]) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._tell(self._epoch, trial, epoch, milliseconds(), measured)

    def kernels(
        self, trial: str, epoch: int, kernels: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._tell(self._kernels, trial, epoch, kernels)

    def ended(self, trial: str, ended: Ended) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._tell(self._ended, trial, ended)

    def broke(self, trial: str, why: str) -> None:
        """See :class:`~vgg16_transfer.heads.watching.Watch`."""
        self._tell(self._broke, trial, "FAILED", why)

    def close(self) -> None:
        """Waits until all is logged. If the store could not be opened yet, nothing is logged."""
        self._end(None)

    def stop(self, status: str, why: str) -> None:
        """Ends the runs that are not over, in a few seconds.

        Args:
            status: ``FAILED`` or ``KILLED``.
            why: What happened.
        """
        self._hurried = True
        self._tell(self._stop, status, why)
        self._end(_PATIENCE)

    def _end(self, timeout: float | None) -> None:
        self._tell(None)
        with self._lock:
            self._abandoned = not self._opened
        if not self._abandoned:
            self._thread.join(timeout)

    def _tell(self, handle: Callable[..., None] | None, *event: Any) -> None:
        if not self._thread.is_alive() and not self._opened and handle is not None:
            with suppress(RuntimeError):  # it was started, and is over: the store failed
                self._thread.start()
        self._events.put((handle, *event))

    def _log(self) -> None:
        """What the thread does. If the store fails, it ends; publish logs what is missing."""
        with suppress(Exception):  # no failure of logging costs a training
            runs = self._open()
            with self._lock:
                if self._abandoned:
                    return
                self._runs, self._opened = runs, True
            signed = time.monotonic()
            while True:
                if time.monotonic() - signed > _HEARTBEAT:
                    self._runs.sign(run for run, _ in self._active.values())
                    signed = time.monotonic()
                with suppress(queue.Empty):
                    handle, *event = self._events.get(timeout=_HEARTBEAT)
                    if handle is None:
                        break
                    handle(*event)

    def _began(self, trial: str, started: int) -> None:
        if self._hurried or self._runs.is_taken(trial):
            return
        known = trial in self._runs.existing
        run = self._runs.start(trial, self._trials[trial], started)
        self._active[trial] = run, self._runs.epochs_of(run) if known else set()
        # Trials on a cluster run side by side: one monitor of this machine is enough.
        if self._trials[trial].approach == "end_to_end" and self._monitor is None:
            self._monitor = self._runs.monitor(run)

    def _epoch(self, trial: str, epoch: int, timestamp: int, measured: Mapping[str, float]) -> None:
        # The last epoch is measured again, as all roles and measures are, once the trial is over.
        if self._hurried or trial not in self._active or epoch == self._trials[trial].epochs:
            return
        run, logged = self._active[trial]
        if epoch not in logged:
            self._runs.log_epoch(run, epoch, timestamp, measured)
            logged.add(epoch)

    def _kernels(
        self, trial: str, epoch: int, kernels: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        if trial in self._active and not self._hurried:
            self._runs.log_kernels(self._active[trial][0], epoch, kernels)

    def _ended(self, trial: str, ended: Ended) -> None:
        if self._hurried or trial not in self._active:
            return
        self._end_monitor()
        run, logged = self._active.pop(trial)
        self._runs.finish(run, ended.record, ended.heads, rounded(ended.times._asdict()), logged)
        self.completed.add(trial)

    def _broke(self, trial: str, status: str, why: str) -> None:
        if trial in self._active:
            self._end_monitor()
            run, _ = self._active.pop(trial)
            self._runs.stop(run, status, why)

    def _stop(self, status: str, why: str) -> None:
        for trial in list(self._active):
            self._broke(trial, status, why)
        self._runs.stop_study(status, why)

    def _end_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None


@contextmanager
def watched(live: Live | None) -> Iterator[None]:
    """Ends the runs of a study as it really ended.

    Args:
        live: Watches the study; None if nobody does.
    """
    if live is None:
        yield
        return
    with ended_early(live.stop):
        yield
    live.close()


@contextmanager
def ended_early(stop: Callable[[str, str], None]) -> Iterator[None]:
    """Tells how a stage ended that fails or is killed.

    Args:
        stop: Is called with ``FAILED`` or ``KILLED``, and with what happened.
    """
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # the error of the stage is what counts
            stop("FAILED" if isinstance(error, Exception) else "KILLED", _reason(error))
        raise


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted (Ctrl-C)"
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        return "terminated (SIGTERM)"
    return str(error).partition("\n")[0] or type(error).__name__
