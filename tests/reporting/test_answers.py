"""Our curves beside those of others: as a figure, and as words."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from vgg16_transfer.params import Dataset
from vgg16_transfer.reporting import alternatives, answers, figures, learning_curves, published
from vgg16_transfer.reporting.published import Curve, Published

from .conftest import make_params, make_record

NUMBERS = published.read()


def line(counts: list[int], means: list[float], stds: list[float]) -> pd.DataFrame:
    columns = {"samples_per_class": counts, "seeds": 3}
    frame = pd.DataFrame(columns | {"accuracy_mean": means, "accuracy_std": stds})
    return frame.assign(accuracy_low=means, accuracy_high=means)


def curve(**points: Any) -> Curve:
    values = {"dataset": "d", "axis": "samples_per_class", "source": "s", "place": "p"}
    return Curve.model_validate(values | {"method": "theirs"} | points)


OURS = {"ours": line([16, 2], [0.75, 0.5], [0.125, 0.25])}
THEIRS = curve(points=[{"at": 15, "accuracy": 40.0, "spread": 2.0}, {"at": 60, "accuracy": 50.0}])


LAWS = {
    "ours": pd.DataFrame(
        {
            "samples_per_class": [2.0, 16.0, 32.0],
            "accuracy": [0.5, 0.75, 0.8],
            "low": [float("nan"), 0.5, 0.6],
            "high": [float("nan"), 0.875, 0.9],
        }
    )
}


def axes_of(figure: Figure) -> Axes:
    (axes,) = figure.axes
    return axes


def drawn(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    bars = [one for one in axes_of(figure).containers if isinstance(one, ErrorbarContainer)]
    return {str(bar.get_label()): list(map(tuple, bar.lines[0].get_xydata())) for bar in bars}


def test_our_curve_stands_beside_theirs() -> None:
    figure = figures.answer(OURS, [THEIRS])
    assert drawn(figure) == {"ours": [(2, 0.5), (16, 0.75)], "theirs": [(15, 0.4), (60, 0.5)]}
    assert axes_of(figure).get_xscale() == "log"
    assert axes_of(figure).get_ylim() == (0, 1)


def test_labels_of_the_axis_keep_apart() -> None:
    axes = axes_of(figures.answer(OURS, [THEIRS]))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "16", "60"]


def test_a_number_without_an_axis_is_a_level() -> None:
    level = curve(axis="none", points=[{"accuracy": 46}])
    (across,) = axes_of(figures.answer({}, [level])).lines
    assert list(across.get_ydata()) == [0.46, 0.46]


def test_names_of_many_curves_stand_below_the_figure() -> None:
    published_curves = NUMBERS.curves("caltech256", "samples_per_class")
    few, many = figures.answer(OURS, [THEIRS]), figures.answer(OURS, published_curves)
    assert many.get_figheight() > few.get_figheight()
    many.draw_without_rendering()
    legend, axes = axes_of(many).get_legend(), axes_of(many)
    assert legend.get_window_extent().y1 < axes.get_window_extent().y0


def test_others_are_drawn_in_grey() -> None:
    figure = figures.answer(OURS, NUMBERS.curves("caltech256", "samples_per_class"))
    own, *published_colours = [one.lines[0].get_color() for one in axes_of(figure).containers]
    assert own in figures.COLOURS
    assert all(len({colour[1:3], colour[3:5], colour[5:7]}) == 1 for colour in published_colours)


def test_the_alternative_text_holds_every_number() -> None:
    assert alternatives.answer(OURS, [THEIRS]) == (
        "Test accuracy against training pictures per class. "
        "ours: 50.0 ± 25.0 % at 2, 75.0 ± 12.5 % at 16. "
        "theirs: 40 ± 2 % at 15, 50 % at 60."
    )


def test_the_alternative_text_of_curves_says_where_they_begin_and_end() -> None:
    rows = [("a", 1, 0.25, 0.5), ("a", 2, 1.0, 0.75), ("b", 1, 0.75, 0.0), ("b", 2, 1.0, 0.25)]
    history = pd.DataFrame(rows, columns=["trial", "epoch", "train_accuracy", "test_accuracy"])
    points = pd.Series({"a": "n=2", "b": "n=2"})
    assert alternatives.curves(history, points, "accuracy") == (
        "Accuracy against epochs 1 to 2. n=2: test from 25.0 % to 50.0 %, train to 100.0 %."
    )


def dataset(published_as: str | None, layout: Any = "class_folders") -> Dataset:
    return Dataset(layers=["block5_pool"], layout=layout, published_as=published_as)


def test_published_numbers_are_found_by_the_key_and_not_by_the_layout() -> None:
    named, unnamed = dataset("caltech256"), dataset(None, layout="caltech256")
    assert answers.curves(named, NUMBERS) == NUMBERS.curves("caltech256", "samples_per_class")
    assert len(answers.others(named, NUMBERS)) == 4  # temperature, layer and two wall times
    assert answers.curves(unnamed, NUMBERS) == []
    assert answers.others(unnamed, NUMBERS) == []


def test_only_sources_of_the_datasets_on_the_page_are_cited() -> None:
    cited = answers.cited([dataset("caltech101"), dataset(None)], NUMBERS)
    authors = [source.authors for source in cited]
    # the report of 2017 has the gradient checks, which belong to no dataset
    assert authors == ["Course report", "Zeiler and Fergus", "Simonyan and Zisserman"]


def said(published_as: str | None, numbers: Published = NUMBERS) -> list[str]:
    """What is said about a dataset of two classes, behind the sentence about our own curve."""
    params = make_params(published_as, {"s": {"samples_per_class": [2, 4]}})
    study = params.study("s")
    photos, measured = params.dataset("photos"), {"s": make_record(study)}
    return answers.sentences("photos", photos, [study], measured, numbers)[1:]


def test_a_dataset_that_is_no_known_one_gets_the_key_that_would_name_one() -> None:
    sentence = "No published numbers are shown, because datasets.photos.published_as names no known"
    assert said(None) == [f"{sentence} dataset."]


def test_fewer_classes_than_all_authors_had_are_not_comparable() -> None:
    sentence = "photos has 2 of the 102 classes of Caltech-101, so the published numbers are shown"
    assert said("caltech101") == [f"{sentence} but are not comparable."]


def test_as_many_classes_as_some_authors_had_are_comparable() -> None:
    known = NUMBERS.datasets["caltech101"].model_copy(update={"comparable_from": 2})
    assert said("caltech101", NUMBERS.model_copy(update={"datasets": {"caltech101": known}})) == []


def test_a_law_is_a_dotted_line_in_the_colour_of_its_curve() -> None:
    axes = axes_of(figures.answer(OURS, [THEIRS], LAWS))
    (law,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert list(map(tuple, law.get_xydata())) == [(2, 0.5), (16, 0.75), (32, 0.8)]
    assert law.get_label() == "power law of ours"
    assert law.get_color() == axes.containers[0].lines[0].get_color()


def test_the_interval_of_a_law_is_a_band() -> None:
    bands = [
        {tuple(point) for point in path.vertices}
        for one in axes_of(figures.answer(OURS, [], LAWS)).collections
        if isinstance(one, PolyCollection)
        for path in one.get_paths()
    ]
    assert bands == [{(16, 0.5), (16, 0.875), (32, 0.6), (32, 0.9)}]


def test_the_end_of_a_law_has_a_label_where_there_is_room() -> None:
    near = curve(points=[{"at": 30, "accuracy": 40.0}])
    for others, expected in (([], ["2", "16", "32"]), ([near], ["2", "16", "30"])):
        axes = axes_of(figures.answer(OURS, others, LAWS))
        assert [label.get_text() for label in axes.get_xticklabels()] == expected


def test_the_alternative_text_says_where_a_law_ends() -> None:
    text = alternatives.answer(OURS, [], LAWS)
    assert text.endswith("power law of ours: 80.0 % at 32 (interval 60.0 to 90.0 %).")
    without = {"ours": LAWS["ours"].assign(low=float("nan"), high=float("nan"))}
    assert alternatives.answer(OURS, [], without).endswith("power law of ours: 80.0 % at 32.")


def test_a_study_with_one_curve_has_a_law_and_others_have_none() -> None:
    counts = {"samples_per_class": [2, 4, 8]}
    layers = counts | {"layer": ["block4_pool", "block5_pool"]}
    params = make_params(None, {"one": counts | {"seed": [0, 1]}, "two": layers})
    studies = list(params.studies.values())
    measured = {study.name: make_record(study) for study in studies}
    assert list(answers.laws(studies, measured)) == ["one"]
    first, law, *rest = answers.sentences(
        "photos", params.datasets["photos"], studies, measured, NUMBERS
    )
    assert first.startswith("one: From 2 to 8 training pictures per class")
    expected = learning_curves.sentences(measured["one"].trials, 16)
    assert law == f"one: {' '.join(expected)}"
    assert [text.split(":")[0] for text in rest[:-1]] == ["two"]


def test_half_a_picture_of_the_test_pictures_stands_for_no_error() -> None:
    params = make_params(None, {"s": {"samples_per_class": [2, 4, 8]}})
    record = make_record(params.studies["s"])
    trials = record.trials.assign(accuracy=[0.5, 1.0, 0.75])
    (law,) = answers.laws([params.studies["s"]], {"s": record._replace(trials=trials)}).values()
    curve = learning_curves.fit(trials, test_pictures=16)
    assert curve is not None
    pd.testing.assert_frame_equal(law, learning_curves.drawn(curve))
