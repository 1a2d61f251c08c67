"""A workspace's own store after it was moved, copied, or put below a path that is hard to spell."""

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking._tracking_service import utils

from vgg16_transfer.tracking.logged_runs import logged_runs
from vgg16_transfer.tracking.mlflow_store import ARTIFACTS, DATABASE, Store, find_store

from .conftest import DATASET, log, make_lineage, make_study, write_outputs

ODD = "a%b my%20pro?ject #1 ümläut & 'q' +"
STUDY = make_study(samples_per_class=2, seed=0)


def fill(root: Path, store: Store) -> None:
    """One trial, its head as a registered model, and an experiment that the user made."""
    outputs = write_outputs(STUDY, root / "outputs")
    assert log(store, STUDY, outputs, make_lineage(STUDY)) == 2
    client = store.client()
    (model,) = client.search_logged_models([store.experiment(client, DATASET)])
    client.create_registered_model("samples")
    client.create_model_version("samples", f"models:/{model.model_id}", model.source_run_id)
    location = f"file:///srv/{ARTIFACTS}/mine"
    client.create_run(client.create_experiment("mine", location))


@pytest.fixture(scope="module")
def filled(make_store, tmp_path_factory) -> Path:
    """A workspace; no test changes it, those that do take a copy."""
    root = tmp_path_factory.mktemp("filled") / "w"
    fill(root, make_store(root))
    return root


def addresses(root: Path) -> set[str]:
    """Everything in the database that is an address of artifacts."""
    columns = [
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "storage_location"),
    ]
    with closing(sqlite3.connect(root / DATABASE)) as connection:
        return {
            str(value)
            for table, column in columns
            for (value,) in connection.execute(f"SELECT {column} FROM {table}")  # noqa: S608
        }


def every_text(root: Path) -> str:
    """All that the database holds, so that no column is forgotten."""
    with closing(sqlite3.connect(root / DATABASE)) as connection:
        return "\n".join(connection.iterdump())


def contents(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def runs(store: Store) -> dict[str, Any]:
    client = store.client()
    return logged_runs(client, store.experiment(client, DATASET), make_lineage(STUDY))


def check_all_is_found(root: Path) -> None:
    """Old artifacts, models and versions are read, and new ones are written, below this root."""
    utils._artifact_repos_cache.clear()  # as in a new process
    store = find_store(root, None)
    client = store.client()
    for run in runs(store).values():
        files = client.list_artifacts(run.info.run_id)
        assert len(files) > 1
        client.download_artifacts(run.info.run_id, files[0].path)
    trial = runs(store)["only"].info
    assert mlflow.artifacts.load_text(f"{trial.artifact_uri}/per_class.csv").startswith("trial,")
    (model,) = client.search_logged_models([trial.experiment_id])
    source = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}"))
    assert source.is_relative_to(root / ARTIFACTS)
    assert (source / "MLmodel").exists()
    assert Path(mlflow.artifacts.download_artifacts("models:/samples/1")) == source
    client.log_text(trial.run_id, "text", "new.txt")
    assert len(list((root / ARTIFACTS).rglob("new.txt"))) == 1
    made = client.create_run(store.experiment(client, DATASET)).info.artifact_uri
    assert made.startswith((root / ARTIFACTS).as_uri())


@pytest.mark.parametrize("name", ["moved", ODD, f"{ARTIFACTS}/{ARTIFACTS}"])
def test_a_moved_workspace_finds_and_writes_its_artifacts(
    filled: Path, name: str, tmp_path, capsys
) -> None:
    before, moved = tmp_path / "before", tmp_path / name
    shutil.copytree(filled, before)
    find_store(before, None).client()
    capsys.readouterr()
    moved.parent.mkdir(exist_ok=True)
    before.rename(moved)
    store = find_store(moved, None)
    store.client()
    line = f"sqlite:///{moved / DATABASE}: was moved or copied: artifacts are now those in"
    assert capsys.readouterr().err.splitlines() == [
        f"{line} {moved / ARTIFACTS}, no longer those in {before / ARTIFACTS}"
    ]
    check_all_is_found(moved)
    assert not before.exists()
    assert before.as_uri() not in every_text(moved)


def test_a_copy_leaves_its_original_alone(filled: Path, tmp_path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    shutil.copytree(filled, original)
    find_store(original, None).client()
    before = contents(original)
    subprocess.run(["cp", "-a", str(original), str(copy)], check=True)
    check_all_is_found(copy)
    assert contents(original) == before
    assert original.as_uri() not in every_text(copy)


def test_a_store_that_is_right_is_not_written_to(filled: Path, capsys) -> None:
    before = (filled / DATABASE).read_bytes()
    find_store(filled, None).client()
    assert (filled / DATABASE).read_bytes() == before
    assert capsys.readouterr().err == ""


def test_what_the_user_made_stays_where_it_is(filled: Path, tmp_path) -> None:
    shutil.copytree(filled, tmp_path / "moved")
    store = find_store(tmp_path / "moved", None)
    result = store.client().get_experiment_by_name("mine")
    assert result.artifact_location == f"file:///srv/{ARTIFACTS}/mine"
    (run,) = store.client().search_runs([result.experiment_id])
    assert run.info.artifact_uri.startswith(f"file:///srv/{ARTIFACTS}/mine/")


def test_all_is_corrected_or_nothing(filled: Path, tmp_path) -> None:
    shutil.copytree(filled, tmp_path / "moved")
    with closing(sqlite3.connect(tmp_path / "moved" / DATABASE)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON model_versions "
            "BEGIN SELECT RAISE(ABORT, 'disk is full'); END"
        )
    before = addresses(tmp_path / "moved")
    with pytest.raises(Exception, match=r"can't be opened: disk is full"):
        find_store(tmp_path / "moved", None).client()
    assert addresses(tmp_path / "moved") == before


def test_a_named_database_takes_its_artifacts_along(make_store, tmp_path) -> None:
    make_store(tmp_path / "shared")
    (tmp_path / "shared" / DATABASE).rename(tmp_path / "shared" / "a.db")
    store = find_store(tmp_path, "sqlite:///shared/a.db")
    store.experiment(store.client(), DATASET)
    (tmp_path / "shared").rename(tmp_path / "moved")
    find_store(tmp_path, "sqlite:///moved/a.db").client()
    with closing(sqlite3.connect(tmp_path / "moved" / "a.db")) as connection:
        rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
    assert ((tmp_path / "moved" / ARTIFACTS / DATASET).as_uri(),) in rows


def test_a_path_of_all_odd_characters_works(database: Path, tmp_path, monkeypatch) -> None:
    root = tmp_path / ODD
    root.mkdir()
    monkeypatch.chdir(tmp_path)
    store = find_store(root, None)  # a fresh one, whose tables MLflow makes
    fill(root, store)
    assert (root / DATABASE).stat().st_size == database.stat().st_size
    check_all_is_found(root)
    assert {path.name for path in tmp_path.iterdir()} == {ODD}
    assert {path.name for path in root.iterdir()} >= {DATABASE, ARTIFACTS}
    assert str(store) == f"sqlite:///{root / DATABASE}"


@pytest.mark.parametrize(
    ("uri", "database"),
    [
        ("sqlite:///my%20runs/a.db", "my runs/a.db"),
        ("sqlite+pysqlite:///runs/a.db?timeout=30", "runs/a.db"),
    ],
)
def test_an_address_means_what_sqlalchemy_takes_it_for(uri: str, database: str, tmp_path) -> None:
    store = find_store(tmp_path, uri)
    assert store.database == tmp_path / database
    assert store.uri.endswith("?timeout=30") == ("?" in uri)
    store.client()
    assert store.database.exists()
