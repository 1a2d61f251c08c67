"""The confusion matrix of a study, by hand."""

from typing import Any

import pandas as pd
import pytest

from vgg16_transfer.heads import records
from vgg16_transfer.heads.records import FAILED, Record
from vgg16_transfer.params import Study
from vgg16_transfer.reporting.confusions import MOST_CLASSES, confusions

from .conftest import make_params, record_of


def study(**axes: Any) -> Study:
    return make_params("caltech256", {"s": axes}).studies["s"]


def record(study: Study, *predicted: list[str], true: list[str]) -> Record:
    """A record with these predictions for each trial."""
    of_trials = []
    for trial, classes in zip(study.trials(), predicted, strict=True):
        frame = pd.DataFrame({"path": true, "true": true, "predicted": classes, "probability": 0.5})
        of_trials.append(record_of(study, trial, frame))
    return records.join(of_trials)


TWO = study(samples_per_class=[2, 4], seed=[0, 1])
TRUE = ["ant"] * 4 + ["bee"] * 4
ALL_ANTS, ONE_WRONG = ["ant"] * 8, ["ant"] * 5 + ["bee"] * 3


def test_cells_are_shares_of_the_splits_of_the_most_samples_per_class() -> None:
    found = confusions(TWO, record(TWO, ALL_ANTS, ALL_ANTS, ONE_WRONG, TRUE, true=TRUE))
    assert found is not None
    assert found.setting == "training pictures per class 4"
    assert found.classes == ["ant", "bee"]
    cells = [[cell.text for cell in row] for row in found.rows]
    assert cells == [["100", ""], ["12", "88"]]  # one of eight bees
    assert found.pairs == "Taken most often: bee for ant (1 of 8)."


def test_a_larger_share_is_never_paler() -> None:
    found = confusions(TWO, record(TWO, ALL_ANTS, ALL_ANTS, ONE_WRONG, TRUE, true=TRUE))
    assert found is not None
    cells = sorted((cell for row in found.rows for cell in row), key=lambda cell: cell.shade)
    assert [cell.text for cell in cells] == ["", "12", "88", "100"]
    assert cells[0].shade == 0 < cells[1].shade


def test_heads_without_a_mistake_have_no_matrix() -> None:
    assert confusions(TWO, record(TWO, ALL_ANTS, ALL_ANTS, TRUE, TRUE, true=TRUE)) is None


def test_trials_that_failed_are_not_counted() -> None:
    whole = record(TWO, ONE_WRONG, ONE_WRONG, ALL_ANTS, ALL_ANTS, true=TRUE)
    most = whole.trials["samples_per_class"] == 4
    some = whole._replace(trials=whole.trials.assign(status=most.map({True: FAILED, False: "f"})))
    found = confusions(TWO, some)
    assert found is not None
    assert found.setting == "training pictures per class 2"
    every = whole._replace(trials=whole.trials.assign(status=FAILED))
    assert confusions(TWO, every) is None


@pytest.mark.parametrize(("classes", "is_drawn"), [(MOST_CLASSES, True), (257, False)])
def test_many_classes_are_told_by_their_worst_pairs(classes: int, *, is_drawn: bool) -> None:
    one = study(samples_per_class=2)
    true = [f"class {number:03}" for number in range(classes)]
    found = confusions(one, record(one, [true[1], *true[1:]], true=true))
    assert found is not None
    assert bool(found.rows) == is_drawn
    assert found.pairs == "Taken most often: class 000 for class 001 (1 of 1)."
    assert found.setting == ""
