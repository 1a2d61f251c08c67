"""`dvc repro` from nothing, again, after an edit, by force, and after being killed."""

import contextlib
import copy
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from ruamel.yaml import YAML

from vgg16_transfer.artifacts import remove

from .conftest import RUNS, SMALL, Workspace, clone, stages_run

pytestmark = pytest.mark.pipeline

ROOMS = ("models/heads", "results", "data/features", "data/splits", "reports")


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A workspace in which everything ran once, and what that printed."""
    workspace = clone(tmp_path_factory.mktemp("unkilled"), SMALL)
    return workspace, workspace.run("dvc", "repro")


def runs(workspace: Workspace, experiment: str = "clipart") -> list[mlflow.entities.Run]:
    client = mlflow.MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    result = client.get_experiment_by_name(experiment)
    return list(client.search_runs([result.experiment_id], max_results=500))


def test_everything_runs_and_is_logged_to_mlflow(unkilled) -> None:
    workspace, printed = unkilled
    assert set(stages_run(printed)) == set(workspace.read("dvc.lock")["stages"])
    logged = runs(workspace)
    parents = {r.info.run_name: r for r in logged if "mlflow.parentRunId" not in r.data.tags}
    children = [r for r in logged if "mlflow.parentRunId" in r.data.tags]
    assert set(parents) == set(SMALL["studies"])
    assert len(children) == RUNS - len(parents)
    assert {r.info.status for r in logged} == {"FINISHED"}
    assert {r.data.tags["git.dirty"] for r in logged} == {"false"}


def test_every_study_holds_filter_pictures_and_its_gradient_check(unkilled) -> None:
    workspace, _ = unkilled
    client = mlflow.MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    for run in runs(workspace):
        pictures = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
        keys = {Path(picture).name.partition("+")[0] for picture in pictures}
        if "trial" not in run.data.tags:
            assert "kernels" in keys
            assert "gradient_check_max" in run.data.metrics
        elif run.data.params.get("fine_tune_from", "none") != "none":  # its own filters
            assert keys == {"confusion", "kernels_block5_conv1", "kernels_block5_conv3"}
        else:
            assert keys == {"confusion"}


def test_the_forward_pass_has_a_run_with_its_rate(unkilled) -> None:
    (run,) = runs(unkilled[0], "features")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["pictures_computed"] > 0
    assert run.data.metrics["pictures_reused"] == 0
    rate = run.data.metrics["pictures_computed"] / run.data.metrics["seconds"]
    assert run.data.metrics["pictures_per_second"] == pytest.approx(rate)
    assert run.data.params["layers"] == "block4_pool, block5_pool"


def test_a_run_leads_back_to_split_features_and_lock_entry(unkilled) -> None:
    workspace, _ = unkilled
    deps = dependencies(workspace, "train@samples")
    head = workspace.run("git", "rev-parse", "HEAD").strip()
    for run in runs(workspace):
        tags = run.data.tags
        assert tags["dvc.splits_md5"] == deps["data/splits/clipart"]
        assert tags["dvc.features_md5"] == deps["data/features/clipart"]
        assert tags["git.commit"] == head


def dependencies(workspace: Workspace, stage: str) -> dict[str, str]:
    entry = workspace.read("dvc.lock")["stages"][stage]
    return {dep["path"]: dep["md5"] for dep in entry["deps"]}


def test_the_page_in_mlflow_names_every_run(unkilled) -> None:
    workspace, _ = unkilled
    (report,) = runs(workspace, "report")
    client = mlflow.MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    page = Path(client.download_artifacts(report.info.run_id, "report.html")).read_text()
    for run in runs(workspace):
        assert run.data.tags["dvc.lock_digest"] in page
        assert "trial" not in run.data.tags or run.info.run_id in page


def test_explained_pictures_hang_on_the_runs_of_their_studies(unkilled) -> None:
    workspace, _ = unkilled
    client = mlflow.MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    for run in runs(workspace):
        pictures = {item.path for item in client.list_artifacts(run.info.run_id, "explained")}
        assert ("explained/nearest.png" in pictures) == ("trial" not in run.data.tags)


def test_publish_finds_nothing_left_to_log(unkilled) -> None:
    workspace, _ = unkilled
    assert workspace.run("vgg16-transfer", "publish").count(": 0 runs logged") == 3
    assert len(runs(workspace)) == RUNS


def test_a_fresh_store_is_filled_from_the_results(unkilled, tmp_path: Path) -> None:
    workspace, _ = unkilled
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    workspace.run("vgg16-transfer", "publish", MLFLOW_TRACKING_URI=uri)
    client = mlflow.MlflowClient(uri)
    replayed = client.search_runs([client.get_experiment_by_name("clipart").experiment_id])
    digests = {run.data.tags["dvc.lock_digest"] for run in replayed}
    assert digests == {run.data.tags["dvc.lock_digest"] for run in runs(workspace)}
    assert len(replayed) == RUNS


def test_a_second_repro_runs_nothing_and_leaves_git_clean(unkilled) -> None:
    workspace, _ = unkilled
    assert stages_run(workspace.run("dvc", "repro")) == []
    workspace.run("git", "add", "--all")
    changed = workspace.run("git", "diff", "--cached", "--name-only").split()
    workspace.run("git", "reset", "--quiet")
    assert {name.split("/")[0] for name in changed} <= {"dvc.lock", "results"}


def test_results_prints_every_point_of_every_study(unkilled) -> None:
    workspace, _ = unkilled
    printed = workspace.run("vgg16-transfer", "results", COLUMNS="120")
    assert printed.count("±") >= 12
    assert "make ui" in printed
    assert "reports/report.html" in printed


def test_stages_that_are_forced_leave_the_same_lock_file_and_no_new_runs(unkilled) -> None:
    workspace, _ = unkilled
    lock = (workspace.root / "dvc.lock").read_bytes()
    origin = (workspace.root / "results" / "samples.origin.json").read_bytes()
    workspace.run("dvc", "repro", "--force", "--single-item", "train@samples", "report")
    assert (workspace.root / "dvc.lock").read_bytes() == lock
    assert (workspace.root / "results" / "samples.origin.json").read_bytes() == origin
    assert len(runs(workspace)) == RUNS


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("what was waited for did not come")


def first_chunk(workspace: Workspace) -> bool:
    """Whether the forward pass has stored pictures, but not all."""
    indexes = workspace.root.glob("data/features/.clipart.*.partial/index.jsonl")
    return any(index.read_text().count("\n") > 2 for index in indexes)


def first_trial(workspace: Workspace) -> bool:
    """Whether a trial of the study is done, but not all."""
    return any(workspace.root.glob("models/heads/.samples.*.partial/*.json"))


HALF_WAY = {"features@clipart": first_chunk, "train@samples": first_trial}
STAGES = ["fetch@clipart", "splits@clipart", "sources", "weights", "features@clipart"]
STAGES += ["filters@clipart", "gradients@clipart", "train@samples", "train@students"]
STAGES += ["train@streamed", "explain@samples", "explain@streamed", "report"]
FULL = os.environ.get("TORTURE") == "1"
FAST = ["weights", "features@clipart", "train@samples", "report"]
SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
LONGEST = 6.0
"""Seconds after the start of a stage within which it is ended. Most stages take as long."""


def end_in(workspace: Workspace, stage: str, how: int, choose: random.Random | None) -> None:
    """Starts `dvc repro STAGE`, and ends all that it started while the stage runs.

    Args:
        workspace: Where.
        stage: A stage that has not run yet.
        how: The signal to end it by.
        choose: Chooses the moment. If None, it is when the stage is half done.
    """
    log = workspace.root.parent / "printed"
    log.write_text("")
    started = workspace.start("bash", "-c", f"exec dvc repro {stage} > {log} 2>&1")
    wait_for(lambda: f"Running stage '{stage}'" in log.read_text() or started.poll() is not None)
    if choose is None:
        wait_for(lambda: HALF_WAY[stage](workspace))
    else:
        time.sleep(choose.uniform(0, LONGEST))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(started.pid, how)
    started.communicate(timeout=60)


def leftovers(workspace: Workspace) -> list[Path]:
    """What stages have left beside their outputs."""
    rooms = [workspace.root / room for room in ("data", "models", "results", "reports")]
    hidden = [path for room in rooms for path in room.rglob(".*")]
    return [path for path in hidden if not path.name.endswith((".gitignore", ".origin.json"))]


def without(whole: Workspace, stages: list[str], folder: Path) -> Workspace:
    """A copy in which some stages have not run yet, and nothing is logged to MLflow."""
    shutil.copytree(whole.root, folder, symlinks=True)
    workspace = Workspace(folder)
    lock = workspace.read("dvc.lock")
    outs = [out["path"] for stage in stages for out in lock["stages"].pop(stage)["outs"]]
    YAML(typ="safe", pure=True).dump(lock, folder / "dvc.lock")
    for path in [*outs, ".dvc/cache/runs", "mlflow.db", ".mlflow.db.lock", "mlartifacts"]:
        remove(folder / path)
    return workspace


@pytest.mark.parametrize("number", range(5 if FULL else 1))
def test_killed_in_every_stage_the_results_are_the_same_bytes(
    unkilled, make_clone: Callable[..., Workspace], tmp_path: Path, number: int
) -> None:
    whole, _ = unkilled
    workspace = make_clone() if FULL else without(whole, FAST, tmp_path / "clone")
    choose = random.Random(number)  # noqa: S311 - moments to test at
    for turn, stage in enumerate(STAGES if FULL else FAST):
        half_way = number == 0 and stage in HALF_WAY
        how = signal.SIGKILL if half_way else SIGNALS[(number + turn) % len(SIGNALS)]
        end_in(workspace, stage, how, None if half_way else choose)
        if half_way and stage == "features@clipart":
            resumed = workspace.run("dvc", "repro", stage)
            computed = int(resumed.split(" pictures went through")[0].split()[-1])
            store_rows = len(set().union(*(manifest_ids(whole, seed) for seed in (0, 1))))
            assert 0 < computed <= store_rows - 32
    workspace.run("dvc", "repro")
    assert workspace.files(*ROOMS) == whole.files(*ROOMS)
    assert workspace.read("dvc.lock") == whole.read("dvc.lock")
    assert leftovers(workspace) == []
    workspace.run("vgg16-transfer", "publish")  # what was killed while it was logged
    logged = runs(workspace)
    assert {run.info.status for run in logged} == {"FINISHED"}
    assert len(logged) == RUNS
    store = {path.name for path in workspace.root.glob("*mlflow.db*")}
    assert store == {"mlflow.db", ".mlflow.db.lock"}
    assert stages_run(workspace.run("dvc", "repro")) == []


def manifest_ids(workspace: Workspace, seed: int) -> set[str]:
    lines = (workspace.root / f"data/splits/clipart/{seed}.csv").read_text().splitlines()
    return {line.split(",")[3] for line in lines[1:]}


def test_touching_one_study_reruns_that_study_and_the_report_alone(unkilled) -> None:
    workspace, _ = unkilled
    params = copy.deepcopy(SMALL)
    params["studies"]["samples"]["epochs"] = 10
    workspace.write_params(params)
    assert stages_run(workspace.run("dvc", "repro")) == [
        "train@samples",
        "explain@samples",
        "report",
    ]
    logged = runs(workspace)
    assert len(logged) == RUNS + 5
    latest = max(logged, key=lambda run: run.info.start_time)
    assert latest.data.tags["git.dirty"] == "true"  # params.yaml is not committed


def test_what_dvc_restores_from_its_run_cache_is_logged_to_a_new_store(unkilled, tmp_path) -> None:
    workspace, _ = unkilled
    workspace.write_params(SMALL)
    assert stages_run(workspace.run("dvc", "repro")) == []  # all of it was computed before
    uri = f"sqlite:///{tmp_path / 'new.db'}"
    logged = workspace.run("vgg16-transfer", "publish", MLFLOW_TRACKING_URI=uri)
    assert [logged.count(f": {runs} runs logged") for runs in (5, 3)] == [2, 1]


def test_a_store_without_rows_is_noticed_and_made_again(unkilled) -> None:
    workspace, _ = unkilled
    whole = workspace.files("data/features", "results", "models/heads")
    lock = workspace.read("dvc.lock")
    (workspace.root / "data/features/clipart/block5_pool.rows").unlink()
    printed = workspace.run("dvc", "repro")
    assert stages_run(printed) == ["features@clipart"]
    assert "were missing or damaged; they were computed" in printed
    assert workspace.files("data/features", "results", "models/heads") == whole
    assert workspace.read("dvc.lock") == lock


@pytest.mark.parametrize(
    ("path", "commands"),
    [
        ("results/samples/trials.csv", ["publish", "results", "report", "register samples"]),
        ("models/heads/samples/samples_per_class=2,seed=0.keras", ["publish", "register samples"]),
        ("reports/filters/clipart/kernels.png", ["publish", "report"]),
        ("data/splits/clipart/0.csv", ["publish", "report"]),
        ("reports/explained/samples/captions.json", ["publish", "report"]),
    ],
)
def test_what_is_not_what_dvc_lock_says_is_named_and_corrected_by_dvc_repro(
    unkilled, path: str, commands: list[str]
) -> None:
    workspace, _ = unkilled
    file = workspace.root / path
    content = file.read_bytes()
    file.unlink()  # DVC may have linked it to its cache
    file.write_bytes(content.replace(b"1", b"2", 1))
    for command in commands:
        code, printed = workspace.finish("vgg16-transfer", *command.split())
        (line,) = printed.splitlines()
        assert code == 2
        assert line.startswith(f"error: {path}: is not what ")
        assert " made, by dvc.lock; run dvc repro " in line
    workspace.run("dvc", "repro")
    assert file.read_bytes() == content


@pytest.mark.parametrize("command", ["publish", "results", "report", "register samples"])
def test_a_lock_file_with_the_marks_of_a_merge_is_one_sentence(unkilled, command: str) -> None:
    workspace, _ = unkilled
    lock = workspace.root / "dvc.lock"
    content = lock.read_text(encoding="utf-8")
    lock.write_text(f"<<<<<<< HEAD\n{content}=======\n>>>>>>> other\n", encoding="utf-8")
    code, printed = workspace.finish("vgg16-transfer", *command.split())
    lock.write_text(content, encoding="utf-8")
    assert code == 2
    assert "dvc.lock: has conflict markers of a git merge" in printed
    assert "git checkout --ours dvc.lock, then run dvc repro" in printed
    assert len(printed.splitlines()) == 1


def test_mlflow_run_does_the_same_under_a_run_of_its_own(unkilled) -> None:
    workspace, _ = unkilled
    params = copy.deepcopy(SMALL)
    params["studies"]["students"]["epochs"] = 10
    workspace.write_params(params)
    before = {run.info.run_id for run in runs(workspace)}
    workspace.run("mlflow", "run", ".", "--env-manager", "local")
    logged = [run for run in runs(workspace) if run.info.run_id not in before]
    (study,) = [run for run in logged if "trial" not in run.data.tags]
    trials = [run for run in logged if "trial" in run.data.tags]
    (outer,) = runs(workspace, "Default")
    assert outer.info.status == "FINISHED"
    assert study.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert [run.data.tags["mlflow.parentRunId"] for run in trials] == [study.info.run_id] * 4
