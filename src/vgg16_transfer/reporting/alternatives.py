"""Alternative texts of pictures, in words and numbers, for readers who can't see them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from vgg16_transfer.reporting import failures
from vgg16_transfer.rounding import fixed, percent, signed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vgg16_transfer.reporting.intervals import Interval
    from vgg16_transfer.reporting.published import Curve

_NAMED = {
    "probe": "The probe picture, which is sent through the network",
    "kernels": "The 64 kernels of the first convolution, in colour",
}
_CONVOLUTION = re.compile(r"block(\d)_conv(\d)")


def answer(
    lines: Mapping[str, pd.DataFrame],
    published: Sequence[Curve],
    laws: Mapping[str, pd.DataFrame] | None = None,
) -> str:
    """Alternative text of :func:`~vgg16_transfer.reporting.figures.answer`."""
    own_points = [
        f"{name}: "
        + ", ".join(
            f"{accuracy(row)} at {row['samples_per_class']}"
            for row in line.sort_values("samples_per_class").to_dict("records")
        )
        for name, line in lines.items()
    ]
    laws_ends = [f"power law of {name}: {_end(law)}" for name, law in (laws or {}).items()]
    published_points = [f"{curve.method}: {points(curve)}" for curve in published]
    title = "Test accuracy against training pictures per class"
    return ". ".join([title, *own_points, *laws_ends, *published_points]) + "."


def points(curve: Curve) -> str:
    """Numbers of a published curve, in words."""
    return ", ".join(
        f"{point.accuracy:g}"
        + (f" ± {point.spread:g}" if point.spread else "")
        + (" %" if point.at is None else f" % at {point.at:g}")
        for point in curve.points
    )


def accuracy_against(summary: pd.DataFrame, axis: str) -> str:
    """Alternative text of :func:`~vgg16_transfer.reporting.figures.accuracy_against`."""
    others = [c for c in summary.columns[: summary.columns.get_loc("seeds")] if c != axis]
    listed = "; ".join(
        ", ".join([f"{row[axis]}", *(f"{other} {row[other]}" for other in others)])
        + f": {accuracy(row)}"
        for row in summary.to_dict("records")
    )
    return f"Test accuracy against {axis.replace('_', ' ')}. {listed}."


def differences(axis: str, changes: Mapping[str, Interval]) -> str:
    """Alternative text of :func:`~vgg16_transfer.reporting.figures.differences`."""
    listed = "; ".join(
        f"{name}: {signed(one.mean)} ({signed(one.low or 0)} to {signed(one.high or 0)})"
        for name, one in changes.items()
    )
    return f"Differences of test accuracy along {axis.replace('_', ' ')}, in points. {listed}."


def reliability(predictions: pd.DataFrame, points: pd.Series) -> str:
    """Alternative text of :func:`~vgg16_transfer.reporting.figures.reliability`."""
    right = predictions["true"] == predictions["predicted"]
    rows = pd.DataFrame({"sure": predictions["probability"], "right": right})
    means = rows.groupby(predictions["trial"].map(points), sort=False).mean()
    listed = "; ".join(
        f"{point}: {percent(row['sure'])} % sure and {percent(row['right'])} % right"
        for point, row in means.iterrows()
    )
    return f"Accuracy against the probability of the predicted class. {listed}."


def curves(
    history: pd.DataFrame, points: pd.Series, measure: str, failed: Mapping[str, str] | None = None
) -> str:
    """Alternative text of :func:`~vgg16_transfer.reporting.figures.study_curves`.

    It has the first and last values of the curves.
    """
    marks = failed or {}
    mean = history.groupby([history["trial"].map(points), "epoch"], sort=False)[
        [f"train_{measure}", f"test_{measure}"]
    ].mean()
    listed = []
    for point in points.unique():
        line = mean.loc[point].sort_index()
        test, train = line[f"test_{measure}"], line[f"train_{measure}"]
        start, end, train_end = (
            _number(value, measure) for value in (test.iloc[0], test.iloc[-1], train.iloc[-1])
        )
        mark = f" ({marks[point]})" if point in marks else ""
        listed.append(f"{point}: test from {start} to {end}, train to {train_end}{mark}")
    listed += [f"{point}: {mark}" for point, mark in marks.items() if point not in set(points)]
    epochs = history.loc[history["trial"].isin(points.index), "epoch"]
    title = f"{'Accuracy' if measure == 'accuracy' else 'Cross-entropy'} against epochs"
    span = f" {epochs.min()} to {epochs.max()}" if len(epochs) else ""
    return f"{title}{span}. {'; '.join(listed)}."


def filters(stem: str, dataset: str) -> str:
    """Alternative text of a picture of the stage ``filters``, by its file name without suffix."""
    convolution = _CONVOLUTION.fullmatch(stem)
    if convolution:
        block, layer = convolution.groups()
        return (
            f"Six activation maps of convolution {layer} of set {block} for the probe picture "
            f"of {dataset}, side by side; bright means active"
        )
    return f"{_NAMED.get(stem, stem.replace('_', ' '))} ({dataset})"


def accuracy(row: Mapping[Any, Any]) -> str:
    """Accuracy of a row of a summary, and how many of its trials failed."""
    mark = failures.mark(row)
    if not row["seeds"]:
        return mark
    return f"{spread(row, 'accuracy')} ({mark})" if mark else spread(row, "accuracy")


def spread(row: Mapping[Any, Any], measure: str) -> str:
    """Mean and, if known, standard deviation of a measure, in %."""
    mean, std = row[f"{measure}_mean"], row[f"{measure}_std"]
    return f"{percent(mean)} %" if pd.isna(std) else f"{percent(mean)} ± {percent(std)} %"


def _end(law: pd.DataFrame) -> str:
    """Where a law ends, with its interval."""
    last = law.iloc[-1]
    text = f"{100 * last['accuracy']:.1f} % at {last['samples_per_class']:g}"
    if pd.isna(last["low"]):
        return text
    return f"{text} (interval {100 * last['low']:.1f} to {100 * last['high']:.1f} %)"


def _number(value: float, measure: str) -> str:
    return f"{percent(value)} %" if measure == "accuracy" else fixed(value, 2)
