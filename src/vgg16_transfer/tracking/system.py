"""MLflow's own system metrics of a run: CPU, memory, disk, network and, if there is one, GPU."""

from __future__ import annotations

import logging

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

_EVERY = 5  # seconds


class Monitor:
    """Logs what the machine does to a run, in a thread of its own, until it is finished.

    Args:
        run_id: The run.
    """

    def __init__(self, run_id: str) -> None:
        logger = logging.getLogger("mlflow.system_metrics")
        logger.setLevel(logging.ERROR)  # it says that it starts, and that there is no GPU
        self._monitor = SystemMetricsMonitor(
            run_id, sampling_interval=_EVERY, samples_before_logging=1
        )
        self._monitor.start()

    def finish(self) -> None:
        """Ends the thread."""
        self._monitor.finish()
