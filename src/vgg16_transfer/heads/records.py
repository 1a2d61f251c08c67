"""The results of a study as plain files: results/<study>/.

``trials.csv``      one row per trial: name, setting, status (``finished`` or ``failed``), the
                    reason of a failure, and the measures of the finished head
``history.csv``     one row per trial and epoch: the curves
``predictions.csv`` one row per trial and test picture: the predicted class
``probabilities.npz`` by trial: the probability of each class for each test picture, shape
                    (n, classes); rows as in ``predictions.csv``, classes in the order of labels
``confusion.csv``   one row per trial and pair of true and predicted class: number of pictures
``per_class.csv``   one row per trial and class: test accuracy
``accuracies.csv``  one row per trial: point of the grid, seed and test accuracy
``metrics.json``    by study and point of the grid, the mean accuracy: what DVC compares

The last two are in git: they are the same on every kind of CPU, unless a prediction differs. The
others are DVC's, because their last digits differ.

A trial fails when its loss is not finite after an epoch. Its curves are recorded up to the epoch
before. It has no measures and no predictions, and is not part of any mean.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from vgg16_transfer.artifacts import reading
from vgg16_transfer.errors import InputError
from vgg16_transfer.heads import measures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vgg16_transfer.params import Study, Trial

FRAMES = ("trials", "history", "predictions", "confusion", "per_class")
METRICS = "metrics.json"
ACCURACIES = "accuracies.csv"
PROBABILITIES = "probabilities.npz"

AVERAGED = (*measures.NAMES, "train_accuracy")
"""Columns of ``trials.csv`` that are averaged over seeds.

All but the last are measured on test pictures.
"""

FINISHED, FAILED = "finished", "failed"
"""Values of the column ``status``."""

PREDICTED = ["path", "true", "predicted", "probability"]
"""Columns of a trial's predictions, without the trial's name."""

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
    """The frames of a study. The module's docstring describes each of them."""

    trials: pd.DataFrame
    history: pd.DataFrame
    predictions: pd.DataFrame
    confusion: pd.DataFrame
    per_class: pd.DataFrame


class Outcome(NamedTuple):
    """How a trial ended.

    Attributes:
        measured: Measures of the head on test pictures, by name; none if the trial failed.
        failure: A sentence that says why the trial failed, or None.
    """

    measured: dict[str, float]
    failure: str | None


def of_trial(
    name: str, trial: Trial, history: pd.DataFrame, predictions: pd.DataFrame, outcome: Outcome
) -> Record:
    """Makes the record of one trial from its curves and its test predictions.

    Args:
        name: Trial name.
        trial: The trial's setting.
        history: As in :class:`~vgg16_transfer.heads.base.Fitted`.
        predictions: One row per test picture, with the columns of ``PREDICTED``.
        outcome: How the trial ended. A failed trial has no predictions.
    """
    right = predictions["true"] == predictions["predicted"]
    per_class = right.groupby(predictions["true"]).mean().rename_axis("class_name")
    confusion = predictions.groupby(["true", "predicted"]).size()
    row = {
        "trial": name,
        **trial.model_dump(),
        "status": FAILED if outcome.failure else FINISHED,
        "failure": outcome.failure,
        **dict.fromkeys(AVERAGED),
        **outcome.measured,
    }
    if not outcome.failure:
        last = history.iloc[-1]
        extra = ("train_accuracy", "validation_accuracy", "teacher_accuracy")
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
    """Joins the records of several trials into one."""
    return Record(*(_stacked(frames) for frames in zip(*records, strict=True)))


def _stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Joins frames row by row. A frame without rows does not change the type of a column."""
    filled = [frame.dropna(axis="columns", how="all") for frame in frames if not frame.empty]
    columns = list(dict.fromkeys(column for frame in frames for column in frame.columns))
    if not filled:
        return frames[0]
    return pd.concat(filled, ignore_index=True).reindex(columns=columns)


def summarise(study: Study, trials: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, for every point of the grid without its seeds.

    Args:
        study: The study.
        trials: The frame ``trials`` of the study's record.

    Returns:
        One row per point: the axes that the study compares; ``seeds``, the number of the point's
        finished trials; ``failed``, the number of the failed ones; and ``<measure>_mean`` and
        ``<measure>_std`` for ``AVERAGED``, over the finished trials. The standard deviation is
        the sample's (n - 1). It is missing for a single seed. Both are missing if no trial
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
    """Which trials failed. Without a column ``status``, all trials finished."""
    if "status" not in trials:
        return pd.Series(data=False, index=trials.index)
    return trials["status"] == "failed"


def point_name(study: Study, row: Mapping[Any, Any]) -> str:
    """Name of a row of :func:`summarise`, like ``samples_per_class=4``."""
    return ",".join(f"{axis}={row[axis]}" for axis in study.compared)


def write(study: Study, record: Record, folder: Path) -> None:
    """Writes a study's record, with six significant digits.

    More digits would differ from one CPU to another.

    Args:
        study: The study.
        record: Record of the study's trials.
        folder: Folder to write, which is made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(FRAMES, record, strict=True):
        write_frame(frame, folder / f"{name}.csv")
    trials = record.trials
    names = [point_name(study, row) for row in trials.to_dict("records")]
    accuracies = trials[["seed", "accuracy"]].assign(point=names)[["point", "seed", "accuracy"]]
    write_frame(accuracies, folder / ACCURACIES)
    # One number per point, so that `dvc exp show` fits a screen; trials.csv has the others.
    metrics = {
        study.name: {
            point_name(study, row): _rounded(row["accuracy_mean"])
            for row in summarise(study, trials).to_dict("records")
        }
    }
    (folder / METRICS).write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def write_probabilities(by_trial: Mapping[str, npt.NDArray[np.float32]], folder: Path) -> None:
    """Writes the probabilities of all test pictures. The same numbers give the same bytes."""
    np.savez_compressed(folder / PROBABILITIES, allow_pickle=False, **by_trial)


def read_probabilities(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Reads the probabilities of all test pictures, by trial.

    Raises:
        RecordError: The file is missing or damaged.
    """
    path = folder / PROBABILITIES
    with reading(path, RecordError), np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes a frame in the format of all records."""
    frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def read(folder: Path) -> Record:
    """Reads a study's record.

    Raises:
        RecordError: A file is missing or damaged.
    """
    return Record(*(read_frame(folder / f"{name}.csv", _HELD[name]) for name in FRAMES))


def read_frame(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Reads a frame that :func:`write_frame` wrote.

    Names stay text, because a class may be called ``NA``, ``true`` or ``007``.

    Args:
        path: The file.
        columns: Columns that the file must have.

    Raises:
        RecordError: The file is missing or damaged.
    """
    with reading(path, RecordError):
        frame = pd.read_csv(
            path, dtype=_TEXT, keep_default_na=False, na_values=[""], lineterminator="\n"
        )
        missing = [column for column in columns if column not in frame]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        for column in set(_NUMBERS) & set(frame.columns):
            frame[column] = pd.to_numeric(frame[column])
        return frame


def _rounded(value: float) -> float | None:
    return None if pd.isna(value) else float(f"{value:.6g}")
