"""Runs side by side."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from mlflow.entities import Metric, Param, Run, RunData, RunInfo

from vgg16_transfer.heads import records
from vgg16_transfer.tracking import comparison
from vgg16_transfer.tracking.comparison import compare, find_run
from vgg16_transfer.tracking.mlflow_store import TrackingError

from .conftest import log, make_lineage, make_study, write_outputs

PATHS = [f"{index}.jpg" for index in range(6)]


@pytest.fixture(scope="module")
def compared(make_store, tmp_path_factory):
    """A store of two studies: ids by run name. The correct pictures are known."""
    root = tmp_path_factory.mktemp("compared")
    store = make_store(root)
    for name, layer, digest in (("early", "block4_pool", "a"), ("late", "block5_pool", "b")):
        study = make_study(name, layer=layer, samples_per_class=[2, 4], seed=[0, 1], epochs=2)
        outputs = write_outputs(study, root / name)
        record = records.read(outputs.results)
        predictions = record.predictions.assign(path=PATHS * 4)
        right = predictions["path"].isin(PATHS[:2] if name == "early" else PATHS[1:3])
        if name == "early":  # the second of the four trials classifies one more correctly
            right |= (predictions["path"] == PATHS[2]) & (predictions.index // len(PATHS) == 1)
        predictions["predicted"] = predictions["true"].where(right, "nothing")
        reached = right.groupby(predictions["trial"], sort=False).mean()
        trials = record.trials.assign(accuracy=reached.to_numpy())
        records.write(
            study, record._replace(predictions=predictions, trials=trials), outputs.results
        )
        lineage = replace(make_lineage(study, digest), started=5, ended=9)
        log(store, study, outputs, lineage)
    client = store.client()
    runs = client.search_runs([store.experiment(client, "animals")])
    return client, {f"{r.data.tags['study']} {r.data.tags.get('trial', '')}": r for r in runs}


def ids(compared, *names: str) -> list[str]:
    return [compared[1][name].info.run_id for name in names]


def test_runs_have_the_times_of_their_stage(compared) -> None:
    assert {(r.info.start_time, r.info.end_time) for r in compared[1].values()} == {(5, 9)}


def test_only_settings_that_differ_are_named(compared) -> None:
    result = compare(compared[0], ids(compared, "early ", "late "))
    assert sorted(result.settings.index) == ["layer", "study"]
    assert list(result.settings.loc["layer"]) == ["block4_pool", "block5_pool"]


def test_accuracies_have_their_spread_and_their_order(compared) -> None:
    result = compare(compared[0], ids(compared, "early ", "late "))
    assert list(result.accuracies.index) == ["samples_per_class 2", "samples_per_class 4"]
    assert list(result.accuracies.iloc[0]) == ["41.7 ± 11.8 (2 seeds)", "33.3 ± 0.0 (2 seeds)"]


def test_pictures_that_changed_sides_are_found(compared) -> None:
    result = compare(compared[0], ids(compared, "early ", "late "))
    assert result.common == len(PATHS)
    assert result.changed.to_numpy().tolist() == [[1.0, 0.0], [0.25, 1.0]]
    assert list(result.changed.index) == ["0.jpg", "2.jpg"]


def test_a_trial_is_compared_with_a_trial(compared) -> None:
    names = [name for name in compared[1] if name.startswith("early s")]
    one, other = (next(n for n in names if f"class={k},seed=0" in n) for k in (2, 4))
    result = compare(compared[0], ids(compared, one, other))
    assert list(result.settings.loc["samples_per_class"]) == ["2", "4"]
    assert result.accuracies.to_numpy().tolist() == [["33.3", "33.3"]]
    assert result.changed.empty


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("0" * 32, "has none with that id; copy it"), ("nobody's", "has none of that id or name; na")],
)
def test_an_unknown_run_is_named(compared, name: str, sentence: str) -> None:
    with pytest.raises(TrackingError, match=rf"run '{name}': .* {sentence}"):
        compare(compared[0], [*ids(compared, "early "), name])


def test_runs_are_found_by_the_names_of_studies_and_trials(compared) -> None:
    client, runs = compared
    by_id = compare(client, ids(compared, "early ", "late "))
    by_name = compare(client, ["early", "late"])
    for expected, result in zip(by_id[:3], by_name[:3], strict=True):
        pd.testing.assert_frame_equal(result, expected)
    trial = "samples_per_class=2,seed=1"
    for name in (f"early: {trial.replace(',', ', ')}", runs[f"early {trial}"].info.run_id):
        assert find_run(client, name).info.run_id == runs[f"early {trial}"].info.run_id


def test_a_setting_that_some_heads_do_not_have_is_no_axis() -> None:
    def run(accuracy: float, **params: str) -> Run:
        info = RunInfo("a", "1", "u", "FINISHED", 0, 0, "active")
        settings = [Param(key, value) for key, value in params.items()]
        return Run(info, RunData([Metric("accuracy", accuracy, 0, 0)], settings))

    trials = [run(0.5, head="softmax", normalise="l2"), run(0.25, head="nearest_mean")]
    assert comparison._accuracies(trials).to_dict() == {
        "head softmax": "50.0",
        "head nearest_mean": "25.0",
    }


def test_a_name_of_several_runs_is_refused_with_theirs(compared) -> None:
    trial = "samples_per_class=2,seed=1"
    with pytest.raises(TrackingError) as caught:
        find_run(compared[0], trial)
    assert str(caught.value) == (
        f"run '{trial}': may be one of several: early: samples_per_class=2, seed=1; late: "
        "samples_per_class=2, seed=1; write one of these names, or an id"
    )
    with pytest.raises(TrackingError, match=r"'brave-ant': may be one of several: early; late;"):
        find_run(compared[0], "brave-ant")


def test_an_experiment_of_dvc_is_found_and_of_two_the_newest(compared) -> None:
    client, runs = compared
    early = runs["early "].info
    tags = {"study": "early", "dvc.exp_name": "calm-bee"}
    made = [
        client.create_run(early.experiment_id, start_time=time, tags=tags).info.run_id
        for time in (20, 30, 10)
    ]
    try:
        assert find_run(client, "calm-bee").info.run_id == made[1]
    finally:
        for run_id in made:
            client.delete_run(run_id)


def test_a_run_of_something_else_is_refused(compared) -> None:
    client, runs = compared
    other = client.create_run(runs["early "].info.experiment_id).info.run_id
    try:
        with pytest.raises(TrackingError, match="neither a trial nor a study"):
            compare(client, [*ids(compared, "early "), other])
    finally:
        client.delete_run(other)


@pytest.fixture
def predictions(compared) -> Iterator[tuple[Path, str]]:
    """The predictions of a trial, which a test may damage, and the id of its run."""
    name = next(name for name in compared[1] if name.startswith("late s"))
    run = compared[1][name].info
    path = Path(run.artifact_uri.removeprefix("file://"), "predictions.csv")
    kept = path.read_bytes()
    yield path, run.run_id
    path.write_bytes(kept)


def test_a_run_that_broke_off_is_named(compared, predictions) -> None:
    predictions[0].unlink()
    with pytest.raises(TrackingError, match=r"predictions\.csv can't be read"):
        compare(compared[0], ids(compared, "early ", "late "))


@pytest.mark.parametrize("damage", ["another", "", "path\n0.jpg\n", '"'])
def test_predictions_of_another_accuracy_are_refused(compared, predictions, damage: str) -> None:
    path, run_id = predictions
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(",nothing,", ",ant,") if damage == "another" else damage)
    with pytest.raises(TrackingError, match="does not match its accuracy; delete") as caught:
        compare(compared[0], ids(compared, "early ", "late "))
    assert str(caught.value).startswith(f"run '{run_id}': ")
    assert "vgg16-transfer publish" in str(caught.value)


def test_a_trial_that_failed_is_left_out_of_its_study_and_refused_by_itself(compared) -> None:
    client, runs = compared
    name = "early samples_per_class=2,seed=1"  # MLflow gives runs of one time in any order
    run_id = runs[name].info.run_id
    client.set_tag(run_id, "failure", "loss became nan in epoch 2")
    client.update_run(run_id, status="FAILED")
    try:
        result = compare(client, ids(compared, "early ", "late "))
        assert list(result.accuracies.iloc[0]) == ["33.3", "33.3 ± 0.0 (2 seeds)"]
        with pytest.raises(TrackingError, match=r"failed \(loss became nan in epoch 2\); name a"):
            compare(client, [run_id, *ids(compared, "late ")])
    finally:
        client.update_run(run_id, status="FINISHED")
