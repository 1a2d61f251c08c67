"""Runs that are logged while a study trains are those that publish logs afterwards."""

import dataclasses
import os
import threading
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from vgg16_transfer.heads import records
from vgg16_transfer.heads.watching import Ended, Times
from vgg16_transfer.lineage.lineage import Lineage
from vgg16_transfer.tracking import background
from vgg16_transfer.tracking.background import LOST, ending
from vgg16_transfer.tracking.live import StudyLogger, live_runs
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

    def watch(self) -> StudyLogger:
        starting = dataclasses.replace(self.lineage, lock_digest="", started=999_000, times={})
        open_runs = partial(StudyRuns, self.store, self.study, starting, self.outputs.splits)
        return StudyLogger(self.study, open_runs, self.publish_rest)

    def publish_rest(self, _lineage: Lineage, completed: set[str]) -> str:
        return ", ".join([str(self.publish()), *sorted(completed)])

    def runs(self) -> dict[str, Run]:
        experiment = self.client.get_experiment_by_name(DATASET)
        if experiment is None:
            return {}
        found = self.client.search_runs([experiment.experiment_id])
        assert len({run.data.tags.get("trial", "") for run in found}) == len(found)
        return {run.data.tags.get("trial", ""): run for run in found}

    def epoch(self, trial: str, epoch: int) -> None:
        row = self.record.history.query("trial == @trial and epoch == @epoch").iloc[0]
        self.live.epoch(trial, epoch, 1_000_000 + epoch, row.drop(["trial", "epoch"]).to_dict())

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
    run, study = (training.runs()[name] for name in ("seed=0", ""))
    assert run.info.status == study.info.status == "RUNNING"
    assert run.data.params["samples_per_class"] == "2"
    assert run.data.tags["mlflow.parentRunId"] == study.info.run_id
    assert run.data.tags["dvc.input_digest"] == "i" * 64
    assert "dvc.lock_digest" not in run.data.tags
    (split,) = run.inputs.dataset_inputs
    assert split.dataset.name == "animals split 0"
    for epoch in (1, 2):
        training.epoch("seed=0", epoch)
        assert training.steps(run, "train_loss") == list(range(1, epoch + 1))
    assert training.runs()["seed=0"].info.status == "RUNNING"
    training.epoch("seed=0", 3)
    training.end("seed=0")
    assert training.runs()["seed=0"].info.status == "FINISHED"
    assert training.steps(run, "train_loss") == [1, 2, 3]
    assert training.runs()[""].info.status == "RUNNING"


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
    training.train("seed=0", "seed=1")
    live = {name: run.info.run_id for name, run in training.runs().items()}
    assert {run.info.status for name, run in training.runs().items() if name} == {"FINISHED"}
    # The rest is the study's own run.
    assert training.live.publish(training.lineage) == "1, seed=0, seed=1"
    assert {name: run.info.run_id for name, run in training.runs().items()} == live
    assert training.publish() == 0

    replayed = Training(make_store(tmp_path / "other"), tmp_path / "again")
    assert replayed.publish() == 3
    for name, run in training.runs().items():
        if name:
            assert described(run) == described(replayed.runs()[name])


def test_a_store_that_fails_in_the_middle_costs_nothing(training: Training, monkeypatch) -> None:
    training.live.began("seed=0", TIMES.started)

    def down(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", down)
        with pytest.raises(OSError, match="no route"):
            training.end("seed=0")
    before = training.runs()["seed=0"].info.run_id
    assert training.live.publish(training.lineage) == "3"
    assert training.runs()["seed=0"].info.run_id == before
    assert {run.info.status for run in training.runs().values()} == {"FINISHED"}


def test_a_study_is_logged_in_another_process(training, monkeypatch) -> None:
    """As where processes are not forked; tests of pipelines fork it."""
    monkeypatch.setattr(background, "Process", get_context("spawn").Process)
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # the new process imports this module
    # The object itself can be sent to another process, as long as it has not opened the store.
    with live_runs(partial(identity, training.watch())) as training.live:
        for trial in ("seed=0", "seed=1"):
            training.live.began(trial, TIMES.started)
            training.end(trial)
        assert training.live.publish(training.lineage) == "1, seed=0, seed=1"
    runs = training.runs()
    assert len(runs) == 3
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert f" {os.getpid()} " not in runs["seed=0"].data.tags[LOGGING_PROCESS]
    assert training.publish() == 0


def identity(logger: StudyLogger) -> StudyLogger:
    return logger


@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (KeyboardInterrupt(), "KILLED", "interrupted (Ctrl-C)"),
        (SystemExit(143), "KILLED", "terminated (SIGTERM)"),
        (ValueError("no such picture\nmore"), "FAILED", "no such picture"),
        (None, "KILLED", LOST),
    ],
)
def test_runs_end_as_the_study_did_and_go_on_later(
    training: Training, error: BaseException | None, status: str, why: str
) -> None:
    training.live.began("seed=0", TIMES.started)
    training.epoch("seed=0", 1)
    training.live.stop(*(("KILLED", LOST) if error is None else ending(error)))
    before = training.runs()
    for run in before.values():
        assert (run.info.status, run.data.tags["failure"]) == (status, why)

    training.live = training.watch()
    training.live.began("seed=0", TIMES.started)
    run = training.runs()["seed=0"]
    assert run.info.status == "RUNNING"
    assert run.info.run_id == before["seed=0"].info.run_id
    # The first is not trained again. The second was kept, but the process died before it told.
    training.epoch("seed=0", 3)
    training.end("seed=0")
    training.train("seed=1")
    assert training.publish() == 1
    for name, run in training.runs().items():
        assert run.info.status == "FINISHED"
        assert not {"failure", "broken"} & set(run.data.tags)
        if name:
            assert training.steps(run, "train_loss") == [1, 2, 3]
    assert training.runs()["seed=0"].info.run_id == before["seed=0"].info.run_id


def test_a_study_that_is_over_does_not_end_again(training: Training) -> None:
    training.train("seed=0", "seed=1")
    training.live.publish(training.lineage)
    training.live.stop("KILLED", LOST)
    assert {run.info.status for run in training.runs().values()} == {"FINISHED"}


def test_a_trial_that_breaks_is_a_failed_run_until_it_is_trained(training: Training) -> None:
    training.live.began("seed=0", TIMES.started)
    training.live.broke("seed=0", "out of memory")
    run = training.runs()["seed=0"]
    assert run.info.status == "FAILED"
    assert run.data.tags["failure"] == "out of memory"
    training.train("seed=1")
    training.live = training.watch()
    training.live.began("seed=0", TIMES.started)
    assert training.runs()["seed=0"].info.status == "RUNNING"
    training.end("seed=0")
    assert training.runs()["seed=0"].info.status == "FINISHED"
    assert training.publish() == 1


def test_the_run_of_a_killed_process_ends_when_the_study_trains_again_otherwise(
    training: Training,
) -> None:
    training.live.began("seed=0", TIMES.started)
    run = training.runs()["seed=0"]
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
    training.end("seed=0")
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
    deadline = time.monotonic() + 60
    metrics: dict[str, float] = {}
    while not any(key.startswith("system/cpu") for key in metrics):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        metrics = training.runs()["seed=0"].data.metrics
    assert "system/system_memory_usage_megabytes" in metrics
    training.end("seed=0")
    assert not any("system_metrics" in thread.name.lower() for thread in threading.enumerate())
