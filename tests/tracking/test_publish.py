import dataclasses
import getpass
import io
import json
import math
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import LoggedModelStatus, Run, ViewType

from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import model_files, records
from vgg16_transfer.heads.measures import MEASURES, NAMES
from vgg16_transfer.params import Study
from vgg16_transfer.params.in_use import settings_in_use
from vgg16_transfer.reporting import study_figures
from vgg16_transfer.tracking import study_runs
from vgg16_transfer.tracking.logged_models import Heads
from vgg16_transfer.tracking.mlflow_store import ARTIFACTS, Store

from .conftest import (
    DATASET,
    TEST,
    WIDTH,
    Killed,
    MakeOutputs,
    Outputs,
    log,
    make_lineage,
    make_study,
    write_outputs,
)

ONE = {"samples_per_class": 2, "seed": 0}
TWO = {"samples_per_class": 2, "seed": [0, 1]}


class Published:
    """A study, what it left behind, and the store that it was logged to."""

    def __init__(self, store: Store, study: Study, outputs: Outputs) -> None:
        self.store = store
        self.study = study
        self.outputs = outputs
        self.lineage = make_lineage(study)
        self.client = store.client()

    def log(self, parent_run_id: str | None = None) -> int:
        return log(self.store, self.study, self.outputs, self.lineage, parent_run_id=parent_run_id)

    def runs(self, view: int = ViewType.ACTIVE_ONLY) -> list[Run]:
        experiment = self.store.experiment(self.client, DATASET)
        return list(self.client.search_runs([experiment], run_view_type=view, max_results=1000))

    def parents(self) -> list[Run]:
        return [run for run in self.runs() if "trial" not in run.data.tags]

    def parent(self) -> Run:
        (parent,) = self.parents()
        return parent

    def children(self) -> dict[str, Run]:
        children = [run for run in self.runs() if "trial" in run.data.tags]
        names = [run.data.tags["trial"] for run in children]
        assert len(set(names)) == len(names)
        return dict(zip(names, children, strict=True))

    def points(self, run: Run, metric: str) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(run.info.run_id, metric)
        return sorted((point.step, point.value) for point in history)

    def artifacts(self, run: Run, folder: str | None = None) -> list[str]:
        return [item.path for item in self.client.list_artifacts(run.info.run_id, folder)]

    def artifact(self, run: Run, path: str) -> bytes:
        return Path(self.client.download_artifacts(run.info.run_id, path)).read_bytes()

    def models(self) -> list[Any]:
        return list(self.client.search_logged_models([self.store.experiment(self.client, DATASET)]))


@pytest.fixture(scope="module")
def published(
    make_store: Callable[[Path], Store], tmp_path_factory: pytest.TempPathFactory
) -> Published:
    """Logged once; no test of it adds anything."""
    study = make_study()
    root = tmp_path_factory.mktemp("published")
    logged = Published(make_store(root), study, write_outputs(study, root))
    assert logged.log("d" * 32) == 5
    return logged


@pytest.fixture
def one(store: Store, make_outputs: MakeOutputs) -> Published:
    """A study of one trial that is not logged yet."""
    study = make_study(**ONE)
    return Published(store, study, make_outputs(study))


@pytest.fixture
def two(store: Store, make_outputs: MakeOutputs) -> Published:
    """A study of two trials that is not logged yet."""
    study = make_study(**TWO)
    return Published(store, study, make_outputs(study))


def test_an_epoch_that_a_killed_process_logged_is_logged_once(one: Published) -> None:
    (trial,) = one.study.trials()
    name = one.study.trial_name(trial)
    begun = study_runs.StudyRuns(one.store, one.study, one.lineage, one.outputs.splits)
    run = begun.start(name, trial, 1_700_000_000_000)
    first = records.read(one.outputs.results).history.drop(columns="trial").iloc[0]
    begun.log_epoch(run, 1, 1_700_000_000_500, first.to_dict())
    one.log()
    assert one.children()[name].info.run_id == run.info.run_id
    steps = [step for step, _ in one.points(run, "train_loss")]
    assert steps == sorted(set(steps))
    assert steps[0] == 1


def test_the_dataset_is_an_experiment(published: Published) -> None:
    names = [experiment.name for experiment in published.client.search_experiments()]
    assert sorted(names) == ["Default", DATASET]


def test_the_study_is_a_run_and_its_trials_are_runs_below(published: Published) -> None:
    parent, children = published.parent(), published.children()
    assert parent.info.run_name == published.study.name
    assert set(children) == {published.study.trial_name(t) for t in published.study.trials()}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {
        parent.info.run_id
    }
    assert {run.info.status for run in published.runs()} == {"FINISHED"}


def test_the_parent_lies_under_the_run_of_mlflow_run(published: Published) -> None:
    assert published.parent().data.tags["mlflow.parentRunId"] == "d" * 32


def test_every_setting_that_makes_a_difference_is_a_param(published: Published) -> None:
    children = published.children()
    for trial in published.study.trials():
        expected = {"dataset": DATASET, "study": "samples", **settings_in_use(trial)}
        result = children[published.study.trial_name(trial)].data.params
        assert result == {key: str(value) for key, value in expected.items()}
        assert {"layer", "samples_per_class", "seed", "learning_rate"} <= set(result)
        assert not {"teacher_weight", "neighbours", "augment", "temperature"} & set(result)


def test_a_run_says_study_setting_and_who_logged_it(published: Published) -> None:
    run = published.children()["samples_per_class=2,seed=1"]
    assert run.info.run_name == "samples: samples_per_class=2, seed=1"
    tags = run.data.tags
    assert tags["mlflow.user"] == getpass.getuser()
    assert tags["mlflow.source.name"] == "vgg16-transfer train"
    assert tags["mlflow.source.git.commit"] == "0" * 40
    assert "2 pictures of each class of animals, split 1" in tags["mlflow.note.content"]


def test_the_parent_holds_the_grid(published: Published) -> None:
    params = published.parent().data.params
    assert params["dataset"] == DATASET
    assert params["samples_per_class"] == "2, 4"
    used = set().union(*map(settings_in_use, published.study.trials()))
    assert set(params) == {"dataset", *used}


def test_curves_have_one_point_per_epoch_and_none_at_step_0(published: Published) -> None:
    history = records.read(published.outputs.results).history
    for name, run in published.children().items():
        own = history[history["trial"] == name]
        for column in ("train_loss", "test_loss", "train_accuracy"):
            expected = list(zip(own["epoch"], own[column], strict=True))
            assert published.points(run, column) == expected
            assert [step for step, _ in expected] == [1, 2, 3]
        for measure in ("accuracy", "top5_accuracy"):  # the last is that of the finished head
            expected = list(zip(own["epoch"], own[f"test_{measure}"], strict=True))[:-1]
            assert published.points(run, measure)[:-1] == expected
        # One name per measure.
        assert not {"test_accuracy", "loss"} & set(run.data.metrics)


def test_final_measures_end_their_curves_or_are_measured_once(published: Published) -> None:
    """Of what stands at step 0, and nowhere else, MLflow draws bars instead of single dots."""
    trials = records.read(published.outputs.results).trials.set_index("trial")
    for name, run in published.children().items():
        for measure in NAMES:
            metric = "calibrated_loss" if measure == "loss" else measure
            points = published.points(run, metric)
            step = 3 if measure in ("accuracy", "top5_accuracy") else 0
            assert points[-1] == (step, trials.loc[name, measure])
            assert step or len(points) == 1


def test_the_parent_holds_accuracy_over_samples_per_class(published: Published) -> None:
    trials = records.read(published.outputs.results).trials
    by_size = trials.groupby("samples_per_class")["accuracy"]
    parent = published.parent()
    for metric, expected in (("accuracy_mean", by_size.mean()), ("accuracy_std", by_size.std())):
        steps, values = zip(*published.points(parent, metric), strict=True)
        assert steps == (2, 4)
        assert values == pytest.approx(expected.to_numpy())


def test_a_trial_shows_its_confusion_matrix_and_its_tables(published: Published) -> None:
    record = records.read(published.outputs.results)
    for name, run in published.children().items():
        tables = {"predictions.csv", "confusion.csv", "per_class.csv"}
        assert set(published.artifacts(run)) == {"images", *tables}
        text = published.artifact(run, "predictions.csv")
        own = record.predictions[record.predictions["trial"] == name]
        pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(text)), own.reset_index(drop=True))
        assert len(own) == len(TEST)
        matrix, small = sorted(published.artifacts(run, "images"), reverse=True)
        assert Path(matrix).name.startswith("confusion+step+0+")
        assert published.artifact(run, matrix).startswith(b"\x89PNG")
        assert published.artifact(run, small)[8:12] == b"WEBP"
        assert run.data.tags["mlflow.loggedImages"] == "True"


def test_the_parent_shows_the_studys_figures_and_its_table_once(published: Published) -> None:
    parent = published.parent()
    drawn = [row for row in study_figures.FIGURES if not row.name.startswith("differences")]
    assert set(published.artifacts(parent)) == {
        *(f"{study_figures.file_name(row, published.study)}.png" for row in drawn),
        "summary.csv",
        "summary.json",
    }
    table = json.loads(published.artifact(parent, "summary.json"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["samples_per_class"] for row in rows] == [2, 4]


def test_the_split_is_a_dataset_whose_digest_is_its_md5(published: Published) -> None:
    for run in published.children().values():
        (used,) = run.inputs.dataset_inputs
        split = published.outputs.splits / f"{run.data.params['seed']}.csv"
        assert used.dataset.digest == file_md5(split)
        assert json.loads(used.dataset.profile)["pictures"] == len(TEST)


def test_every_run_is_tagged_with_its_lineage(published: Published) -> None:
    expected = {
        "dvc.stage": "train@samples",
        "dvc.lock_digest": "a" * 64,
        "dvc.exp_name": "brave-ant",
        "dvc.splits_md5": "5" * 32,
        "dvc.features_md5": "f" * 32,
        "git.commit": "0" * 40,
        "git.dirty": "false",
        "study": "samples",
    }
    for run in published.runs():
        assert expected.items() <= run.data.tags.items()


def test_artifacts_lie_beside_the_database(published: Published) -> None:
    assert published.store.artifacts is not None
    assert published.store.artifacts.name == ARTIFACTS
    folder = (published.store.artifacts / DATASET).as_uri()
    assert {run.info.artifact_uri.startswith(folder) for run in published.runs()} == {True}


def test_every_trial_has_its_head_as_a_model(published: Published) -> None:
    mlflow.set_tracking_uri(published.store.uri)
    models = {model.source_run_id: model for model in published.models()}
    features = np.random.default_rng(2).standard_normal((5, WIDTH)).astype(np.float32)
    assert set(models) == {run.info.run_id for run in published.children().values()}
    for name, run in published.children().items():
        saved = model_files.load(published.outputs.heads / f"{name}.keras")
        loaded = mlflow.keras.load_model(models[run.info.run_id].model_uri)
        expected = model_files.probabilities(saved, features)
        np.testing.assert_array_equal(model_files.probabilities(loaded, features), expected)
        assert {model.status for model in models.values()} == {LoggedModelStatus.READY}


def test_a_model_can_be_asked_through_its_signature(published: Published) -> None:
    mlflow.set_tracking_uri(published.store.uri)
    name, run = next(iter(published.children().items()))
    (model,) = [one for one in published.models() if one.source_run_id == run.info.run_id]
    loaded = mlflow.pyfunc.load_model(model.model_uri)
    signature = loaded.metadata.signature
    assert signature.inputs.input_types() == [np.dtype(np.float32)]
    assert [spec.shape for spec in signature.inputs] == [(-1, WIDTH)]
    assert [spec.shape for spec in signature.outputs] == [(-1, 3)]
    features = np.random.default_rng(3).standard_normal((4, WIDTH)).astype(np.float32)
    saved = model_files.load(published.outputs.heads / f"{name}.keras")
    expected = model_files.probabilities(saved, features)
    np.testing.assert_allclose(loaded.predict(features), expected, rtol=1e-5)
    with pytest.raises(mlflow.MlflowException, match="shape"):
        loaded.predict(features[:, :-1])


def test_logging_again_adds_nothing(published: Published) -> None:
    before = {run.info.run_id: run.data.metrics for run in published.runs()}
    assert published.log() == 0
    assert {run.info.run_id: run.data.metrics for run in published.runs()} == before


def test_a_run_of_a_stage_is_not_replayed_by_a_later_publish(one: Published) -> None:
    one.log()
    one.lineage = dataclasses.replace(one.lineage, replayed=True)
    assert one.log() == 0
    assert {run.data.tags.get("replayed") for run in one.runs()} == {None}


def test_another_lock_entry_is_logged_beside_the_first(one: Published) -> None:
    assert one.log() == 2
    again = Published(one.store, one.study, one.outputs)
    again.lineage = make_lineage(one.study, digest="b")
    assert again.log() == 2
    assert len(one.parents()) == 2


def break_off(where: str, monkeypatch: pytest.MonkeyPatch, logged: Published) -> None:
    """Logs a study, and dies where a function is called."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    module, _, function = where.rpartition(".")
    with monkeypatch.context() as patch:
        owners = {"study_runs": study_runs, "heads": Heads, "client": mlflow.MlflowClient}
        owners |= {"models": mlflow.models.Model, "study_figures": study_figures}
        patch.setattr(owners[module], function, die)
        with pytest.raises(Killed):
            logged.log()


@pytest.mark.parametrize(
    "where",
    [
        "study_runs.log_pictures",
        "heads.log",
        "models.save",
        "client.log_batch",
        "client.log_model_artifacts",
        "client.finalize_logged_model",
        "client.set_terminated",
    ],
)
def test_a_trial_that_broke_off_goes_on_in_the_same_run(
    where: str, monkeypatch, one: Published
) -> None:
    break_off(where, monkeypatch, one)
    (before,) = one.children().values()
    assert before.info.status == "RUNNING"
    assert one.log() == 2
    (run,) = one.children().values()
    assert run.info.run_id == before.info.run_id
    assert len(one.runs(ViewType.ALL)) == 2
    assert [step for step, _ in one.points(run, "train_loss")] == [1, 2, 3]
    assert {run.info.status for run in one.runs()} == {"FINISHED"}
    assert [model.source_run_id for model in one.models()] == [run.info.run_id]
    assert one.log() == 0


def test_only_the_trials_that_are_missing_are_logged(monkeypatch, two: Published) -> None:
    two.log()
    whole = set(two.children())
    kept, lost = (two.children()[name] for name in sorted(whole))
    two.client.delete_run(lost.info.run_id)
    assert two.log() == 1
    assert set(two.children()) == whole
    assert kept.info.run_id in {run.info.run_id for run in two.children().values()}


@pytest.mark.parametrize("where", ["study_figures.draw_all", "client.log_table"])
def test_a_study_that_broke_off_is_completed_once(where: str, monkeypatch, one: Published) -> None:
    break_off(where, monkeypatch, one)
    before = one.parent()
    assert before.info.status == "RUNNING"
    assert one.log() == 1
    parent = one.parent()
    assert (parent.info.run_id, parent.info.status) == (before.info.run_id, "FINISHED")
    assert len(one.points(parent, "accuracy_mean")) == 1
    assert len(json.loads(one.artifact(parent, "summary.json"))["data"]) == 1
    assert one.log() == 0


def test_runs_of_mlflow_run_that_leak_are_left_alone(monkeypatch, one: Published) -> None:
    leaked = one.client.create_run("0")
    monkeypatch.setenv("MLFLOW_RUN_ID", leaked.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    one.log()
    after = one.client.get_run(leaked.info.run_id)
    assert (after.info.status, after.data.metrics, after.data.params) == ("RUNNING", {}, {})
    assert [model.source_run_id for model in one.models()] == [
        run.info.run_id for run in one.children().values()
    ]


def test_means_along_other_axes_are_a_table_and_no_metrics(store, make_outputs) -> None:
    study = make_study(samples_per_class=2, layer=["block4_pool", "block5_pool"])
    logged = Published(store, study, make_outputs(study))
    logged.log()
    assert logged.parent().data.metrics == {}
    table = json.loads(logged.artifact(logged.parent(), "summary.json"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    trials = records.read(logged.outputs.results).trials
    assert {row["layer"]: row["accuracy_mean"] for row in rows} == pytest.approx(
        trials.groupby("layer")["accuracy"].mean().to_dict(), rel=1e-5
    )


def test_names_of_models_are_those_that_mlflow_takes(store, make_outputs) -> None:
    study = make_study(samples_per_class=2, seed=0, learning_rate=[0.5, 0.25])
    logged = Published(store, study, make_outputs(study))
    logged.log()
    assert {model.name for model in logged.models()} == {
        "samples learning_rate=0_5",
        "samples learning_rate=0_25",
    }


def test_a_single_seed_has_no_spread(one: Published) -> None:
    one.log()
    metrics = one.parent().data.metrics
    assert set(metrics) == {f"{row.name}_mean" for row in MEASURES if row.card}
    assert all(math.isfinite(value) for value in metrics.values())


def test_of_many_epochs_some_are_logged_and_most_of_them_early(store: Store, make_outputs) -> None:
    study = make_study(**ONE, epochs=300)
    logged = Published(store, study, make_outputs(study))
    logged.log()
    (run,) = logged.children().values()
    history = records.read(logged.outputs.results).history.set_index("epoch")["train_loss"]
    points = logged.points(run, "train_loss")
    steps = [step for step, _ in points]
    assert steps == [1, 2, 3, 5, 7, 10, 14, 21, 31, 45, 66, 96, 140, 205, 300]
    assert points == [(step, history[step]) for step in steps]


def test_more_metrics_than_fit_into_a_call_arrive_whole(one: Published, monkeypatch) -> None:
    monkeypatch.setattr(study_runs, "_PER_CALL", 2)
    one.log()
    (run,) = one.children().values()
    assert [step for step, _ in one.points(run, "train_loss")] == [1, 2, 3]
    assert {"accuracy", "brier_score", "calibrated_loss"} <= set(run.data.metrics)


def test_a_trial_has_its_own_times(two: Published) -> None:
    times = {
        f"seed={seed}": {
            "started": 1000 * seed,
            "ended": 1000 * seed + 600,
            "fit_seconds": 0.5 + seed,
            "features_seconds": 0.1,
            "pictures_per_second": 300.0,
        }
        for seed in (0, 1)
    }
    two.lineage = dataclasses.replace(two.lineage, started=1, ended=9000, times=times)
    two.log()
    assert (two.parent().info.start_time, two.parent().info.end_time) == (1, 9000)
    run = two.children()["seed=1"]
    assert (run.info.start_time, run.info.end_time) == (1000, 1600)
    assert run.data.metrics["fit_seconds"] == 1.5
    assert run.data.metrics["features_seconds"] == 0.1
    assert run.data.metrics["pictures_per_second"] == 300
    history = two.client.get_metric_history(run.info.run_id, "train_loss")
    assert [point.timestamp for point in history] == [1200, 1400, 1600]


def folder_of(run: Run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def lose(two: Published, what: str) -> int:
    """Takes files away from the store; returns how many runs must be logged again."""
    artifacts = two.store.artifacts
    assert artifacts is not None
    first = two.children()["seed=0"]
    (head,) = [model for model in two.models() if model.source_run_id == first.info.run_id]
    model = Path(head.artifact_location.removeprefix("file://"))
    if what == "all":
        shutil.rmtree(artifacts)
        return 3
    if what == "all models":
        shutil.rmtree(artifacts / DATASET / "models")
        return 2
    lost = {
        "a table": folder_of(first) / "predictions.csv",
        "a figure of the study": folder_of(two.parent()) / "loss_curves.png",
        "a head": model / "data" / "model.keras",
        "a model's description": model / "MLmodel",
        "a picture's bytes": next((folder_of(first) / "images").glob("*.png")),
    }[what]
    lost.write_bytes(b"")
    if what != "a picture's bytes":
        lost.unlink()
    return 1


@pytest.mark.parametrize(
    "what",
    [
        "all",
        "all models",
        "a table",
        "a figure of the study",
        "a head",
        "a model's description",
        "a picture's bytes",
    ],
)
def test_files_that_a_store_lost_are_put_back_under_the_same_runs(
    what: str, two: Published
) -> None:
    two.log()
    assert two.store.artifacts is not None
    before, files = two.runs(), everything_below(two.store.artifacts)
    models = {model.model_id for model in two.models()}
    again = lose(two, what)
    assert two.log() == again
    after = {run.info.run_id: run for run in two.runs()}
    assert {(r.info.run_id, r.info.end_time, r.info.status) for r in before} == {
        (r.info.run_id, r.info.end_time, r.info.status) for r in after.values()
    }
    for run in before:
        assert after[run.info.run_id].data.metrics == run.data.metrics
    assert two.points(before[0], "train_loss") == sorted(two.points(before[0], "train_loss"))
    assert everything_below(two.store.artifacts) == files
    assert {model.model_id for model in two.models()} == models
    mlflow.set_tracking_uri(two.store.uri)
    for model in two.models():
        assert mlflow.keras.load_model(model.model_uri).input_shape == (None, WIDTH)
    assert two.log() == 0


def test_putting_files_back_that_broke_off_goes_on(two: Published, monkeypatch) -> None:
    two.log()
    assert two.store.artifacts is not None
    files = everything_below(two.store.artifacts)
    for where in ("study_runs.log_pictures", "client.log_model_artifacts", "client.log_table"):
        shutil.rmtree(two.store.artifacts)
        break_off(where, monkeypatch, two)
        assert {run.info.status for run in two.runs()} == {"FINISHED"}
        two.log()
        assert everything_below(two.store.artifacts) == files
        assert two.log() == 0


def test_a_classifier_that_was_registered_is_not_taken_for_the_head(one: Published) -> None:
    one.log()
    (run,) = one.children().values()
    experiment = run.info.experiment_id
    other = one.client.create_logged_model(
        experiment, name="classifier", source_run_id=run.info.run_id
    )
    one.client.finalize_logged_model(other.model_id, LoggedModelStatus.READY)
    assert one.log() == 0
    assert one.store.artifacts is not None
    shutil.rmtree(one.store.artifacts)
    assert one.log() == 2
    assert one.client.list_logged_model_artifacts(other.model_id) == []
    assert one.log() == 0


WHY = "loss became nan in epoch 2 (learning_rate 1000)"


@pytest.fixture
def failed(two: Published) -> Published:
    """One of the two trials diverged in its second epoch, and its record says so."""
    results = two.outputs.results
    name, (trials, history, *rest) = "seed=0", records.read(results)
    measures = trials.columns[trials.columns.get_loc("accuracy") :]
    diverged = trials["trial"] == name
    trials.loc[diverged, measures] = np.nan
    trials["failure"] = trials["failure"].astype(object)  # so far, none failed
    trials.loc[diverged, ["status", "failure"]] = ["failed", WHY]
    history = history[(history["trial"] != name) | (history["epoch"] == 1)]
    rest = [frame[frame["trial"] != name] for frame in rest]
    for key, frame in zip(records.FRAMES, (trials, history, *rest), strict=True):
        records.write_frame(frame, results / f"{key}.csv")
    (two.outputs.heads / f"{name}.keras").unlink()
    return two


def test_a_trial_that_failed_is_a_failed_run_with_its_curves_and_the_reason(
    failed: Published,
) -> None:
    assert failed.log() == 3
    children = failed.children()
    run = children["seed=0"]
    assert (run.info.status, children["seed=1"].info.status) == ("FAILED", "FINISHED")
    assert run.data.tags["failure"] == WHY
    assert WHY in run.data.tags["mlflow.note.content"]
    assert run.data.params["samples_per_class"] == "2"
    assert [step for step, _ in failed.points(run, "train_loss")] == [1]
    assert "accuracy" not in run.data.metrics
    assert "mean_class_recall" not in run.data.metrics
    assert failed.artifacts(run) == []
    assert [model.source_run_id for model in failed.models()] == [children["seed=1"].info.run_id]
    assert failed.parent().info.status == "FINISHED"
    accuracy = failed.parent().data.metrics["accuracy_mean"]
    assert accuracy == children["seed=1"].data.metrics["accuracy"]


def test_a_trial_that_failed_is_logged_once(failed: Published) -> None:
    failed.log()
    before = {run.info.run_id for run in failed.runs(ViewType.ALL)}
    assert failed.log() == 0
    assert {run.info.run_id for run in failed.runs(ViewType.ALL)} == before


def test_a_trial_that_failed_before_its_first_epoch_has_no_curves(failed: Published) -> None:
    path = failed.outputs.results / "history.csv"
    history = records.read_frame(path)
    records.write_frame(history[history["trial"] != "seed=0"], path)
    failed.log()
    run = failed.children()["seed=0"]
    assert (run.info.status, failed.artifacts(run)) == ("FAILED", [])
    assert failed.log() == 0


def test_a_failed_trial_that_broke_off_goes_on_in_the_same_run(
    failed: Published, monkeypatch
) -> None:
    break_off("client.set_terminated", monkeypatch, failed)
    (before,) = failed.children().values()
    assert before.info.status == "RUNNING"
    assert failed.log() == 3
    assert failed.children()["seed=0"].info.run_id == before.info.run_id
    assert failed.children()["seed=0"].info.status == "FAILED"


def test_missing_results_are_named_and_nothing_is_logged(one: Published) -> None:
    (one.outputs.results / "history.csv").unlink()
    with pytest.raises(records.RecordError, match=r"history\.csv: no such file"):
        one.log()
    assert one.client.get_experiment_by_name(DATASET) is None


# Waits, with everything imported, until the other process is there as well.
OTHER = """
import sys
import time
from pathlib import Path

from tests.tracking import conftest
from vgg16_transfer.tracking.mlflow_store import find_store

root = Path(sys.argv[1])
study = conftest.make_study("other", samples_per_class=2)
outputs = conftest.write_outputs(study, root / "other")
(root / "ready").touch()
while not (root / "go").exists():
    time.sleep(0.01)
conftest.log(find_store(root, None), study, outputs, conftest.make_lineage(study, "b"))
"""


def test_two_processes_log_two_studies_at_once(two: Published, tmp_path) -> None:
    repository = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)],
        cwd=repository,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        while not (tmp_path / "ready").exists() and other.poll() is None:
            time.sleep(0.01)
        (tmp_path / "go").touch()
        two.log()
        _, errors = other.communicate(timeout=120)
    assert other.returncode == 0, errors
    assert {run.info.run_name for run in two.parents()} == {"samples", "other"}
    assert Counter(run.data.tags["study"] for run in two.runs()) == {"samples": 3, "other": 3}
    assert {run.info.status for run in two.runs()} == {"FINISHED"}
