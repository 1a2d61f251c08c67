"""Logs the results of a study to MLflow: what the store does not have yet, each run exactly once.

A run is identified by the digest of its stage's lock entry, or, as long as the stage runs, of what
goes into it; the run of a trial by the trial's name as well. A finished run that has its files is
not changed. An interrupted run, or one whose files are missing, is logged again under the same id.
This adds nothing twice: a store keeps one copy of the same parameter, metric or file.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from vgg16_transfer.artifacts import reading
from vgg16_transfer.diagnostics.kernels import before_and_after
from vgg16_transfer.errors import InputError
from vgg16_transfer.heads import records
from vgg16_transfer.images.cards import TITLE, card_path
from vgg16_transfer.tracking.logged_models import head_is_whole
from vgg16_transfer.tracking.logged_runs import (
    failure,
    finished,
    is_logged_elsewhere,
    remove_duplicates,
)
from vgg16_transfer.tracking.mlflow_store import DESCRIPTION
from vgg16_transfer.tracking.stored import run_is_whole
from vgg16_transfer.tracking.study_runs import RESULTS, StudyRuns, by_trial, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    import mlflow
    from mlflow.entities import Run

    from vgg16_transfer.diagnostics.kernels import Kernels
    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Study
    from vgg16_transfer.tracking.mlflow_store import Store

_LONGEST = 5000  # characters of an experiment's tag, in all versions of MLflow's tables


class CardError(InputError):
    """A data card that is damaged."""


def publish_study(
    store: Store,
    study: Study,
    lineage: Lineage,
    *,
    results: Path,
    heads: Path,
    splits: Path,
    weights: Mapping[str, Path] | None = None,
    parent_run_id: str | None = None,
    completed: Collection[str] = (),
) -> int:
    """Logs the results of a study, except for runs that the store already has.

    Args:
        store: The MLflow store.
        study: The study.
        lineage: Lineage of the results. It becomes tags of every run.
        results: Folder of the study's record.
        heads: Folder of the study's heads.
        splits: Folder of the dataset's manifests.
        weights: The file of each network, by backbone, for pictures of fine-tuned kernels; without
            it, there are none.
        parent_run_id: Run to put the study's run under, such as that of ``mlflow run``, or None.
        completed: Names of trials whose runs this process has just completed.

    Returns:
        The number of runs that were added or completed.

    Raises:
        RecordError: The study has no results.
        TrackingError: The store can't be used.
    """
    record = records.read(results)
    runs = StudyRuns(store, study, lineage, splits, parent_run_id)
    client = runs.client
    count = 0
    trials = {study.trial_name(trial): trial for trial in study.trials()}
    of_trials = by_trial(record)
    for name, trial in tqdm(trials.items(), desc=f"mlflow {study.name}", unit="run", disable=None):
        existing = runs.existing.get(name)
        if existing is not None and _is_of_others(existing, of_trials[name]):
            existing = None
            del runs.existing[name]
        if existing is not None and (
            name in completed or _whole(client, existing) or is_logged_elsewhere(existing)
        ):
            continue
        times = lineage.times.get(name, {})
        run = runs.start(name, trial, int(times.get("started", lineage.started or 0)) or None)
        if trial.fine_tune_from != "none" and weights:
            epochs, network = len(of_trials[name].history), study.networks[trial.backbone]
            head = heads / f"{name}.keras"
            _log_kernels(
                runs, run, epochs, partial(before_and_after, head, network, weights[trial.backbone])
            )
        # Another process may have logged some epochs, each when it was over, and been killed.
        begun = existing is not None and not finished(existing)
        logged = runs.epochs_of(run) if begun else ()
        runs.finish(run, of_trials[name], [heads / f"{name}.keras"], times, logged)
        count += 1
    parent = runs.existing.get("")
    if parent is None or not (finished(parent) and run_is_whole(client, parent)):
        runs.log_study(record)
        count += 1
    for run in runs.existing.values():
        _tag(client, run, lineage)
    remove_duplicates(client, runs.experiment, lineage, runs.existing)
    return count


def publish_card(store: Store, dataset: str, splits: Path) -> None:
    """Makes a dataset's data card, if there is one, the description of its experiment.

    A description that is no data card is kept: somebody wrote it. A card that is too long loses
    its last facts.

    Args:
        store: The MLflow store.
        dataset: Dataset name.
        splits: Folder of the dataset's manifests, which the card lies beside.

    Raises:
        CardError: The card can't be read.
        TrackingError: The store can't be used.
    """
    card = card_path(splits)
    if not card.exists():
        return
    with reading(card, CardError, mend=f"run dvc repro splits@{dataset}"):
        text = card.read_text(encoding="utf-8")
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rpartition("\n")[0]
    client = store.client()
    experiment = store.experiment(client, dataset)
    existing = client.get_experiment(experiment).tags.get(DESCRIPTION, "")
    if existing != text and (not existing or existing.startswith(TITLE)):
        client.set_experiment_tag(experiment, DESCRIPTION, text)


def _log_kernels(
    runs: StudyRuns, run: Run, epochs: int, before_and_after: Callable[[], tuple[Kernels, Kernels]]
) -> None:
    """Logs kernels before and after fine-tuning, in the files that a live run has them in."""
    with suppress(InputError):  # pictures for people: without head or weights, there are none
        for epoch, kernels in zip((0, epochs), before_and_after(), strict=True):
            runs.log_kernels(run, epoch, kernels)


def _tag(client: mlflow.MlflowClient, run: Run, lineage: Lineage) -> None:
    """Adds the tags that are known once the stage is over: the lock entry, and the commit of it."""
    logged = run.data.tags
    # A run that was logged by its stage is not replayed; one that is has the tag from its start.
    known = replace(lineage, replayed=False).tags()
    tags = {key: value for key, value in known.items() if key not in logged}
    checkout = lineage.checkout()
    if lineage.committed and checkout and not logged.get("checkout", "").endswith("dvc checkout"):
        tags["checkout"] = checkout
    if tags:
        with suppress(MlflowException):  # another process may have removed it as a duplicate
            run_tags = [RunTag(key, value) for key, value in tags.items()]
            client.log_batch(run.info.run_id, tags=run_tags)


def _is_of_others(run: Run, record: records.Record) -> bool:
    """Whether another machine logged other results of the same inputs, while its stage ran."""
    tags = run.data.tags
    return finished(run) and "dvc.lock_digest" not in tags and tags.get(RESULTS) != digest(record)


def _whole(client: mlflow.MlflowClient, run: Run) -> bool:
    """Whether a trial was logged completely, and the store still has its files."""
    if not (finished(run) and run_is_whole(client, run)):
        return False
    return failure(run) is not None or head_is_whole(client, run)
