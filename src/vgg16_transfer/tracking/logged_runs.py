"""The runs of a study that a store already has."""

from __future__ import annotations

import os
import platform
from collections import defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException

from vgg16_transfer.heads.watching import milliseconds
from vgg16_transfer.tracking.logged_models import models_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import mlflow
    from mlflow.entities import Run

    from vgg16_transfer.lineage.lineage import Lineage

LOGGING_PROCESS = "logging_process"
"""The tag that names the process that is logging a run, and since when."""

FAILURE = "failure"
"""The tag with the reason why a trial failed, such as a loss that is not finite."""

BROKEN = "broken"
"""The tag of a run that ended without the results of its trial, which is trained again later."""

FINISHED = RunStatus.to_string(RunStatus.FINISHED)
FAILED = RunStatus.to_string(RunStatus.FAILED)
KILLED = RunStatus.to_string(RunStatus.KILLED)

_LOCK = "dvc.lock_digest"
_INPUTS = "dvc.input_digest"

_PARENT = "mlflow.parentRunId"
_MINUTE = 60_000  # milliseconds; logging a trial takes seconds


def every_run(client: mlflow.MlflowClient, experiment: str, filter_string: str) -> list[Run]:
    """All runs of an experiment that match a filter, from all pages of the answer.

    Args:
        client: Client of the store.
        experiment: Experiment id.
        filter_string: As for ``MlflowClient.search_runs``.
    """
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs([experiment], filter_string=filter_string, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def study_run(
    client: mlflow.MlflowClient, experiment: str, study: str, lineage: Lineage
) -> Run | None:
    """The own run of a study's results, or None. It is found without those of its trials.

    Args:
        client: Client of the store.
        experiment: Experiment id.
        study: Study name, which is the name of its run.
        lineage: Lineage of the study, with the digest of the lock entry.
    """
    named = f"attributes.run_name = '{study}'"
    return next(iter(_by_trial(client, experiment, lineage, named).get("", [])), None)


def logged_runs(client: mlflow.MlflowClient, experiment: str, lineage: Lineage) -> dict[str, Run]:
    """The runs of a study's results, by trial name. The study's own run has the name ''.

    A run has the digest of what goes into its stage from its beginning, and that of the lock entry
    once the stage is over. Results of the same inputs can differ between machines: runs with
    another lock digest are those of another machine.

    Args:
        client: Client of the store.
        experiment: Experiment id.
        lineage: Lineage of the study, with the digest of the lock entry.
    """
    return {name: runs[0] for name, runs in _by_trial(client, experiment, lineage).items()}


def remove_duplicates(
    client: mlflow.MlflowClient, experiment: str, lineage: Lineage, before: Mapping[str, Run]
) -> None:
    """Removes duplicate runs. Two processes create them if neither sees the run of the other.

    The run that finished first stays. A duplicate that is not finished may belong to another
    process, which removes it when it is done. If the first run had finished before this process
    began, no process is logging the duplicate any more, and it is removed here.

    Args:
        client: Client of the store.
        experiment: Experiment id.
        lineage: Lineage of the study, with the digest of the lock entry.
        before: The runs that the store had when this process began, by trial name.
    """
    by_trial = {
        # A finished run without a lock digest is that of another process, whose stage still runs.
        name: [run for run in same if _LOCK in run.data.tags or not finished(run)]
        for name, same in _by_trial(client, experiment, lineage).items()
    }
    for name, (run, *duplicates) in ((name, same) for name, same in by_trial.items() if same):
        for duplicate in duplicates:
            if finished(duplicate) or (name in before and finished(before[name])):
                _remove(client, duplicate)
        if name and run.data.tags.get(_PARENT) != by_trial[""][0].info.run_id:
            client.set_tag(run.info.run_id, _PARENT, by_trial[""][0].info.run_id)


def finished(run: Run) -> bool:
    """Whether a run was logged completely. Its trial may have finished or failed."""
    return run.info.status in {FINISHED, FAILED} and BROKEN not in run.data.tags


def failure(run: Run) -> str | None:
    """The reason why a trial failed, or None if it finished."""
    return run.data.tags.get(FAILURE, "no reason is noted") if run.info.status == FAILED else None


def end_abandoned(
    client: mlflow.MlflowClient, experiment: str, study: str, kept: Collection[str]
) -> None:
    """Ends the runs of a study that killed processes of this machine left RUNNING.

    Args:
        client: Client of the store.
        experiment: Experiment id.
        study: Study name.
        kept: Ids of runs that are left alone, because this process goes on with them.
    """
    left = every_run(
        client, experiment, f"tags.study = '{study}' and attributes.status = 'RUNNING'"
    )
    for run in left:
        host, pid, _ = _process_of(run)
        gone = host == platform.node() and not _alive(pid)
        if gone and run.info.run_id not in kept:
            client.set_tag(run.info.run_id, BROKEN, "true")
            client.set_terminated(run.info.run_id, KILLED)


def logging_process() -> str:
    """This process and the time, as the value of the tag LOGGING_PROCESS."""
    return f"{platform.node()} {os.getpid()} {milliseconds()}"


def is_logged_elsewhere(run: Run) -> bool:
    """Whether a run is probably being logged by another process.

    A process on this machine counts while it is alive. A process on another machine can't be
    checked, so that it counts as well. Both count for one minute only.
    """
    host, pid, since = _process_of(run)
    if finished(run) or milliseconds() - since > _MINUTE:
        return False
    return host != platform.node() or (pid != os.getpid() and _alive(pid))


def _process_of(run: Run) -> tuple[str, int, int]:
    """Machine, process id and time in the tag LOGGING_PROCESS of a run."""
    host, pid, since = run.data.tags.get(LOGGING_PROCESS, "? 0 0").rsplit(" ", 2)
    return host, int(pid), int(since)


def _alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid))  # os.kill(pid, 0) is Ctrl-C to others on Windows


def _by_trial(
    client: mlflow.MlflowClient, experiment: str, lineage: Lineage, named: str = ""
) -> dict[str, list[Run]]:
    """All runs of a study's results, by trial name, the one that finished first before others.

    Args:
        client: Client of the store.
        experiment: Experiment id.
        lineage: Lineage of the study, with the digest of the lock entry.
        named: Only runs that match this filter, too.
    """
    runs: dict[str, list[Run]] = defaultdict(list)
    digests = {_INPUTS: lineage.input_digest, _LOCK: lineage.lock_digest}
    also = [named] if named else []
    found = {
        run.info.run_id: run
        for tag, digest in digests.items()
        if digest  # runs that earlier versions logged have no digest of their inputs
        for run in every_run(
            client, experiment, " and ".join([f"tags.`{tag}` = '{digest}'", *also])
        )
    }
    for run in found.values():
        locked = run.data.tags.get(_LOCK)
        if not locked or not lineage.lock_digest or locked == lineage.lock_digest:
            runs[run.data.tags.get("trial", "")].append(run)
    return {name: sorted(same, key=_order) for name, same in runs.items()}


def _order(run: Run) -> tuple[bool, bool, int, str]:
    since = run.info.end_time if finished(run) else run.info.start_time
    return not finished(run), _LOCK not in run.data.tags, since, run.info.run_id


def _remove(client: mlflow.MlflowClient, run: Run) -> None:
    """Removes a duplicate run and its models. Another process may be removing it at the same time.

    If a part can't be removed now, the next ``publish`` removes it.
    """
    for model in models_of(client, run):
        with suppress(MlflowException):
            client.delete_logged_model(model.model_id)
    with suppress(MlflowException):
        client.delete_run(run.info.run_id)
