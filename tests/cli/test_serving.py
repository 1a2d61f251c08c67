"""``vgg16-transfer export`` and ``serve``: what is written and printed, and what is refused."""

import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import mlflow
import pytest

from vgg16_transfer.hashing import file_md5
from vgg16_transfer.registry.formats import FORMATS

from .conftest import Run


@pytest.fixture
def root(trained, tmp_path: Path, monkeypatch) -> Path:
    """The current folder: a copy of the workspace, which has no store."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    copied = trained.copy(tmp_path / "workspace").root
    monkeypatch.chdir(copied)
    return Path(copied)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.fixture
def undrawn(monkeypatch) -> Any:
    """Stands in for a conversion, which takes seconds."""

    def convert(*_: Any) -> None:
        raise ValueError("no such operation: Erfc\nmore of it")

    row = FORMATS["tflite"]._replace(write=convert)
    monkeypatch.setitem(FORMATS, "tflite", row)
    return row


def test_an_export_names_its_files_and_says_what_goes_in_and_out(run: Run, root: Path) -> None:
    outcome = run("export", "few", "--format", "savedmodel")
    assert outcome.code == 0, outcome.err
    assert outcome.out == (
        "exports/few.savedmodel: savedmodel; exports/few.savedmodel.json says what goes in and "
        "what comes out\n"
    )
    assert "few: trial 'samples_per_class=" in outcome.err
    assert files(root / "exports") == ["few.savedmodel", "few.savedmodel.json"]
    facts = json.loads((root / "exports" / "few.savedmodel.json").read_text(encoding="utf-8"))
    head = root / "models" / "heads" / "few" / f"{facts['trial']}.keras"
    assert facts["head_md5"] == file_md5(head)
    assert facts["classes"] == ["ant", "bee", "cat"]
    assert (facts["image_size"], facts["resize"]["way"]) == (32, "squash")
    assert facts["input"]["shape"] == [None, 32, 32, 3]
    assert facts["output"]["shape"] == [None, 3]
    assert facts["licence"] == {"weights": "random-conv", "pictures": "licence not stated"}
    assert facts["sha256"].keys() >= {"saved_model.pb"}
    again = run("export", "few", "--format", "savedmodel")
    assert again.code == 0
    assert files(root / "exports") == ["few.savedmodel", "few.savedmodel.json"]


def test_a_format_that_is_not_there_is_one_sentence(run: Run, root: Path) -> None:
    outcome = run("export", "few", "--format", "pickle")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "error: --format pickle: must be one of onnx, tflite, savedmodel\n"


def test_a_missing_package_is_one_sentence_that_names_the_extra(
    run: Run, root: Path, monkeypatch
) -> None:
    find = importlib.util.find_spec
    without = lambda name, *rest: None if name == "tf2onnx" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    outcome = run("export", "few")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "error: --format onnx: needs the Python package tf2onnx; run pip install "
        "'vgg16-transfer[export]'\n"
    )


def test_what_a_format_lacks_is_one_sentence_and_nothing_is_written(
    run: Run, root: Path, undrawn
) -> None:
    outcome = run("export", "few", "--format", "tflite")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1] == (
        "error: exports/few.tflite: vgg16 with this head can't be written as tflite (no such "
        "operation: Erfc); choose another --format: onnx, tflite, savedmodel"
    )
    assert files(root / "exports") == []


def test_a_conversion_that_gives_other_probabilities_is_refused(
    run: Run, root: Path, monkeypatch
) -> None:
    row = FORMATS["savedmodel"]
    monkeypatch.setitem(FORMATS, "savedmodel", row._replace(run=lambda *rest: 0 * row.run(*rest)))
    outcome = run("export", "few", "--format", "savedmodel")
    assert (outcome.code, outcome.out) == (2, "")
    assert (
        "was not written: its probabilities would differ from those of predict by " in outcome.err
    )
    assert files(root / "exports") == []


def test_a_folder_or_a_file_of_something_else_is_not_replaced(run: Run, root: Path) -> None:
    outcome = run("export", "few", "--out", "models")
    assert outcome.code == 2
    assert "models: is a folder; name what to write, as models/NAME.onnx" in outcome.err
    outcome = run("export", "few", "--format", "savedmodel", "--out", "results")
    assert outcome.code == 2
    assert "results: is a folder; name what to write, as results/NAME.savedmodel" in outcome.err
    outcome = run("export", "few", "--format", "savedmodel", "--out", "params.yaml")
    assert outcome.code == 2
    assert "params.yaml: is a file, and the format makes a folder" in outcome.err
    assert {"models", "results", "params.yaml"} <= set(files(root))


def test_a_study_that_is_not_there_is_one_sentence(run: Run, root: Path) -> None:
    for command in (["export", "fwe"], ["serve", "fwe"]):
        outcome = run(*command)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == "error: params.yaml: no study 'fwe'; did you mean 'few'?\n"


def test_exports_are_no_part_of_the_repository() -> None:
    ignored = Path(__file__).parents[2] / ".gitignore"
    assert "exports/" in ignored.read_text(encoding="utf-8").splitlines()


def test_a_model_that_cant_be_served_is_one_sentence(
    run: Run, root: Path, publish, trained
) -> None:
    expected = {
        (): "serve: no model of few, tuned is registered; run vgg16-transfer register few",
        ("tuned",): "serve: no model of tuned is registered; run vgg16-transfer register tuned",
        ("--model", "models"): "models: holds no MLmodel; name models:/NAME@champion, or a folder",
        ("--model", "models:/few@champion"): "no such store; run vgg16-transfer publish first",
    }
    for arguments, sentence in expected.items():
        outcome = run("serve", *arguments)
        assert (outcome.code, outcome.out) == (2, "")
        (line,) = outcome.err.splitlines()
        assert sentence in line
    assert "STUDY and --model exclude each other" in run("serve", "few", "--model", "a").err
    publish(type(trained)(root), "few")
    try:
        outcome = run("serve", "few")
    finally:
        mlflow.set_tracking_uri(None)
    assert "serve: no model of few is registered; run vgg16-transfer register few" in outcome.err


def test_a_port_that_is_taken_is_one_sentence(run: Run, root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = run("serve", "--port", str(port))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        f"error: serve: 127.0.0.1, port {port} is not available (Address already in use); choose "
        f"another one, like --port {port + 1}\n"
    )
