"""What a study's record says, and that it says the same once it has been written and read."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vgg16_transfer.heads import records
from vgg16_transfer.heads.records import FRAMES, METRICS, Record, RecordError
from vgg16_transfer.params import Study, Trial, check_params

CLASSES = ["ant", "bee", "cat"]

"""What DVC compares of a point of the grid."""


def make_study(**axes: Any) -> Study:
    dataset = {
        "layers": ["block4_pool", "block5_pool"],
        "split": {"seeds": [0, 1, 2], "train_per_class": 16},
    }
    raw = {
        "backbone": {"weights": "random-conv"},
        "datasets": {"d": dataset},
        "studies": {"s": {"dataset": "d", "epochs": 2} | axes},
    }
    return check_params(raw).studies["s"]


def history(**changes: list[float]) -> pd.DataFrame:
    columns = {
        "train_loss": [1.0625, 0.5],
        "train_accuracy": [0.5, 0.9375],
        "train_top5_accuracy": [1.0, 1.0],
        "test_loss": [1.5, 1.25],
        "test_accuracy": [0.25, 0.625],
        "test_top5_accuracy": [0.5, 0.875],
    }
    return pd.DataFrame({"epoch": [1, 2]} | columns | changes)


def measured_by(accuracy: float = 0.625) -> records.Outcome:
    measured = {"loss": 1.25, "accuracy": accuracy, "top5_accuracy": 0.875}
    return records.Outcome(measured | {"mean_class_recall": 0.375}, None)


def predictions(true: list[str], predicted: list[str]) -> pd.DataFrame:
    paths = [f"{name}/{index}.jpg" for index, name in enumerate(true)]
    frame = pd.DataFrame({"path": paths, "true": true, "predicted": predicted})
    return frame.assign(probability=0.5)


def make_record(study: Study, classes: list[str] = CLASSES) -> Record:
    """Heads that take every picture for the first class but one more with every trial."""
    true = [name for name in classes for _ in range(4)]
    return records.join(
        [
            records.of_trial(
                study.trial_name(trial),
                trial,
                history(),
                predictions(true, true[: index + 4] + [classes[0]] * (len(true) - index - 4)),
                measured_by((index + 4) / len(true)),
            )
            for index, trial in enumerate(study.trials())
        ]
    )


def trials(study: Study, accuracies: list[float]) -> pd.DataFrame:
    """The trials of a study that reached these accuracies, and nothing else."""
    rows = [
        trial.model_dump()
        | {"status": records.FINISHED}
        | dict.fromkeys(records.AVERAGED, 0.0)
        | {"accuracy": accuracy}
        for trial, accuracy in zip(study.trials(), accuracies, strict=True)
    ]
    return pd.DataFrame(rows)


def test_recalls_and_confusions_are_those_of_the_predictions() -> None:
    true = ["ant"] * 4 + ["bee"]
    predicted = ["ant", "ant", "ant", "bee", "ant"]
    record = records.of_trial(
        "only", Trial(), history(), predictions(true, predicted), measured_by()
    )
    assert record.per_class.to_dict("list") == {
        "trial": ["only"] * 2,
        "class_name": ["ant", "bee"],
        "accuracy": [0.75, 0.0],
    }
    assert sorted(record.confusion.itertuples(index=False, name=None)) == [
        ("only", "ant", "ant", 3),
        ("only", "ant", "bee", 1),
        ("only", "bee", "ant", 1),
    ]


def test_a_trial_is_judged_by_its_last_epoch() -> None:
    curves = history(validation_accuracy=[0.75, 0.5])
    record = records.of_trial("only", Trial(), curves, predictions(["ant"], ["ant"]), measured_by())
    row = record.trials.iloc[0]
    expected = measured_by().measured | {"train_accuracy": 0.9375}
    assert row[list(expected)].to_dict() == expected
    assert row["validation_accuracy"] == 0.5


def test_every_row_says_which_trial_it_belongs_to() -> None:
    study = make_study(samples_per_class=[2, 4])
    names = ["samples_per_class=2", "samples_per_class=4"]
    for frame in make_record(study):
        assert frame.columns[0] == "trial"
        assert frame["trial"].unique().tolist() == names


def test_a_summary_averages_over_the_seeds() -> None:
    study = make_study(samples_per_class=[2, 4], seed=[0, 1, 2])
    summary = records.summarise(study, trials(study, [0.1, 0.3, 0.5, 0.7, 0.7, 0.7]))
    assert summary["samples_per_class"].tolist() == [2, 4]
    assert summary["seeds"].tolist() == [3, 3]
    assert summary["accuracy_mean"].tolist() == pytest.approx([0.3, 0.7])
    # The sample's standard deviation: that of the three values as such would be 0.163.
    assert summary["accuracy_std"].tolist() == pytest.approx([0.2, 0.0])


def test_a_single_seed_has_no_spread() -> None:
    study = make_study(samples_per_class=[2, 4])
    summary = records.summarise(study, trials(study, [0.1, 0.3]))
    assert summary["accuracy_mean"].tolist() == [0.1, 0.3]
    assert summary["seeds"].tolist() == [1, 1]
    assert summary["accuracy_std"].isna().all()


def test_a_summary_keeps_the_order_of_the_params() -> None:
    study = make_study(layer=["block5_pool", "block4_pool"], samples_per_class=[16, 2])
    summary = records.summarise(study, trials(study, [0.1, 0.2, 0.3, 0.4]))
    assert list(summary.columns[:3]) == ["layer", "samples_per_class", "seeds"]
    assert summary[["layer", "samples_per_class"]].to_numpy().tolist() == [
        ["block5_pool", 16],
        ["block5_pool", 2],
        ["block4_pool", 16],
        ["block4_pool", 2],
    ]


def test_seeds_alone_make_one_point() -> None:
    study = make_study(seed=[0, 1])
    summary = records.summarise(study, trials(study, [0.5, 0.75]))
    assert summary[["samples_per_class", "seeds", "accuracy_mean"]].to_numpy().tolist() == [
        [16, 2, 0.625]
    ]


def test_a_point_is_named_by_what_is_compared() -> None:
    study = make_study(layer=["block4_pool", "block5_pool"], samples_per_class=[2, 4], seed=[0, 1])
    row = {"layer": "block4_pool", "samples_per_class": 2, "seed": 0, "accuracy_mean": 0.5}
    assert records.point_name(study, row) == "layer=block4_pool,samples_per_class=2"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    study = make_study(layer=["block4_pool", "block5_pool"], seed=[0, 1])
    record = make_record(study)
    records.write(study, record, tmp_path / "s")
    for written, read in zip(record, records.read(tmp_path / "s"), strict=True):
        pd.testing.assert_frame_equal(read, written, rtol=1e-5, check_dtype=False)


def test_what_is_read_is_written_in_the_same_bytes(tmp_path: Path) -> None:
    study = make_study(samples_per_class=[2, 4], seed=[0, 1, 2])
    records.write(study, make_record(study), tmp_path / "once")
    records.write(study, records.read(tmp_path / "once"), tmp_path / "twice")
    for name in FRAMES:
        once, twice = (tmp_path / run / f"{name}.csv" for run in ("once", "twice"))
        assert twice.read_bytes() == once.read_bytes()


@pytest.mark.parametrize(
    "classes", [["NA", "None", "null"], ["1", "007", "10"], ["true", "false"], ["a,b", 'c"d', "é"]]
)
def test_class_names_are_read_as_they_were_written(tmp_path: Path, classes: list[str]) -> None:
    study = make_study()
    record = make_record(study, classes)
    records.write(study, record, tmp_path / "s")
    read = records.read(tmp_path / "s")
    assert read.per_class["class_name"].tolist() == sorted(classes)
    assert read.predictions["true"].tolist() == record.predictions["true"].tolist()
    assert read.confusion["predicted"].tolist() == record.confusion["predicted"].tolist()


def read_metrics(folder: Path) -> dict[str, dict[str, float | None]]:
    def refuse(constant: str) -> float:
        raise AssertionError(constant)  # NaN is no JSON

    text = (folder / METRICS).read_text(encoding="utf-8")
    return dict(json.loads(text, parse_constant=refuse))


def test_metrics_json_holds_the_mean_accuracy_by_study_and_point(tmp_path: Path) -> None:
    study = make_study(samples_per_class=[2, 4], seed=[0, 1, 2])
    record = make_record(study)
    accuracies = [1 / 3, 0.5, 0.5, 0.75, 0.75, 0.75]
    record = record._replace(trials=record.trials.assign(accuracy=accuracies))
    records.write(study, record, tmp_path)
    assert read_metrics(tmp_path) == {
        study.name: {"samples_per_class=2": 0.444444, "samples_per_class=4": 0.75}
    }


@pytest.mark.parametrize("name", FRAMES)
def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    study = make_study()
    records.write(study, make_record(study), tmp_path)
    path = tmp_path / f"{name}.csv"
    path.unlink()
    with pytest.raises(RecordError) as caught:
        records.read(tmp_path)
    assert str(caught.value) == f"{path}: no such file; run dvc repro or dvc pull"


@pytest.mark.parametrize("content", ["", "trial,accuracy\na,1\nb,2,3\n<<<<<<< ours\n"])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, content: str) -> None:
    study = make_study()
    records.write(study, make_record(study), tmp_path)
    path = tmp_path / "trials.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RecordError, match=r"is damaged .*; run dvc repro or dvc pull") as caught:
        records.read(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_trial_that_failed_is_in_no_mean(tmp_path: Path) -> None:
    study = make_study(weight_decay=[0.0, 10.0], seed=[0, 1])
    names = [study.trial_name(trial) for trial in study.trials()]
    nothing = pd.DataFrame(columns=records.PREDICTED)
    good = predictions(["ant", "bee"], ["ant", "ant"])
    bad = records.Outcome({}, "the loss is not …")
    failed = {names[1]: 1, names[2]: 0, names[3]: 0}
    record = records.join(
        [
            records.of_trial(name, trial, history()[: failed[name]], nothing, bad)
            if name in failed
            else records.of_trial(name, trial, history(), good, measured_by())
            for name, trial in zip(names, study.trials(), strict=True)
        ]
    )
    records.write(study, record, tmp_path)
    read = records.read(tmp_path)
    assert read.trials["status"].tolist() == ["finished", "failed", "failed", "failed"]
    assert read.trials["failure"].tolist()[1:] == ["the loss is not …"] * 3
    assert read.trials.loc[1:, list(records.AVERAGED)].isna().all(axis=None)
    assert read.history["trial"].tolist() == [names[0]] * 2 + [names[1]]
    assert set(read.predictions["trial"]) == set(read.per_class["trial"]) == {names[0]}
    summary = records.summarise(study, read.trials)
    assert summary[["seeds", "failed"]].to_numpy().tolist() == [[1, 1], [0, 2]]
    assert summary["accuracy_mean"].tolist()[0] == 0.625
    assert summary["accuracy_mean"].isna().tolist() == [False, True]
    assert read_metrics(tmp_path) == {
        study.name: {"weight_decay=0.0": 0.625, "weight_decay=10.0": None}
    }


@pytest.mark.parametrize(
    ("name", "column"),
    [("trials", "accuracy"), ("predictions", "probability"), ("history", "epoch")],
)
@pytest.mark.parametrize("damage", ["text", "column", "bytes"])
def test_a_table_that_is_none_of_ours_is_named(
    tmp_path: Path, name: str, column: str, damage: str
) -> None:
    study = make_study()
    records.write(study, make_record(study), tmp_path)
    path = tmp_path / f"{name}.csv"
    frame = records.read_frame(path)
    if damage == "text":
        records.write_frame(frame.assign(**{column: "much"}), path)
    elif damage == "column":
        records.write_frame(frame.drop(columns=column), path)
    else:
        path.write_bytes(path.read_bytes() + b"\xff\xfe")
    with pytest.raises(RecordError, match=rf"{name}\.csv: is damaged .*; run dvc repro"):
        records.read(tmp_path)


def test_a_name_with_a_carriage_return_stays_whole(tmp_path: Path) -> None:
    study = make_study(samples_per_class=[2, 4])
    record = make_record(study, ["ant\r", "bee\r\n", "c\nat"])
    records.write(study, record, tmp_path)
    read = records.read(tmp_path)
    for frame, written in zip(read, record, strict=True):
        assert len(frame) == len(written)
    assert set(read.predictions["true"]) == {"ant\r", "bee\r\n", "c\nat"}
