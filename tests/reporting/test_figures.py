"""Figures show the numbers that they are given: looked up in the axes, not in the pixels."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from vgg16_transfer.reporting import figures, line_labels
from vgg16_transfer.reporting.intervals import Interval

NAN = float("nan")


def axes_of(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def lines(figure: Figure, style: str = "-") -> dict[str, list[tuple[float, float]]]:
    """The points of every line of a style, by label."""
    lines = [line for line in axes_of(figure).lines if line.get_linestyle() == style]
    return {str(line.get_label()): list(map(tuple, line.get_xydata())) for line in lines}


def legend(figure: Figure) -> list[str]:
    box = axes_of(figure).get_legend()
    return [text.get_text() for text in box.get_texts()] if box else []


def direct(figure: Figure) -> dict[str, float]:
    """Names at the ends of curves, with their heights."""
    texts = [text for text in axes_of(figure).texts if text.get_gid() == line_labels.MARK]
    return {text.get_text(): text.get_position()[1] for text in texts}


def bars(figure: Figure) -> list[ErrorbarContainer]:
    return [one for one in axes_of(figure).containers if isinstance(one, ErrorbarContainer)]


def spreads(bar: ErrorbarContainer) -> list[float]:
    """Half the height of each vertical bar."""
    (segments,) = (collection.get_segments() for collection in bar.lines[2])
    return [(end[1] - start[1]) / 2 for start, end in segments]


def ticks(figure: Figure) -> list[tuple[float, str]]:
    axes = axes_of(figure)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    return list(zip(axes.get_xticks(), labels, strict=True))


def history(trials: dict[str, Sequence[float]], role: str = "test") -> pd.DataFrame:
    """Curves of a measure of a role by trial; those of the other role are zero."""
    frames = []
    for trial, values in trials.items():
        zeros = dict.fromkeys(
            ["train_loss", "train_accuracy", "test_loss", "test_accuracy"], [0.0] * len(values)
        )
        measured = {f"{role}_accuracy": values, f"{role}_loss": [10 * v for v in values]}
        frames.append(
            pd.DataFrame({"trial": trial, "epoch": range(1, len(values) + 1)} | zeros | measured)
        )
    return pd.concat(frames, ignore_index=True)


def summary(axes: dict[str, list[Any]], means: list[float], stds: list[float]) -> pd.DataFrame:
    """A summary whose intervals end one standard deviation from the mean."""
    frame = pd.DataFrame(axes | {"seeds": 3, "accuracy_mean": means, "accuracy_std": stds})
    ends = (frame["accuracy_mean"] + sign * frame["accuracy_std"] for sign in (-1, 1))
    return frame.assign(**dict(zip(("accuracy_low", "accuracy_high"), ends, strict=True)))


def confusion(counts: dict[tuple[str, str], int]) -> pd.DataFrame:
    rows = [("only", true, predicted, count) for (true, predicted), count in counts.items()]
    return pd.DataFrame(rows, columns=["trial", "true", "predicted", "count"])


@pytest.mark.parametrize(
    ("measure", "label", "tick"),
    [
        ("loss", "cross-entropy (dashed: train)", "0.5"),
        ("accuracy", "accuracy (dashed: train)", "50%"),
    ],
)
def test_the_axes_of_curves_say_what_they_show(measure: str, label: str, tick: str) -> None:
    figure = figures.study_curves(history({"t": [0.0, 1.0]}), pd.Series({"t": "t"}), measure)
    axes = axes_of(figure)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", label)
    assert axes.yaxis.get_major_formatter().format_ticks([0.0, 0.5])[1] == tick


POINTS = pd.Series({"n=16,seed=0": "n=16", "n=16,seed=1": "n=16", "n=2,seed=0": "n=2"})
CURVES = {"n=16,seed=0": [0.25, 0.75], "n=16,seed=1": [0.75, 0.75], "n=2,seed=0": [0.5, 0.125]}


def test_a_studys_curves_are_means_over_the_seeds() -> None:
    figure = figures.study_curves(history(CURVES), POINTS, "accuracy")
    assert lines(figure) == {"n=16": [(1, 0.5), (2, 0.75)], "n=2": [(1, 0.5), (2, 0.125)]}
    assert legend(figure) == []
    assert set(direct(figure)) == {"n=16", "n=2"}
    assert axes_of(figure).get_ylabel() == "accuracy (dashed: train)"


def test_names_at_the_ends_of_curves_are_in_the_order_of_the_curves() -> None:
    ends = {"low": [0.9, 0.1], "high": [0.1, 0.9], "middle": [0.5, 0.5]}
    points = pd.Series({name: name for name in ends})
    names = direct(figures.study_curves(history(ends), points, "accuracy"))
    assert sorted(names, key=lambda name: names[name]) == ["low", "middle", "high"]


def test_names_of_curves_that_end_together_keep_apart() -> None:
    ends = {name: [0.1 * index, 0.5] for index, name in enumerate("abcd")}
    figure = figures.study_curves(
        history(ends), pd.Series({name: name for name in ends}), "accuracy"
    )
    figure.draw_without_rendering()
    texts = [text for text in axes_of(figure).texts if text.get_gid() == line_labels.MARK]
    # without the lines that lead to the names
    boxes = sorted((Text.get_window_extent(text) for text in texts), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))


def test_a_single_curve_has_no_name() -> None:
    figure = figures.study_curves(history({"t": [0.5, 0.75]}), pd.Series({"t": "p"}), "accuracy")
    assert (legend(figure), direct(figure)) == ([], {})


def test_a_heading_says_what_the_names_are_values_of() -> None:
    names = figures.Names("kind of head", {"n=16": "svm", "n=2": "logistic"})
    figure = figures.study_curves(history(CURVES), POINTS, "accuracy", names=names)
    assert set(direct(figure)) == {"kind of head", "svm", "logistic"}


def test_a_curve_of_many_epochs_is_thinned_and_keeps_its_ends() -> None:
    values = list(np.linspace(0, 1, 1000))
    figure = figures.study_curves(history({"t": values}), pd.Series({"t": "p"}), "accuracy")
    (points,) = lines(figure).values()
    assert len(points) < 100
    assert (points[0], points[-1]) == ((1, 0), (1000, 1))


def test_a_studys_training_curves_are_dashed_in_the_same_colour() -> None:
    figure = figures.study_curves(history(CURVES, role="train"), POINTS, "loss")
    dashed = [line for line in axes_of(figure).lines if line.get_linestyle() == "--"]
    solid = [line for line in axes_of(figure).lines if line.get_linestyle() == "-"]
    assert [list(line.get_ydata()) for line in dashed] == [[5.0, 7.5], [5.0, 1.25]]
    assert [line.get_color() for line in dashed] == [line.get_color() for line in solid]
    assert len({line.get_color() for line in solid}) == 2


def test_the_band_is_one_standard_deviation_to_either_side() -> None:
    figure = figures.study_curves(history(CURVES), POINTS, "accuracy")
    band = axes_of(figure).collections[0].get_paths()[0].vertices
    spread = np.std([0.25, 0.75], ddof=1)
    at_one = band[band[:, 0] == 1, 1]
    assert (at_one.min(), at_one.max()) == pytest.approx((0.5 - spread, 0.5 + spread))
    assert set(band[band[:, 0] == 2, 1]) == {0.75}


def test_a_single_seed_has_curves_without_a_band(tmp_path) -> None:
    one_seed = {"a": [0.25, 0.5], "b": [0.5, 0.75]}
    figure = figures.study_curves(history(one_seed), pd.Series({"a": "a", "b": "b"}), "accuracy")
    assert lines(figure) == {"a": [(1, 0.25), (2, 0.5)], "b": [(1, 0.5), (2, 0.75)]}
    drawn = [path for one in axes_of(figure).collections for path in one.get_paths()]
    assert all(len(path.vertices) == 0 for path in drawn)
    figures.save(figure, tmp_path / "one.png")


def test_there_are_curves_for_more_points_than_colours() -> None:
    names = [f"n={n}" for n in range(len(figures.COLOURS) + 2)]
    figure = figures.study_curves(
        history({name: [0.5] for name in names}), pd.Series(names, index=names), "loss"
    )
    assert list(lines(figure)) == names


def test_accuracy_is_drawn_with_its_spread_against_numbers_on_a_logarithmic_scale() -> None:
    frame = summary({"samples_per_class": [2, 4, 16]}, [0.5, 0.6, 0.9], [0.1, 0.05, 0.0])
    figure = figures.accuracy_against(frame, "samples_per_class")
    (bar,) = bars(figure)
    assert list(bar.lines[0].get_xdata()) == [2, 4, 16]
    assert list(bar.lines[0].get_ydata()) == [0.5, 0.6, 0.9]
    assert spreads(bar) == pytest.approx([0.1, 0.05, 0.0])
    axes = axes_of(figure)
    assert axes.get_xscale() == "log"
    assert ticks(figure) == [(2, "2"), (4, "4"), (16, "16")]
    assert axes.get_xlabel() == "training pictures per class"
    assert axes.get_ylabel() == "test accuracy (95 % interval)"
    assert [text.get_text() for text in axes.texts] == ["50.0%", "60.0%", "90.0%"]
    assert legend(figure) == []


def test_numbers_are_joined_in_rising_order_however_the_params_list_them() -> None:
    frame = summary({"samples_per_class": [16, 2, 4]}, [0.9, 0.5, 0.6], [0.1, 0.2, 0.3])
    figure = figures.accuracy_against(frame, "samples_per_class")
    (bar,) = bars(figure)
    points = [(2, 0.5), (4, 0.6), (16, 0.9)]
    assert list(map(tuple, bar.lines[0].get_xydata())) == points
    assert spreads(bar) == pytest.approx([0.2, 0.3, 0.1])
    assert [tuple(text.xy) for text in axes_of(figure).texts] == points


def test_names_are_drawn_side_by_side_and_not_joined() -> None:
    layers = ["block5_pool", "block3_pool", "block4_pool"]
    frame = summary({"layer": layers}, [0.9, 0.5, 0.7], [0.0, 0.1, 0.2])
    figure = figures.accuracy_against(frame, "layer")
    (bar,) = bars(figure)
    assert list(map(tuple, bar.lines[0].get_xydata())) == [(0, 0.9), (1, 0.5), (2, 0.7)]
    assert bar.lines[0].get_linestyle() == "None"
    assert ticks(figure) == list(enumerate(layers))
    assert axes_of(figure).get_xscale() == "linear"
    assert axes_of(figure).get_xlabel() == "layer"


def test_every_point_of_the_other_axes_has_a_line_of_its_own() -> None:
    frame = summary(
        {
            "layer": ["block4_pool"] * 2 + ["block5_pool"] * 2,
            "samples_per_class": [2, 4] * 2,
            "learning_rate": 0.5,
        },
        [0.1, 0.2, 0.3, 0.4],
        [0.0] * 4,
    )
    figure = figures.accuracy_against(frame, "samples_per_class")
    assert [list(bar.lines[0].get_ydata()) for bar in bars(figure)] == [[0.1, 0.2], [0.3, 0.4]]
    heading = "layer, learning rate"
    assert set(direct(figure)) == {heading, "block4_pool, 0.5", "block5_pool, 0.5"}
    assert len({to_hex(bar.lines[0].get_color()) for bar in bars(figure)}) == 2


def test_a_number_that_may_be_zero_has_a_linear_scale(tmp_path) -> None:
    frame = summary({"momentum": [0.0, 0.5]}, [0.5, 0.75], [0.0, 0.0])
    figure = figures.accuracy_against(frame, "momentum")
    assert axes_of(figure).get_xscale() == "linear"
    assert ticks(figure) == [(0.0, "0"), (0.5, "0.5")]
    figures.save(figure, tmp_path / "linear.png")


@pytest.mark.parametrize(
    "axes", [{"samples_per_class": [2, 4]}, {"layer": ["block4_pool", "block5_pool"]}], ids=str
)
def test_a_single_seed_has_bars_of_no_height(tmp_path, axes: dict[str, list[Any]]) -> None:
    figure = figures.accuracy_against(summary(axes, [0.5, 0.75], [NAN, NAN]), next(iter(axes)))
    assert spreads(bars(figure)[0]) == [0, 0]
    figures.save(figure, tmp_path / "one.png")


def test_a_single_point_can_be_drawn(tmp_path) -> None:
    frame = summary({"samples_per_class": [16]}, [0.5], [NAN])
    figure = figures.accuracy_against(frame, "samples_per_class")
    figures.save(figure, tmp_path / "one.png")
    assert ticks(figure) == [(16, "16")]


def test_a_confusion_matrix_has_true_classes_in_rows_and_predicted_ones_in_columns() -> None:
    counts = {("ant", "ant"): 5, ("ant", "cat"): 2, ("cat", "bee"): 1}
    figure = figures.confusion_matrix(confusion(counts), ["ant", "bee", "cat"])
    axes = axes_of(figure)
    assert axes.images[0].get_array().tolist() == [[5, 0, 2], [0, 0, 0], [0, 1, 0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ant", "bee", "cat"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ant", "bee", "cat"]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "5", (2, 0): "2", (1, 2): "1"}


def test_counts_can_be_read_on_dark_and_on_light() -> None:
    counts = {("a", "a"): 9, ("a", "b"): 1, ("b", "b"): 8}
    axes = axes_of(figures.confusion_matrix(confusion(counts), ["a", "b"]))
    colours = {text.get_text(): text.get_color() for text in axes.texts}
    assert colours == {"9": "white", "1": "black", "8": "white"}


def test_a_confusion_matrix_of_257_classes_leaves_out_what_nobody_could_read(tmp_path) -> None:
    classes = [f"{number:03}.name" for number in range(1, 258)]
    counts = {(name, classes[index // 2]): 8 for index, name in enumerate(classes)}
    figure = figures.confusion_matrix(confusion(counts), classes)
    axes = axes_of(figure)
    assert axes.images[0].get_array().shape == (257, 257)
    assert axes.images[0].get_array().sum() == 257 * 8
    assert list(axes.texts) == []
    assert not {label.get_text() for label in axes.get_xticklabels()} & set(classes)
    assert max(figure.get_size_inches()) <= 12
    figures.save(figure, tmp_path / "257.png")


NAMES = [
    "Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot",
    "W" * 300,
    r"$\nonsense$",
    "_hidden",
    "a\nb",
    " ",
    "",
    "عربى طويل",
    "犬" * 40,
    "कुत्ता",
    "👨‍👩‍👧",
]


def holds_all(figure: Figure) -> bool:
    """Whether nothing is drawn beyond the figure's edge."""
    figure.draw_without_rendering()
    drawn, edge = (
        figure.get_tightbbox(),
        figure.bbox_inches.padded(0.03),
    )  # a legend has a margin of its own
    return all(edge.contains(*corner) for corner in drawn.corners())


@pytest.mark.parametrize("count", [2, 4, len(NAMES), 40])
def test_no_class_name_breaks_a_confusion_matrix_or_leaves_it(count: int) -> None:
    names = [f"{NAMES[n % len(NAMES)]}{n or ''}" for n in range(count)]
    figure = figures.confusion_matrix(confusion({(name, names[0]): 3 for name in names}), names)
    assert holds_all(figure)
    axes = axes_of(figure)
    assert len({label.get_text() for label in axes.get_yticklabels()}) == count
    assert axes.get_window_extent().width > figure.bbox.width / 5


def test_a_confusion_matrix_of_usual_names_has_no_wider_margin_than_they_need() -> None:
    (short,), (long,) = (
        figures.confusion_matrix(confusion({(name, name): 1}), [name]).axes
        for name in ("ant", "touring-bike")
    )
    assert short.get_position().x0 == pytest.approx((0.5 + 0.08 * 3) / 4)
    assert long.get_position().x0 == pytest.approx((0.5 + 0.08 * 12) / 4)


@pytest.mark.parametrize("count", [1, 4, len(NAMES)])
def test_no_name_of_a_curve_leaves_the_figure(count: int) -> None:
    line = summary({"samples_per_class": [2, 4]}, [0.5, 0.75], [0.1, 0.1])
    drawn = [
        figures.answer({f"s: {name}": line for name in NAMES[:count]}, []),
        figures.study_curves(
            history({name: [0.5] for name in NAMES[:count]}),
            pd.Series({name: f"p={name}" for name in NAMES[:count]}),
            "loss",
        ),
    ]
    for figure in drawn:
        assert holds_all(figure)
        named = {*legend(figure), *direct(figure)}
        assert len(named) == (count if count > 1 else 0)


def test_a_formula_in_a_name_is_text() -> None:
    line = summary({"samples_per_class": [2, 4]}, [0.5, 0.75], [0.1, 0.1])
    figure = figures.answer({r"$\alpha$": line, "beta": line}, [])
    texts = [text for text in axes_of(figure).texts if text.get_text() == r"$\alpha$"]
    assert [text.get_parse_math() for text in texts] == [False]


@pytest.mark.parametrize(
    "layers", [["block4_pool", "fc2"], [f"block{n}_pool" for n in range(8)], NAMES], ids=len
)
def test_names_below_an_axis_neither_touch_nor_leave_the_figure(layers: list[str]) -> None:
    frame = summary({"layer": layers}, [0.5] * len(layers), [0.1] * len(layers))
    figure = figures.accuracy_against(frame, "layer")
    assert holds_all(figure)
    boxes = [label.get_window_extent() for label in axes_of(figure).get_xticklabels()]
    assert not [pair for pair in itertools.pairwise(boxes) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.study_curves(history(CURVES), POINTS, "accuracy"),
        lambda: figures.accuracy_against(
            summary({"samples_per_class": [2, 4]}, [0.5, 0.6], [0.1, 0.1]), "samples_per_class"
        ),
        lambda: figures.confusion_matrix(confusion({("a", "b"): 1}), ["a", "b"]),
    ],
    ids=["study_curves", "accuracy_against", "confusion_matrix"],
)
def test_the_same_figure_is_saved_in_the_same_bytes(tmp_path: Path, draw: Any) -> None:
    for name in ("once", "twice"):
        figures.save(draw(), tmp_path / "new folder" / f"{name}.png")
    once, twice = ((tmp_path / "new folder" / f"{n}.png").read_bytes() for n in ("once", "twice"))
    assert once.startswith(b"\x89PNG")
    assert once == twice
    assert b"matplotlib" not in once


def test_a_reliability_diagram_has_the_means_of_bins_of_equally_many_pictures() -> None:
    sure = np.linspace(0.05, 0.995, 20)
    right = np.arange(20) % 4 != 0
    predictions = pd.DataFrame(
        {"trial": "t", "true": "a", "predicted": np.where(right, "a", "b"), "probability": sure}
    )
    figure = figures.reliability(predictions.sample(frac=1, random_state=0), pd.Series({"t": "p"}))
    (line,) = [one for one in axes_of(figure).lines if one.get_marker() == "o"]
    np.testing.assert_allclose(line.get_xdata(), sure.reshape(10, 2).mean(axis=1))
    np.testing.assert_allclose(line.get_ydata(), right.reshape(10, 2).mean(axis=1))


def test_differences_are_points_with_the_ends_of_their_intervals() -> None:
    changes = [Interval(0.1, 0.02, 0.05, 0.15, 3), Interval(-0.01, 0.02, -0.04, 0.02, 3)]
    axes = axes_of(figures.differences(["2 → 4", "4 → 8"], changes))
    (bars,) = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    assert bars.lines[0].get_xdata().tolist() == pytest.approx([10, -1])
    ends = [segment[:, 0].tolist() for segment in bars.lines[2][0].get_segments()]
    assert ends == [pytest.approx([5, 15]), pytest.approx([-4, 2])]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2 → 4", "4 → 8"]


def test_a_confusion_picture_has_the_cells_of_its_trial_in_a_frame_that_is_drawn_once() -> None:
    names = ["ant", "bee", "cat"]
    drawn = figures.ConfusionPictures(names)
    counts = {("ant", "ant"): 4, ("bee", "ant"): 2, ("bee", "bee"): 2, ("cat", "cat"): 4}
    picture = drawn.draw(confusion(counts))
    other = drawn.draw(confusion({("ant", "cat"): 1}))
    assert picture.size == other.size
    left, top, right, bottom = drawn._box
    changed = np.asarray(picture, int) != np.asarray(other, int)
    changed[top:bottom, left:right] = False
    assert not changed.any()  # axes and names
    cells = np.array(
        [
            [sum(picture.getpixel((left + (2 * x + 1) * (right - left) // 6, y))) for x in range(3)]
            for y in (top + (2 * row + 1) * (bottom - top) // 6 for row in range(3))
        ]
    )
    expected = np.array([[4, 0, 0], [2, 2, 0], [0, 0, 4]])
    assert (np.unique(cells).size, np.unique(expected).size) == (3, 3)
    order = np.argsort(-cells.ravel(), kind="stable")  # the darker, the more pictures
    assert list(expected.ravel()[order]) == sorted(expected.ravel())
