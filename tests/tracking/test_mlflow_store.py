import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from vgg16_transfer.tracking.mlflow_store import ARTIFACTS, DATABASE, TrackingError, find_store

# Eight processes wait for each other before they open the store, and again before they ask it for
# the experiment. They are forks of one that has imported everything, so that they really meet.
EIGHT = """
import multiprocessing
import sys
from pathlib import Path

import mlflow.store.db.utils
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
from vgg16_transfer.tracking.mlflow_store import find_store


def use(barrier):
    store = find_store(Path(sys.argv[1]), None)
    barrier.wait()
    client = store.client()
    barrier.wait()
    sys.stdout.write(f"id {store.experiment(client, 'animals')}\\n")


context = multiprocessing.get_context("fork")
barrier = context.Barrier(8, timeout=60)
processes = [context.Process(target=use, args=[barrier]) for _ in range(8)]
for process in processes:
    process.start()
for process in processes:
    process.join()
sys.exit(any(process.exitcode for process in processes))
"""


def test_the_default_is_sqlite_at_the_root_and_absolute(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = find_store(Path(), None)
    assert store.uri == f"sqlite:///{tmp_path / DATABASE}"
    assert store.artifacts == tmp_path / ARTIFACTS


def test_an_empty_variable_is_none_at_all(tmp_path) -> None:
    assert find_store(tmp_path, "") == find_store(tmp_path, None)


@pytest.mark.parametrize(
    ("uri", "database"),
    [("sqlite:///runs/a.db", "runs/a.db"), ("sqlite:///./a.db", "a.db")],
)
def test_a_relative_database_is_taken_from_the_root(
    uri: str, database: str, tmp_path, monkeypatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store = find_store(tmp_path, uri)
    assert store.uri == f"sqlite:///{tmp_path / database}"
    assert store.artifacts == (tmp_path / database).parent / ARTIFACTS


def test_an_absolute_database_stays_where_it_is(tmp_path) -> None:
    store = find_store(tmp_path / "root", f"sqlite:///{tmp_path}/runs/a.db")
    assert store.uri == f"sqlite:///{tmp_path}/runs/a.db"
    assert store.artifacts == tmp_path / "runs" / ARTIFACTS


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:5000", "https://runs.example.org", "postgresql://db.example.org/runs"]
)
def test_a_server_is_left_alone(uri: str, tmp_path) -> None:
    store = find_store(tmp_path, uri)
    assert (store.uri, store.artifacts) == (uri, None)


def test_artifacts_lie_beside_the_database_and_not_in_the_current_folder(
    store, tmp_path, monkeypatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    client = store.client()
    run = client.create_run(store.experiment(client, "animals"))
    client.log_text(run.info.run_id, "text", "note.txt")
    assert run.info.artifact_uri.startswith((tmp_path / ARTIFACTS / "animals").as_uri())
    assert len(list((tmp_path / ARTIFACTS).rglob("note.txt"))) == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_folder_of_a_database_is_made(tmp_path) -> None:
    find_store(tmp_path, "sqlite:///runs/of/mine.db").client()
    assert (tmp_path / "runs" / "of" / "mine.db").exists()


@pytest.mark.parametrize("uri", ["file:{}/mlruns", "file://{}/mlruns", "{}/mlruns", "mlruns"])
def test_a_folder_as_store_is_one_clear_sentence(uri: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = uri.format(tmp_path)
    with pytest.raises(TrackingError) as caught:
        find_store(tmp_path, address).client()
    message = str(caught.value)
    assert message.startswith(f"{address}: ")
    assert "sqlite:///" in message
    assert ". " not in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["bogus://a", "sqlite://a"])
def test_what_is_no_store_at_all_is_named(uri: str, tmp_path) -> None:
    with pytest.raises(TrackingError, match=uri):
        find_store(tmp_path, uri).client()


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path, monkeypatch) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.db.utils._upgrade_db", die)
        with pytest.raises(Killed):
            find_store(tmp_path, None).client()
    assert not (tmp_path / DATABASE).exists()
    (tmp_path / f".{DATABASE}.0.fresh").write_bytes(b"half a database")
    client = find_store(tmp_path, None).client()
    assert [one.name for one in client.search_experiments()] == ["Default"]
    assert {path.name for path in tmp_path.iterdir()} == {DATABASE, f".{DATABASE}.lock"}


def test_a_password_is_not_said() -> None:
    store = find_store(Path(), "postgresql+psycopg://ann:secret@db.example.org/runs")
    assert str(store) == "postgresql+psycopg://***@db.example.org/runs"
    assert "secret" in store.uri


def test_a_file_that_is_no_database_is_named(tmp_path) -> None:
    (tmp_path / DATABASE).write_text("not a database at all, but a long enough line of words")
    with pytest.raises(TrackingError, match=DATABASE):
        find_store(tmp_path, None).client()


def test_an_experiment_is_made_once(store) -> None:
    client = store.client()
    first = store.experiment(client, "animals")
    assert store.experiment(client, "animals") == first
    assert store.experiment(client, "plants") != first
    names = [one.name for one in client.search_experiments()]
    assert sorted(names) == ["Default", "animals", "plants"]


def test_a_deleted_experiment_is_named_with_the_remedy(store) -> None:
    client = store.client()
    client.delete_experiment(store.experiment(client, "animals"))
    with pytest.raises(TrackingError, match="'animals' was deleted; restore it"):
        store.experiment(client, "animals")


def test_eight_processes_open_a_fresh_store_at_once(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ids = done.stdout.splitlines()
    client = mlflow.MlflowClient(find_store(tmp_path, None).uri)
    result = client.get_experiment_by_name("animals")
    assert result is not None
    assert ids == [f"id {result.experiment_id}"] * 8
    assert len(client.search_experiments()) == 2
