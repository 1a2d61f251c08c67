"""Files that the page is made of, read and checked: one that is damaged is one sentence.

Every reader of the page goes through :func:`or_mend`, which names the file and the command that
writes it again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from vgg16_transfer.artifacts import reading
from vgg16_transfer.errors import InputError
from vgg16_transfer.heads.records import FRAMES, MEASURED, Record, has_failed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vgg16_transfer.params import Study

_CURVES: dict[str, type] = dict.fromkeys(
    ["train_loss", "train_accuracy", "test_loss", "test_accuracy"], float
)
_RECORD: dict[str, dict[str, type]] = {
    "trials": dict.fromkeys(MEASURED, float),
    "history": {"epoch": int, **_CURVES},
    "predictions": {"path": str, "true": str, "predicted": str, "probability": float},
    "confusion": {"true": str, "predicted": str, "count": int},
    "per_class": {"class_name": str, "accuracy": float},
}
"""Columns of a study's record that are needed, besides ``trial``."""


class ReadError(InputError):
    """A file of the page that is missing or damaged."""


def or_mend(path: Path, command: str) -> AbstractContextManager[None]:
    """Turns whatever goes wrong inside into one sentence; it raises ReadError.

    Args:
        path: Of the file that is read inside.
        command: Writes it again.
    """
    return reading(path, ReadError, mend=f"run {command} or dvc pull")


def table(
    path: Path, columns: Mapping[str, type], command: str, may_lack: Collection[str] = ()
) -> pd.DataFrame:
    """A CSV file with at least these columns.

    Args:
        path: Of the file.
        columns: What they hold: ``str``, ``int`` or ``float``.
        command: Writes the file again.
        may_lack: Columns that may have empty cells.

    Raises:
        ReadError: The file is missing or damaged.
    """
    text = {column: str for column, kind in columns.items() if kind is str}
    with or_mend(path, command):
        # A class may well be called NA, null or none.
        frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
        for column, kind in columns.items():
            _check(frame, column, kind, may_lack=column in may_lack)
    return frame


def record(folder: Path, study: Study) -> Record:
    """A study's record, checked; see :mod:`~vgg16_transfer.heads.records`.

    Raises:
        ReadError: A file is missing or damaged, or lacks a trial of the study.
    """
    command = f"dvc repro train@{study.name}"
    needed = [*study.axes, *study.compared, "seed"]
    setting: dict[str, type] = {field: type(study.grid[field][0]) for field in needed}
    frames = []
    for name in FRAMES:
        columns = {"trial": str} | (setting if name == "trials" else {}) | _RECORD[name]
        may_lack = MEASURED if name == "trials" else ()  # of a trial that failed
        frames.append(table(folder / f"{name}.csv", columns, command, may_lack))
    found = Record(*frames)
    done = found.trials[~has_failed(found.trials)]
    with or_mend(folder / "trials.csv", command):
        for trial in study.trials():
            _need(found.trials["trial"], study.trial_name(trial))
        for measure in MEASURED:
            _check(done, measure, float)
    with or_mend(folder / "history.csv", command):
        for name in done["trial"]:
            _need(found.history["trial"], name)
    return found


def captions(path: Path, command: str) -> dict[str, str]:
    """By the name of a picture, what it shows.

    Raises:
        ReadError: The file is missing or damaged.
    """
    with or_mend(path, command):
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(told, dict) or not all(isinstance(text, str) for text in told.values()):
            raise ValueError("holds no texts by name")
    return told


def png(path: Path, command: str) -> Image.Image:
    """A PNG file, checked to its last byte.

    Raises:
        ReadError: The file is missing or damaged.
    """
    with or_mend(path, command):
        with Image.open(path, formats=["PNG"]) as picture:
            picture.verify()  # every checksum; what is left can't be loaded
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
            return picture


def _check(frame: pd.DataFrame, column: str, kind: type, *, may_lack: bool = False) -> None:
    if column not in frame:
        raise ValueError(f"has no column '{column}'")
    if not may_lack and frame[column].isna().any():
        raise ValueError(f"a cell of column '{column}' is empty")
    is_kind = {
        str: lambda _: True,
        int: pd.api.types.is_integer_dtype,
        float: pd.api.types.is_numeric_dtype,
    }[kind]
    if len(frame) and not is_kind(frame[column].dtype):
        wanted = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"column '{column}' holds something else than {wanted}")


def _need(names: pd.Series[Any], name: str) -> None:
    if name not in set(names):
        raise ValueError(f"lacks trial '{name}'")
