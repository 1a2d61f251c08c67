"""The runs of one study in one store: one for the study, and one below it for each trial.

A run begins RUNNING, with its settings and its split, gets the measures of its epochs, and ends
with tables, pictures and the head. Whether this happens while the study trains
(:mod:`~vgg16_transfer.tracking.live`) or later (:mod:`~vgg16_transfer.tracking.publish`) makes no
difference to what the run holds in the end.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunStatus,
    RunTag,
)
from mlflow.exceptions import MlflowException

from vgg16_transfer.diagnostics.tiles import deep_kernel_sheet
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import measures, records
from vgg16_transfer.heads.watching import milliseconds
from vgg16_transfer.params.in_use import settings_in_use
from vgg16_transfer.reporting import figures, study_figures
from vgg16_transfer.tracking.grid import SHOWN, log_pictures
from vgg16_transfer.tracking.logged_models import Heads
from vgg16_transfer.tracking.logged_runs import (
    BROKEN,
    FAILED,
    FAILURE,
    FINISHED,
    LOGGING_PROCESS,
    finished,
    is_logged_elsewhere,
    logged_runs,
    logging_process,
)
from vgg16_transfer.tracking.mlflow_store import DESCRIPTION
from vgg16_transfer.tracking.source_tags import source_tags
from vgg16_transfer.tracking.stored import files_of, noted
from vgg16_transfer.tracking.system import Monitor

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import numpy.typing as npt

    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Study, Trial
    from vgg16_transfer.tracking.mlflow_store import Store

RESULTS = "results_digest"
"""The tag with the sha256 of what a trial measured: two machines can differ in the last digits."""

_PER_CALL = 1000  # MLflow's limit on the metrics of one call
_POINTS = 16
"""Of a curve, at most. MLflow takes half a millisecond for each; ``history.csv`` has all epochs."""
_TABLE = "summary.json"
_TABLES = ("predictions", "confusion", "per_class")

# One name per measure: what is measured on test pictures has no prefix, as in trials.csv.
_CURVES = {
    "train_loss": "train_loss",
    "validation_loss": "validation_loss",
    "test_loss": "test_loss",
    "train_accuracy": "train_accuracy",
    "validation_accuracy": "validation_accuracy",
    "test_accuracy": "accuracy",
    "test_top5_accuracy": "top5_accuracy",
}
"""Columns of a history that are logged, and the names of their metrics."""

_FINAL = {"loss": "calibrated_loss"} | {name: name for name in measures.NAMES if name != "loss"}
"""Columns of ``trials.csv`` that are logged, and the names of their metrics."""

_SECONDS = ("fit_seconds", "features_seconds", "pictures_per_second")


class _Created(NamedTuple):
    """A run that this process created.

    Attributes:
        params: Its parameters.
        files: Paths of what was logged so far.
    """

    params: dict[str, str]
    files: set[str]


class StudyRuns:
    """Creates and completes the runs of a study.

    Args:
        store: The MLflow store.
        study: The study.
        lineage: Lineage of the results. It becomes tags of every run.
        splits: Folder of the dataset's manifests.
        parent_run_id: Run to put the study's run under, such as that of ``mlflow run``, or None.
    """

    def __init__(
        self,
        store: Store,
        study: Study,
        lineage: Lineage,
        splits: Path,
        parent_run_id: str | None = None,
    ) -> None:
        self.client = store.client()
        self.experiment = store.experiment(self.client, study.dataset)
        self.study = study
        self.lineage = lineage
        self.existing = logged_runs(self.client, self.experiment, lineage)
        self._splits = splits
        self._below = parent_run_id
        self._heads = Heads(self.client)
        self._drawn: dict[tuple[str, ...], figures.ConfusionPictures] = {}
        self._split_inputs: dict[int, DatasetInput] = {}
        self._created: dict[str, _Created] = {}  # by run id

    @cached_property
    def parent(self) -> Run:
        """The study's own run. It is created when it is first needed."""
        if "" in self.existing:
            return self._again(self.existing[""])
        tags = self._tags() | {DESCRIPTION: _note(self.study)}
        if self._below:
            tags["mlflow.parentRunId"] = self._below
        return self.client.create_run(
            self.experiment,
            run_name=self.study.name,
            tags=tags,
            start_time=self.lineage.started or milliseconds(),
        )

    def is_taken(self, name: str) -> bool:
        """Whether a trial's run is complete, or is being logged by another process."""
        run = self.existing.get(name)
        return run is not None and (finished(run) or is_logged_elsewhere(run))

    def start(self, name: str, trial: Trial, started: int | None = None) -> Run:
        """The run of a trial, RUNNING, with its settings and its split.

        Args:
            name: Trial name.
            trial: The trial's setting.
            started: When the trial began, in milliseconds since 1970.
        """
        existing = self.existing.get(name)
        if existing is not None:
            run = self._again(existing)
        else:
            tags = self._tags() | {
                "trial": name,
                SHOWN: "True",
                "mlflow.parentRunId": self.parent.info.run_id,
                DESCRIPTION: _note_of_trial(self.study, trial),
            }
            run = self.client.create_run(
                self.experiment, run_name=run_name(self.study, name), tags=tags, start_time=started
            )
            self._created[run.info.run_id] = _Created(self._settings(trial), set())
        if not finished(run):
            params = [Param(key, value) for key, value in self._settings(trial).items()]
            self.client.log_batch(run.info.run_id, params=params)
            self._log_split(run, trial)
        return run

    def log_epoch(
        self, run: Run, epoch: int, timestamp: int, measured: Mapping[str, float]
    ) -> None:
        """Logs the measures of an epoch while a trial trains.

        Args:
            run: The trial's run.
            epoch: Number of the epoch.
            timestamp: When it was over, in milliseconds since 1970.
            measured: The measures by column of the history.
        """
        metrics = [
            Metric(_CURVES[column], _rounded(value), timestamp, epoch)
            for column, value in measured.items()
            if column in _CURVES
        ]
        self._log(run, metrics)

    def finish(
        self,
        run: Run,
        record: records.Record,
        heads: Iterable[Path],
        times: Mapping[str, float],
        logged_epochs: Collection[int] = (),
    ) -> None:
        """Completes the run of a trial, and ends it.

        Args:
            run: The trial's run.
            record: The trial's results.
            heads: Where the head may be: the first of these files that exists.
            times: The fields of :class:`~vgg16_transfer.heads.watching.Times`, or none.
            logged_epochs: Epochs that the run has already.
        """
        run_id = run.info.run_id
        why = str(record.trials["failure"].iloc[0]) if _failed(record) else None
        started = int(times.get("started", run.info.start_time))
        # Constant times: the same point that is logged again is not a second one.
        ended = int(times.get("ended", self.lineage.ended or started + len(record.history)))
        metrics = _curves(record, started, ended, logged_epochs) + _final(record, times, ended)
        tags = {RESULTS: digest(record)}
        if why is not None:
            tags |= {FAILURE: why, DESCRIPTION: f"This trial failed: {why}"}
        created = self._created.pop(run_id, None)  # what it has is known, and need not be asked for
        files = created.files if created else set()
        if why is None:
            files |= self._log_results(run, record)
            head = next(path for path in heads if path.exists())
            self._heads.log(run, head, created.params if created else None)
        tags |= noted(files if created else files_of(self.client, run_id))
        self._log(run, metrics, tags)
        if not finished(run):
            self.client.set_terminated(run_id, FINISHED if why is None else FAILED, ended)

    def log_kernels(
        self, run: Run, epoch: int, kernels: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        """Logs what kernels look like after an epoch, for the grid: one row per layer.

        Args:
            run: The trial's run.
            epoch: Number of complete epochs.
            kernels: By layer, as in :meth:`~vgg16_transfer.heads.watching.Watch.kernels`.
        """
        drawn = {f"kernels_{layer}": deep_kernel_sheet(kernel) for layer, kernel in kernels.items()}
        logged = log_pictures(self.client, run, drawn, step=epoch)
        if run.info.run_id in self._created:
            self._created[run.info.run_id].files.update(logged)

    def stop(self, run: Run, status: str, why: str) -> None:
        """Ends the run of a trial that has no results, so that it is begun again later.

        Args:
            run: The run.
            status: ``FAILED`` or ``KILLED``.
            why: What happened.
        """
        self._log(run, [], {FAILURE: why, BROKEN: "true"})
        self.client.set_terminated(run.info.run_id, status)

    def log_study(self, record: records.Record) -> None:
        """Completes the study's own run, and ends it."""
        run_id = self.parent.info.run_id
        summary = records.summarise(self.study, record.trials)
        settings = {"dataset": self.study.dataset} | {
            key: ", ".join(map(str, values)) for key, values in self._grid().items()
        }
        params = [Param(key, value) for key, value in settings.items()]
        metrics = _summary_metrics(self.study, summary, self.parent.info.start_time)
        self.client.log_batch(run_id, metrics=metrics, params=params)
        with TemporaryDirectory() as folder:
            drawn = study_figures.Drawn(self.study, record)
            for title, figure in study_figures.draw_all(drawn).items():
                figures.save(figure, Path(folder, f"{title}.png"))
            records.write_frame(summary, Path(folder, "summary.csv"))
            self.client.log_artifacts(run_id, folder)
        tables = {artifact.path for artifact in self.client.list_artifacts(run_id)}
        if _TABLE not in tables:  # log_table appends to an existing table
            rows = summary.astype(object).where(summary.notna(), None)
            self.client.log_table(run_id, rows, _TABLE)
        self._log(self.parent, [], noted(files_of(self.client, run_id)))
        if not finished(self.parent):
            self.client.set_terminated(run_id, end_time=self.lineage.ended)

    def stop_study(self, status: str, why: str) -> None:
        """Ends the study's own run, if this process began it, so that it is begun again later."""
        if "parent" in self.__dict__ and not finished(self.parent):
            self.stop(self.parent, status, why)

    def epochs_of(self, run: Run) -> set[int]:
        """The epochs that a run has, which an earlier process began.

        One may be missing in between: that process kept it and was killed before it logged it.
        """
        points = self.client.get_metric_history(run.info.run_id, "train_loss")
        return {point.step for point in points}

    def monitor(self, run: Run) -> Monitor:
        """Begins to log what the machine does: CPU, memory, GPU; ``finish`` ends it."""
        return Monitor(run.info.run_id)

    def sign(self, runs: Iterable[Run]) -> None:
        """Tells other processes that this one is still logging the study, and these of its runs."""
        for run in [self.parent, *runs]:
            self._sign(run)

    def _sign(self, run: Run) -> None:
        self.client.set_tag(run.info.run_id, LOGGING_PROCESS, logging_process())

    def _again(self, run: Run) -> Run:
        """A run that an earlier process began, or that lost a file."""
        self._sign(run)
        if not finished(run):
            if BROKEN in run.data.tags:
                self.client.delete_tag(run.info.run_id, BROKEN)
                self.client.delete_tag(run.info.run_id, FAILURE)
            if run.info.status != RunStatus.to_string(RunStatus.RUNNING):
                self.client.update_run(run.info.run_id, RunStatus.to_string(RunStatus.RUNNING))
        return self.client.get_run(run.info.run_id)

    def _tags(self) -> dict[str, str]:
        own = {"study": self.study.name, LOGGING_PROCESS: logging_process()}
        return self.lineage.tags() | source_tags(self.lineage, "vgg16-transfer train") | own

    def _settings(self, trial: Trial) -> dict[str, str]:
        settings = {"dataset": self.study.dataset, "study": self.study.name}
        settings |= {key: getattr(trial, key) for key in self.study.axes}
        return {key: str(value) for key, value in (settings | settings_in_use(trial)).items()}

    def _grid(self) -> dict[str, tuple[object, ...]]:
        used = set(self.study.axes).union(*map(settings_in_use, self.study.trials()))
        return {key: values for key, values in self.study.grid.items() if key in used}

    def _log(self, run: Run, metrics: list[Metric], tags: Mapping[str, str] | None = None) -> None:
        run_tags = [RunTag(key, value) for key, value in (tags or {}).items()]
        self.client.log_batch(run.info.run_id, metrics=metrics[:_PER_CALL], tags=run_tags)
        for start in range(_PER_CALL, len(metrics), _PER_CALL):
            self.client.log_batch(run.info.run_id, metrics=metrics[start : start + _PER_CALL])

    def _log_results(self, run: Run, record: records.Record) -> set[str]:
        """Logs tables, and the confusion matrix as a picture of the grid. Returns their paths."""
        classes = tuple(sorted(record.per_class["class_name"]))
        if classes not in self._drawn:
            self._drawn = {classes: figures.ConfusionPictures(classes)}
        with TemporaryDirectory() as folder:
            for frame in _TABLES:
                records.write_frame(getattr(record, frame), Path(folder, f"{frame}.csv"))
            pictures = {"confusion": self._drawn[classes].draw(record.confusion)}
            return log_pictures(self.client, run, pictures, beside=Path(folder))

    def _log_split(self, run: Run, trial: Trial) -> None:
        """Logs a split. A server fails if another process adds the same one, and then works."""
        if trial.seed not in self._split_inputs:
            path = self._splits / f"{trial.seed}.csv"
            self._split_inputs[trial.seed] = _split_input(self.study, trial.seed, path)
        split = self._split_inputs[trial.seed]
        try:
            self.client.log_inputs(run.info.run_id, datasets=[split])
        except MlflowException:
            self.client.log_inputs(run.info.run_id, datasets=[split])


def by_trial(record: records.Record) -> dict[str, records.Record]:
    """The results of a study, by trial name."""
    groups = [dict(list(frame.groupby("trial", sort=False))) for frame in record]
    return {
        name: records.Record(
            *(own.get(name, frame.iloc[:0]) for own, frame in zip(groups, record, strict=True))
        )
        for name in record.trials["trial"]
    }


def run_name(study: Study, trial: str) -> str:
    """Name of a trial's run: study and setting."""
    setting = trial.replace(",", ", ") if study.axes else "only trial"
    return f"{study.name}: {setting}"


def digest(record: records.Record) -> str:
    """sha256 of what a trial measured."""
    frames = (record.history.dropna(axis="columns", how="all"), record.predictions)
    text = "".join(frame.to_csv(index=False, float_format="%.6g") for frame in frames)
    return hashlib.sha256(text.encode()).hexdigest()


def _curves(
    record: records.Record, started: int, ended: int, logged: Collection[int]
) -> list[Metric]:
    """Metrics of the epochs that are not logged yet; the step is the epoch.

    Of many epochs some are left out: the later, the more, because a curve is steep at its start.
    Values that are not finite are left out.
    """
    history = record.history.drop(columns="trial")
    rest = history[~history["epoch"].isin(set(logged))]
    count = len(rest)
    chosen = np.arange(count)
    if count > _POINTS:
        chosen = np.unique(np.geomspace(1, count, _POINTS).round().astype(int)) - 1
    per_epoch = (ended - started) / max(1, len(history))
    # What the finished head reaches is logged by _final, under the same names. A trial that failed
    # has no accuracy, so that nobody takes it for the best.
    end = 0 if _failed(record) else history["epoch"].max()
    final = set(_FINAL.values())
    return [
        Metric(name, float(row[column]), started + round(row["epoch"] * per_epoch), row["epoch"])
        for row in rest.iloc[chosen].to_dict("records")
        for column, name in _CURVES.items()
        if column in row and math.isfinite(row[column])
        if row["epoch"] < end or name not in final
    ]


def _rounded(value: float) -> float:
    """A number as the record's files have it, so that a run is the same live and later."""
    return float(f"{value:.6g}")


def _failed(record: records.Record) -> bool:
    return bool(record.trials["status"].iloc[0] == records.FAILED)


def _final(record: records.Record, times: Mapping[str, float], ended: int) -> list[Metric]:
    """What the finished head reaches; the step is the last epoch where there is a curve.

    What is measured once has step 0: MLflow then compares runs by bars, and not by single dots.
    """
    row = record.trials.iloc[0]
    epoch = int(record.history["epoch"].max()) if len(record.history) else 0
    measured = {
        name: _rounded(row[column])
        for column, name in _FINAL.items()
        if column in row and pd.notna(row[column])  # a failed trial has no measures
    }
    measured |= {key: float(times[key]) for key in _SECONDS if key in times}
    curves = set(_CURVES.values())
    return [
        Metric(name, value, ended, epoch if name in curves else 0)
        for name, value in measured.items()
    ]


def _summary_metrics(study: Study, summary: pd.DataFrame, timestamp: int) -> list[Metric]:
    """Mean and standard deviation over the seeds; the step is the number of samples per class.

    A study with other axes has none: MLflow's UI groups its trials by their parameters, and draws
    the means itself. ``summary.json`` has them all.
    """
    if study.compared != ("samples_per_class",):
        return []
    names = [measure.name for measure in measures.MEASURES if measure.card]
    keys = [f"{name}_{statistic}" for name in names for statistic in ("mean", "std")]
    return [
        Metric(key, float(row[key]), timestamp, int(row.get("samples_per_class", only)))
        for only in study.grid["samples_per_class"][:1]
        for row in summary.to_dict("records")
        for key in keys
        if pd.notna(row[key])
    ]


def _split_input(study: Study, seed: int, path: Path) -> DatasetInput:
    """The split as an MLflow dataset. Its digest is the md5 of the file, as in DVC."""
    manifest = pd.read_csv(path)
    profile = {"pictures": len(manifest), **manifest["role"].value_counts().to_dict()}
    return DatasetInput(
        Dataset(
            name=f"{study.dataset} split {seed}",
            digest=file_md5(path),
            source_type="local",
            source=json.dumps({"uri": f"data/splits/{study.dataset}/{path.name}"}),
            profile=json.dumps(profile),
        ),
        tags=[InputTag("mlflow.data.context", "training")],
    )


def _note(study: Study) -> str:
    axes = {axis: list(study.grid[axis]) for axis in study.axes}
    varied = "; ".join(f"{axis} {values}" for axis, values in axes.items())
    return (
        f"Study **{study.name}** on {study.dataset}: {varied or 'one trial'}.\n\n"
        "The runs below it are its trials, one head each. Its metrics are means over the splits."
    )


def _note_of_trial(study: Study, trial: Trial) -> str:
    return (
        f"A head of the kind `{trial.head}` on `{trial.layer}`, trained on "
        f"{trial.samples_per_class} pictures of each class of {study.dataset}, split {trial.seed}. "
        "`accuracy` is measured on test pictures."
    )
