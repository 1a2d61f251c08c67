"""The figures of a study: one row per figure. Adding a figure is adding a row.

Each row says how the figure is drawn and how it is described in words, so that the page, its
alternative texts and MLflow have the same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from vgg16_transfer.heads import records
from vgg16_transfer.reporting import alternatives, failures, figures, findings, intervals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Study
    from vgg16_transfer.reporting.intervals import Interval
    from vgg16_transfer.reporting.published import Curve


@dataclass(frozen=True)
class Drawn:
    """What a figure may draw.

    Attributes:
        study: The study.
        record: Its results.
        beside: Published curves along the first axis.
    """

    study: Study
    record: Record
    beside: Sequence[Curve] = ()

    @property
    def axis(self) -> str:
        """The x axis of the main figure."""
        return answer_axis(self.study)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Means over the splits; see :func:`~vgg16_transfer.reporting.intervals.summarise`."""
        return intervals.summarise(self.study, self.record)

    @cached_property
    def differences(self) -> dict[str, Interval]:
        """Paired differences between neighbouring values of the axis, by name."""
        tests = intervals.test_sets(self.record)
        return findings.step_by_step(self.study, self.record.trials, self.axis, tests)

    @cached_property
    def points(self) -> pd.Series:
        """Name of the grid point of each finished trial, by trial name."""
        done = failures.finished(self.record.trials).to_dict("records")
        names = {row["trial"]: records.point_name(self.study, row) for row in done}
        return pd.Series(names, dtype="str")

    @cached_property
    def names(self) -> figures.Names:
        """How figures name the grid points: the values of the axes, below a heading."""
        axes = self.study.compared
        short = {
            records.point_name(self.study, row): ", ".join(
                figures.in_words(row[axis]) for axis in axes
            )
            for row in self.summary.to_dict("records")
        }
        return figures.Names(", ".join(map(figures.title, axes)), short)

    @cached_property
    def failed(self) -> dict[str, str]:
        """Text such as ``failed: 1 of 3 trials``, by name of a grid point with failed trials."""
        rows = self.summary.to_dict("records")
        marks = {records.point_name(self.study, row): failures.mark(row) for row in rows}
        return {name: mark for name, mark in marks.items() if mark}


class StudyFigure(NamedTuple):
    """A figure of a study.

    Attributes:
        name: Of its file, without the ending; ``{axis}`` stands for the study's first axis.
        caption: What stands below it; ``{axis}`` as well.
        draw: Draws it.
        describe: Says in words and numbers what it shows.
        has: Whether there is anything to draw.
    """

    name: str
    caption: str
    draw: Callable[[Drawn], Figure]
    describe: Callable[[Drawn], str]
    has: Callable[[Drawn], bool] = lambda _: True


def _accuracy_against(drawn: Drawn) -> Figure:
    return figures.accuracy_against(drawn.summary, drawn.axis, drawn.beside)


def _describe_accuracy_against(drawn: Drawn) -> str:
    return alternatives.accuracy_against(drawn.summary, drawn.axis)


def _differences(drawn: Drawn) -> Figure:
    return figures.differences(list(drawn.differences), list(drawn.differences.values()))


def _describe_differences(drawn: Drawn) -> str:
    return alternatives.differences(drawn.axis, drawn.differences)


def _reliability(drawn: Drawn) -> Figure:
    return figures.reliability(drawn.record.predictions, drawn.points, drawn.names)


def _describe_reliability(drawn: Drawn) -> str:
    return alternatives.reliability(drawn.record.predictions, drawn.points)


def _curves(drawn: Drawn, *, measure: str) -> Figure:
    history = drawn.record.history
    return figures.study_curves(history, drawn.points, measure, drawn.failed, drawn.names)


def _describe_curves(drawn: Drawn, *, measure: str) -> str:
    return alternatives.curves(drawn.record.history, drawn.points, measure, drawn.failed)


def _has_curves(drawn: Drawn) -> bool:
    """Whether there is more than one epoch: some kinds of heads are computed in one step."""
    return len(drawn.record.history["epoch"].unique()) > 1 or bool(drawn.failed)


FIGURES = (
    StudyFigure(
        "accuracy_against_{axis}",
        "Test accuracy against {axis}, mean over the splits and its 95 % interval",
        _accuracy_against,
        _describe_accuracy_against,
        lambda drawn: len(drawn.summary) > 1,  # a single point is a sentence
    ),
    StudyFigure(
        "differences_along_{axis}",
        "Differences of test accuracy between neighbouring values of {axis}, paired by split, with "
        "95 % intervals",
        _differences,
        _describe_differences,
        lambda drawn: len(drawn.differences) > 1,  # a single one is a sentence
    ),
    StudyFigure(
        "reliability",
        "How sure the heads are, and how often they are right, over all splits: on the dotted "
        "line, a probability means what it says",
        _reliability,
        _describe_reliability,
        lambda drawn: bool(len(drawn.points)),
    ),
    StudyFigure(
        "accuracy_curves",
        "Accuracy against epochs: test solid, with a band of one standard deviation over the "
        "splits; train dashed",
        partial(_curves, measure="accuracy"),
        partial(_describe_curves, measure="accuracy"),
        _has_curves,
    ),
    StudyFigure(
        "loss_curves",
        "Cross-entropy against epochs: test solid, train dashed",
        partial(_curves, measure="loss"),
        partial(_describe_curves, measure="loss"),
        _has_curves,
    ),
)
"""In the order of the page."""


def file_name(figure: StudyFigure, study: Study) -> str:
    """The name of a figure's file, without the ending."""
    return figure.name.format(axis=answer_axis(study))


def caption(figure: StudyFigure, study: Study) -> str:
    """What stands below a figure."""
    return figure.caption.format(axis=figures.title(answer_axis(study)))


def draw_all(drawn: Drawn) -> dict[str, Figure]:
    """A study's figures by the name of their file, without the ending."""
    return {
        file_name(figure, drawn.study): figure.draw(drawn)
        for figure in FIGURES
        if figure.has(drawn)
    }


def answer_axis(study: Study) -> str:
    """The x axis of a study's main figure."""
    return findings.in_order(study.compared)[0]
