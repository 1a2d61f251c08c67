"""Writes the results of a study as sentences.

Two settings are compared by pairs of trials that differ only in this setting, so they are of the
same split. A difference counts if the 95 % interval of its mean over the splits excludes 0; see
:mod:`~vgg16_transfer.reporting.intervals`. The sentence also says in how many splits the accuracy
is higher or lower.

A failed trial has no numbers. It is left out, together with the trials that it would be compared
with: a comparison uses only trials that finished at every compared value.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from vgg16_transfer.reporting import intervals
from vgg16_transfer.reporting.failures import finished
from vgg16_transfer.rounding import percent, signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vgg16_transfer.params import Study, Trial
    from vgg16_transfer.reporting.intervals import Interval, TestSets

# trials.csv has six digits: numbers that differ by less are equal.
_EQUAL = 1e-6

_SPANS = {
    "samples_per_class": "From {} to {} training pictures per class",
    "layer": "From {} to {}",
    "temperature": "From temperature {} to {} of the network's softmax",
    "teacher_weight": "From α = {} to {}",
    "teacher_temperature": "From temperature {} to {} of the teacher",
    "unlabelled_per_class": "From {} to {} unlabelled pictures per class",
    "approach": "From approach {} to {}",
}
"""First words of a sentence about an axis, if "From <axis> a to b" is not good English."""

_FIRST = {"samples_per_class", "teacher_weight"}
_TEACHING = {
    "teacher_layer",
    "teacher_samples_per_class",
    "teacher_pictures",
    "teacher_temperature",
    "unlabelled_per_class",
}
"""Settings without effect in a trial that is trained without a teacher."""


class Difference(NamedTuple):
    """Difference of accuracy between two settings, over splits.

    Attributes:
        over: Mean difference of accuracy, where accuracy is from 0 to 1, with its interval. The
            value of a split is the mean over all pairs of trials with its seed.
        higher: Number of splits in which the second setting is higher.
        lower: Number of splits in which it is lower.
    """

    over: Interval
    higher: int
    lower: int

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes 0; 0 if not, or if there is no interval."""
        low, high = self.over.low, self.over.high
        if low is None or high is None:
            return 0
        return int(low > _EQUAL) - int(high < -_EQUAL)


def sentences(study: Study, trials: pd.DataFrame, tests: TestSets) -> list[str]:
    """Sentences about each axis of a study, then about the gap between training and test.

    Args:
        study: The study.
        trials: Rows of ``trials.csv``.
        tests: Test pictures of each split.
    """
    axes = [axis for axis in in_order(study.compared) if axis in study.axes]
    done = finished(trials)
    if done.empty:
        return ["Every trial failed, so there is nothing to compare."]
    texts = [] if axes else [_only(study, done)]
    taught = done[done["teacher_weight"] != 0] if "teacher_weight" in axes else done
    for axis in axes:
        if axis == "teacher_weight" and 0 in study.grid[axis]:
            texts += _distillation(study, done, tests)
        else:
            texts += along(study, taught if axis in _TEACHING else done, axis, tests)
    texts.append(gap(study, done))
    if len(done) < len(trials):
        texts.append(
            f"Of {len(trials)} trials, {len(trials) - len(done)} failed; no number includes them."
        )
    texts.append(_about_splits(study, tests))
    if any(_is_streamed(trial) for trial in study.trials()):
        texts.append(
            "Without augmentation and fine-tuning, training end to end takes the very same steps "
            "as training on stored features, only slower."
        )
    return texts


def _is_streamed(trial: Trial) -> bool:
    """Whether all that a trial's pictures pass through in each epoch is frozen."""
    unchanged = trial.augment == "none" and trial.fine_tune_from == "none"
    return trial.approach == "end_to_end" and unchanged


def _about_splits(study: Study, tests: TestSets) -> str:
    """Sentence about the number of splits, and what their test sets have in common."""
    seeds = study.grid["seed"]
    if len(seeds) == 1:
        return "All numbers are from one split, so the differences between splits are unknown."
    pictures = len(frozenset[str]().union(*(tests.get(seed, frozenset()) for seed in seeds)))
    share = intervals.shared(tests, seeds)
    text = f"{len(seeds)} splits test on {pictures} distinct pictures; "
    if not share:
        return f"{text}no two of them share one."
    if share == 1:
        return f"{text}all of them share these, so that the intervals are about training pictures."
    return f"{text}two of them share {percent(share, 0)} % on average, which widens the intervals."


def in_order(axes: Sequence[str]) -> list[str]:
    """Axes in the order of their sentences: those of ``_FIRST``, then the others."""
    return sorted(axes, key=lambda axis: axis not in _FIRST)  # sorted keeps the order of the rest


def along(study: Study, trials: pd.DataFrame, axis: str, tests: TestSets) -> list[str]:
    """Sentences about test accuracy along one axis: from first to last value, then step by step."""
    values, failed, trials = comparable(study, trials, axis)
    caution = _failed_at(axis, failed)
    if len(values) == 1:
        reached = accuracy(trials, axis, values[0])
        return [f"At {_named(axis, values)} test accuracy is {reached}.", *caution]
    if trials.empty:
        return [
            f"Along {axis.replace('_', ' ')} no trials that finished can be compared.",
            *caution,
        ]
    whole = difference(study, trials, axis, values[0], values[-1], tests)
    start = span(axis, values[0], values[-1])
    levels = [accuracy(trials, axis, value) for value in values]
    ends = f"from {levels[0]} to {levels[-1]}"
    if whole.over.std is None:
        between = "".join(
            f", with {level} at {_of(value)}"
            for value, level in zip(values[1:-1], levels[1:-1], strict=True)
        )
        return [f"{start}, test accuracy goes {ends}{between}.", *caution]
    steps = list(itertools.pairwise(values))
    differences = [difference(study, trials, axis, *step, tests) for step in steps]
    verdict = _verdict([one.sign for one in differences], whole)
    first = (
        f"{start}, test accuracy {verdict} {ends} ({_basis(study, axis, whole)}): {points(whole)}."
    )
    if len(steps) == 1:
        return [first, *caution]
    listed = "; ".join(
        f"{_of(a)} → {_of(b)}: {points(one)}"
        for (a, b), one in zip(steps, differences, strict=True)
    )
    return [first, f"Step by step, {listed}. {_clear(differences)}", *caution]


def span(axis: str, first: Any, last: Any) -> str:
    """The beginning of a sentence about an axis: ``From 2 to 16 training pictures per class``."""
    words = _SPANS.get(axis, f"From {axis.replace('_', ' ')} {{}} to {{}}")
    return words.format(_of(first), _of(last))


def step_by_step(
    study: Study, trials: pd.DataFrame, axis: str, tests: TestSets
) -> dict[str, Interval]:
    """Differences between neighbouring values of an axis that have an interval, by name."""
    values, _, done = comparable(study, trials, axis)
    if len(values) == 1 or done.empty:
        return {}
    changes = {
        f"{_of(a)} → {_of(b)}": difference(study, done, axis, a, b, tests).over
        for a, b in itertools.pairwise(values)
    }
    return {name: change for name, change in changes.items() if change.low is not None}


def gap(study: Study, trials: pd.DataFrame) -> str:
    """Sentence about the difference between training and test accuracy."""
    train = trials["train_accuracy"]
    low, high = percent(train.min()), percent(train.max())
    reached = f"{low} % in every trial" if low == high else f"between {low} % and {high} %"
    apart = (train - trials["accuracy"]).groupby(_point(study, trials), sort=False).mean()
    text = f"On their training pictures, the heads reach {reached}; test accuracy is "
    low, high = (percent(points).replace("-", "−") for points in (apart.min(), apart.max()))
    if low == high:
        return f"{text}{low} points lower."
    return f"{text}lower by {low} to {high} points on average, depending on the setting."


def difference(
    study: Study, trials: pd.DataFrame, axis: str, before: Any, after: Any, tests: TestSets
) -> Difference:
    """Test accuracy at ``after`` minus test accuracy at ``before``, over matching trials."""
    others = [other for other in study.axes if other != axis]
    keys = list(dict.fromkeys([*others, "seed"]))
    one, two = (_at(trials, axis, value).set_index(keys) for value in (before, after))
    apart = (two["accuracy"] - one["accuracy"]).dropna().groupby("seed").mean()
    return Difference(
        intervals.over_splits(apart, tests),
        higher=int((apart > _EQUAL).sum()),
        lower=int((apart < -_EQUAL).sum()),
    )


def points(change: Difference) -> str:
    """A difference in percentage points, with spread, interval, and how many splits agree."""
    mean, std, low, high, splits = change.over
    if std is None or low is None or high is None:
        return f"{signed(mean)} points"
    text = f"{signed(mean)} ± {percent(std)} points (95 %: {signed(low)} to {signed(high)})"
    if change.higher == change.lower == 0:
        return f"{text}, the same in {_share(splits, splits)} splits"
    word, count = ("up", change.higher) if mean >= 0 else ("down", change.lower)
    return f"{text}, {word} in {_share(count, splits)} splits"


def accuracy(trials: pd.DataFrame, axis: str, value: Any) -> str:
    """Test accuracy at one value of an axis: mean and, if there are several splits, spread.

    The spread is the standard deviation over the seeds of each seed's mean over the other axes.
    """
    by_seed = _at(trials, axis, value).groupby("seed")["accuracy"].mean()
    spread = f" ± {percent(by_seed.std(ddof=1))}" if len(by_seed) > 1 else ""
    return f"{percent(by_seed.mean())}{spread} %"


def ordered(study: Study, axis: str) -> list[Any]:
    """Values of an axis: numbers in rising order, names in the order of params.yaml."""
    values = list(study.grid[axis])
    return sorted(values) if _is_numeric(values) else values


def _distillation(study: Study, trials: pd.DataFrame, tests: TestSets) -> list[str]:
    """Sentences that compare training without a teacher with every weight of the teacher."""
    values, failed, matched = comparable(study, trials, "teacher_weight")
    caution = _failed_at("teacher_weight", failed)
    others = [value for value in study.grid["teacher_weight"] if value in values and value != 0]
    if 0 not in values or not others or matched.empty:
        return ["The effect of the teacher is unknown: no trials can be compared.", *caution]
    trials = matched
    alone = accuracy(trials, "teacher_weight", 0)
    parts = []
    for value in others:
        change = difference(study, trials, "teacher_weight", 0, value, tests)
        reached = accuracy(trials, "teacher_weight", value)
        parts.append(f"α = {_of(value)}: {reached} ({points(change)})")
    text = f"With labels only (α = 0), the student's test accuracy is {alone}; "
    text += f"with the teacher, {'; '.join(parts)}{_over(study, 'teacher_weight', ', ')}."
    texts = [text]
    taught = trials.dropna(subset="teacher_accuracy") if "teacher_accuracy" in trials else None
    teachers = {"teacher_layer", "teacher_samples_per_class"}
    if taught is not None and len(taught) and teachers.isdisjoint(study.axes):
        by_seed = taught.groupby("seed")["teacher_accuracy"].mean()
        spread = f" ± {percent(by_seed.std(ddof=1))}" if len(by_seed) > 1 else ""
        texts.append(f"The teacher itself reaches {percent(by_seed.mean())}{spread} %.")
    texts += [_labels(study, pictures) for pictures in study.grid["teacher_pictures"]]
    return texts + caution


def _labels(study: Study, pictures: str) -> str:
    """Sentence about the number of labels that a student and its teacher use in all."""
    own, taught = (
        max(study.grid[key]) for key in ("samples_per_class", "teacher_samples_per_class")
    )
    if pictures == "disjoint":
        return (
            f"With disjoint teacher pictures, {own + taught} labels of each class are used in all: "
            f"{own} by the student, and {taught} of other pictures by its teacher."
        )
    if taught <= own:
        return f"The teacher has the student's own labels only: {own} of each class are used."
    return (
        f"With shared teacher pictures, {taught} labels of each class are used in all: the teacher "
        f"has those of the pictures that are unlabelled for the student, as far as they go."
    )


def comparable(
    study: Study, trials: pd.DataFrame, axis: str
) -> tuple[list[Any], list[Any], pd.DataFrame]:
    """Values of an axis with a finished trial, values without, and the trials to compare.

    Returns:
        Both lists of values in the order of the axis, and the trials that finished at every value
        of the first list.
    """
    done = finished(trials)
    rows = {value: _at(done, axis, value).index for value in ordered(study, axis)}
    values = [value for value, index in rows.items() if len(index)]
    others = [other for other in study.axes if other != axis]
    if others:
        keys = done[others].astype(str).agg(",".join, axis="columns")
        everywhere = set(keys).intersection(*(keys[rows[value]] for value in values))
        done = done[keys.isin(everywhere)]
    return values, [value for value in rows if value not in values], done


def _failed_at(axis: str, values: Sequence[Any]) -> list[str]:
    return [f"At {_named(axis, values)} every trial failed."] if values else []


def _named(axis: str, values: Sequence[Any]) -> str:
    return f"{axis.replace('_', ' ')} {' and '.join(map(_of, values))}"


def _only(study: Study, trials: pd.DataFrame) -> str:
    axis = study.compared[0]
    value = study.grid[axis][0]
    reached = accuracy(trials, axis, value)
    splits = f" ({len(trials)} splits)" if len(trials) > 1 else ""
    return f"With {_of(value)} training pictures per class, test accuracy is {reached}{splits}."


def _verdict(signs: Sequence[int], whole: Difference) -> str:
    """Verb for the change along an axis, given the signs of its steps."""
    if 1 in signs and -1 in signs:
        return "goes up and down,"
    if whole.sign > 0 and -1 not in signs:
        return "rises"
    if whole.sign < 0 and 1 not in signs:
        return "falls"
    if whole.higher == whole.lower == 0 and not any(signs):
        return "stays the same,"
    return "shows no clear order,"


def _clear(differences: Sequence[Difference]) -> str:
    clear = sum(one.sign != 0 for one in differences)
    if clear == len(differences):
        return "Every interval excludes 0."
    if not clear:
        return "No interval excludes 0."
    return f"Of these intervals, {clear} of {len(differences)} " + (
        "excludes 0." if clear == 1 else "exclude 0."
    )


def _point(study: Study, trials: pd.DataFrame) -> pd.Series[Any]:
    return trials[list(study.compared)].astype(str).agg(",".join, axis="columns")


def _share(count: int, of: int) -> str:
    if count < of:
        return f"{count} of {of}"
    return "both" if of == 2 else f"all {of}"  # noqa: PLR2004


def _basis(study: Study, axis: str, whole: Difference) -> str:
    """Says what the means are over."""
    return "; ".join(filter(None, [_over(study, axis), f"{whole.over.splits} splits"]))


def _over(study: Study, axis: str, start: str = "") -> str:
    others = [other for other in study.compared if other in study.axes and other != axis]
    listed = " and ".join(other.replace("_", " ") for other in others)
    return f"{start}averaged over {listed}" if others else ""


def _at(trials: pd.DataFrame, axis: str, value: Any) -> pd.DataFrame:
    """Trials with one value of an axis. Numbers in the file have only six digits."""
    if isinstance(value, int | float):
        is_equal = pd.Series(np.isclose(trials[axis], value, rtol=1e-5, atol=0), index=trials.index)
    else:
        is_equal = trials[axis] == value
    return trials.loc[is_equal]


def _of(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)
