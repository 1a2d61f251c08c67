"""Two commands at once in one workspace: both are right, or one says that it is busy."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.pipeline.conftest import SMALL, Workspace, clone, stages_run

SCRIPT = Path(sys.executable).with_name("vgg16-transfer")
PARAMS = SMALL | {"studies": {"samples": SMALL["studies"]["samples"]}}
ROOMS = ("models", "results", "data/features", "data/splits", "reports")
BUSY = ("is busy", "is busy, it is being blocked by", "Unable to acquire lock")


def check(processes: list[subprocess.Popen[str]]) -> list[int]:
    """Waits for commands: none has a traceback, and one that fails says that another is at work."""
    codes = []
    for process in processes:
        printed, _ = process.communicate(timeout=600)
        assert "Traceback" not in printed, printed
        assert process.returncode == 0 or any(words in printed for words in BUSY), printed
        codes.append(process.returncode)
    assert 0 in codes
    return codes


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SCRIPT, *arguments],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_times_one_study_by_hand(trained, tmp_path: Path) -> None:
    workspace = trained.copy(tmp_path / "w")
    folders = [workspace.root / "models" / "heads" / "few", workspace.root / "results" / "few"]
    before = {path: path.read_bytes() for folder in folders for path in folder.iterdir()}
    check([start(workspace.root, "train", "few") for _ in range(2)])
    after = {path: path.read_bytes() for folder in folders for path in folder.iterdir()}
    assert after == before
    hidden = [*(workspace.root / "models").rglob(".*"), *(workspace.root / "results").rglob(".*")]
    assert hidden == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = clone(tmp_path_factory.mktemp("whole"), PARAMS)
    workspace.run("dvc", "repro")
    return workspace


def copied(whole: Workspace, folder: Path) -> Workspace:
    whole.run("cp", "-r", str(whole.root), str(folder))
    return Workspace(folder)


def check_whole(workspace: Workspace, whole: Workspace, runs: int) -> None:
    import mlflow

    workspace.run("dvc", "repro")
    workspace.run("vgg16-transfer", "publish")
    assert workspace.files(*ROOMS) == whole.files(*ROOMS)
    assert workspace.read("dvc.lock") == whole.read("dvc.lock")
    assert stages_run(workspace.run("dvc", "repro")) == []
    client = mlflow.MlflowClient(f"sqlite:///{workspace.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("clipart")
    logged = client.search_runs([experiment.experiment_id], max_results=500)
    assert {run.info.status for run in logged} == {"FINISHED"}
    assert len(logged) == runs


@pytest.mark.pipeline
@pytest.mark.torture
def test_two_repro(whole: Workspace, tmp_path: Path) -> None:
    workspace = clone(tmp_path / "w", PARAMS)
    check([workspace.start("dvc", "repro") for _ in range(2)])
    check_whole(workspace, whole, 5)


@pytest.mark.pipeline
@pytest.mark.torture
def test_repro_and_publish(whole: Workspace, tmp_path: Path) -> None:
    workspace = copied(whole, tmp_path / "w")
    workspace.run("rm", "-r", "mlflow.db", "mlartifacts")
    check([workspace.start("vgg16-transfer", "publish") for _ in range(2)])
    check(
        [
            workspace.start("dvc", "repro", "--force", "train@samples"),
            workspace.start("vgg16-transfer", "publish"),
        ]
    )
    check_whole(workspace, whole, 5)


@pytest.mark.pipeline
@pytest.mark.torture
def test_two_experiments(whole: Workspace, tmp_path: Path) -> None:
    workspace = copied(whole, tmp_path / "w")
    workspace.run("git", "add", "--all")
    workspace.run("git", "commit", "--quiet", "--message", "trained")
    changes = [("one", "studies.samples.epochs=5"), ("two", "studies.samples.epochs=6")]
    codes = check(
        [workspace.start("dvc", "exp", "run", "--temp", "-n", n, "-S", c) for n, c in changes]
    )
    for code, (name, change) in zip(codes, changes, strict=True):
        if code:
            workspace.run("dvc", "exp", "run", "--temp", "-n", name, "-S", change)
    check_whole(workspace, whole, 15)
