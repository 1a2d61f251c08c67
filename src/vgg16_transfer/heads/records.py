"""What a study measured, as plain files: results/<study>/.

``trials.csv``      one row per trial: its name, its setting, whether it ``finished`` or
                    ``failed`` and of what, and what its head reaches in the end
``history.csv``     one row per trial and epoch: the curves
``predictions.csv`` one row per trial and test picture: what the head took it for
``confusion.csv``   one row per trial, true and predicted class that met: how often
``per_class.csv``   one row per trial and class: test accuracy
``metrics.json``    mean and standard deviation over the seeds: what DVC compares

A trial fails when its loss is not finite after an epoch. It has its curves up to there, and neither
measures nor predictions: it is no result, and is in no mean.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from vgg16_transfer.artifacts import reading
from vgg16_transfer.errors import InputError
from vgg16_transfer.heads import measures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vgg16_transfer.params import Study, Trial

FRAMES = ("trials", "history", "predictions", "confusion", "per_class")
METRICS = "metrics.json"

AVERAGED = (*measures.NAMES, "train_accuracy")
"""Columns of ``trials.csv`` that are averaged over seeds; all but the last on test pictures."""

FINISHED, FAILED = "finished", "failed"
"""What ``status`` says of a trial."""

PREDICTED = ["path", "true", "predicted", "probability"]
"""Columns of a trial's predictions, without its name."""

_TEXT = dict.fromkeys(
    ["trial", "path", "true", "predicted", "class_name", "status", "failure"], str
)
_HELD = {
    "trials": ["trial", "status", "failure", *AVERAGED],
    "history": ["trial", "epoch"],
    "predictions": ["trial", *PREDICTED],
    "confusion": ["trial", "true", "predicted", "count"],
    "per_class": ["trial", "class_name", "accuracy"],
}
_NUMBERS = ("epoch", "seed", "probability", "count", *AVERAGED)


class RecordError(InputError):
    """Results that are missing or can't be read."""


class Record(NamedTuple):
    """The frames of a study; the module's docstring says what each holds."""

    trials: pd.DataFrame
    history: pd.DataFrame
    predictions: pd.DataFrame
    confusion: pd.DataFrame
    per_class: pd.DataFrame


def of_trial(
    name: str,
    trial: Trial,
    history: pd.DataFrame,
    predictions: pd.DataFrame,
    failure: str | None = None,
) -> Record:
    """Everything that follows from a trial's curves and its test predictions.

    Args:
        name: Of the trial.
        trial: Its setting.
        history: As in :class:`~vgg16_transfer.heads.base.Fitted`.
        predictions: One row per test picture, with the columns of ``PREDICTED``.
        failure: Of what the trial failed, if it did; then there are no predictions.
    """
    right = predictions["true"] == predictions["predicted"]
    per_class = right.groupby(predictions["true"]).mean().rename_axis("class_name")
    confusion = predictions.groupby(["true", "predicted"]).size()
    row = {
        "trial": name,
        **trial.model_dump(),
        "status": FAILED if failure else FINISHED,
        "failure": failure,
        **dict.fromkeys(AVERAGED),
    }
    if not failure:
        last = history.iloc[-1]
        row |= {name: last[f"test_{name}"] for name in measures.NAMES}
        row["train_accuracy"] = last["train_accuracy"]
        extra = ("validation_accuracy", "teacher_accuracy")
        row |= {measure: last[measure] for measure in extra if measure in last}
    frames = [
        pd.DataFrame([row]).drop(columns="trial"),
        history,
        predictions,
        confusion.rename("count").reset_index(),
        per_class.rename("accuracy").reset_index(),
    ]
    return Record(*(_named(name, frame) for frame in frames))


def _named(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    named = frame.copy()
    named.insert(0, "trial", name)
    return named


def join(records: list[Record]) -> Record:
    """The record of several trials together."""
    return Record(*(_stacked(frames) for frames in zip(*records, strict=True)))


def _stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Frames below each other; what has no rows adds none, and does not change a column's type."""
    filled = [frame.dropna(axis="columns", how="all") for frame in frames if not frame.empty]
    columns = list(dict.fromkeys(column for frame in frames for column in frame.columns))
    if not filled:
        return frames[0]
    return pd.concat(filled, ignore_index=True).reindex(columns=columns)


def summarise(study: Study, trials: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, for every point of the rest of the grid.

    Returns:
        One row per point: the axes that the study compares; ``seeds``, the number of its trials
        that finished; ``failed``, the number of those that failed; and ``<measure>_mean`` and
        ``<measure>_std`` for ``AVERAGED``, over the trials that finished. The standard deviation is
        the sample's (n - 1), and missing for a single seed; both are missing where no trial
        finished.
    """
    failed = has_failed(trials)
    finished = {measure: trials[measure].mask(failed) for measure in AVERAGED}
    groups = trials.assign(**finished, failed=failed).groupby(list(study.compared), sort=False)
    failures = groups["failed"].sum()
    columns: dict[str, pd.Series[Any]] = {"seeds": groups.size() - failures, "failed": failures}
    for measure in AVERAGED:
        columns[f"{measure}_mean"] = groups[measure].mean()
        columns[f"{measure}_std"] = groups[measure].std(ddof=1)
    return pd.DataFrame(columns).reset_index()


def has_failed(trials: pd.DataFrame) -> pd.Series[bool]:
    """Which trials failed. Where no ``status`` was recorded, all of them finished."""
    if "status" not in trials:
        return pd.Series(data=False, index=trials.index)
    return trials["status"] == "failed"


def point_name(study: Study, row: Mapping[Any, Any]) -> str:
    """What sets a row of :func:`summarise` apart, like ``samples_per_class=4``."""
    return ",".join(f"{axis}={row[axis]}" for axis in study.compared)


def write(study: Study, record: Record, folder: Path) -> None:
    """Writes a study's record; six significant digits, which is more than a CPU vouches for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(FRAMES, record, strict=True):
        write_frame(frame, folder / f"{name}.csv")
    summary = summarise(study, record.trials)
    # Only accuracy has its spread here, so that `dvc exp show` fits a screen; trials.csv has all.
    columns = {"accuracy": "accuracy_mean", "accuracy_std": "accuracy_std"}
    columns |= {m.name: f"{m.name}_mean" for m in measures.MEASURES if m.card}
    metrics = {
        point_name(study, row): {key: _rounded(row[column]) for key, column in columns.items()}
        | {"seeds": int(row["seeds"])}
        | ({"failed": int(row["failed"])} if row["failed"] else {})
        for row in summary.to_dict("records")
    }
    (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes a frame in the way of all our records."""
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def read(folder: Path) -> Record:
    """Reads a study's record.

    Raises:
        RecordError: A file is missing or damaged.
    """
    return Record(*(read_frame(folder / f"{name}.csv", _HELD[name]) for name in FRAMES))


def read_frame(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Reads what :func:`write_frame` wrote; a class may well be called ``NA``, ``true`` or ``007``.

    Args:
        path: The file.
        columns: Some that it must have.

    Raises:
        RecordError: The file is missing or damaged.
    """
    with reading(path, RecordError):
        frame = pd.read_csv(path, dtype=_TEXT, keep_default_na=False, na_values=[""])
        missing = [column for column in columns if column not in frame]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        for column in set(_NUMBERS) & set(frame.columns):
            frame[column] = pd.to_numeric(frame[column])
        return frame


def _rounded(value: float) -> float | None:
    return None if pd.isna(value) else float(f"{value:.6g}")
