"""Runs that a store knows already."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException

from vgg16_transfer.tracking.logged_models import models_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlflow
    from mlflow.entities import Run

    from vgg16_transfer.lineage.lineage import Lineage

TELLER = "teller"
"""The tag that says which process tells of a run, and since when."""

FAILURE = "failure"
"""The tag that says why a trial reached nothing, such as a loss that is no number."""

FINISHED = RunStatus.to_string(RunStatus.FINISHED)
FAILED = RunStatus.to_string(RunStatus.FAILED)

_PARENT = "mlflow.parentRunId"
_MINUTE = 60_000  # milliseconds; telling of a trial takes seconds


def every_run(client: mlflow.MlflowClient, experiment: str, filter_string: str) -> list[Run]:
    """All runs of an experiment that a filter lets through, on however many pages."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment], filter_string=filter_string, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def known_runs(client: mlflow.MlflowClient, experiment: str, lineage: Lineage) -> dict[str, Run]:
    """The runs of a lock entry by trial name; that of the whole stage has the name ''."""
    return {name: runs[0] for name, runs in _by_trial(client, experiment, lineage).items()}


def remove_twins(
    client: mlflow.MlflowClient, experiment: str, lineage: Lineage, before: Mapping[str, Run]
) -> None:
    """Leaves one run of each that two processes made because neither saw that of the other.

    The run that was whole first stays. One that is not whole yet may be another process's, which
    removes it itself when it is; if its twin was whole before this process began, nobody tells it
    any more.

    Args:
        client: Of the store.
        experiment: Id of the experiment.
        lineage: Whose runs.
        before: Those that were known when this process began.
    """
    by_trial = _by_trial(client, experiment, lineage)
    for name, (run, *twins) in by_trial.items():
        for twin in twins:
            if finished(twin) or (name in before and finished(before[name])):
                _remove(client, twin)
        if name and run.data.tags.get(_PARENT) != by_trial[""][0].info.run_id:
            client.set_tag(run.info.run_id, _PARENT, by_trial[""][0].info.run_id)


def finished(run: Run) -> bool:
    """Whether all was told of a run: of one that reached something, or of one that failed."""
    return run.info.status in {FINISHED, FAILED}


def failure(run: Run) -> str | None:
    """Why a trial reached nothing, or None if it did."""
    return run.data.tags.get(FAILURE, "no reason is noted") if run.info.status == FAILED else None


def teller() -> str:
    """This process, as the tag of a run that it tells of."""
    return f"{platform.node()} {os.getpid()} {now()}"


def told_elsewhere(run: Run) -> bool:
    """Whether another process is telling of a run that is not finished, as far as one can know.

    One of this machine is, while it is alive; one of another machine, for the first minute.
    """
    host, pid, since = run.data.tags.get(TELLER, "? 0 0").rsplit(" ", 2)
    if finished(run) or now() - int(since) > _MINUTE:
        return False
    return host != platform.node() or (int(pid) != os.getpid() and _alive(int(pid)))


def now() -> int:
    """The time, in MLflow's milliseconds."""
    return int(time.time() * 1000)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another user's
    return True


def _by_trial(
    client: mlflow.MlflowClient, experiment: str, lineage: Lineage
) -> dict[str, list[Run]]:
    """All runs of a lock entry, by trial name: the one that was whole first stands first."""
    runs: dict[str, list[Run]] = defaultdict(list)
    of_entry = f"tags.`dvc.lock_digest` = '{lineage.lock_digest}'"
    for run in every_run(client, experiment, of_entry):
        runs[run.data.tags.get("trial", "")].append(run)
    return {name: sorted(twins, key=_order) for name, twins in runs.items()}


def _order(run: Run) -> tuple[bool, int, str]:
    since = run.info.end_time if finished(run) else run.info.start_time
    return not finished(run), since, run.info.run_id


def _remove(client: mlflow.MlflowClient, run: Run) -> None:
    """Removes what is there of a twin: another process may be at it as well.

    What stays all the same, the next ``publish`` removes.
    """
    for model in models_of(client, run):
        with suppress(MlflowException):
            client.delete_logged_model(model.model_id)
    with suppress(MlflowException):
        client.delete_run(run.info.run_id)
