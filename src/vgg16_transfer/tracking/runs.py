"""Runs that a store knows already."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlflow.entities import RunStatus

if TYPE_CHECKING:
    import mlflow
    from mlflow.entities import Run

    from vgg16_transfer.tracking.lineage import Lineage


def known_runs(client: mlflow.MlflowClient, experiment: str, lineage: Lineage) -> dict[str, Run]:
    """The runs of a lock entry by trial name; that of the whole stage has the name ''."""
    runs: dict[str, Run] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment],
            filter_string=f"tags.`dvc.lock_digest` = '{lineage.lock_digest}'",
            page_token=token,
        )
        runs |= {run.data.tags.get("trial", ""): run for run in page}
        token = page.token
        if not token:
            return runs


def finished(run: Run) -> bool:
    """Whether all was told of a run."""
    return bool(run.info.status == RunStatus.to_string(RunStatus.FINISHED))


def now() -> int:
    """The time, in MLflow's milliseconds."""
    return int(time.time() * 1000)
