"""When ``vgg16-transfer publish`` asks MLflow, and when it need not."""

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from sqlalchemy import make_url

from vgg16_transfer import tracking
from vgg16_transfer.cli import runs
from vgg16_transfer.lineage import lineage, locked
from vgg16_transfer.params import check_params
from vgg16_transfer.tracking import log, logged
from vgg16_transfer.tracking.mlflow_store import Store, find_store
from vgg16_transfer.workspace import Workspace

PARAMS = {
    "backbone": {"weights": "random-conv"},
    "datasets": {"animals": {"source": "animals.tar", "layers": ["block5_pool"]}},
    "studies": {"few": {"dataset": "animals"}},
}

LOCKED = lineage.Lineage("train@few", "0" * 64, {}, None, dirty=False, experiment=None)


def lock(root: Path, train: str = "train", report: str = "report") -> None:
    """A dvc.lock whose entries have these commands."""
    stages = {"train@few": {"cmd": train}, "report": {"cmd": report}}
    YAML(typ="safe", pure=True).dump({"schema": "2.0", "stages": stages}, root / "dvc.lock")


@pytest.fixture
def calls(tmp_path, monkeypatch) -> list[str]:
    """The studies and pages that were logged. The current folder is a workspace."""
    calls: list[str] = []
    monkeypatch.setattr(locked, "check_locked", lambda *_: None)
    monkeypatch.setattr(locked, "check_current", lambda *_: None)
    monkeypatch.setattr(runs, "log_study", lambda *given: calls.append(given[3]))
    monkeypatch.setattr(runs, "log_pages", lambda *_, **__: calls.append("pages") or [])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    YAML(typ="safe", pure=True).dump(PARAMS, tmp_path / "params.yaml")
    lock(tmp_path)
    (tmp_path / "mlflow.db").touch()
    return calls


def test_mlflow_is_asked_once_for_the_same_lock_file(calls, capsys) -> None:
    runs.publish(if_new=True)
    runs.publish(if_new=True)
    assert calls == ["few", "pages"]
    assert "these results are already logged to MLflow" in capsys.readouterr().err


def test_a_store_that_was_thrown_away_is_filled_again(calls, tmp_path) -> None:
    runs.publish(if_new=True)
    (tmp_path / "mlflow.db").unlink()
    runs.publish(if_new=True)
    assert calls == ["few", "pages"] * 2


def test_by_hand_it_is_always_asked(calls) -> None:
    runs.publish()
    runs.publish()
    assert calls == ["few", "pages"] * 2


@pytest.mark.parametrize("other", [{"train": "another"}, {"report": "another"}])
def test_another_lock_file_is_logged(other: dict[str, str], calls, tmp_path) -> None:
    runs.publish(if_new=True)
    lock(tmp_path, **other)
    runs.publish(if_new=True)
    assert calls == ["few", "pages"] * 2


def test_what_the_stages_logged_themselves_is_not_asked_again(calls, tmp_path) -> None:
    entries = locked.lock_entries(tmp_path)
    for stage, held in entries.items():
        digest = locked.lock_digest(held)
        logged.note(tmp_path, None, replace(LOCKED, stage=stage, lock_digest=digest))
    runs.publish(if_new=True)
    assert calls == []
    logged.note(tmp_path, None, LOCKED)  # its last try failed: an older one is noted
    runs.publish(if_new=True)
    assert calls == ["few", "pages"]


def test_no_address_of_a_store_is_written_down(calls, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:1")
    runs.publish(if_new=True)
    notes = [path for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()]
    assert len(notes) == 2
    assert not any("hush" in path.read_text() for path in notes)


def test_another_store_is_logged_to(calls, monkeypatch) -> None:
    runs.publish(if_new=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    runs.publish(if_new=True)
    assert calls == ["few", "pages"] * 2


def test_what_could_not_be_logged_is_asked_again(calls, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise lineage.LineageError("no")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "log_pages", fail)
        with pytest.raises(lineage.LineageError):
            runs.publish(if_new=True)
    runs.publish(if_new=True)
    assert calls == ["few", "few", "pages"]


def test_a_store_may_be_named(calls, tmp_path, monkeypatch) -> None:
    stores = []
    monkeypatch.setattr(runs, "log_study", lambda store, *_: stores.append(store.uri))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///environment.db")
    runs.publish(to="sqlite:///named.db")
    runs.publish()
    assert stores == [f"sqlite:///{tmp_path / name}.db" for name in ("named", "environment")]


class Pages:
    """Stands in for the module: notes what it was asked to log, and logs nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def publish(*given: Any, check: bool) -> int:
            study = given[1].name if name != "publish_report" else ""
            self.asked.append((name.removeprefix("publish_"), study, given[-1].stage, check))
            return 1

        return publish


@pytest.mark.parametrize("check", [False, True])
def test_pages_are_logged_by_the_digest_of_their_own_stage(
    check: bool, tmp_path, monkeypatch
) -> None:
    studies = {name: {"dataset": "animals"} for name in ("few", "many")}
    params = check_params(PARAMS | {"studies": studies})
    monkeypatch.setattr(
        lineage,
        "locked_stages",
        lambda _, stages: {stage: replace(LOCKED, stage=stage) for stage in stages},
    )
    pages = Pages()
    monkeypatch.setattr(tracking, "pages", pages, raising=False)
    monkeypatch.setitem(sys.modules, "vgg16_transfer.tracking.pages", pages)
    store = Store("http://127.0.0.1:1", None)
    origin = replace(LOCKED, stage="report")
    sentences = log.log_pages(store, params, Workspace(tmp_path), origin, check=check)
    assert pages.asked == [
        *(
            one
            for study in studies
            for one in (
                ("filters", study, "filters@animals", check),
                ("gradients", study, "gradients@animals", check),
                ("explained", study, f"explain@{study}", check),
            )
        ),
        ("report", "", "report", check),
    ]
    assert sentences == [
        *(f"{study}: pictures added to its run at {store}" for study in studies),
        f"report: logged to MLflow at {store}",
    ]


def test_publish_asks_whether_files_are_still_there(calls, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(runs, "log_pages", lambda *_, check: asked.append(check) or [])
    runs.publish()
    assert asked == [True]


def test_a_port_that_is_taken_is_named_before_the_server_starts(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    YAML(typ="safe", pure=True).dump(PARAMS, tmp_path / "params.yaml")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = run("ui", "--port", str(port))
    assert outcome.code == 2
    assert outcome.err == (
        f"error: ui: port {port} is not available (Address already in use); choose another one, "
        f"like --port {port + 1}\n"
    )
    assert not (tmp_path / "mlflow.db").exists()


def test_the_ui_is_that_of_this_workspace_and_its_artifacts(run, tmp_path, monkeypatch) -> None:
    """A copied store is corrected before the server reads it."""
    root = tmp_path / "my%20project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    YAML(typ="safe", pure=True).dump(PARAMS, root / "params.yaml")
    client = find_store(root, None).client()
    kept = client.create_experiment("animals")
    client.create_run(kept, run_name="few", tags={"study": "few"})
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "")
    monkeypatch.delenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION")  # and restore it at the end
    monkeypatch.setenv("PYTHONWARNINGS", "")
    monkeypatch.delenv("PYTHONWARNINGS")
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: started.append(arguments))
    opened: list[tuple[str, str]] = []
    monkeypatch.setattr(runs, "_open_when_ready", lambda *given: opened.append(given))
    monkeypatch.setattr(runs, "_has_a_screen", lambda: True)
    outcome = run("ui", "--port", "5678")
    (arguments,) = started
    assert os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert os.environ["PYTHONWARNINGS"].startswith("ignore:starlette")
    uri = arguments[arguments.index("--backend-store-uri") + 1]
    assert make_url(uri).database == str(root / "mlflow.db")
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    server = "http://127.0.0.1:5678"
    page = (
        f"{server}/#/experiments/{kept}/runs?workflowType=machine_learning"
        "&viewStateShareKey=vgg16-transfer"
    )
    assert f"runs of animals: {page}\n" in outcome.err
    assert opened == [(server, page)]
    view = json.loads(client.get_experiment(kept).tags["mlflow.sharedViewState.vgg16-transfer"])
    assert {"metrics.`accuracy`", "params.`samples_per_class`"} <= set(view["selectedColumns"])
    assert {"mode": "param", "groupByData": "samples_per_class"} in view["groupBy"]["groupByKeys"]


@pytest.mark.parametrize("options", [["--no-open"], []])
def test_the_ui_opens_no_browser_without_a_screen_or_if_told_so(
    run, tmp_path, monkeypatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    YAML(typ="safe", pure=True).dump(PARAMS, tmp_path / "params.yaml")
    client = find_store(tmp_path, None).client()
    client.create_experiment("animals")
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, ":0" if options else "")
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: started.append(arguments))
    opened: list[Any] = []
    monkeypatch.setattr(runs, "_open_when_ready", lambda *given: opened.append(given))
    run("ui", "--port", "5678", *options)
    assert (len(started), opened) == (1, [])


def test_a_workspace_without_runs_says_how_to_get_some(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    YAML(typ="safe", pure=True).dump(PARAMS, tmp_path / "params.yaml")
    monkeypatch.setattr(os, "execv", lambda *_: None)
    assert "it has no runs yet; dvc repro makes some" in run("ui", "--port", "5678").err
