"""A study's results as a table, for the page and for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from vgg16_transfer.heads.measures import MEASURES
from vgg16_transfer.heads.records import has_failed, point_name
from vgg16_transfer.reporting import alternatives, intervals
from vgg16_transfer.rounding import percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vgg16_transfer.heads.measures import Measure
    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Study


_TOP = 5
_COUNTS = ("splits", "test pictures")


def table(study: Study, record: Record) -> list[dict[str, Any]]:
    """A study's results as text: one row per point of the grid.

    The numbers of a point are those of its finished trials. If trials failed, their number is
    written in the row. The interval is that of the mean accuracy over the splits. Test pictures
    are counted once, in however many splits they are. Measures that say nothing are left out: class
    recall that is the same as accuracy, and top 5 of five classes or fewer.
    """
    summary, trials = intervals.summarise(study, record), record.trials
    shown = _shown(summary, record)
    rows: list[dict[str, Any]] = [
        {axis.replace("_", " "): row[axis] for axis in study.compared}
        | {
            # With the number of failed trials, if there are any.
            "accuracy, %": alternatives.accuracy(row).replace(" %", "")
        }
        | {"95 % interval": interval(row)}
        | {str(measure.heading): _with_spread(row, measure.name) for measure in shown}
        | {
            "train, %": percent(row["train_accuracy_mean"]) if row["seeds"] else "",
            "splits": row["seeds"],
            "test pictures": row["test_pictures"],
        }
        for row in summary.to_dict("records")
    ]
    if "teacher_accuracy" in trials:
        finished = trials["teacher_accuracy"].mask(has_failed(trials))
        groups = trials.assign(teacher=finished).groupby(list(study.compared), sort=False)[
            "teacher"
        ]
        for row, teacher in zip(rows, groups.mean(), strict=True):
            row["teacher, %"] = "" if teacher != teacher else percent(teacher)  # noqa: PLR0124
    return rows


def narrow(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A table without the numbers of splits and pictures, if they are the same in every row.

    The page says them in a sentence.
    """
    same = {key for key in _COUNTS if len({row[key] for row in rows}) == 1}
    return [{key: value for key, value in row.items() if key not in same} for row in rows]


def _shown(summary: pd.DataFrame, record: Record) -> list[Measure]:
    """Measures that have a heading and say something beside accuracy."""
    useless = {"accuracy"}
    if record.per_class["class_name"].nunique() <= _TOP:
        useless.add("top5_accuracy")
    rows = [row for row in summary.to_dict("records") if row["seeds"]]
    recall = "mean_class_recall"
    if all(_with_spread(row, recall) == _with_spread(row, "accuracy") for row in rows):
        useless.add(recall)
    return [measure for measure in MEASURES if measure.heading and measure.name not in useless]


def accuracies(measured: Mapping[str, Record], studies: Mapping[str, Study]) -> pd.DataFrame:
    """Mean accuracies of studies with their 95 % intervals, one row per point of a grid.

    Args:
        measured: Results by study.
        studies: The studies, in the order of the rows.

    Returns:
        The columns ``study``, ``point``, ``accuracy``, ``low``, ``high``, ``splits`` and
        ``test_pictures``; see :func:`~vgg16_transfer.reporting.intervals.summarise`.
    """
    rows = [
        {
            "study": name,
            "point": point_name(study, row),
            "accuracy": row["accuracy_mean"],
            "low": row["accuracy_low"],
            "high": row["accuracy_high"],
            "splits": row["seeds"],
            "test_pictures": row["test_pictures"],
        }
        for name, study in studies.items()
        for row in intervals.summarise(study, measured[name]).to_dict("records")
    ]
    return pd.DataFrame(rows)


def interval(row: Mapping[Any, Any]) -> str:
    """The interval of the mean accuracy of a row of a summary, in %; empty for one split."""
    low, high = row["accuracy_low"], row["accuracy_high"]
    return "" if math.isnan(low) else f"{percent(low)} to {percent(high)}"


def _with_spread(row: Mapping[Any, Any], measure: str) -> str:
    return alternatives.spread(row, measure).removesuffix(" %") if row["seeds"] else ""
