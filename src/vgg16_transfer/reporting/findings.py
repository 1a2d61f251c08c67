"""Writes the results of a study as sentences.

Two settings are compared by pairs of trials that differ only in this setting. A difference counts
if its mean over the pairs is larger than their standard deviation. The sentence also says in how
many pairs the accuracy is higher or lower. No difference is called significant.

A failed trial has no numbers. It is left out, together with the trials that it would be compared
with: a comparison uses only trials that finished at every compared value.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from vgg16_transfer.reporting.failures import finished

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vgg16_transfer.params import Study

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
    "teacher_temperature",
    "unlabelled_per_class",
}
"""Settings without effect in a trial that is trained without a teacher."""


class Difference(NamedTuple):
    """Difference of accuracy between two settings, over pairs of trials.

    Attributes:
        mean: Mean difference of accuracy, where accuracy is from 0 to 1.
        std: Standard deviation of the sample, or None for a single pair.
        higher: Number of pairs in which the second setting is higher.
        lower: Number of pairs in which it is lower.
        pairs: Number of pairs.
        kind: ``splits`` if the pairs differ only in the seed, otherwise ``pairs``.
    """

    mean: float
    std: float | None
    higher: int
    lower: int
    pairs: int
    kind: str

    @property
    def sign(self) -> int:
        """1 or -1 if the difference is larger than its spread; 0 if not, or if that is unknown."""
        if self.std is None or abs(self.mean) <= max(self.std, _EQUAL):
            return 0
        return 1 if self.mean > 0 else -1


def sentences(study: Study, trials: pd.DataFrame) -> list[str]:
    """Sentences about each axis of a study, then about the gap between training and test.

    Args:
        study: The study.
        trials: Rows of ``trials.csv``.
    """
    axes = [axis for axis in in_order(study.compared) if axis in study.axes]
    done = finished(trials)
    if done.empty:
        return ["Every trial failed, so there is nothing to compare."]
    texts = [] if axes else [_only(study, done)]
    taught = done[done["teacher_weight"] != 0] if "teacher_weight" in axes else done
    for axis in axes:
        if axis == "teacher_weight" and 0 in study.grid[axis]:
            texts += _distillation(study, done)
        else:
            texts += along(study, taught if axis in _TEACHING else done, axis)
    texts.append(gap(study, done))
    if len(done) < len(trials):
        texts.append(
            f"Of {len(trials)} trials, {len(trials) - len(done)} failed; no number includes them."
        )
    if "seed" not in study.axes:
        texts.append(
            "All numbers are from one split, so the differences between splits are unknown."
        )
    return texts


def in_order(axes: Sequence[str]) -> list[str]:
    """Axes in the order of their sentences: those of ``_FIRST``, then the others."""
    return sorted(axes, key=lambda axis: axis not in _FIRST)  # sorted keeps the order of the rest


def along(study: Study, trials: pd.DataFrame, axis: str) -> list[str]:
    """Sentences about test accuracy along one axis: from first to last value, then step by step."""
    values, failed, trials = _comparable(study, trials, axis)
    caution = _failed_at(axis, failed)
    if len(values) == 1:
        reached = accuracy(trials, axis, values[0])
        return [f"At {_named(axis, values)} test accuracy is {reached}.", *caution]
    if trials.empty:
        return [
            f"Along {axis.replace('_', ' ')} no trials that finished can be compared.",
            *caution,
        ]
    whole = difference(study, trials, axis, values[0], values[-1])
    words = _SPANS.get(axis, f"From {axis.replace('_', ' ')} {{}} to {{}}")
    span = words.format(_of(values[0]), _of(values[-1]))
    levels = [accuracy(trials, axis, value) for value in values]
    ends = f"from {levels[0]} to {levels[-1]}"
    if whole.std is None:
        between = "".join(
            f", with {level} at {_of(value)}"
            for value, level in zip(values[1:-1], levels[1:-1], strict=True)
        )
        return [f"{span}, test accuracy goes {ends}{between}.", *caution]
    steps = list(itertools.pairwise(values))
    differences = [difference(study, trials, axis, *step) for step in steps]
    verdict = _verdict([one.sign for one in differences], whole)
    first = (
        f"{span}, test accuracy {verdict} {ends} ({_basis(study, axis, whole)}): {points(whole)}."
    )
    if len(steps) == 1:
        return [first, *caution]
    listed = "; ".join(
        f"{_of(a)} → {_of(b)}: {points(one)}"
        for (a, b), one in zip(steps, differences, strict=True)
    )
    return [first, f"Step by step, {listed}. {_clear(differences)}", *caution]


def gap(study: Study, trials: pd.DataFrame) -> str:
    """Sentence about the difference between training and test accuracy."""
    train = trials["train_accuracy"]
    low, high = _percent(train.min()), _percent(train.max())
    reached = f"{low} % in every trial" if low == high else f"between {low} % and {high} %"
    apart = (train - trials["accuracy"]).groupby(_point(study, trials), sort=False).mean()
    text = f"On their training pictures, the heads reach {reached}; test accuracy is "
    low, high = _percent(apart.min()), _percent(apart.max())
    if low == high:
        return f"{text}{_points(apart.min())} lower."
    return f"{text}lower by {low} to {high} points on average, depending on the setting."


def difference(
    study: Study, trials: pd.DataFrame, axis: str, before: Any, after: Any
) -> Difference:
    """Test accuracy at ``after`` minus test accuracy at ``before``, over matching trials."""
    others = [other for other in study.axes if other != axis]
    keys = others or [axis]  # without another axis, each value has one trial
    one, two = (
        _at(trials, axis, value).assign(**({} if others else {axis: 0})).set_index(keys)
        for value in (before, after)
    )
    apart = (two["accuracy"] - one["accuracy"]).dropna()
    return Difference(
        mean=float(apart.mean()),
        std=float(apart.std(ddof=1)) if len(apart) > 1 else None,
        higher=int((apart > _EQUAL).sum()),
        lower=int((apart < -_EQUAL).sum()),
        pairs=len(apart),
        kind="splits" if others in ([], ["seed"]) else "pairs",
    )


def points(change: Difference) -> str:
    """A difference in percentage points, with its spread and how many pairs agree."""
    text = f"{100 * change.mean:+.1f}".replace("-", "−")
    if change.std is None:
        return f"{text} points"
    text += f" ± {_percent(change.std)} points"
    if change.higher == change.lower == 0:
        return f"{text}, the same in {_share(change.pairs, change.pairs)} {change.kind}"
    word, count = ("up", change.higher) if change.mean >= 0 else ("down", change.lower)
    return f"{text}, {word} in {_share(count, change.pairs)} {change.kind}"


def accuracy(trials: pd.DataFrame, axis: str, value: Any) -> str:
    """Test accuracy at one value of an axis: mean and, if there are several splits, spread.

    The spread is the standard deviation over the seeds of each seed's mean over the other axes.
    """
    by_seed = _at(trials, axis, value).groupby("seed")["accuracy"].mean()
    spread = f" ± {_percent(by_seed.std(ddof=1))}" if len(by_seed) > 1 else ""
    return f"{_percent(by_seed.mean())}{spread} %"


def ordered(study: Study, axis: str) -> list[Any]:
    """Values of an axis: numbers in rising order, names in the order of params.yaml."""
    values = list(study.grid[axis])
    return sorted(values) if _is_numeric(values) else values


def _distillation(study: Study, trials: pd.DataFrame) -> list[str]:
    """Sentences that compare training without a teacher with every weight of the teacher."""
    values, failed, matched = _comparable(study, trials, "teacher_weight")
    caution = _failed_at("teacher_weight", failed)
    others = [value for value in study.grid["teacher_weight"] if value in values and value != 0]
    if 0 not in values or not others or matched.empty:
        return ["The effect of the teacher is unknown: no trials can be compared.", *caution]
    trials = matched
    alone = accuracy(trials, "teacher_weight", 0)
    parts = []
    for value in others:
        change = difference(study, trials, "teacher_weight", 0, value)
        reached = accuracy(trials, "teacher_weight", value)
        parts.append(f"α = {_of(value)}: {reached} ({points(change)})")
    text = f"With labels only (α = 0), the student's test accuracy is {alone}; "
    text += f"with the teacher, {'; '.join(parts)}{_over(study, 'teacher_weight', ', ')}."
    texts = [text]
    taught = trials.dropna(subset="teacher_accuracy") if "teacher_accuracy" in trials else None
    teachers = {"teacher_layer", "teacher_samples_per_class"}
    if taught is not None and len(taught) and teachers.isdisjoint(study.axes):
        by_seed = taught.groupby("seed")["teacher_accuracy"].mean()
        spread = f" ± {_percent(by_seed.std(ddof=1))}" if len(by_seed) > 1 else ""
        texts.append(f"The teacher itself reaches {_percent(by_seed.mean())}{spread} %.")
    return texts + caution


def _comparable(
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
    """Verb for the change along an axis, given which steps are larger than their spread."""
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
        return "Every step is larger than its spread."
    if not clear:
        return "No step is larger than its spread."
    return f"Of these steps, {clear} of {len(differences)} " + (
        "is larger than its spread." if clear == 1 else "are larger than their spread."
    )


def _point(study: Study, trials: pd.DataFrame) -> pd.Series[Any]:
    return trials[list(study.compared)].astype(str).agg(",".join, axis="columns")


def _share(count: int, of: int) -> str:
    if count < of:
        return f"{count} of {of}"
    return "both" if of == 2 else f"all {of}"  # noqa: PLR2004


def _basis(study: Study, axis: str, whole: Difference) -> str:
    """Says what the means are over."""
    over = _over(study, axis)
    if not over:
        return f"{whole.pairs} {whole.kind}"
    return f"{over}; {whole.pairs} pairs of trials that differ only in this setting"


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


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{_percent(share)} points"


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)
