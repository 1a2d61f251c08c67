"""What a study asks, and its most important number: the line of its card that is always seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.reporting import figures, findings, intervals
from vgg16_transfer.reporting.failures import finished
from vgg16_transfer.rounding import percent, signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Study
    from vgg16_transfer.reporting.intervals import Interval

_QUESTIONS = {
    "samples_per_class": "How much do more training pictures per class help?",
    "layer": "Which layer's features serve best?",
    "backbone": "Which network's features serve best?",
    "head": "Which kind of head serves best?",
    "approach": "Is training end to end worth its time?",
    "augment": "Does it help to vary the training pictures?",
    "fine_tune_from": "Does fine-tuning the network help?",
    "unlabelled_per_class": "Do unlabelled pictures help?",
}
_ONE = "How far does one setting get?"


class Headline(NamedTuple):
    """What a card says while it is closed.

    Attributes:
        question: What the study asks.
        number: Its most important number, such as ``+26.9 points``.
        rest: The interval of that number, and what it is about.
    """

    question: str
    number: str
    rest: str


def headline(study: Study, record: Record) -> Headline:
    """The question of a study and its answer in one number.

    Of a study that compares settings, that is the difference between the first and the last value
    of its axis. It is chosen without a look at the results. Samples per class are not compared if
    there is another axis, since the curve says that already. Of a study of one setting, it is the
    test accuracy.

    Args:
        study: The study.
        record: Its results.
    """
    axis, tests = _axis(study), intervals.test_sets(record)
    done = finished(record.trials)
    question = _question(study, axis)
    if done.empty:
        return Headline(question, "no number", "every trial failed")
    values, _, trials = findings.comparable(study, done, axis)
    if len(values) == 1 or trials.empty:
        by_seed = done.groupby("seed")["accuracy"].mean()
        reached = intervals.over_splits(by_seed, tests).of_shares()
        what = f"test accuracy {_interval(reached, percent, ' %')}"
        return Headline(question, f"{percent(reached.mean)} %", what)
    first, last = values[0], values[-1]
    change = findings.difference(study, trials, axis, first, last, tests).over
    span = findings.span(axis, first, last)
    what = f"{_interval(change, signed)} {span[0].lower()}{span[1:]}"
    return Headline(question, f"{signed(change.mean)} points", what)


def _axis(study: Study) -> str:
    axes = findings.in_order(study.compared)
    return min(axes, key=lambda axis: axis == "samples_per_class")  # the first of the others


def _question(study: Study, axis: str) -> str:
    if axis not in study.axes:
        return _ONE
    if axis == "teacher_weight":
        own, taught = (
            max(study.grid[key]) for key in ("samples_per_class", "teacher_samples_per_class")
        )
        return (
            f"Does a teacher {'with more labels' if taught > own else 'without more labels'} help?"
        )
    return _QUESTIONS.get(axis, f"What does the {figures.title(axis)} change?")


def _interval(number: Interval, write: Callable[[float], str], unit: str = "") -> str:
    if number.low is None or number.high is None:
        return "(one split: no interval)"
    return f"(95 %: {write(number.low)} to {write(number.high)}{unit})"
