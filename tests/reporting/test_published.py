"""Published numbers: those of the literature, each with a source, and mistakes by their path."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from vgg16_transfer.params.contradictions import PUBLISHED
from vgg16_transfer.reporting import published
from vgg16_transfer.reporting.published import PublishedError

NUMBERS = published.read()


def raw() -> Any:
    return YAML(typ="safe", pure=True).load(published.PATH.read_text(encoding="utf-8"))


def read(content: Any, tmp_path: Path) -> published.Published:
    path = tmp_path / "published.yaml"
    YAML(typ="safe", pure=True).dump(content, path)
    return published.read(path)


@pytest.mark.parametrize(
    ("dataset", "method", "accuracies"),
    [
        ("caltech101", "Zeiler", {15: 83.8, 30: 86.5}),
        ("caltech101", "Simonyan", {30: 91.8}),
        ("caltech256", "Sohn", {15: 35.1, 30: 42.1, 45: 45.7, 60: 47.9}),
        ("caltech256", "Bo", {15: 40.5, 30: 48.0, 45: 51.9, 60: 55.2}),
        ("caltech256", "Zeiler", {15: 65.7, 30: 70.6, 45: 72.7, 60: 74.2}),
        ("caltech256", "Chatfield", {60: 77.6}),
        ("caltech256", "Simonyan", {60: 85.0}),
        ("caltech256", "2017 report, generator", {2: 34.8, 4: 43.2, 8: 51.6, 16: 58.75}),
        ("caltech256", "2017 report, cached", {2: 40.9, 4: 43.38, 8: 61.9, 16: 63.18}),
        ("urban_tribes", "2017 report, cached", {2: 22, 4: 31, 8: 38, 16: 47}),
    ],
)
def test_accuracies_against_samples_per_class_are_those_printed(
    dataset: str, method: str, accuracies: dict[int, float]
) -> None:
    (curve,) = (
        one for one in NUMBERS.curves(dataset, "samples_per_class") if one.method.startswith(method)
    )
    assert {point.at: point.accuracy for point in curve.points} == accuracies


@pytest.mark.parametrize(
    ("axis", "accuracies"),
    [
        ("temperature", [49.0, 53.4, 44.6, 41.6, 29.7]),
        ("layer", [24.6, 39.6, 46.0, 51.3, 65.6, 71.7]),
    ],
)
def test_accuracies_along_other_axes_are_those_printed(axis: str, accuracies: list[float]) -> None:
    (curve,) = NUMBERS.curves("caltech256", axis)
    assert [point.accuracy for point in curve.points] == accuracies


def test_caltech_101_has_the_spread_place_and_protocol_of_each_number() -> None:
    few, svm = NUMBERS.curves("caltech101", "samples_per_class")
    assert [point.spread for point in few.points] == [0.5, 0.5]
    assert [point.spread for point in svm.points] == [1.0]
    assert (few.source, few.place) == ("zeiler-fergus-2013", "Table 4")
    assert (svm.source, svm.place) == ("simonyan-zisserman-2014", "Table 11")
    for remark, splits in ((few.remark, 5), (svm.remark, 3)):
        assert f"on up to 50 test pictures of each, {splits} splits" in remark


def test_classes_that_authors_leave_out_do_not_make_numbers_incomparable() -> None:
    classes = {key: (one.classes, one.comparable_from) for key, one in NUMBERS.datasets.items()}
    assert classes["caltech101"] == (102, 101)
    assert classes["caltech256"] == (257, 256)


def test_params_know_the_datasets_that_have_published_numbers() -> None:
    assert list(PUBLISHED) == sorted(NUMBERS.datasets)


def test_a_dataset_that_is_no_known_one_has_no_curves() -> None:
    assert NUMBERS.curves(None, "samples_per_class", "none") == []
    assert NUMBERS.times(None) == []


def test_gradient_checks_are_those_printed() -> None:
    checks = {one.weights: (one.average, one.maximum) for one in NUMBERS.gradient_checks}
    assert checks == {"ω_ij": (2.575e-7, 1.599e-6), "ω_jk": (9.493e-9, 1.594e-7)}


def test_wall_times_are_those_printed() -> None:
    generator, cached = NUMBERS.times("caltech256")
    assert generator.minutes == {2: 134.5, 4: 161.5, 8: 257.4, 16: 366.1}
    assert cached.minutes == {2: 50, 4: 20, 8: 40, 16: 120}


def test_every_number_says_where_it_is_printed() -> None:
    for entry in [*NUMBERS.accuracies, *NUMBERS.wall_times, *NUMBERS.gradient_checks]:
        assert entry.place
        assert NUMBERS.sources[entry.source].year >= 2011


def test_an_unknown_key_is_named_with_its_path(tmp_path) -> None:
    content = raw()
    content["accuracies"][0]["points"][1]["acuracy"] = 1.0
    with pytest.raises(PublishedError, match=r"published.yaml: accuracies.0.points.1.acuracy: "):
        read(content, tmp_path)


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"source": "nobody-1999"}, "no source 'nobody-1999'"),
        ({"dataset": "cifar"}, "no dataset 'cifar'"),
        ({"points": [{"at": 30, "accuracy": 1.0}, {"at": 15, "accuracy": 2.0}]}, "they must rise"),
        ({"points": [{"accuracy": 1.0}]}, "every point needs an 'at'"),
        ({"points": [{"at": 15, "accuracy": 101.0}]}, "less than or equal to 100"),
        ({"axis": "none"}, "has one point, which has no 'at'"),
    ],
)
def test_what_contradicts_itself_is_a_mistake(tmp_path, change: Any, mistake: str) -> None:
    content = raw()
    content["accuracies"][0] |= change
    with pytest.raises(PublishedError, match=mistake):
        read(content, tmp_path)
