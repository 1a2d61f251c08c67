"""Of two runs of one trial that two processes created at once, one stays."""

import os
import platform

import pytest
from mlflow.entities import Run, RunData, RunInfo, RunTag, ViewType

from vgg16_transfer.heads.watching import milliseconds
from vgg16_transfer.tracking import publish, study_runs
from vgg16_transfer.tracking.logged_runs import (
    LOGGING_PROCESS,
    is_logged_elsewhere,
    logged_runs,
    remove_duplicates,
)

from .conftest import log, make_lineage, make_study, write_outputs

ONE = {"samples_per_class": 2, "seed": 0}


@pytest.fixture
def duplicates(store, tmp_path, monkeypatch):
    """A study that two processes logged, neither of which saw the runs of the other."""
    study = make_study(**ONE)
    outputs = write_outputs(study, tmp_path / "outputs")
    lineage = make_lineage(study)
    with monkeypatch.context() as patch:
        patch.setattr(study_runs, "logged_runs", lambda *_: {})
        patch.setattr(publish, "remove_duplicates", lambda *_: None)
        log(store, study, outputs, lineage)
        log(store, study, outputs, lineage)
    client = store.client()
    experiment = store.experiment(client, study.dataset)
    assert len(client.search_runs([experiment])) == 4
    return client, experiment, study, outputs, lineage


def test_the_run_that_was_whole_first_stays_below_the_one_parent(store, duplicates) -> None:
    client, experiment, study, outputs, lineage = duplicates
    made = sorted(client.search_runs([experiment]), key=lambda run: run.info.end_time)
    trial, parent = made[:2]
    assert log(store, study, outputs, lineage) == 0
    left = {run.info.run_id: run for run in client.search_runs([experiment])}
    assert set(left) == {trial.info.run_id, parent.info.run_id}
    assert left[trial.info.run_id].data.tags["mlflow.parentRunId"] == parent.info.run_id
    models = client.search_logged_models([experiment])
    assert [model.source_run_id for model in models] == [trial.info.run_id]


def test_a_trial_moves_to_the_parent_that_stays(duplicates) -> None:
    client, experiment, _, _, lineage = duplicates
    made = sorted(client.search_runs([experiment]), key=lambda run: run.info.end_time)
    client.delete_run(made[0].info.run_id)  # the second process was faster with the trial
    remove_duplicates(client, experiment, lineage, {})
    kept = logged_runs(client, experiment, lineage)
    assert kept[""].info.run_id == made[1].info.run_id
    assert kept["only"].data.tags["mlflow.parentRunId"] == made[1].info.run_id


def test_a_run_that_another_process_is_logging_is_its_own_to_remove(duplicates) -> None:
    client, experiment, _, _, lineage = duplicates
    made = sorted(client.search_runs([experiment]), key=lambda run: run.info.end_time)
    client.update_run(made[2].info.run_id, status="RUNNING")
    remove_duplicates(client, experiment, lineage, {})
    assert made[2].info.run_id in {run.info.run_id for run in client.search_runs([experiment])}
    remove_duplicates(client, experiment, lineage, logged_runs(client, experiment, lineage))
    assert made[2].info.run_id not in {run.info.run_id for run in client.search_runs([experiment])}


def test_known_runs_finds_more_than_a_page_holds(store, monkeypatch) -> None:
    client = store.client()
    lineage = make_lineage(make_study(**ONE))
    experiment = store.experiment(client, "animals")
    for index in range(3):
        client.create_run(experiment, tags=lineage.tags() | {"trial": str(index)})
    search = client.search_runs
    monkeypatch.setattr(client, "search_runs", lambda *a, **k: search(*a, max_results=1, **k))
    assert set(logged_runs(client, experiment, lineage)) == {"0", "1", "2"}
    assert len(search([experiment], run_view_type=ViewType.ALL)) == 3


def run_logged_by(process: str, status: str = "RUNNING") -> Run:
    info = RunInfo("a", "1", "u", status, 0, None, "active")
    return Run(info, RunData(tags=[RunTag(LOGGING_PROCESS, process)]))


@pytest.mark.parametrize(
    ("process", "age", "elsewhere"),
    [
        (f"{platform.node()} {os.getppid()}", 1_000, True),
        (f"{platform.node()} {os.getpid()}", 1_000, False),
        (f"{platform.node()} {2**22 + 1}", 1_000, False),  # Linux has no process of that number
        (f"{platform.node()} {os.getppid()}", 61_000, False),
        ("another machine 1", 1_000, True),
        ("another machine 1", 61_000, False),
    ],
    ids=["alive", "oneself", "dead", "too long", "elsewhere", "elsewhere too long"],
)
def test_a_run_that_another_process_is_logging_is_left_to_it(process, age, elsewhere) -> None:
    assert is_logged_elsewhere(run_logged_by(f"{process} {milliseconds() - age}")) is elsewhere
    assert not is_logged_elsewhere(run_logged_by(f"{process} {milliseconds() - age}", "FINISHED"))


def test_a_run_without_a_logging_process_is_nobodys() -> None:
    assert not is_logged_elsewhere(
        Run(RunInfo("a", "1", "u", "RUNNING", 0, None, "active"), RunData())
    )
