"""Which trial is chosen: by validation pictures, whatever the test pictures say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vgg16_transfer.errors import WeightsError
from vgg16_transfer.heads import records
from vgg16_transfer.heads.records import Record
from vgg16_transfer.heads.saved import HeadError
from vgg16_transfer.heads.selection import SelectionError, assemble, choose
from vgg16_transfer.params import Study, check_params

NAMES = [f"samples_per_class={n},seed={seed}" for n in (1, 2) for seed in (0, 1)]


@pytest.fixture
def study() -> Study:
    split = {"seeds": [0, 1], "train_per_class": 2}
    raw = {
        "backbone": {"weights": "random-conv"},
        "datasets": {"animals": {"source": "a.tar", "layers": ["block5_pool"], "split": split}},
        "studies": {"few": {"dataset": "animals", "samples_per_class": [1, 2], "seed": [0, 1]}},
    }
    return check_params(raw).studies["few"]


def record(accuracies: list[float], losses: list[float], test: list[float] | None = None) -> Record:
    """What trials reached in the end; the epoch before it, they were all perfect."""
    trials = pd.DataFrame(
        {
            "trial": NAMES,
            "status": records.FINISHED,
            "failure": "",
            "accuracy": test or [0.5] * 4,
            "validation_accuracy": accuracies,
        }
    )
    history = pd.DataFrame(
        {
            "trial": np.repeat(NAMES, 2),
            "epoch": [1, 2] * 4,
            "validation_loss": [number for loss in losses for number in (0.0, loss)],
        }
    )
    return Record(trials, history, *[pd.DataFrame()] * 3)


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.1, 0.2, 0.9, 0.3], [1, 1, 9, 1], 2),
        ([0.1, 0.9, 0.2, 0.9], [9, 2, 9, 1], 3),
        ([0.1, 0.9, 0.9, 0.9], [1, 2, 2, 2], 1),
        ([0.9, 0.9, 0.1, 0.1], [float("nan"), 5, 1, 1], 1),
    ],
    ids=["accuracy", "then loss", "then the grid", "a loss that is no number comes last"],
)
def test_the_highest_validation_accuracy_wins(
    study: Study, accuracies: list[float], losses: list[float], best: int
) -> None:
    chosen = choose(study, record(accuracies, losses))
    assert chosen.name == NAMES[best] == study.trial_name(chosen.trial)
    assert chosen.validation_accuracy == accuracies[best]


def test_test_pictures_have_no_say(study: Study) -> None:
    reached = [0.3, 0.4, 0.2, 0.1], [1.0] * 4
    names = {choose(study, record(*reached, test)).name for test in ([1, 0, 0, 0], [0, 0, 0, 1])}
    assert names == {NAMES[1]}


def test_the_order_of_the_rows_does_not_matter(study: Study) -> None:
    result = record([0.5] * 4, [1.0] * 4)
    turned = result._replace(trials=result.trials[::-1], history=result.history.iloc[::-1])
    turned = turned._replace(history=turned.history.sort_values("epoch", kind="stable"))
    assert choose(study, turned).name == choose(study, result).name == NAMES[0]


@pytest.mark.parametrize("missing", ["column", "values"])
def test_without_validation_pictures_none_is_chosen(study: Study, missing: str) -> None:
    result = record([float("nan")] * 4, [1.0] * 4)
    if missing == "column":
        result = result._replace(trials=result.trials.drop(columns="validation_accuracy"))
    expected = (
        r"never by test pictures.*; set datasets\.animals\.split\.validation_per_class in par"
    )
    with pytest.raises(SelectionError, match=expected):
        choose(study, result)


def test_results_of_another_grid_are_refused(study: Study) -> None:
    result = record([0.5] * 4, [1.0] * 4)
    result = result._replace(trials=result.trials.iloc[:3])
    with pytest.raises(SelectionError, match=r"has no trial 'samples_per_class=2,seed=1'"):
        choose(study, result)


def test_a_trial_that_failed_is_never_chosen(study: Study) -> None:
    result = record([float("nan"), 0.1, 0.2, 0.1], [float("nan"), 1.0, 1.0, 1.0])
    result.trials.loc[0, ["status", "failure"]] = records.FAILED, "the loss is not finite"
    assert choose(study, result).name == NAMES[2]
    result.trials["status"], result.trials["failure"] = records.FAILED, "the loss is not finite"
    with pytest.raises(SelectionError, match=r"all trials failed.*; the loss is not finite"):
        choose(study, result)


def parts(trained, **elsewhere: Path) -> dict[str, Path]:
    layout, study = trained.layout, trained.params.study("few")
    chosen = choose(study, records.read(layout.record("few")))
    head = layout.heads("few") / f"{chosen.name}.keras"
    return {"head": head, "weights": layout.weights} | elsewhere


@pytest.mark.parametrize(
    ("part", "error", "reason"),
    [
        ("head", HeadError, "nothing: no such head; run dvc repro or dvc pull"),
        ("weights", WeightsError, "no such file"),
    ],
)
def test_a_part_that_is_missing_is_named(
    trained, tmp_path, part: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        assemble(**parts(trained, **{part: tmp_path / "nothing"}))


def test_weights_that_the_head_was_not_trained_on_are_refused(trained, tmp_path) -> None:
    from vgg16_transfer.backbones.weights import write_weights

    other = tmp_path / "other.weights.h5"
    write_weights("vgg16", "random-conv", other)
    other.write_bytes(other.read_bytes() + b"\0")
    with pytest.raises(
        SelectionError, match=r"are not the weights that .*\.keras was trained with"
    ):
        assemble(**parts(trained, weights=other))


def test_a_head_knows_its_classes_whatever_became_of_the_split(trained, tmp_path) -> None:
    workspace = trained.copy(tmp_path / "copy")
    for path in workspace.layout.splits("animals").glob("?.csv"):
        path.write_text(path.read_text(encoding="utf-8").replace("ant", "zebra"), encoding="utf-8")
    assert assemble(**parts(workspace)).recipe.class_names == ("ant", "bee", "cat")
