"""MLflow's private interfaces give known answers, with the version that constraints.txt names."""

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import keras
import mlflow
import pytest
from mlflow.exceptions import MlflowException
from packaging.requirements import Requirement

from vgg16_transfer.tracking import mlflow_private

ROOT = Path(__file__).parents[2]
SEEN = "3.17.2"


def test_the_version_is_the_one_that_was_tested() -> None:
    """If it fails: run the tests of this file with the new version, then change the bound."""
    assert importlib.metadata.version("mlflow") == SEEN
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.findall(r"^mlflow==(.+)$", constraints, re.MULTILINE) == [SEEN]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (bound,) = [one for one in map(Requirement, project["dependencies"]) if one.name == "mlflow"]
    major, minor, _ = map(int, SEEN.split("."))
    assert bound.specifier.contains(SEEN)
    assert not bound.specifier.contains(f"{major}.{minor + 1}.0")


def test_the_answers_of_a_store_are_recognised(store) -> None:
    client = store.client()
    with pytest.raises(MlflowException) as missing:
        client.get_run("0" * 32)
    assert mlflow_private.is_missing(missing.value)
    assert mlflow_private.is_missing_run(missing.value)
    assert not mlflow_private.is_duplicate(missing.value)
    client.create_experiment("animals")
    with pytest.raises(MlflowException) as duplicate:
        client.create_experiment("animals")
    assert mlflow_private.is_duplicate(duplicate.value)
    assert not mlflow_private.is_missing_run(duplicate.value)


@pytest.mark.parametrize(
    ("uri", "folder", "database"),
    [
        ("mlruns", True, False),
        ("file:///mlruns", True, False),
        ("sqlite:///mlflow.db", False, True),
        ("postgresql+psycopg://ann@127.0.0.1/runs", False, True),
        ("http://127.0.0.1:5000", False, False),
    ],
)
def test_folders_and_databases_are_recognised(uri: str, folder: bool, database: bool) -> None:
    assert mlflow_private.is_refused_folder(uri) is folder
    assert mlflow_private.is_database(uri) is database


def test_the_attempts_to_connect_are_limited(monkeypatch) -> None:
    from mlflow.store.db import utils

    monkeypatch.setattr(utils, "MAX_RETRY_COUNT", utils.MAX_RETRY_COUNT)
    mlflow_private.limit_connection_attempts(3)
    assert utils.MAX_RETRY_COUNT == 3


def test_the_scoring_server_is_an_application_with_the_documented_pages() -> None:
    class Model:
        class metadata:  # noqa: N801
            @staticmethod
            def get_input_schema() -> None:
                """It has none."""

    app = mlflow_private.scoring_app(Model)
    pages = {(path, method) for path, its in app.openapi()["paths"].items() for method in its}
    assert pages == {
        ("/ping", "get"),
        ("/health", "get"),
        ("/version", "get"),
        ("/invocations", "post"),
    }


def test_the_scoring_server_answers_with_the_message_and_the_reason() -> None:
    error = mlflow_private.bad_request("picture 1 is empty", "is empty")
    answer = json.loads(error.serialize_as_json())
    assert error.get_http_status_code() == 400
    assert (answer["message"], answer["reason"]) == ("picture 1 is empty", "is empty")
    assert mlflow_private.reason(error) == "is empty"
    assert mlflow_private.reason(MlflowException("other")) == "other"


def test_a_model_has_the_files_that_mlflow_itself_would_write(tmp_path: Path) -> None:
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    pinned = [f"keras=={keras.__version__}", "tensorflow"]
    mlflow.keras.save_model(head, str(tmp_path / "mlflow"), pip_requirements=pinned)
    (tmp_path / "ours").mkdir()
    files = mlflow_private.write_environment(tmp_path / "ours", pinned)
    assert set(files.values()) == {"conda.yaml", "python_env.yaml"}
    for name in ("conda.yaml", "python_env.yaml", "requirements.txt"):
        ours, theirs = ((tmp_path / which / name).read_text() for which in ("ours", "mlflow"))
        assert ours == theirs
