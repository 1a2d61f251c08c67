"""Draws data frames as matplotlib figures, without global state. Only :func:`save` writes files."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from PIL import Image

from vgg16_transfer.heads.measures import MEASURES
from vgg16_transfer.reporting import failures, labels, line_labels, svg
from vgg16_transfer.rounding import percent as in_percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.axes import Axes

    from vgg16_transfer.reporting.intervals import Interval
    from vgg16_transfer.reporting.published import Curve

# Okabe & Ito (2008): colours that most colour-blind readers can distinguish.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]

_SIZE = (5.4, 3.6)  # inches; small, so that letters can be read on a phone
_TITLES = {measure.name: measure.title for measure in MEASURES} | {
    "samples_per_class": "training pictures per class",
    "unlabelled_per_class": "unlabelled pictures per class",
    "teacher_weight": "teacher's weight α",
    "teacher_temperature": "teacher's temperature",
    "teacher_samples_per_class": "teacher's pictures per class",
    "teacher_pictures": "teacher's pictures",
    "teacher_layer": "teacher's layer",
    "temperature": "temperature of the softmax",
    "head": "kind of head",
    "backbone": "network",
}
_MOST_TICKS = 40
_FEWEST = 2  # curves that need names
_MOST_INSIDE = 4  # with more curves, the legend is below the axes
_APART = 1.3  # smallest ratio of two ticks whose labels do not overlap on a logarithmic scale

# Largest width of a name in inches, and its font size in points.
_IN_LEGEND = (3.8, 9)
_AT_MATRIX = (1.9, 8)
_BELOW_AXIS = (1.2, 10)
_ALL_BELOW_AXIS = 4.4  # inches for all names below the axis together

# Published curves are grey, with different dashes and markers, so that our curves stand out.
_DASHES = ["--", ":", "-."]
_MARKERS = ["s", "^", "D", "v", "P", "X", "*"]
_GREYS = ["#333333", "#777777", "#999999"]
_FAILED = "#777777"
_MOST_EPOCHS = 80
_RELIABLE = 10  # bins of a reliability diagram


def _drawn_epochs(epochs: pd.Series) -> npt.NDArray[np.int64]:
    """The epochs that a curve is drawn at: all, or as many as can be seen, evenly apart.

    A curve of another length ends before the last of them, so every last epoch is among them.
    """
    every: npt.NDArray[np.int64] = np.unique(epochs.to_numpy())
    places = np.linspace(0, len(every) - 1, min(len(every), _MOST_EPOCHS)).round().astype(int)
    drawn: npt.NDArray[np.int64] = every[places]
    return drawn


class Names(NamedTuple):
    """How a figure names the points of a grid.

    Attributes:
        heading: What the names are values of, such as ``kind of head``.
        short: Name in the figure, such as ``logistic``, by name of the point.
    """

    heading: str = ""
    short: Mapping[str, str] = MappingProxyType({})

    def of(self, point: str) -> str:
        """The name of a point in the figure."""
        return self.short.get(point, point)


def in_words(value: object) -> str:
    """A value of a grid as a figure names it: ``0.9`` or ``nearest_mean``."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def title(axis: str) -> str:
    """An axis of a grid, or a measure, in words."""
    return _TITLES.get(axis, axis.replace("_", " "))


def study_curves(
    history: pd.DataFrame,
    points: pd.Series,
    measure: str,
    failed: Mapping[str, str] | None = None,
    names: Names | None = None,
) -> Figure:
    """Draws a study's measure against epochs: means over the seeds, test solid, train dashed.

    The band is one standard deviation of the test curve on either side.

    Args:
        history: Rows of ``history.csv``.
        points: Name of the grid point by trial name. Trials of a point are averaged. Other trials
            are left out.
        measure: ``loss`` or ``accuracy``.
        failed: Text about failed trials, by name of the grid point.
        names: How the figure names the points.
    """
    figure, axes = _figure()
    marks, names = failed or {}, names or Names()
    ends = []
    by_point = history.groupby([history["trial"].map(points), "epoch"], sort=False)
    mean, std = (
        by_point[[f"train_{measure}", f"test_{measure}"]].agg(how) for how in ("mean", "std")
    )
    at = mean.index.get_level_values("epoch").isin(_drawn_epochs(history["epoch"]))
    mean, std = mean[at], std[at]
    for colour, point in zip(_cycle(points.nunique()), points.unique(), strict=True):
        test, spread = mean.loc[point, f"test_{measure}"], std.loc[point, f"test_{measure}"]
        name = _marked(names.of(str(point)), marks.get(point, ""))
        axes.plot(test.index, test, color=colour, label=name)
        ends.append(line_labels.End(name, colour, float(test.index[-1]), float(test.iloc[-1])))
        axes.fill_between(test.index, test - spread, test + spread, color=colour, alpha=0.15, lw=0)
        train = mean.loc[point, f"train_{measure}"]
        axes.plot(train.index, train, color=colour, linestyle="--", linewidth=1)
    for point in (point for point in marks if point not in set(points)):
        name = _marked(names.of(point), marks[point])
        axes.plot([], [], color=_FAILED, linestyle="none", marker="x", label=name)
        ends.append(line_labels.End(name, _FAILED, None, None))
    _finish(axes, "epoch", f"{title(measure)} (dashed: train)", percent=measure == "accuracy")
    _name(axes, ends, names.heading, marked=bool(marks))
    return figure


def answer(
    lines: Mapping[str, pd.DataFrame],
    published: Sequence[Curve],
    laws: Mapping[str, pd.DataFrame] | None = None,
) -> Figure:
    """Draws test accuracy against training pictures per class, with published accuracies.

    Args:
        lines: Curves by name: rows of :func:`~vgg16_transfer.reporting.intervals.summarise`.
        published: Curves along ``samples_per_class``, or numbers without an axis.
        laws: Fitted learning curves by name of their line, as
            :func:`~vgg16_transfer.reporting.learning_curves.drawn` returns them. They are dotted,
            with their interval as a band.
    """
    laws = laws or {}
    figure, axes = _figure()
    axes.set_xscale("log", base=2)
    ends = []
    for colour, (name, line) in zip(_cycle(len(lines)), lines.items(), strict=True):
        drawn = line.dropna(subset="accuracy_mean").sort_values("samples_per_class")
        axes.errorbar(
            drawn["samples_per_class"],
            drawn["accuracy_mean"],
            yerr=_bars(drawn),
            color=colour,
            marker="o",
            capsize=4,
            linewidth=2,
            label=name,
            zorder=3,
        )
        ends += _ends(name, colour, drawn["samples_per_class"], drawn["accuracy_mean"])
        if len(lines) == 1 and not published:
            _write_values(axes, drawn["samples_per_class"], drawn["accuracy_mean"])
        if name in laws:
            _draw_law(axes, colour, f"power law of {name}", laws[name])
    if lines:
        every = pd.concat(lines.values(), ignore_index=True)
        _mark_failures(axes, every["samples_per_class"], every)
    ends += _draw_published(axes, published)
    own_ticks = sorted({int(n) for line in lines.values() for n in line["samples_per_class"]})
    published_ticks = [
        point.at for curve in published for point in curve.points if point.at is not None
    ]
    law_ticks = [law["samples_per_class"].max() for law in laws.values()]
    ticks = _spaced(_spaced(own_ticks, published_ticks), law_ticks)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1)
    _finish(axes, title("samples_per_class"), "test accuracy (95 % interval)", percent=True)
    _name(axes, ends)
    return figure


def accuracy_against(summary: pd.DataFrame, axis: str, published: Sequence[Curve] = ()) -> Figure:
    """Draws test accuracy against one axis of a study: mean over the splits and its 95 % interval.

    Args:
        summary: Result of :func:`~vgg16_transfer.reporting.intervals.summarise`.
        axis: A column of the summary. Positive numbers are drawn on a logarithmic scale.
        published: Published curves along the same axis, if it is numeric.
    """
    figure, axes = _figure()
    others = [c for c in summary.columns[: summary.columns.get_loc("seeds")] if c != axis]
    numeric = pd.api.types.is_numeric_dtype(summary[axis])
    values = list(summary[axis].unique())
    positions = summary[axis] if numeric else summary[axis].map(values.index)
    lines = summary.groupby(others, sort=False) if others else [((), summary)]
    ends = []
    for colour, (point, line) in zip(COLOURS * len(summary), lines, strict=False):
        label = ", ".join(map(in_words, point))
        drawn = line.dropna(subset="accuracy_mean")
        drawn = drawn.sort_values(axis) if numeric else drawn
        x_values = positions[drawn.index]
        axes.errorbar(
            x_values,
            drawn["accuracy_mean"],
            yerr=_bars(drawn),
            color=colour,
            marker="o",
            capsize=4,
            linestyle="-" if numeric else "none",
            label=label or None,
        )
        ends += _ends(label, colour, x_values, drawn["accuracy_mean"])
        if not others:  # numbers of several lines would overlap; the table has them
            _write_values(axes, x_values, drawn["accuracy_mean"])
    _mark_failures(axes, positions, summary)
    ends += _draw_published(axes, published)
    if numeric and summary[axis].min() > 0:
        axes.set_xscale("log", base=2)
    if numeric:
        axes.set_xticks(values, [f"{value:g}" for value in values])
    else:
        _write_names(axes, values)
    axes.set_xticks([], minor=True)
    axes.margins(x=0.12)
    _finish(axes, title(axis), "test accuracy (95 % interval)", percent=True)
    _name(axes, ends, ", ".join(map(title, others)))
    return figure


def differences(names: Sequence[str], changes: Sequence[Interval]) -> Figure:
    """Draws paired differences of test accuracy in percentage points, with 95 % intervals.

    Args:
        names: What each difference is between.
        changes: The differences, as shares.
    """
    figure, axes = _figure()
    figure.set_figheight(min(_SIZE[1], 1.1 + 0.5 * len(changes)))
    axes.axvline(0, color=_FAILED, linewidth=1)
    rows = np.arange(len(changes))
    means = np.array([100 * one.mean for one in changes])
    ends = np.array([[100 * (one.low or 0), 100 * (one.high or 0)] for one in changes])
    axes.errorbar(
        means,
        rows,
        xerr=np.abs(ends.T - means),
        color=COLOURS[0],
        marker="o",
        capsize=4,
        linestyle="none",
    )
    texts = labels.fit_all(names, *_AT_MATRIX)
    axes.set_yticks(rows, texts, **labels.style(texts))
    axes.invert_yaxis()
    axes.margins(y=0.2)
    _finish(axes, "difference of test accuracy, points (95 % interval)", "", percent=False)
    return figure


def reliability(predictions: pd.DataFrame, points: pd.Series, names: Names | None = None) -> Figure:
    """Draws accuracy against confidence, in bins of equally many pictures.

    Args:
        predictions: Rows of ``predictions.csv``.
        points: Name of the grid point by trial name. Trials of a point are pooled.
        names: How the figure names the points.
    """
    figure, axes = _figure()
    names = names or Names()
    axes.plot([0, 1], [0, 1], color=_FAILED, linestyle=":", linewidth=1)
    right = predictions["true"] == predictions["predicted"]
    rows = pd.DataFrame({"sure": predictions["probability"], "right": right})
    by_point = rows.groupby(predictions["trial"].map(points), sort=False)
    for colour, (point, own) in zip(_cycle(by_point.ngroups), by_point, strict=True):
        bins = np.array_split(own.sort_values(["sure", "right"]).to_numpy(float), _RELIABLE)
        means = np.array([rows.mean(axis=0) for rows in bins if len(rows)])
        name = names.of(str(point))
        axes.plot(means[:, 0], means[:, 1], color=colour, marker="o", label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    _finish(axes, "probability of the predicted class", "share that is right", percent=True)
    if by_point.ngroups > 1:  # all curves end in one corner, and leave the one below it empty
        _legend(axes, names.heading, "lower right")
    return figure


def confusion_matrix(confusion: pd.DataFrame, classes: list[str]) -> Figure:
    """Draws how often pictures of a class (rows) were predicted as each class (columns).

    Args:
        confusion: Rows of ``confusion.csv`` of one trial.
        classes: Class names in their order.
    """
    counts = _counts(confusion, classes)
    side = min(max(4.0, 0.32 * len(classes) + 1.6), 12.0)
    named = len(classes) <= _MOST_TICKS
    names = labels.fit_all(classes, *_AT_MATRIX) if named else []
    widest = max((labels.width(name, _AT_MATRIX[1]) for name in names), default=0)
    longest = max(map(len, names), default=0)
    margin = max(0.5 + 0.08 * longest, 0.4 + widest)  # inches, for names and axis label
    figure = Figure(figsize=(side, side))
    axes = figure.add_axes((margin / side, margin / side, *2 * (0.98 - margin / side,)))
    axes.imshow(counts.to_numpy(), cmap="Blues", interpolation="nearest")
    if named:
        style = labels.style(names) | {"fontsize": _AT_MATRIX[1]}
        axes.set_xticks(range(len(names)), names, rotation=90, **style)
        axes.set_yticks(range(len(names)), names, **style)
        _write_counts(axes, counts)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


class ConfusionPictures:
    """Draws the confusion matrices of many trials. What they have in common is drawn once.

    Args:
        classes: Class names in their order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        none = pd.DataFrame(columns=["true", "predicted", "count"]).astype({"count": int})
        figure = confusion_matrix(none, list(classes))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        self._frame = Image.fromarray(drawn).convert("RGB")
        left, bottom, right, top = (round(side) for side in figure.axes[0].bbox.extents)
        self._box = (left + 1, self._frame.height - top + 1, right, self._frame.height - bottom)
        self._classes = list(classes)

    def draw(self, confusion: pd.DataFrame) -> Image.Image:
        """The matrix of one trial, without numbers.

        Args:
            confusion: Rows of ``confusion.csv`` of the trial.
        """
        counts = _counts(confusion, self._classes).to_numpy(float)
        shades = (colormaps["Blues"](counts / max(1.0, counts.max())) * 255).round()
        cells = Image.fromarray(shades[:, :, :3].astype(np.uint8))
        size = (self._box[2] - self._box[0], self._box[3] - self._box[1])
        picture = self._frame.copy()
        picture.paste(cells.resize(size, Image.Resampling.NEAREST), self._box[:2])
        return picture


def _counts(confusion: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Number of pictures by true (rows) and predicted class (columns)."""
    counts = np.zeros((len(classes), len(classes)), int)
    index = pd.Index(classes)
    places = (index.get_indexer(pd.Index(confusion[side])) for side in ("true", "predicted"))
    np.add.at(counts, tuple(places), confusion["count"])
    return pd.DataFrame(counts, classes, classes)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG or, by the ending of the path, as SVG that follows dark mode.

    The bytes depend only on the figure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".svg":
        path.write_text(svg.drawn(figure), encoding="utf-8")
    else:
        figure.savefig(path, dpi=150, metadata={"Software": None})


def _bars(drawn: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Lengths of the error bars of a curve, below and above the mean; 0 for a single split."""
    mean = drawn["accuracy_mean"]
    ends = [mean - drawn["accuracy_low"], drawn["accuracy_high"] - mean]
    lengths: npt.NDArray[np.float64] = np.nan_to_num(np.array(ends, dtype=float))
    return lengths


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    return figure, figure.subplots()


def _finish(axes: Axes, x: str, y: str, *, percent: bool) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _name(
    axes: Axes, ends: Sequence[line_labels.End], heading: str = "", *, marked: bool = False
) -> None:
    """Names curves at their ends or, where that can't be read, in a legend.

    A single curve needs no name: the caption has it.
    """
    if len(ends) < _FEWEST and not marked:
        return
    for limits, keep in ((axes.get_xlim, axes.set_xlim), (axes.get_ylim, axes.set_ylim)):
        keep(limits())  # final, before places depend on them
    if line_labels.fit(axes, ends):
        line_labels.write(axes, ends, heading)
    else:
        _legend(axes, heading)


def _ends(
    name: str, colour: str, x: Sequence[float] | pd.Series, y: pd.Series
) -> list[line_labels.End]:
    """The end of a curve; none if it has no point."""
    places = list(x)
    return [line_labels.End(name, colour, float(places[-1]), float(y.iloc[-1]))] if places else []


def _legend(axes: Axes, heading: str = "", place: str = "best") -> None:
    handles, names = axes.get_legend_handles_labels()
    where: dict[str, Any] = {"loc": place}
    if len(names) > _MOST_INSIDE:
        figure = axes.figure
        assert isinstance(figure, Figure)  # noqa: S101 (for mypy: axes are never in a subfigure)
        figure.set_figheight(_SIZE[1] + 0.21 * (len(names) + bool(heading)))
        where = {"loc": "upper left", "bbox_to_anchor": (0, -0.18), "borderaxespad": 0}
    texts = labels.fit_all(names, *_IN_LEGEND)
    legend = axes.legend(
        handles,
        texts,
        title=heading or None,
        title_fontsize=_IN_LEGEND[1],
        alignment="left",
        frameon=False,
        fontsize=_IN_LEGEND[1],
        **where,
    )
    for text in legend.get_texts():
        text.set(**labels.style([text.get_text()]))


def _write_values(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Writes each accuracy beside its point."""
    for place in zip(x, y, strict=True):
        text = f"{in_percent(place[1])}%"
        axes.annotate(text, place, (8, -12), textcoords="offset points", fontsize=9)


def _marked(name: str, mark: str) -> str:
    return f"{name} ({mark})" if mark else name


def _mark_failures(axes: Axes, positions: pd.Series, summary: pd.DataFrame) -> None:
    """Draws a dotted line with a text where trials failed.

    Args:
        axes: Axes to draw on.
        positions: Positions of the summary's rows on the x axis.
        summary: Result of :func:`~vgg16_transfer.heads.records.summarise`.
    """
    if "failed" not in summary:
        return
    counts = summary[["seeds", "failed"]].groupby(positions, sort=True).sum()
    counts = counts[counts["failed"] > 0]
    for position, row in zip(counts.index.tolist(), counts.to_dict("records"), strict=True):
        axes.axvline(position, color=_FAILED, linestyle=":", linewidth=1, zorder=1)
        axes.annotate(
            failures.mark(row),
            (position, 0.02),
            (-2, 0),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color=_FAILED,
        )


def _write_names(axes: Axes, values: Sequence[str]) -> None:
    """Writes names below the axis, rotated by 90° if they would overlap."""
    inches, size = _BELOW_AXIS
    names = labels.fit_all(values, inches, size)
    widest = max(labels.width(name, size) for name in names)
    rotation = 90 if widest > _ALL_BELOW_AXIS / len(names) else 0
    axes.set_xticks(range(len(names)), names, rotation=rotation, **labels.style(names))


def _draw_law(axes: Axes, colour: str, label: str, law: pd.DataFrame) -> None:
    x = law["samples_per_class"]
    axes.plot(x, law["accuracy"], color=colour, linestyle=":", linewidth=1, label=label)
    axes.fill_between(x, law["low"], law["high"], color=colour, alpha=0.1, lw=0)


def _draw_published(axes: Axes, curves: Sequence[Curve]) -> list[line_labels.End]:
    """Draws published curves. Returns where they end."""
    ends = []
    for index, curve in enumerate(curves):
        grey = _GREYS[index % len(_GREYS)]
        dashes = _DASHES[index % len(_DASHES)]
        if curve.axis == "none":
            level = curve.points[0].accuracy / 100
            axes.axhline(level, color=grey, linestyle=dashes, linewidth=1, label=curve.method)
            ends.append(line_labels.End(curve.method, grey, np.inf, level))
            continue
        axes.errorbar(
            [point.at or 0 for point in curve.points],
            [point.accuracy / 100 for point in curve.points],
            yerr=[(point.spread or 0) / 100 for point in curve.points],
            color=grey,
            linestyle=dashes if len(curve.points) > 1 else "none",
            linewidth=1,
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=4,
            label=curve.method,
        )
        last = curve.points[-1]
        ends.append(line_labels.End(curve.method, grey, last.at or 0, last.accuracy / 100))
    return ends


def _spaced(first: Sequence[float], rest: Sequence[float]) -> list[float]:
    """All of ``first``, and those of ``rest`` whose tick labels do not overlap."""
    kept = list(first)
    for number in sorted(set(rest), reverse=True):
        if all(max(number / other, other / number) >= _APART for other in kept):
            kept.append(number)
    return sorted(kept)


def _cycle(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _write_counts(axes: Axes, counts: pd.DataFrame) -> None:
    middle = counts.to_numpy().max() / 2
    for row, column in np.argwhere(counts.to_numpy() > 0):
        count = int(counts.iloc[row, column])
        colour = "white" if count > middle else "black"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
