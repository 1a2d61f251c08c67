"""Which classes the heads of a study take for which: a table, for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from vgg16_transfer.heads import records
from vgg16_transfer.reporting import figures
from vgg16_transfer.reporting.failures import finished

if TYPE_CHECKING:
    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Study

MOST_CLASSES = 40
"""With more classes, the page lists pairs only: nobody reads so many cells."""

MOST_PAIRS = 5
_SHADES = 10


class Cell(NamedTuple):
    """A cell of the matrix.

    Attributes:
        text: The share of a class's pictures in per cent; empty for none.
        shade: From 0 to 10, by the share.
    """

    text: str
    shade: int


class Confusions(NamedTuple):
    """What the heads of one setting mistake, over all splits.

    Attributes:
        setting: The setting, such as ``samples per class 16``; empty for the only one.
        classes: Class names in their order; none if there are too many for a matrix.
        rows: A row of cells for each true class, with a cell for each predicted class.
        pairs: Sentence about the pairs that are confused most often.
    """

    setting: str
    classes: list[str]
    rows: list[list[Cell]]
    pairs: str


def confusions(study: Study, record: Record) -> Confusions | None:
    """The confusions of one setting of a study; None if there are none.

    The setting has the most samples per class and otherwise the last values, whatever its accuracy,
    as that of the explained pictures.

    Args:
        study: The study.
        record: Its results.
    """
    done = finished(record.trials)
    if done.empty:
        return None
    chosen = _chosen(study, done)
    row = chosen.iloc[0].to_dict()
    counts = record.confusion[record.confusion["trial"].isin(chosen["trial"])]
    summed = counts.groupby(["true", "predicted"])["count"].sum()
    of_class = counts.groupby("true")["count"].sum()
    wrong = summed[[true != predicted for true, predicted in summed.index]]
    if wrong.empty:
        return None
    names = sorted({*counts["true"], *counts["predicted"]})
    shown = names if len(names) <= MOST_CLASSES else []
    axes = [axis for axis in study.compared if axis in study.axes]
    return Confusions(
        ", ".join(f"{figures.title(axis)} {figures.in_words(row[axis])}" for axis in axes),
        shown,
        [[_cell(summed, of_class, true, predicted) for predicted in shown] for true in shown],
        _pairs(wrong, of_class),
    )


def _chosen(study: Study, done: pd.DataFrame) -> pd.DataFrame:
    """The finished trials of one setting, of all splits. Trials are in the order of the grid."""
    names = pd.Series([records.point_name(study, row) for row in done.to_dict("records")])
    most = (done["samples_per_class"] == done["samples_per_class"].max()).to_numpy()
    chosen: pd.DataFrame = done[(names == names[most].iloc[-1]).to_numpy()]
    return chosen


def _cell(summed: pd.Series, of_class: pd.Series, true: str, predicted: str) -> Cell:
    count = int(summed.get((true, predicted), 0))
    if not count:
        return Cell("", 0)
    share = count / int(of_class[true])
    return Cell(f"{100 * share:.0f}", max(1, round(_SHADES * share)))


def _pairs(wrong: pd.Series, of_class: pd.Series) -> str:
    shares = wrong / of_class.reindex([true for true, _ in wrong.index]).to_numpy()
    order = sorted(shares.index, key=lambda pair: (-shares[pair], pair))[:MOST_PAIRS]
    listed = "; ".join(
        f"{true} for {predicted} ({wrong[true, predicted]} of {of_class[true]})"
        for true, predicted in order
    )
    return f"Taken most often: {listed}."
