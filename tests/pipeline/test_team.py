"""What a team does with runs: replay them from a clone, ask where they come from, experiment."""

import csv
import io
import re
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from .conftest import SMALL, Workspace, trained_and_pushed

pytestmark = pytest.mark.pipeline

PARAMS = SMALL | {"studies": {"samples": SMALL["studies"]["samples"]}}
RUNS = 5  # four trials and their study


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Who trained, committed, and pushed to a DVC remote."""
    make = tmp_path_factory.mktemp
    return trained_and_pushed(make("ada"), make("remote"), PARAMS)


@pytest.fixture(scope="module")
def bo(ada: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Who cloned, pulled and published, and never trained."""
    workspace = Workspace(tmp_path_factory.mktemp("bo") / "clone")
    ada.run("git", "clone", "--quiet", str(ada.root), str(workspace.root))
    workspace.run("dvc", "pull")
    workspace.run("vgg16-transfer", "publish")
    return workspace


def client(workspace: Workspace) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")


def runs(workspace: Workspace) -> dict[str, Run]:
    """The runs of the lock entry in the workspace's last commit, by name."""
    result = client(workspace)
    experiment = result.get_experiment_by_name("clipart").experiment_id
    every = result.search_runs([experiment], max_results=500)
    return {run.info.run_name: run for run in every if "dvc.exp_name" not in run.data.tags}


def artifacts(workspace: Workspace, run: Run, folder: str | None = None) -> dict[str, bytes]:
    """What a run's artifacts hold, but for pictures' names, in which MLflow writes the time."""
    held: dict[str, bytes] = {}
    for item in client(workspace).list_artifacts(run.info.run_id, folder):
        if item.is_dir:
            held |= artifacts(workspace, run, item.path)
        else:
            name = re.split(r"[+%]step", item.path)[0] + Path(item.path).suffix
            path = client(workspace).download_artifacts(run.info.run_id, item.path)
            held[name] = Path(path).read_bytes()
    return held


def test_a_clone_logs_the_same_runs(ada, bo) -> None:
    original, replayed = runs(ada), runs(bo)
    assert set(original) == set(replayed)
    assert len(original) == RUNS
    for name, run in original.items():
        assert replayed[name].data.params == run.data.params
        # What the machine did is known only while it does it.
        own = {k: v for k, v in run.data.metrics.items() if not k.startswith("system/")}
        assert replayed[name].data.metrics == own
        assert replayed[name].info.status == "FINISHED"


def test_a_replayed_run_has_time_and_commit_of_the_original(ada, bo) -> None:
    original, replayed = runs(ada), runs(bo)
    for name, run in original.items():
        # A run that is seen live begins a moment before its trial takes the time.
        assert abs(replayed[name].info.start_time - run.info.start_time) < 1000  # milliseconds
        assert replayed[name].info.end_time == run.info.end_time
        assert replayed[name].data.tags["git.commit"] == run.data.tags["git.commit"]
        assert replayed[name].data.tags["dvc.lock_digest"] == run.data.tags["dvc.lock_digest"]
        assert "replayed" not in run.data.tags
        assert replayed[name].data.tags["replayed"] == "true"


def test_curves_and_pictures_are_the_same(ada, bo) -> None:
    original, replayed = runs(ada), runs(bo)
    for name in ("samples", "samples: samples_per_class=4, seed=1"):
        of_ada, of_bo = artifacts(ada, original[name]), artifacts(bo, replayed[name])
        assert of_ada
        assert of_ada == of_bo
        for metric in original[name].data.metrics:
            own = client(ada).get_metric_history(original[name].info.run_id, metric)
            reference = client(bo).get_metric_history(replayed[name].info.run_id, metric)
            assert {(m.step, m.value) for m in own} == {(m.step, m.value) for m in reference}


def test_the_models_are_the_same(ada, bo) -> None:
    weights = []
    for workspace in (ada, bo):
        run = runs(workspace)["samples: samples_per_class=4, seed=1"]
        mlflow.set_tracking_uri(f"sqlite:///{workspace.root / 'mlflow.db'}")
        (model,) = client(workspace).search_logged_models(
            [run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'"
        )
        weights.append(mlflow.keras.load_model(model.model_uri).get_weights())
    mlflow.set_tracking_uri(None)
    assert [w.tolist() for w in weights[0]] == [w.tolist() for w in weights[1]]


def test_publishing_twice_adds_nothing(bo) -> None:
    before = {run.info.run_id for run in runs(bo).values()}
    assert "samples: 0 runs logged" in bo.run("vgg16-transfer", "publish")
    assert {run.info.run_id for run in runs(bo).values()} == before


def test_a_commit_made_later_is_named_by_publish(ada) -> None:
    head = ada.run("git", "rev-parse", "HEAD").strip()
    assert "dvc repro" in runs(ada)["samples"].data.tags["checkout"]
    ada.run("vgg16-transfer", "publish")
    commands = {run.data.tags["checkout"] for run in runs(ada).values()}
    assert commands == {f"git checkout {head} && dvc checkout"}


def test_a_run_leads_back_to_code_and_data(ada, bo) -> None:
    run = runs(bo)["samples: samples_per_class=2, seed=0"]
    printed = bo.run("vgg16-transfer", "lineage", run.info.run_id)
    tags = run.data.tags
    for kind in ("splits", "features", "weights", "heads"):
        assert f"{tags[f'dvc.{kind}_md5']}  (in the workspace)" in printed
    assert f"{tags['dvc.lock_digest']}  (in this dvc.lock)" in printed
    assert f"{tags['git.commit']}  (in this repository)" in printed
    assert tags["checkout"] in printed


def test_the_commands_in_the_tag_bring_back_what_was_trained(ada, tmp_path) -> None:
    run = runs(ada)["samples"]
    before = ada.files("models/heads", "data/splits")
    other = Workspace(tmp_path / "clone")
    ada.run("git", "clone", "--quiet", str(ada.root), str(other.root))
    other.run("dvc", "fetch")
    other.run("bash", "-c", run.data.tags["checkout"])
    assert other.files("models/heads", "data/splits") == before


def test_two_runs_are_compared(ada) -> None:
    logged = runs(ada)
    names = [f"samples: samples_per_class={count}, seed=0" for count in (2, 4)]
    printed = ada.run("vgg16-transfer", "compare", *names, COLUMNS="160")
    assert "samples_per_class" in printed
    assert "of 64 test pictures are classified differently" in printed
    printed = ada.run("vgg16-transfer", "compare", *(logged["samples"].info.run_id,) * 2)
    assert "0 of " in printed


def experiments(workspace: Workspace) -> dict[str, list[Run]]:
    """The runs of DVC experiments, by the experiment's name."""
    result = client(workspace)
    experiment = result.get_experiment_by_name("clipart").experiment_id
    named: dict[str, list[Run]] = {}
    for run in result.search_runs([experiment], max_results=500):
        if "dvc.exp_name" in run.data.tags:
            named.setdefault(run.data.tags["dvc.exp_name"], []).append(run)
    return named


def check_whole(logged: list[Run], epochs: str) -> None:
    assert len(logged) == RUNS
    assert {run.info.status for run in logged} == {"FINISHED"}
    assert {run.data.params["epochs"] for run in logged} == {epochs}
    parent = next(run for run in logged if "trial" not in run.data.tags)
    below = {run.data.tags["mlflow.parentRunId"] for run in logged if run is not parent}
    assert below == {parent.info.run_id}


def test_an_experiment_lands_in_the_store_whole(ada) -> None:
    ada.run("dvc", "exp", "run", "-n", "fewer", "-S", "studies.samples.epochs=5")
    check_whole(experiments(ada)["fewer"], "5")
    assert experiments(ada)["fewer"][0].data.tags["checkout"] == "dvc exp apply fewer"


def test_an_experiment_in_a_folder_of_its_own_lands_whole(ada) -> None:
    ada.run("dvc", "exp", "run", "--temp", "-n", "apart", "-S", "studies.samples.epochs=6")
    check_whole(experiments(ada)["apart"], "6")


def test_queued_experiments_of_two_workers_land_whole(ada) -> None:
    for name, epochs in (("first", 7), ("second", 8)):
        change = f"studies.samples.epochs={epochs}"
        ada.run("dvc", "exp", "run", "--queue", "-n", name, "-S", change)
    ada.run("dvc", "queue", "start", "--jobs", "2")
    deadline = time.monotonic() + 600
    while (status := ada.run("dvc", "queue", "status")).count("Success") < 2:
        assert "Failed" not in status, status
        assert time.monotonic() < deadline, status
        time.sleep(1)
    check_whole(experiments(ada)["first"], "7")
    check_whole(experiments(ada)["second"], "8")


def test_dvc_shows_what_experiments_change(ada) -> None:
    rows = list(csv.DictReader(io.StringIO(ada.run("dvc", "exp", "show", "--csv"))))
    named = {row["Experiment"]: row for row in rows}
    assert named["fewer"]["studies.samples.epochs"] == "5"
    assert 0 <= float(named["fewer"]["samples.samples_per_class=4"]) <= 1
