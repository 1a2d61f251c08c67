"""The line of a card that is always seen: a question, a number, and how sure the number is."""

from typing import Any

import pytest

from vgg16_transfer.heads.records import FAILED
from vgg16_transfer.params import Study
from vgg16_transfer.reporting import findings, intervals
from vgg16_transfer.reporting.headlines import headline

from .conftest import make_params, make_record


def study(**axes: Any) -> Study:
    return make_params("caltech256", {"s": axes}).studies["s"]


def test_a_number_is_the_difference_that_the_findings_tell() -> None:
    layers = study(layer=["block4_pool", "block5_pool"], seed=[0, 1, 2])
    record = make_record(layers)
    line = headline(layers, record)
    (first, *_) = findings.sentences(layers, record.trials, intervals.test_sets(record))
    assert line.number.removesuffix(" points") in first
    assert line.rest.endswith("from block4_pool to block5_pool")
    assert line.rest.partition(" from ")[0] in first  # the interval


def test_samples_per_class_are_not_what_a_study_with_another_axis_asks() -> None:
    both = study(samples_per_class=[2, 4], head=["softmax", "nearest_mean"])
    assert headline(both, make_record(both)).question == "Which kind of head serves best?"
    assert "from head softmax to nearest_mean" in headline(both, make_record(both)).rest


@pytest.mark.parametrize(("taught", "words"), [(8, "with more labels"), (2, "without more labels")])
def test_a_teacher_is_asked_for_by_the_labels_that_it_has(taught: int, words: str) -> None:
    distilled = study(
        samples_per_class=2,
        unlabelled_per_class=6,
        teacher_layer="block5_pool",
        teacher_samples_per_class=taught,
        teacher_weight=[0.0, 0.9],
    )
    assert headline(distilled, make_record(distilled)).question == f"Does a teacher {words} help?"


def test_an_axis_without_a_question_of_its_own_is_asked_for_by_its_name() -> None:
    rates = study(learning_rate=[0.1, 1.0])
    assert headline(rates, make_record(rates)).question == "What does the learning rate change?"


def test_one_split_has_no_interval() -> None:
    rates = study(learning_rate=[0.1, 1.0])
    assert headline(rates, make_record(rates)).rest.startswith("(one split: no interval) from")


def test_a_study_of_one_point_tells_its_accuracy() -> None:
    one = study(samples_per_class=2, seed=[0, 1, 2])
    line = headline(one, make_record(one))
    assert line.number == "56.3 %"
    assert line.rest.startswith("test accuracy (95 %: ")


def test_where_everything_failed_there_is_no_number() -> None:
    one = study(learning_rate=[0.1, 1.0])
    record = make_record(one)
    failed = record._replace(trials=record.trials.assign(status=FAILED))
    assert headline(one, failed)[1:] == ("no number", "every trial failed")
