"""The run of a stage ``features``: how fast pictures went through the network, and what it cost.

It begins when the stage does and is logged in a thread of its own: the forward pass does not wait
for the store. Importing this module does not import MLflow.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from vgg16_transfer.heads.watching import milliseconds

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
_PATIENCE = 10  # seconds that a stage which is ended early gives the store


class FeaturesRun:
    """Logs a stage ``features`` while it runs.

    Args:
        dataset: Dataset name.
        settings: Parameters of the run.
        open_store: Opens the store, in the thread.
        starting: Returns the lineage of the stage that starts, which takes a second.
    """

    def __init__(
        self,
        dataset: str,
        settings: Mapping[str, Any],
        open_store: Callable[[], Store],
        starting: Callable[[], Lineage],
    ) -> None:
        self._dataset = dataset
        self._settings = settings
        self._open = open_store
        self._starting = starting
        self._started = milliseconds()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._try_to_begin, name="mlflow", daemon=True)
        self._thread.start()

    def end(self, measured: Mapping[str, float]) -> None:
        """Ends the run.

        Args:
            measured: The metrics, by name.

        Raises:
            Exception: Whatever the store raised in the meantime.
        """
        from mlflow.entities import Metric  # noqa: PLC0415 - MLflow takes seconds to import

        self._thread.join()
        if self._failed is not None:
            raise self._failed
        self._monitor.finish()
        ended = milliseconds()
        metrics = [Metric(key, float(value), ended, 0) for key, value in measured.items()]
        self._client.log_batch(self._run_id, metrics=metrics)
        self._client.set_terminated(self._run_id, end_time=ended)

    def stop(self, status: str, _why: str) -> None:
        """Ends the run of a stage that did not complete, in a few seconds.

        Args:
            status: ``FAILED`` or ``KILLED``.
        """
        self._thread.join(_PATIENCE)
        if self._failed is None and not self._thread.is_alive():
            self._monitor.finish()
            self._client.set_terminated(self._run_id, status)

    def _try_to_begin(self) -> None:
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 - no failure of logging costs a forward pass
            self._failed = error

    def _begin(self) -> None:
        from mlflow.entities import Param  # noqa: PLC0415

        from vgg16_transfer.tracking.reach import reached  # noqa: PLC0415
        from vgg16_transfer.tracking.source_tags import source_tags  # noqa: PLC0415
        from vgg16_transfer.tracking.system import Monitor  # noqa: PLC0415

        store = self._open()
        with reached(store):
            lineage = self._starting()
            self._client = store.client()
            self._run_id = self._client.create_run(
                store.experiment(self._client, FEATURES, _ABOUT),
                run_name=f"features of {self._dataset}",
                tags=lineage.tags() | source_tags(lineage, "vgg16-transfer features"),
                start_time=self._started,
            ).info.run_id
            params = [Param(key, str(value)) for key, value in self._settings.items()]
            self._client.log_batch(self._run_id, params=params)
            self._monitor = Monitor(self._run_id)
