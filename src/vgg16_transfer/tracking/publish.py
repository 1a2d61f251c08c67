"""Logs a study to MLflow: one parent run, and one child run per trial, each exactly once.

A run is identified by the digest of the stage's lock entry. A child run is identified by the name
of its trial as well. A finished run that has its files is not changed. An interrupted run, or one
whose files are missing, is logged again under the same id. This adds nothing twice: a store keeps
one copy of the same parameter, metric or file.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING

import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException
from tqdm import tqdm

from vgg16_transfer.artifacts import reading
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import measures, records
from vgg16_transfer.images.cards import TITLE, card_path
from vgg16_transfer.reporting import figures, study_figures
from vgg16_transfer.tracking.logged_models import head_is_whole, log_head
from vgg16_transfer.tracking.logged_runs import (
    FAILED,
    FAILURE,
    FINISHED,
    LOGGING_PROCESS,
    failure,
    finished,
    is_logged_elsewhere,
    logged_runs,
    logging_process,
    now,
    remove_duplicates,
)
from vgg16_transfer.tracking.stored import note_run, run_is_whole

if TYPE_CHECKING:
    from pathlib import Path

    import mlflow

    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Study, Trial
    from vgg16_transfer.tracking.mlflow_store import Store

_PER_CALL = 1000  # MLflow's limit on the metrics of one call
_TABLE = "summary.json"
_NOTE = "mlflow.note.content"
"""The tag of an experiment or a run that MLflow's UI shows as its description, in Markdown."""
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
    parent_run_id: str | None = None,
) -> int:
    """Logs the results of a study, except for runs that the store already has.

    Args:
        store: The MLflow store.
        study: The study.
        lineage: Lineage of the results. It becomes tags of every run.
        results: Folder of the study's record.
        heads: Folder of the study's heads.
        splits: Folder of the dataset's manifests.
        parent_run_id: Run to put the study's run under, such as that of ``mlflow run``, or None.

    Returns:
        The number of runs that were added or completed.

    Raises:
        RecordError: The study has no results.
        TrackingError: The store can't be used.
    """
    record = records.read(results)
    client = store.client()
    experiment = store.experiment(client, study.dataset)
    existing = logged_runs(client, experiment, lineage)
    parent = existing.get("")
    if parent is None:
        tags = lineage.tags() | {"study": study.name, _NOTE: _note(study)}
        if parent_run_id:
            tags["mlflow.parentRunId"] = parent_run_id
        parent = client.create_run(
            experiment, run_name=study.name, tags=tags, start_time=lineage.started or now()
        )
    count = 0
    trials = {study.trial_name(trial): trial for trial in study.trials()}
    for name, trial in tqdm(trials.items(), desc=f"mlflow {study.name}", unit="run", disable=None):
        run = existing.get(name)
        if run is not None and (_whole(client, run) or is_logged_elsewhere(run)):
            continue
        run = _started(client, parent, run, study, name, lineage)
        record_of_trial = records.Record(*(frame[frame["trial"] == name] for frame in record))
        _log_trial(client, run, study, trial, record_of_trial, splits)
        why = _failure(record_of_trial)
        if why is None:
            log_head(client, run, heads / f"{name}.keras")
        note_run(client, run.info.run_id)
        if not finished(run):
            status = FINISHED if why is None else FAILED
            client.set_terminated(run.info.run_id, status, end_time=lineage.ended)
        count += 1
    if not (finished(parent) and run_is_whole(client, parent)):
        _log_study(client, parent, study, record)
        note_run(client, parent.info.run_id)
        if not finished(parent):
            client.set_terminated(parent.info.run_id, end_time=lineage.ended)
        count += 1
    for run in existing.values():
        _tag_commit(client, run, lineage)
    remove_duplicates(client, experiment, lineage, existing)
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
    existing = client.get_experiment(experiment).tags.get(_NOTE, "")
    if existing != text and (not existing or existing.startswith(TITLE)):
        client.set_experiment_tag(experiment, _NOTE, text)


def _tag_commit(client: mlflow.MlflowClient, run: Run, lineage: Lineage) -> None:
    """Adds the commit that holds a run's results. It is made after the run is logged."""
    logged = run.data.tags.get("checkout", "")
    checkout = lineage.checkout()
    if lineage.committed and checkout and not logged.endswith("&& dvc checkout"):
        with suppress(MlflowException):  # another process may have removed it as a duplicate
            client.set_tag(run.info.run_id, "checkout", checkout)


def _whole(client: mlflow.MlflowClient, run: Run) -> bool:
    """Whether a trial was logged completely, and the store still has its files."""
    if not (finished(run) and run_is_whole(client, run)):
        return False
    return failure(run) is not None or head_is_whole(client, run)


def _started(
    client: mlflow.MlflowClient,
    parent: Run,
    run: Run | None,
    study: Study,
    name: str,
    lineage: Lineage,
) -> Run:
    """The run of a trial, with a tag that keeps other processes from logging it."""
    if run is not None:
        client.set_tag(run.info.run_id, LOGGING_PROCESS, logging_process())
        return run
    tags = lineage.tags() | {
        "study": study.name,
        "trial": name,
        "mlflow.parentRunId": parent.info.run_id,
        LOGGING_PROCESS: logging_process(),
    }
    experiment, start = parent.info.experiment_id, lineage.started or now()
    return client.create_run(experiment, run_name=name, tags=tags, start_time=start)


def _log_trial(
    client: mlflow.MlflowClient,
    run: Run,
    study: Study,
    trial: Trial,
    one: records.Record,
    splits: Path,
) -> None:
    """Logs the results of a trial. For a failed trial these are its curves and the reason."""
    run_id = run.info.run_id
    settings = {"dataset": study.dataset, "study": study.name, **trial.model_dump()}
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in settings.items()])
    metrics = _curves(one.history, run.info.start_time) + _final(one, run)
    for start in range(0, len(metrics), _PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + _PER_CALL])
    _log_split(client, run_id, _split_input(study, trial, splits))
    if len(one.history):
        for measure in ("loss", "accuracy"):
            figure = figures.trial_curves(one.history, measure)
            client.log_figure(run_id, figure, f"{measure}.png")
    why = _failure(one)
    if why is not None:
        client.set_tag(run_id, FAILURE, why)
        client.set_tag(run_id, _NOTE, f"This trial failed: {why}")
        return
    classes = sorted(one.per_class["class_name"])
    client.log_figure(run_id, figures.confusion_matrix(one.confusion, classes), "confusion.png")
    for frame in ("predictions", "confusion", "per_class"):
        client.log_text(run_id, getattr(one, frame).to_csv(index=False), f"{frame}.csv")


def _failure(one: records.Record) -> str | None:
    """The reason why a trial failed, or None if it finished."""
    row = one.trials.iloc[0]
    return str(row["failure"]) if row.get("status") == "failed" else None


def _log_split(client: mlflow.MlflowClient, run_id: str, split: DatasetInput) -> None:
    """Logs a split. A server fails if another process adds the same new split; then it works."""
    try:
        client.log_inputs(run_id, datasets=[split])
    except MlflowException:
        client.log_inputs(run_id, datasets=[split])


def _log_study(
    client: mlflow.MlflowClient,
    parent: Run,
    study: Study,
    record: records.Record,
) -> None:
    run_id = parent.info.run_id
    summary = records.summarise(study, record.trials)
    settings = {"dataset": study.dataset} | {
        key: ", ".join(map(str, values)) for key, values in study.grid.items()
    }
    metrics = _summary_metrics(study, summary, parent.info.start_time)
    client.log_batch(
        run_id, metrics=metrics, params=[Param(key, value) for key, value in settings.items()]
    )
    drawn = study_figures.Drawn(study, record)
    for title, figure in study_figures.draw_all(drawn).items():
        client.log_figure(run_id, figure, f"{title}.png")
    client.log_text(run_id, summary.to_csv(index=False), "summary.csv")
    tables = {artifact.path for artifact in client.list_artifacts(run_id)}
    if _TABLE not in tables:  # log_table appends to an existing table
        client.log_table(run_id, summary.astype(object).where(summary.notna(), None), _TABLE)


def _curves(history: pd.DataFrame, start_time: int) -> list[Metric]:
    """The metrics of all epochs; the step is the epoch. Values that are not finite are left out."""
    columns = [c for c in history.columns if c.partition("_")[2] in measures.NAMES]
    return [
        Metric(column, float(value), start_time + int(epoch), int(epoch))
        for column in columns
        for epoch, value in zip(history["epoch"], history[column], strict=True)
        if math.isfinite(value)
    ]


def _final(one: records.Record, run: Run) -> list[Metric]:
    row = one.trials.iloc[0]
    return [
        Metric(measure, float(row[measure]), run.info.start_time, int(one.history["epoch"].max()))
        for measure in records.AVERAGED
        # The curves already have these, under the same names. A failed trial has no values.
        if measure not in {"loss", "train_accuracy"} and pd.notna(row[measure])
    ]


def _summary_metrics(study: Study, summary: pd.DataFrame, timestamp: int) -> list[Metric]:
    """Mean and standard deviation over the seeds; the step is the number of samples per class.

    The values of other axes are appended to the metric's name, without = and +, which MLflow does
    not allow.
    """
    others = [axis for axis in study.axes if axis not in {"seed", "samples_per_class"}]
    names = [measure.name for measure in measures.MEASURES if measure.card]
    keys = [f"{name}_{statistic}" for name in names for statistic in ("mean", "std")]
    metrics = []
    for row in summary.to_dict("records"):
        point = " ".join(f"{axis} {row[axis]}" for axis in others).replace("+", " ")
        name = f" {point}" if point else ""
        step = int(row.get("samples_per_class", study.grid["samples_per_class"][0]))
        metrics += [
            Metric(f"{key}{name}", float(row[key]), timestamp, step)
            for key in keys
            if pd.notna(row[key])
        ]
    return metrics


def _split_input(study: Study, trial: Trial, splits: Path) -> DatasetInput:
    """The split as an MLflow dataset. Its digest is the md5 of the file, as in DVC."""
    path = splits / f"{trial.seed}.csv"
    manifest = pd.read_csv(path)
    profile = {"pictures": len(manifest), **manifest["role"].value_counts().to_dict()}
    return DatasetInput(
        Dataset(
            name=f"{study.dataset} split {trial.seed}",
            digest=file_md5(path),
            source_type="local",
            source=json.dumps({"uri": f"data/splits/{study.dataset}/{path.name}"}),
            profile=json.dumps(profile),
        ),
        tags=[InputTag("mlflow.data.context", "training")],
    )


def _note(study: Study) -> str:
    axes = {axis: list(study.grid[axis]) for axis in study.axes}
    return f"Study **{study.name}** on {study.dataset}: " + "; ".join(
        f"{axis} {values}" for axis, values in axes.items()
    )
