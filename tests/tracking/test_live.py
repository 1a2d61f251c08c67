"""Runs that are logged while a study trains are those that publish logs afterwards."""

import dataclasses
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from vgg16_transfer.heads import records
from vgg16_transfer.heads.watching import Ended, Times
from vgg16_transfer.tracking.live import Live, watched
from vgg16_transfer.tracking.logged_runs import LOGGING_PROCESS, end_abandoned
from vgg16_transfer.tracking.mlflow_store import Store
from vgg16_transfer.tracking.study_runs import StudyRuns, by_trial

from .conftest import DATASET, log, make_lineage, make_study, write_outputs

EPOCHS = 3
SETTINGS = {"samples_per_class": 2, "seed": [0, 1], "epochs": EPOCHS, "approach": "end_to_end"}
TIMES = Times(1_000_000, 1_000_900, 0.8, 0.1, 7.5)


class Training:
    """A study that trains: what it has told its watcher, and what the store knows of it."""

    def __init__(self, store: Store, root: Path, **settings: Any) -> None:
        self.store = store
        self.study = make_study(**SETTINGS | settings)
        self.outputs = write_outputs(self.study, root / "outputs")
        self.record = records.read(self.outputs.results)
        self.client = store.client()
        self.lineage = dataclasses.replace(
            make_lineage(self.study),
            input_digest="i" * 64,
            times={self.study.trial_name(t): TIMES._asdict() for t in self.study.trials()},
        )
        self.live = self.watch()

    def watch(self) -> Live:
        starting = dataclasses.replace(self.lineage, lock_digest="", started=999_000, times={})
        splits = self.outputs.splits
        return Live(self.study, lambda: StudyRuns(self.store, self.study, starting, splits))

    def runs(self) -> dict[str, Run]:
        experiment = self.client.get_experiment_by_name(DATASET)
        if experiment is None:
            return {}
        found = self.client.search_runs([experiment.experiment_id])
        assert len({run.data.tags.get("trial", "") for run in found}) == len(found)
        return {run.data.tags.get("trial", ""): run for run in found}

    def wait(self, condition: Callable[[dict[str, Run]], bool]) -> dict[str, Run]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            runs = self.runs()
            if condition(runs):
                return runs
            time.sleep(0.05)
        pytest.fail(f"the store never had it: {self.runs()}")

    def epoch(self, trial: str, epoch: int) -> None:
        row = self.record.history.query("trial == @trial and epoch == @epoch").iloc[0]
        self.live.epoch(trial, epoch, row.drop(["trial", "epoch"]).to_dict())

    def end(self, trial: str) -> None:
        heads = (self.outputs.heads / "not there", self.outputs.heads / f"{trial}.keras")
        self.live.ended(trial, Ended(by_trial(self.record)[trial], heads, TIMES))

    def train(self, *trials: str) -> None:
        for trial in trials:
            self.live.began(trial, TIMES.started)
            for epoch in range(1, EPOCHS + 1):
                self.epoch(trial, epoch)
            self.end(trial)

    def publish(self) -> int:
        return log(self.store, self.study, self.outputs, self.lineage)

    def steps(self, run: Run, metric: str) -> list[int]:
        history = self.client.get_metric_history(run.info.run_id, metric)
        return sorted(point.step for point in history)


@pytest.fixture
def training(store: Store, tmp_path: Path) -> Training:
    return Training(store, tmp_path)


def test_a_run_is_seen_while_its_trial_trains_epoch_by_epoch(training: Training) -> None:
    training.live.began("seed=0", TIMES.started)
    runs = training.wait(lambda runs: bool("seed=0" in runs and runs["seed=0"].data.params))
    run = runs["seed=0"]
    assert run.info.status == runs[""].info.status == "RUNNING"
    assert run.data.params["samples_per_class"] == "2"
    assert run.data.tags["mlflow.parentRunId"] == runs[""].info.run_id
    assert run.data.tags["dvc.input_digest"] == "i" * 64
    assert "dvc.lock_digest" not in run.data.tags
    (split,) = training.wait(lambda runs: bool(runs["seed=0"].inputs.dataset_inputs))[
        "seed=0"
    ].inputs.dataset_inputs
    assert split.dataset.name == "animals split 0"
    for epoch in (1, 2):
        training.epoch("seed=0", epoch)
        training.wait(
            lambda runs, epoch=epoch: (
                training.steps(runs["seed=0"], "train_loss") == list(range(1, epoch + 1))
            )
        )
    assert training.runs()["seed=0"].info.status == "RUNNING"
    training.epoch("seed=0", 3)
    training.end("seed=0")
    run = training.wait(lambda runs: runs["seed=0"].info.status == "FINISHED")["seed=0"]
    assert training.steps(run, "train_loss") == [1, 2, 3]
    assert training.runs()[""].info.status == "RUNNING"
    training.live.close()


def described(run: Run) -> dict[str, Any]:
    """What a run holds, without its id, that of its parent, and when and by whom it was logged."""
    varying = {LOGGING_PROCESS, "mlflow.parentRunId", "artifacts"}
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "end": run.info.end_time,
        "params": run.data.params,
        "metrics": {k: v for k, v in run.data.metrics.items() if not k.startswith("system/")},
        "tags": {k: v for k, v in run.data.tags.items() if k not in varying},
        "inputs": [one.dataset.digest for one in run.inputs.dataset_inputs],
        "models": len(run.outputs.model_outputs) if run.outputs else 0,
    }


def test_live_runs_and_replayed_runs_are_the_same(training, make_store, tmp_path) -> None:
    training.live.began("seed=0", TIMES.started)
    training.wait(lambda runs: "seed=0" in runs)  # the store is open: the rest is logged live
    for trial in ("seed=0", "seed=1"):
        training.train(trial) if trial == "seed=1" else training.end(trial)
    training.live.close()
    live = {name: run.info.run_id for name, run in training.runs().items()}
    assert {run.info.status for name, run in training.runs().items() if name} == {"FINISHED"}
    assert training.publish() == 1  # the study's own run
    assert {name: run.info.run_id for name, run in training.runs().items()} == live
    assert training.publish() == 0

    replayed = Training(make_store(tmp_path / "other"), tmp_path / "again")
    assert replayed.publish() == 3
    for name, run in training.runs().items():
        if name:
            assert described(run) == described(replayed.runs()[name])


def test_a_store_that_is_not_open_when_the_study_is_over_is_left_to_publish(
    training: Training, monkeypatch
) -> None:
    opening, go = threading.Event(), threading.Event()
    starting = training.live._open

    def slowly() -> StudyRuns:
        opening.set()
        go.wait(60)
        return starting()

    monkeypatch.setattr(training.live, "_open", slowly)
    training.train("seed=0", "seed=1")
    assert opening.wait(60)
    training.live.close()
    go.set()
    training.live._thread.join(60)
    assert training.runs() == {}
    assert training.publish() == 3


def test_a_store_that_fails_in_the_middle_costs_nothing(training: Training, monkeypatch) -> None:
    training.live.began("seed=0", TIMES.started)
    training.wait(lambda runs: "seed=0" in runs)

    def down(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(type(training.live._runs.client), "log_batch", down)
        training.end("seed=0")
        training.live._thread.join(60)
        training.train("seed=1")
        training.live.close()
    before = training.runs()["seed=0"].info.run_id
    assert training.publish() == 3
    assert training.runs()["seed=0"].info.run_id == before
    assert {run.info.status for run in training.runs().values()} == {"FINISHED"}


@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (KeyboardInterrupt(), "KILLED", "interrupted (Ctrl-C)"),
        (SystemExit(143), "KILLED", "terminated (SIGTERM)"),
        (ValueError("no such picture\nmore"), "FAILED", "no such picture"),
    ],
)
def test_runs_end_as_the_study_did_and_go_on_later(
    training: Training, error: BaseException, status: str, why: str
) -> None:
    training.live.began("seed=0", TIMES.started)
    training.wait(lambda runs: "seed=0" in runs)
    training.epoch("seed=0", 1)
    training.wait(lambda runs: training.steps(runs["seed=0"], "train_loss") == [1])
    with pytest.raises(type(error)), watched(training.live):
        raise error
    before = training.runs()
    for run in before.values():
        assert (run.info.status, run.data.tags["failure"]) == (status, why)

    training.live = training.watch()
    training.live.began("seed=0", TIMES.started)
    runs = training.wait(lambda runs: runs["seed=0"].info.status == "RUNNING")
    assert runs["seed=0"].info.run_id == before["seed=0"].info.run_id
    # The first is not trained again. The second was kept, but the process died before it told.
    training.epoch("seed=0", 3)
    training.end("seed=0")
    training.train("seed=1")
    training.live.close()
    assert training.publish() == 1
    for name, run in training.runs().items():
        assert run.info.status == "FINISHED"
        assert not {"failure", "broken"} & set(run.data.tags)
        if name:
            assert training.steps(run, "train_loss") == [1, 2, 3]
    assert training.runs()["seed=0"].info.run_id == before["seed=0"].info.run_id


def test_a_trial_that_breaks_is_a_failed_run_until_it_is_trained(training: Training) -> None:
    training.live.began("seed=0", TIMES.started)
    training.wait(lambda runs: "seed=0" in runs)
    training.live.broke("seed=0", "out of memory")
    run = training.wait(lambda runs: runs["seed=0"].info.status == "FAILED")["seed=0"]
    assert run.data.tags["failure"] == "out of memory"
    training.train("seed=1")
    training.live.close()
    training.live = training.watch()
    training.live.began("seed=0", TIMES.started)
    training.wait(lambda runs: runs["seed=0"].info.status == "RUNNING")
    training.end("seed=0")
    training.live.close()
    assert training.runs()["seed=0"].info.status == "FINISHED"
    assert training.publish() == 1


def test_the_run_of_a_killed_process_ends_when_the_study_trains_again_otherwise(
    training: Training,
) -> None:
    training.live.began("seed=0", TIMES.started)
    run = training.wait(lambda runs: "seed=0" in runs)["seed=0"]
    training.live.close()
    alive = run.data.tags[LOGGING_PROCESS]
    experiment = run.info.experiment_id
    end_abandoned(training.client, experiment, "samples", set())
    assert training.runs()["seed=0"].info.status == "RUNNING"  # this process is alive
    dead = alive.replace(alive.split()[-2], str(2**22 + 1))
    training.client.set_tag(run.info.run_id, LOGGING_PROCESS, dead)
    end_abandoned(training.client, experiment, "others", set())
    end_abandoned(training.client, experiment, "samples", {run.info.run_id})
    assert training.runs()["seed=0"].info.status == "RUNNING"
    end_abandoned(training.client, experiment, "samples", set())
    assert training.runs()["seed=0"].info.status == "KILLED"
    assert training.runs()[""].info.status == "RUNNING"


def test_other_results_of_the_same_inputs_are_other_runs(training: Training) -> None:
    """Another machine logged while it trained, and was killed; its last digits differ from ours."""
    training.live.began("seed=0", TIMES.started)
    training.wait(lambda runs: "seed=0" in runs)
    training.end("seed=0")
    training.live.close()
    (theirs,) = (run.info.run_id for name, run in training.runs().items() if name)
    path = training.outputs.results / "history.csv"
    history = records.read_frame(path)
    records.write_frame(history.assign(train_loss=history["train_loss"] * 1.0001), path)
    assert training.publish() == 3
    experiment = training.client.get_experiment_by_name(DATASET).experiment_id
    runs = training.client.search_runs([experiment])
    ours = [r for r in runs if r.data.tags.get("trial") == "seed=0" and r.info.run_id != theirs]
    assert len(ours) == 1
    assert "dvc.lock_digest" not in training.client.get_run(theirs).data.tags
    assert training.publish() == 0


def test_what_the_machine_does_is_logged_with_an_end_to_end_trial(training, monkeypatch) -> None:
    monkeypatch.setattr("vgg16_transfer.tracking.system._EVERY", 0.1)
    training.live.began("seed=0", TIMES.started)
    run = training.wait(
        lambda runs: any(
            key.startswith("system/cpu") for run in runs.values() for key in run.data.metrics
        )
    )["seed=0"]
    assert "system/system_memory_usage_megabytes" in run.data.metrics
    training.end("seed=0")
    training.live.close()
    assert not any("system_metrics" in thread.name.lower() for thread in threading.enumerate())


# In a fresh process, as in a stage: which packages does the thread import?
RECORDER = """
imported = set()


class Recorder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if threading.current_thread() is not threading.main_thread():
            imported.add(name)


sys.meta_path.insert(0, Recorder())
"""

IMPORTS = f"""
import importlib.abc
import sys
import threading
from pathlib import Path

from vgg16_transfer.heads import studies
from vgg16_transfer.tracking.log import preload

assert preload(heads=True)
from tests.tracking.conftest import make_study
from tests.tracking.test_live import TIMES, Training
from vgg16_transfer.tracking.mlflow_store import find_store
{RECORDER}
training = Training(find_store(Path(sys.argv[1]), None), Path(sys.argv[1]))
training.live.began("seed=0", TIMES.started)
training.wait(lambda runs: "seed=0" in runs)
training.epoch("seed=0", 1)
training.end("seed=0")
training.live.close()
assert training.live.completed == {{"seed=0"}}
print(",".join(sorted(imported)))
"""


FEATURES = f"""
import importlib.abc
import sys
import threading
from functools import partial
from pathlib import Path

from vgg16_transfer.backbones import features
from vgg16_transfer.tracking.log import preload

assert preload(heads=False)
from vgg16_transfer.lineage.lineage import Lineage
from vgg16_transfer.tracking.features_run import FeaturesRun
from vgg16_transfer.tracking.mlflow_store import find_store
{RECORDER}
store = partial(find_store, Path(sys.argv[1]), None)
lineage = Lineage("features@animals", "", {{}}, None, dirty=False, experiment=None)
run = FeaturesRun("animals", {{"layers": "fc1"}}, store, lambda: lineage)
run.end({{"seconds": 1.0}})
print(",".join(sorted(imported)))
"""


@pytest.mark.parametrize("script", [IMPORTS, FEATURES], ids=["train", "features"])
def test_the_thread_imports_no_package_that_its_stage_imports(script, tmp_path, database) -> None:
    shutil.copyfile(database, tmp_path / database.name)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    shared = {"tensorflow", "keras", "h5py", "scipy", "sklearn", "dvc"}
    imported = done.stdout.strip().split(",")
    assert imported != [""]  # what reports imports works
    assert [name for name in imported if name.partition(".")[0] in shared] == []
