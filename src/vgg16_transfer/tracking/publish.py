"""A study's results → MLflow: one parent run, one child run per trial, each told exactly once.

A run is known by the digest of the stage's lock entry and, for a child, the trial's name. A
finished one is left alone; one that broke off is told again under the id that it has. What it holds
already stays as it is: a store takes the same parameter, metric or file twice for one.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException
from PIL import Image
from tqdm import tqdm

from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import records
from vgg16_transfer.heads.records import MEASURES
from vgg16_transfer.reporting import figures
from vgg16_transfer.reporting.report import study_figures
from vgg16_transfer.tracking.heads import tell_head
from vgg16_transfer.tracking.runs import (
    TELLER,
    finished,
    known_runs,
    now,
    remove_twins,
    teller,
    told_elsewhere,
)

if TYPE_CHECKING:
    from pathlib import Path

    import mlflow

    from vgg16_transfer.params import Study, Trial
    from vgg16_transfer.tracking.lineage import Lineage
    from vgg16_transfer.tracking.store import Store

_PER_CALL = 1000  # MLflow's own bound on the metrics of one call
_TABLE = "summary.json"


@dataclass(frozen=True)
class Outputs:
    """Where a study's results lie.

    Attributes:
        results: Folder of its record.
        heads: Folder of its heads.
        splits: Folder of its dataset's manifests.
        filters: Folder of its dataset's filter pictures.
        gradients: Its dataset's gradient check.
    """

    results: Path
    heads: Path
    splits: Path
    filters: Path
    gradients: Path


def publish_study(
    store: Store,
    study: Study,
    outputs: Outputs,
    lineage: Lineage,
    parent_run_id: str | None = None,
) -> int:
    """Tells MLflow what a study measured, unless it knows already.

    Args:
        store: Where to.
        study: Which study.
        outputs: What it wrote.
        lineage: Where that comes from; becomes tags of every run.
        parent_run_id: A run that the study's parent run belongs under, such as that of
            ``mlflow run``.

    Returns:
        How many runs were added or completed.

    Raises:
        RecordError: There are no results.
        TrackingError: The store can't be used.
    """
    record = records.read(outputs.results)
    client = store.client()
    experiment = store.experiment(client, study.dataset)
    known = known_runs(client, experiment, lineage)
    parent = known.get("")
    if parent is None:
        tags = lineage.tags() | {"study": study.name, "mlflow.note.content": _note(study)}
        if parent_run_id:
            tags["mlflow.parentRunId"] = parent_run_id
        parent = client.create_run(
            experiment, run_name=study.name, tags=tags, start_time=lineage.started or now()
        )
    told = 0
    trials = {study.trial_name(trial): trial for trial in study.trials()}
    for name, trial in tqdm(trials.items(), desc=f"mlflow {study.name}", unit="run", disable=None):
        run = known.get(name)
        if run is not None and (finished(run) or told_elsewhere(run)):
            continue
        _tell_trial(client, parent, run, study, name, trial, record, outputs, lineage)
        told += 1
    if not finished(parent):
        _tell_study(client, parent, study, record, outputs)
        client.set_terminated(parent.info.run_id, end_time=lineage.ended)
        told += 1
    for run in known.values():
        _lead_back(client, run, lineage)
    remove_twins(client, experiment, lineage, known)
    return told


def _lead_back(client: mlflow.MlflowClient, run: Run, lineage: Lineage) -> None:
    """Names the commit that holds a run's results, which is made after they are told."""
    known = run.data.tags.get("checkout", "")
    now_known = lineage.checkout()
    if lineage.committed and now_known and not known.endswith("&& dvc checkout"):
        with suppress(MlflowException):  # another process may just have removed it as a twin
            client.set_tag(run.info.run_id, "checkout", now_known)


def _tell_trial(
    client: mlflow.MlflowClient,
    parent: Run,
    run: Run | None,
    study: Study,
    name: str,
    trial: Trial,
    record: records.Record,
    outputs: Outputs,
    lineage: Lineage,
) -> None:
    tags = lineage.tags() | {
        "study": study.name,
        "trial": name,
        "mlflow.parentRunId": parent.info.run_id,
        TELLER: teller(),
    }
    if run is None:
        experiment, start = parent.info.experiment_id, lineage.started or now()
        run = client.create_run(experiment, run_name=name, tags=tags, start_time=start)
    else:
        client.set_tag(run.info.run_id, TELLER, teller())
    run_id = run.info.run_id
    one = records.Record(*(frame[frame["trial"] == name] for frame in record))
    settings = {"dataset": study.dataset, "study": study.name, **trial.model_dump()}
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in settings.items()])
    metrics = _curves(one.history, run.info.start_time) + _final(one.trials, trial, run)
    for start in range(0, len(metrics), _PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + _PER_CALL])
    _tell_split(client, run_id, _split_input(study, trial, outputs.splits))
    client.log_figure(run_id, figures.trial_curves(one.history, "loss"), "loss.png")
    client.log_figure(run_id, figures.trial_curves(one.history, "accuracy"), "accuracy.png")
    classes = sorted(one.per_class["class_name"])
    client.log_figure(run_id, figures.confusion_matrix(one.confusion, classes), "confusion.png")
    for frame in ("predictions", "confusion", "per_class"):
        client.log_text(run_id, getattr(one, frame).to_csv(index=False), f"{frame}.csv")
    _tell_filters(client, run_id, outputs.filters)
    tell_head(client, run, outputs.heads / f"{name}.keras")
    client.set_terminated(run_id, end_time=lineage.ended)


def _tell_split(client: mlflow.MlflowClient, run_id: str, split: DatasetInput) -> None:
    """Logs the split; a server adds one that is new, and fails if another process just did."""
    try:
        client.log_inputs(run_id, datasets=[split])
    except MlflowException:
        client.log_inputs(run_id, datasets=[split])


def _tell_filters(client: mlflow.MlflowClient, run_id: str, folder: Path) -> None:
    """Logs the filter pictures that a run lacks: MLflow names each one anew, so none replaces."""
    there = [PurePosixPath(file.path).name for file in client.list_artifacts(run_id, "images")]
    whole = {name.partition("+")[0] for name in there if name.endswith("+compressed.webp")}
    for path in sorted(folder.glob("*.png")):
        if path.stem not in whole:  # the small copy comes last
            with Image.open(path) as picture:
                client.log_image(run_id, picture, key=path.stem, step=0)


def _tell_study(
    client: mlflow.MlflowClient,
    parent: Run,
    study: Study,
    record: records.Record,
    outputs: Outputs,
) -> None:
    run_id = parent.info.run_id
    summary = records.summarise(study, record.trials)
    settings = {"dataset": study.dataset} | {
        key: ", ".join(map(str, values)) for key, values in study.grid.items()
    }
    metrics = _summary_metrics(study, summary, parent.info.start_time)
    checked = records.read_frame(outputs.gradients)
    metrics += [
        Metric(f"gradient_check {row['layer']} {key}", row[key], parent.info.start_time, 0)
        for row in checked.to_dict("records")
        for key in ("average", "max")
    ]
    client.log_batch(
        run_id, metrics=metrics, params=[Param(key, value) for key, value in settings.items()]
    )
    for title, figure in study_figures(study, record).items():
        client.log_figure(run_id, figure, f"{title}.png")
    client.log_text(run_id, summary.to_csv(index=False), "summary.csv")
    client.log_text(run_id, checked.to_csv(index=False), "gradient_check.csv")
    tables = {artifact.path for artifact in client.list_artifacts(run_id)}
    if _TABLE not in tables:  # log_table appends to a table that is there
        client.log_table(run_id, summary.astype(object).where(summary.notna(), None), _TABLE)


def _curves(history: pd.DataFrame, start_time: int) -> list[Metric]:
    """All epochs of all measures; the step is the epoch. A head without a teacher has no such."""
    columns = [c for c in history.columns if c.partition("_")[2] in MEASURES]
    return [
        Metric(column, float(value), start_time + int(epoch), int(epoch))
        for column in columns
        for epoch, value in zip(history["epoch"], history[column], strict=True)
        if pd.notna(value)
    ]


def _final(trials: pd.DataFrame, trial: Trial, run: Run) -> list[Metric]:
    row = trials.iloc[0]
    return [
        Metric(measure, float(row[measure]), run.info.start_time, trial.epochs)
        for measure in records.MEASURED
        if measure not in {"loss", "train_accuracy"}  # the curves hold these by the same name
    ]


def _summary_metrics(study: Study, summary: pd.DataFrame, timestamp: int) -> list[Metric]:
    """Mean and spread over seeds; the step is the number of samples per class.

    Other axes stand behind it, spelt out, for MLflow takes neither = nor + in a name.
    """
    others = [axis for axis in study.axes if axis not in {"seed", "samples_per_class"}]
    metrics = []
    for row in summary.to_dict("records"):
        point = " ".join(f"{axis} {row[axis]}" for axis in others).replace("+", " ")
        name = f" {point}" if point else ""
        step = int(row.get("samples_per_class", study.grid["samples_per_class"][0]))
        metrics += [
            Metric(f"{key}{name}", float(row[key]), timestamp, step)
            for key in ("accuracy_mean", "accuracy_std", "mean_class_recall_mean")
            if pd.notna(row[key])
        ]
    return metrics


def _split_input(study: Study, trial: Trial, splits: Path) -> DatasetInput:
    """The split as an MLflow dataset, whose digest is the md5 that DVC knows its file by."""
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
