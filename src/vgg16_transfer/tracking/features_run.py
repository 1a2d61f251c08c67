"""The run of a stage ``features``: how fast pictures went through the network, and what it cost.

It begins when the stage does and is logged in a process of its own: the forward pass does not wait
for the store. Importing this module does not import MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vgg16_transfer.heads.watching import milliseconds
from vgg16_transfer.tracking.background import Logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.tracking.mlflow_store import Store

FEATURES = "features"
"""The experiment of all these runs, with one run for each time that a dataset's stage ran."""

_ABOUT = (
    "The stages `features`: one run for each time that pictures went through a network, with "
    "pictures per second, the size of the store, and what the machine did (System metrics)."
)


class FeaturesRun(Logger):
    """Begins the run of a stage ``features`` that starts, and ends it.

    Args:
        dataset: Dataset name.
        settings: Parameters of the run.
        open_store: Opens the store.
        starting: Returns the lineage of the stage that starts.

    Raises:
        LineageError: dvc.yaml has no such stage.
        TrackingError: The store can't be used.
    """

    def __init__(
        self,
        dataset: str,
        settings: Mapping[str, Any],
        open_store: Callable[[], Store],
        starting: Callable[[], Lineage],
    ) -> None:
        from mlflow.entities import Param  # noqa: PLC0415 - MLflow takes seconds to import

        from vgg16_transfer.tracking.reach import reached  # noqa: PLC0415
        from vgg16_transfer.tracking.source_tags import source_tags  # noqa: PLC0415
        from vgg16_transfer.tracking.system import Monitor  # noqa: PLC0415

        self._ended = False
        started = milliseconds()
        store = open_store()
        with reached(store):
            lineage = starting()
            self._client = store.client()
            self._run_id = self._client.create_run(
                store.experiment(self._client, FEATURES, _ABOUT),
                run_name=f"features of {dataset}",
                tags=lineage.tags() | source_tags(lineage, "vgg16-transfer features"),
                start_time=started,
            ).info.run_id
            params = [Param(key, str(value)) for key, value in settings.items()]
            self._client.log_batch(self._run_id, params=params)
            self._monitor = Monitor(self._run_id)

    def end(self, measured: Mapping[str, float]) -> None:
        """Ends the run.

        Args:
            measured: The metrics, by name.
        """
        from mlflow.entities import Metric  # noqa: PLC0415

        self._monitor.finish()
        ended = milliseconds()
        metrics = [Metric(key, float(value), ended, 0) for key, value in measured.items()]
        self._client.log_batch(self._run_id, metrics=metrics)
        self._client.set_terminated(self._run_id, end_time=ended)
        self._ended = True

    def stop(self, status: str, why: str) -> None:
        """Ends the run of a stage that did not complete.

        Args:
            status: ``FAILED`` or ``KILLED``.
            why: What happened.
        """
        from vgg16_transfer.tracking.logged_runs import FAILURE  # noqa: PLC0415

        if not self._ended:
            self._monitor.finish()
            self._client.set_tag(self._run_id, FAILURE, why)
            self._client.set_terminated(self._run_id, status)
