"""Reads and checks the files that the page is made of.

Every function uses :func:`checked`: an error names the file and the command that writes it again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from vgg16_transfer.artifacts import reading
from vgg16_transfer.errors import InputError
from vgg16_transfer.heads.records import AVERAGED, FRAMES, Record, has_failed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vgg16_transfer.params import Study

_CURVES: dict[str, type] = dict.fromkeys(
    ["train_loss", "train_accuracy", "test_loss", "test_accuracy"], float
)
_RECORD: dict[str, dict[str, type]] = {
    "trials": dict.fromkeys(AVERAGED, float),
    "history": {"epoch": int, **_CURVES},
    "predictions": {"path": str, "true": str, "predicted": str, "probability": float},
    "confusion": {"true": str, "predicted": str, "count": int},
    "per_class": {"class_name": str, "accuracy": float},
}
"""Required columns of a study's record, besides ``trial``."""


class ReadError(InputError):
    """An input file of the page is missing or damaged."""


def checked(path: Path, command: str) -> AbstractContextManager[None]:
    """Context manager that turns every error into a ReadError with one sentence.

    Args:
        path: File that is read inside the context.
        command: Command that writes the file again.
    """
    return reading(path, ReadError, mend=f"run {command} or dvc pull")


def table(
    path: Path, columns: Mapping[str, type], command: str, may_lack: Collection[str] = ()
) -> pd.DataFrame:
    """Reads a CSV file with at least these columns.

    Args:
        path: Path of the file.
        columns: Type of each column: ``str``, ``int`` or ``float``.
        command: Command that writes the file again.
        may_lack: Columns that may have empty cells.

    Raises:
        ReadError: The file is missing or damaged.
    """
    text = {column: str for column, kind in columns.items() if kind is str}
    with checked(path, command):
        # A class may be called NA, null or none.
        frame = pd.read_csv(
            path, dtype=text, keep_default_na=False, na_values=[""], lineterminator="\n"
        )
        for column, kind in columns.items():
            _check(frame, column, kind, may_lack=column in may_lack)
    return frame


def record(folder: Path, study: Study) -> Record:
    """Reads and checks a study's record; see :mod:`~vgg16_transfer.heads.records`.

    Raises:
        ReadError: A file is missing or damaged, or lacks a trial of the study.
    """
    command = f"dvc repro train@{study.name}"
    needed = [*study.axes, *study.compared, "seed"]
    setting: dict[str, type] = {field: type(study.grid[field][0]) for field in needed}
    frames = []
    for name in FRAMES:
        columns = {"trial": str} | (setting if name == "trials" else {}) | _RECORD[name]
        may_lack = AVERAGED if name == "trials" else ()  # a failed trial has no measurements
        frames.append(table(folder / f"{name}.csv", columns, command, may_lack))
    result = Record(*frames)
    done = result.trials[~has_failed(result.trials)]
    with checked(folder / "trials.csv", command):
        for trial in study.trials():
            _need(result.trials["trial"], study.trial_name(trial))
        for measure in AVERAGED:
            _check(done, measure, float)
    with checked(folder / "history.csv", command):
        for name in done["trial"]:
            _need(result.history["trial"], name)
    return result


def captions(path: Path, command: str) -> dict[str, str]:
    """Reads descriptions of pictures by file name.

    Raises:
        ReadError: The file is missing or damaged.
    """
    with checked(path, command):
        texts: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("is not an object of texts by file name")
    return texts


def png(path: Path, command: str) -> Image.Image:
    """Reads a PNG file completely.

    Raises:
        ReadError: The file is missing or damaged.
    """
    with checked(path, command):
        with Image.open(path, formats=["PNG"]) as picture:
            picture.verify()  # checks all checksums; afterwards the picture can't be loaded
        with Image.open(path, formats=["PNG"]) as picture:
            picture.load()
            return picture


def svg(path: Path, command: str) -> str:
    """Reads a drawing of :func:`~vgg16_transfer.reporting.svg.drawn`.

    Raises:
        ReadError: The file is missing or damaged.
    """
    with checked(path, command):
        text = path.read_text(encoding="utf-8")
        if not text.startswith("<svg") or not text.rstrip().endswith("</svg>"):
            raise ValueError("is no SVG drawing, or a part of one")
    return text


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
        expected = "whole numbers" if kind is int else "numbers"
        raise ValueError(f"column '{column}' does not hold {expected}")


def _need(names: pd.Series[Any], name: str) -> None:
    if name not in set(names):
        raise ValueError(f"lacks trial '{name}'")
