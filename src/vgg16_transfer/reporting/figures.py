"""Data frames → matplotlib figures: pure functions, no global state, nothing written to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

# Okabe & Ito (2008): eight colours that colour-blind readers tell apart, as far as that goes.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]

_SIZE = (6.4, 4.0)
_LABELS = {
    "loss": "cross-entropy",
    "accuracy": "accuracy",
    "samples_per_class": "training pictures per class",
}
_MOST_TICKS = 40


def trial_curves(history: pd.DataFrame, measure: str) -> Figure:
    """One trial's measure against epochs, for every role it was measured on.

    Args:
        history: The trial's rows of ``history.csv``.
        measure: ``loss`` or ``accuracy``.
    """
    figure, axes = _figure()
    for colour, role in zip(COLOURS, _roles(history, measure), strict=False):
        axes.plot(history["epoch"], history[f"{role}_{measure}"], color=colour, label=role)
    _finish(axes, "epoch", _LABELS[measure], percent=measure == "accuracy")
    return figure


def study_curves(history: pd.DataFrame, points: pd.Series, measure: str) -> Figure:
    """A study's measure against epochs: test solid, train dashed, each the mean over the seeds.

    The band is one standard deviation of the test curve to either side.

    Args:
        history: As in ``history.csv``.
        points: By trial name, the point of the grid that its seeds are averaged in.
        measure: ``loss`` or ``accuracy``.
    """
    figure, axes = _figure()
    by_point = history.groupby([history["trial"].map(points), "epoch"], sort=False)
    mean, std = (
        by_point[[f"train_{measure}", f"test_{measure}"]].agg(how) for how in ("mean", "std")
    )
    for colour, point in zip(_cycle(points.nunique()), points.unique(), strict=True):
        test, spread = mean.loc[point, f"test_{measure}"], std.loc[point, f"test_{measure}"]
        axes.plot(test.index, test, color=colour, label=str(point))
        axes.fill_between(test.index, test - spread, test + spread, color=colour, alpha=0.15, lw=0)
        train = mean.loc[point, f"train_{measure}"]
        axes.plot(train.index, train, color=colour, linestyle="--", linewidth=1)
    _finish(axes, "epoch", f"{_LABELS[measure]} (dashed: train)", percent=measure == "accuracy")
    return figure


def accuracy_against(summary: pd.DataFrame, axis: str) -> Figure:
    """Test accuracy against one axis of a study, mean and standard deviation over the seeds.

    Args:
        summary: As :func:`~vgg16_transfer.heads.records.summarise` returns it.
        axis: A column of the summary. Numbers of two and more are drawn on a logarithmic scale.
    """
    figure, axes = _figure()
    others = [c for c in summary.columns[: summary.columns.get_loc("seeds")] if c != axis]
    numeric = pd.api.types.is_numeric_dtype(summary[axis])
    lines = summary.groupby(others, sort=False) if others else [((), summary)]
    for colour, (point, line) in zip(COLOURS * len(summary), lines, strict=False):
        label = ", ".join(f"{other} {value}" for other, value in zip(others, point, strict=True))
        positions = line[axis] if numeric else np.arange(len(line))
        axes.errorbar(
            positions,
            line["accuracy_mean"],
            yerr=line["accuracy_std"].fillna(0),
            color=colour,
            marker="o",
            capsize=4,
            linestyle="-" if numeric else "none",
            label=label or None,
        )
        for x, y in zip(positions, line["accuracy_mean"], strict=True):
            axes.annotate(f"{y:.1%}", (x, y), (8, -12), textcoords="offset points", fontsize=8)
    if numeric and summary[axis].min() > 0:
        axes.set_xscale("log", base=2)
    if numeric:
        axes.set_xticks(list(summary[axis].unique()), [f"{v:g}" for v in summary[axis].unique()])
    else:
        axes.set_xticks(range(summary[axis].nunique()), summary[axis].unique())
    axes.set_xticks([], minor=True)
    axes.margins(x=0.12)
    _finish(axes, _LABELS.get(axis, axis), "test accuracy (mean ± std)", percent=True)
    return figure


def confusion_matrix(confusion: pd.DataFrame, classes: list[str]) -> Figure:
    """How often pictures of a class (rows) were taken for another (columns).

    Args:
        confusion: One trial's rows of ``confusion.csv``.
        classes: Their order.
    """
    counts = confusion.pivot_table(index="true", columns="predicted", values="count", fill_value=0)
    counts = counts.reindex(index=classes, columns=classes, fill_value=0)
    side = min(max(4.0, 0.32 * len(classes) + 1.6), 12.0)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts.to_numpy(), cmap="Blues", interpolation="nearest")
    if len(classes) <= _MOST_TICKS:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
        axes.set_yticks(range(len(classes)), classes, fontsize=8)
        _write_counts(axes, counts)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG whose bytes depend on nothing but the figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.subplots()


def _finish(axes: Axes, x: str, y: str, *, percent: bool) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)


def _roles(history: pd.DataFrame, measure: str) -> list[str]:
    return [role for role in ("train", "test", "validation") if f"{role}_{measure}" in history]


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _write_counts(axes: Axes, counts: pd.DataFrame) -> None:
    middle = counts.to_numpy().max() / 2
    for row, column in np.argwhere(counts.to_numpy() > 0):
        count = int(counts.iloc[row, column])
        colour = "white" if count > middle else "black"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
