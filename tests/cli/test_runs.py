"""When ``vgg16-transfer publish`` asks MLflow, and when it need not."""

import pytest
from ruamel.yaml import YAML

from vgg16_transfer.cli import runs
from vgg16_transfer.tracking import lineage

PARAMS = {
    "backbone": {"weights": "random-conv"},
    "datasets": {"animals": {"source": "animals.tar", "layers": ["block5_pool"]}},
    "studies": {"few": {"dataset": "animals"}},
}

LOCKED = lineage.Lineage("train@few", "0" * 64, {}, None, dirty=False, experiment=None)


@pytest.fixture
def told(tmp_path, monkeypatch) -> list[str]:
    """The studies and pages that MLflow was told of. The current folder is a workspace."""
    told: list[str] = []
    monkeypatch.setattr(lineage, "locked_stages", lambda _, stages: dict.fromkeys(stages, LOCKED))
    monkeypatch.setattr(runs, "tell_study", lambda *given: told.append(given[3]))
    monkeypatch.setattr(runs, "tell_pages", lambda *_, **__: told.append("pages"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    YAML(typ="safe", pure=True).dump(PARAMS, tmp_path / "params.yaml")
    (tmp_path / "dvc.lock").write_text("a lock file")
    (tmp_path / "mlflow.db").touch()
    return told


def test_mlflow_is_asked_once_for_the_same_lock_file(told, capsys) -> None:
    runs.publish(if_new=True)
    runs.publish(if_new=True)
    assert told == ["few", "pages"]
    assert "MLflow knows of these results" in capsys.readouterr().err


def test_a_store_that_was_thrown_away_is_filled_again(told, tmp_path) -> None:
    runs.publish(if_new=True)
    (tmp_path / "mlflow.db").unlink()
    runs.publish(if_new=True)
    assert told == ["few", "pages"] * 2


def test_by_hand_it_is_always_asked(told) -> None:
    runs.publish()
    runs.publish()
    assert told == ["few", "pages"] * 2


def test_another_lock_file_is_told(told, tmp_path) -> None:
    runs.publish(if_new=True)
    (tmp_path / "dvc.lock").write_text("another")
    runs.publish(if_new=True)
    assert told == ["few", "pages"] * 2


def test_another_store_is_told(told, monkeypatch) -> None:
    runs.publish(if_new=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    runs.publish(if_new=True)
    assert told == ["few", "pages"] * 2


def test_what_could_not_be_told_is_asked_again(told, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise lineage.LineageError("no")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "tell_pages", fail)
        with pytest.raises(lineage.LineageError):
            runs.publish(if_new=True)
    runs.publish(if_new=True)
    assert told == ["few", "few", "pages"]


def test_a_store_may_be_named(told, tmp_path, monkeypatch) -> None:
    stores = []
    monkeypatch.setattr(runs, "tell_study", lambda store, *_: stores.append(store.uri))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///environment.db")
    runs.publish(to="sqlite:///named.db")
    runs.publish()
    assert stores == [f"sqlite:///{tmp_path / name}.db" for name in ("named", "environment")]
