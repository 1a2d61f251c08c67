"""An end-to-end trial is watched while it trains, and goes on after it was killed."""

import copy
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from .conftest import SMALL, Workspace, clone

pytestmark = pytest.mark.pipeline

EPOCHS = 12
STAGE = "train@streamed"
REPRO = ("dvc", "repro", "--force", "--single-item", STAGE)  # DVC has the results in its cache
PARAMS: dict[str, Any] = copy.deepcopy(SMALL)
PARAMS["studies"] = {
    "streamed": {
        "dataset": "clipart",
        "approach": "end_to_end",
        "augment": "flip",
        "samples_per_class": 4,
        "epochs": EPOCHS,
    }
}
NAME = "streamed: only trial"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the study trained once."""
    workspace = clone(tmp_path_factory.mktemp("undisturbed"), PARAMS)
    workspace.run("dvc", "repro", STAGE)
    return workspace


@pytest.fixture
def untrained(undisturbed: Workspace, tmp_path: Path) -> Workspace:
    """The same workspace, as if the study had never trained, and with a store that has no runs."""
    root = tmp_path / "workspace"
    shutil.copytree(undisturbed.root, root, symlinks=True)
    workspace = Workspace(root)
    for path in ("models/heads", "results", "mlartifacts", ".dvc/tmp", ".dvc/cache/runs"):
        shutil.rmtree(root / path, ignore_errors=True)
    for path in root.glob("*mlflow.db*"):
        path.unlink()
    return workspace


class Store:
    """The runs of a workspace, as another process sees them."""

    def __init__(self, workspace: Workspace) -> None:
        self.uri = f"sqlite:///{workspace.root / 'mlflow.db'}"
        self.path = workspace.root / "mlflow.db"

    def runs(self) -> dict[str, Run]:
        if not self.path.exists():
            return {}
        client = mlflow.MlflowClient(self.uri)
        experiment = client.get_experiment_by_name("clipart")
        if experiment is None:
            return {}
        found = client.search_runs([experiment.experiment_id])
        assert len({run.info.run_name for run in found}) == len(found)
        return {run.info.run_name: run for run in found}

    def epochs(self, run: Run, metric: str = "train_loss") -> list[int]:
        points = mlflow.MlflowClient(self.uri).get_metric_history(run.info.run_id, metric)
        return sorted(point.step for point in points)

    def wait(self, seen: Callable[[dict[str, Run]], bool], while_runs: Any) -> dict[str, Run]:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            runs = self.runs()
            if seen(runs):
                return runs
            assert while_runs.poll() is None, while_runs.stdout.read()
            time.sleep(0.1)
        pytest.fail(f"never seen in the store: {self.runs()}")


def test_a_trial_is_seen_while_it_trains_and_goes_on_after_a_kill(
    untrained: Workspace, undisturbed: Workspace
) -> None:
    store = Store(untrained)
    epoch = random.Random(12).randrange(2, EPOCHS - 3)  # noqa: S311
    process = untrained.start(*REPRO)
    before = store.wait(
        lambda runs: NAME in runs and len(store.epochs(runs[NAME])) >= epoch, process
    )
    run = before[NAME]
    assert run.info.status == before["streamed"].info.status == "RUNNING"
    assert run.data.params["samples_per_class"] == "4"
    assert store.epochs(run)[:epoch] == list(range(1, epoch + 1))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    printed = untrained.run(*REPRO)
    assert "streamed: 2 runs logged to MLflow" in printed
    rooms = ("models/heads", "results")
    assert untrained.files(*rooms) == undisturbed.files(*rooms)
    after = store.runs()
    assert set(after) == {NAME, "streamed"}
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert {after[name].info.run_id == before[name].info.run_id for name in after} == {True}
    assert store.epochs(after[NAME]) == list(range(1, EPOCHS + 1))
    assert store.epochs(after[NAME], "accuracy") == list(range(1, EPOCHS + 1))


def test_sigterm_ends_the_runs_in_order(untrained: Workspace) -> None:
    store = Store(untrained)
    # As a scheduler does it: DVC starts no stage in a group of its own.
    process = untrained.start("vgg16-transfer", "train", "streamed", DVC_STAGE=STAGE)
    store.wait(lambda runs: NAME in runs and bool(store.epochs(runs[NAME])), process)
    for _ in range(2):  # SLURM sends it to a job, and to each of its processes
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.2)
    process.communicate(timeout=120)
    assert process.returncode == 143
    for run in store.runs().values():
        assert (run.info.status, run.data.tags["failure"]) == ("KILLED", "terminated (SIGTERM)")
    left = [path.name for path in (untrained.root / "models" / "heads").iterdir()]
    assert not [name for name in left if name.endswith(".tmp")]
