"""A study's results as a table, for the page and for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vgg16_transfer.heads import records
from vgg16_transfer.heads.measures import MEASURES
from vgg16_transfer.heads.records import has_failed
from vgg16_transfer.reporting import alternatives

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from vgg16_transfer.params import Study


def table(study: Study, trials: pd.DataFrame) -> list[dict[str, Any]]:
    """A study's results as text: one row per point of the grid.

    The numbers of a point are those of its finished trials. If trials failed, their number is
    written in the row.
    """
    summary = records.summarise(study, trials)
    rows = [
        {axis.replace("_", " "): row[axis] for axis in study.compared}
        | {
            # With the number of failed trials, if there are any.
            "accuracy, %": alternatives.accuracy(row).replace(" %", "")
        }
        | {
            measure.heading: _with_spread(row, measure.name)
            for measure in MEASURES
            if measure.heading and measure.name != "accuracy"
        }
        | {
            "train, %": f"{100 * row['train_accuracy_mean']:.1f}" if row["seeds"] else "",
            "seeds": row["seeds"],
        }
        for row in summary.to_dict("records")
    ]
    if "teacher_accuracy" in trials:
        finished = trials["teacher_accuracy"].mask(has_failed(trials))
        groups = trials.assign(teacher=finished).groupby(list(study.compared), sort=False)[
            "teacher"
        ]
        for row, teacher in zip(rows, groups.mean(), strict=True):
            row["teacher, %"] = "" if teacher != teacher else f"{100 * teacher:.1f}"  # noqa: PLR0124
    return rows


def _with_spread(row: Mapping[Any, Any], measure: str) -> str:
    return alternatives.spread(row, measure).removesuffix(" %") if row["seeds"] else ""
