"""What ``vgg16-transfer train`` hands on of the environment that it runs in."""

import errno
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from ruamel.yaml import YAML
from sqlalchemy.exc import OperationalError

from vgg16_transfer.backbones.store import FeaturesError
from vgg16_transfer.cli import runs, stages
from vgg16_transfer.heads import studies
from vgg16_transfer.heads.studies import Done
from vgg16_transfer.lineage import lineage, locked, origins
from vgg16_transfer.lineage.lineage import Lineage
from vgg16_transfer.tracking import live, publish
from vgg16_transfer.tracking.background import Logger
from vgg16_transfer.tracking.mlflow_store import TrackingError
from vgg16_transfer.tracking.reach import TrackingRefusedError, TrackingUnreachableError

PARAMS = {
    "backbone": {"weights": "random-conv"},
    "datasets": {"animals": {"source": "animals.tar", "layers": ["block5_pool"]}},
    "studies": {"few": {"dataset": "animals"}},
}
STUDY = "few"


class Here(nullcontext):
    """Logs in this process what a stage asks for at its end."""

    def __init__(self, make: Callable[[], Logger]) -> None:
        super().__init__(self)
        ForkingPickler.dumps(make)  # not every platform forks: it is sent to a new process
        self.logger = make()

    def ask(self, method: Callable[..., object], *given: object) -> object:
        return method(self.logger, *given)


@pytest.fixture
def calls(tmp_path, monkeypatch) -> dict[str, Any]:
    """What the command calls, with what; nothing of it is done. The current folder is empty."""
    seen: dict[str, Any] = {}

    def train_study(*given: Any, **_: Any):
        seen["train_study"] = given
        return Done([], {})

    def running_stage(*given: Any):
        seen["running_stage"] = given
        return Lineage("train@few", "0" * 64, {}, None, dirty=False, experiment=given[-1])

    def publish_study(*given: Any, **named: Any):
        seen["publish_study"] = given
        seen["named"] = named
        seen["environment"] = dict(os.environ)
        return 0

    monkeypatch.setattr(studies, "train_study", train_study)
    monkeypatch.setattr(lineage, "running_stage", running_stage)
    monkeypatch.setattr(origins, "remember", lambda *given: seen.update(remember=given))
    monkeypatch.setattr(publish, "publish_study", publish_study)
    monkeypatch.setattr(live, "Background", Here)
    for name in ("DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    YAML(typ="safe", pure=True).dump(PARAMS, Path("params.yaml"))
    return seen


def test_by_hand_it_trains_and_logs_nothing(calls, capsys) -> None:
    stages.train(STUDY)
    assert list(calls) == ["train_study"]
    assert "nothing is logged to MLflow" in capsys.readouterr().err


def test_a_stage_hands_on_its_name_and_that_of_the_experiment(calls, monkeypatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@few")
    monkeypatch.setenv("DVC_EXP_NAME", "brave-ant")
    stages.train(STUDY)
    assert calls["running_stage"] == (Path.cwd(), "train@few", "brave-ant")
    _, study, origin = calls["publish_study"]
    assert (study.name, origin.experiment) == ("few", "brave-ant")
    assert calls["named"]["parent_run_id"] is None
    assert origin.started <= origin.ended
    assert calls["remember"] == (Path.cwd() / "results" / "few", origin)


def test_the_run_of_mlflow_run_becomes_the_parent_and_leaks_no_further(calls, monkeypatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@few")
    monkeypatch.setenv("MLFLOW_RUN_ID", "d" * 32)
    stages.train(STUDY)
    assert calls["named"]["parent_run_id"] == "d" * 32
    assert "MLFLOW_RUN_ID" not in calls["environment"]


def test_the_store_lies_in_the_workspace(calls, monkeypatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@few")
    stages.train(STUDY)
    store = calls["publish_study"][0]
    assert store.uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def test_the_store_of_an_experiment_lies_in_the_root_and_its_results_in_the_copy(
    calls, monkeypatch, tmp_path_factory
) -> None:
    root = tmp_path_factory.mktemp("root")
    monkeypatch.setenv("DVC_STAGE", "train@few")
    monkeypatch.setenv("DVC_ROOT", str(root))
    stages.train(STUDY)
    store = calls["publish_study"][0]
    assert store.uri == f"sqlite:///{root / 'mlflow.db'}"
    assert calls["named"]["results"] == Path.cwd() / "results" / "few"


def test_the_store_is_the_one_that_the_environment_names(calls, monkeypatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@few")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    stages.train(STUDY)
    assert calls["publish_study"][0].uri == "http://127.0.0.1:5000"


def test_nothing_is_logged_of_heads_that_could_not_be_trained(calls, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FeaturesError("no features")

    monkeypatch.setenv("DVC_STAGE", "train@few")
    monkeypatch.setattr(studies, "train_study", fail)
    with pytest.raises(FeaturesError):
        stages.train(STUDY)
    assert calls == {}


@pytest.mark.parametrize("error", [TrackingUnreachableError, TrackingRefusedError, TrackingError])
def test_a_store_that_cannot_be_used_costs_a_stage_one_sentence(
    calls, monkeypatch, capsys, error: type[TrackingError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("http://runs.example.org: can't be reached")

    monkeypatch.setenv("DVC_STAGE", "train@few")
    monkeypatch.setattr(publish, "publish_study", fail)
    stages.train(STUDY)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: train@few: http://runs.example.org: can't be reached; nothing")
    assert "vgg16-transfer publish" in line


def test_by_hand_the_same_is_an_error(calls, monkeypatch, capsys) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TrackingUnreachableError("http://runs.example.org: can't be reached")

    known = Lineage("train@few", "0" * 64, {}, None, dirty=False, experiment=None)
    monkeypatch.setattr(locked, "check_locked", lambda *_: None)
    monkeypatch.setattr(locked, "check_current", lambda *_: None)
    monkeypatch.setattr(lineage, "locked_stages", lambda _, stages: dict.fromkeys(stages, known))
    monkeypatch.setattr(publish, "publish_study", fail)
    with pytest.raises(TrackingUnreachableError):
        runs.publish()


UNEXPECTED = "warning: train@few: unexpected {}, whose traceback vgg16-transfer publish shows; "


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("a bug"), UNEXPECTED.format("RuntimeError (a bug)")),
        (KeyError("accuracy"), UNEXPECTED.format("KeyError ('accuracy')")),
        (ModuleNotFoundError("No module named 'boto3'"), "unexpected ModuleNotFoundError (No mod"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/disk/loss.png"),
            "mlflow.db: can't be used: No space left on device (/disk/loss.png); nothing is lost",
        ),
        (
            sqlite3.OperationalError("database or disk is full"),
            "mlflow.db: can't be used: database or disk is full; nothing is lost",
        ),
        (
            OperationalError("INSERT", {}, sqlite3.OperationalError("disk I/O error")),
            "mlflow.db: can't be used: ",
        ),
        (MlflowException("no such thing", BAD_REQUEST), "unexpected MlflowException (no such"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_no_failure_of_logging_costs_a_stage_its_results(
    calls, monkeypatch, capsys, error: Exception, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("DVC_STAGE", "train@few")
    monkeypatch.setattr(publish, "publish_study", fail)
    stages.train(STUDY)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: train@few: ")
    assert said in line
    assert "nothing is lost" in line


def test_a_bug_in_logging_shows_its_traceback_by_hand(calls, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    known = Lineage("train@few", "0" * 64, {}, None, dirty=False, experiment=None)
    monkeypatch.setattr(locked, "check_locked", lambda *_: None)
    monkeypatch.setattr(locked, "check_current", lambda *_: None)
    monkeypatch.setattr(lineage, "locked_stages", lambda _, stages: dict.fromkeys(stages, known))
    monkeypatch.setattr(publish, "publish_study", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        runs.publish()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_stops_a_stage_stops_it(calls, monkeypatch, stop: type[BaseException]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise stop

    monkeypatch.setenv("DVC_STAGE", "train@few")
    monkeypatch.setattr(publish, "publish_study", fail)
    with pytest.raises(stop):
        stages.train(STUDY)


def test_a_driver_that_is_not_installed_is_named_with_the_command(calls, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("DVC_STAGE", "train@few")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://ann:secret@127.0.0.1/mlflow")

    def publish_study(store, *_: object, **__: object) -> int:
        store.client()
        return 0

    monkeypatch.setattr(publish, "publish_study", publish_study)
    stages.train(STUDY)
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs the Python package psycopg; run pip install" in line
    assert "'.[team]'" in line
    assert "secret" not in line
