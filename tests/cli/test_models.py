"""``vgg16-transfer register`` and ``predict``: what is printed, and what is refused."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import mlflow
import pytest
from ruamel.yaml import YAML

from vgg16_transfer.heads import records
from vgg16_transfer.images.archives import open_archive

from .conftest import Outcome, Run

URI = "models:/few@champion"


@pytest.fixture(scope="module")
def workspace(trained, publish, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A workspace whose study few was published, and some of its pictures in folders."""
    copied = trained.copy(tmp_path_factory.mktemp("models") / "workspace")
    publish(copied, "few")
    with open_archive(copied.layout.source("animals")) as archive:
        for name in ("ant/0.jpg", "bee/1.jpg", "bee/2.jpg"):
            path = copied.root / "mine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))
    (copied.root / "mine" / "notes.txt").write_text("no picture, and not named like one")
    (copied.root / "empty").mkdir()
    (copied.root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (copied.root / "page.jpg").write_bytes(b"<html>")
    return copied


@pytest.fixture(autouse=True)
def inside(workspace, monkeypatch) -> Any:
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(workspace.root)
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture
def registered(run: Run) -> Outcome:
    """The champion is there, whichever test comes first."""
    return run("register", "few")


def chosen(workspace) -> str:
    trials = records.read(workspace.layout.record("few")).trials
    return str(trials.loc[trials["validation_accuracy"].idxmax(), "trial"])


def test_registering_says_which_trial_and_which_version(run: Run, registered: Outcome) -> None:
    again = run("register", "few")
    assert (registered.code, again.code) == (0, 0)
    assert registered.out.startswith("models:/few@champion is version 1")
    assert again.out == "models:/few@champion is version 1, which was registered already\n"
    assert "has the highest validation accuracy, " in again.err


def answers(outcome: Outcome) -> list[Any]:
    assert outcome.code == 0, outcome.err
    return list(json.loads(outcome.out))


def test_a_study_and_its_registered_model_say_the_same(run: Run, registered: Outcome) -> None:
    by_study = run("predict", "mine", "--json", "--study", "few")
    by_model = run("predict", "mine", "--json", "--model", URI)
    assert answers(by_study) == answers(by_model)
    assert [answer["picture"] for answer in answers(by_study)] == [
        "mine/ant/0.jpg",
        "mine/bee/1.jpg",
        "mine/bee/2.jpg",
    ]
    for answer in answers(by_study):
        likely = [one["probability"] for one in answer["classes"]]
        assert likely == sorted(likely, reverse=True)
        assert sum(likely) == pytest.approx(1, abs=1e-6)


def test_another_study_can_be_asked(run: Run) -> None:
    first, other = (run("predict", "mine", "--json", "--study", name) for name in ("few", "tuned"))
    assert "tuned: trial 'only' has the highest validation accuracy" in other.err
    assert answers(other) != answers(first)


def test_without_a_name_the_newest_registered_model_is_asked(
    run: Run, registered: Outcome, workspace, publish
) -> None:
    newest = run("predict", "mine", "--json")
    assert f"{URI} is the newest registered model\n" in newest.err
    assert answers(newest) == answers(run("predict", "mine", "--json", "--model", URI))


def test_without_a_name_and_a_registered_model_the_first_study_is_asked(
    run: Run, trained, workspace, monkeypatch
) -> None:
    monkeypatch.chdir(trained.root)  # it has no store
    mine = str(workspace.root / "mine")
    first = run("predict", mine, "--json")
    assert first.err.startswith("few: trial '")
    assert answers(first) == answers(run("predict", mine, "--json", "--study", "few"))
    assert not (trained.root / "mlflow.db").exists()


def test_without_a_name_the_only_study_is_asked_whatever_is_registered(
    run: Run, registered: Outcome, workspace, relock, tmp_path: Path, monkeypatch
) -> None:
    root = tmp_path / "only"
    workspace.copy(root)
    params = YAML(typ="safe", pure=True).load(workspace.layout.params)
    del params["studies"]["few"]
    YAML(typ="safe", pure=True).dump(params, root / "params.yaml")
    monkeypatch.chdir(root)
    outcome = run("predict", "mine", "--json")
    assert outcome.code == 0
    assert outcome.err.startswith("tuned: trial 'only'")


@pytest.mark.parametrize("where", [["--study", "few"], ["--model", URI]], ids=str)
def test_json_is_all_that_is_printed_to_stdout_even_on_a_terminal(
    registered: Outcome, where: list[str]
) -> None:
    main, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vgg16_transfer", "predict", "mine", "--json", *where],
            stdout=subprocess.PIPE,
            stderr=terminal,
            check=True,
        )
        said = os.read(main, 100_000).decode()
    finally:
        os.close(terminal)
        os.close(main)
    assert json.loads(done.stdout)[0]["picture"] == "mine/ant/0.jpg"
    assert done.stdout.startswith(b"[\n")
    assert done.stdout.endswith(b"]\n")
    assert "predict: 100%" in said  # the progress bar


def test_csv_holds_what_json_holds(run: Run) -> None:
    printed = run("predict", "mine", "--csv", "--top", "2").out
    rows = list(csv.reader(io.StringIO(printed)))
    expected = [
        [answer["picture"], str(rank), one["class"], str(one["probability"])]
        for answer in answers(run("predict", "mine", "--json"))
        for rank, one in enumerate(answer["classes"][:2], start=1)
    ]
    assert rows == [["picture", "rank", "class", "probability"], *expected]


def test_the_table_shows_each_picture_once_with_its_top_classes(run: Run) -> None:
    outcome = run("predict", "mine/bee", "--top", "2")
    (first, _) = answers(run("predict", "mine/bee", "--json"))
    assert outcome.code == 0
    assert outcome.out.count("mine/bee/1.jpg") == 1
    for one in first["classes"][:2]:
        assert f"{one['class']}" in outcome.out
        assert f"{100 * one['probability']:.1f}" in outcome.out


def test_a_picture_that_cant_be_read_is_a_line_and_the_others_are_printed(
    run: Run, registered: Outcome
) -> None:
    good = "mine/ant/0.jpg"
    expected = {
        "page.jpg": "is no picture: it begins with b'<html>'",
        "broken.jpg": "is ",
        "none.jpg": "No such file or directory",
        "empty": "is a folder without pictures",
    }
    for where in ([], ["--model", URI]):
        outcome = run(
            "predict", "page.jpg", "broken.jpg", good, "none.jpg", "empty", "--json", *where
        )
        assert outcome.code == 2
        assert [answer["picture"] for answer in json.loads(outcome.out)] == [good]
        errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == len(expected)
        for line, (path, reason) in zip(errors, expected.items(), strict=True):
            assert line.startswith(f"error: {path}: {reason}")


def test_links_below_a_folder_are_followed(run: Run) -> None:
    Path("linked").mkdir()
    Path("linked/more").symlink_to(Path("mine/ant").resolve())
    outcome = run("predict", "linked", "--json")
    assert outcome.code == 0
    answers = [answer["picture"] for answer in json.loads(outcome.out)]
    assert answers == [f"linked/more/{path.name}" for path in sorted(Path("mine/ant").iterdir())]


def test_pictures_of_which_none_can_be_read_are_no_table(run: Run) -> None:
    outcome = run("predict", "page.jpg")
    assert (outcome.code, outcome.out) == (2, "")
    outcome = run("predict", "page.jpg", "--json")
    assert (outcome.code, outcome.out) == (2, "[]\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predict", "mine", "--study", "fwe"], "no study 'fwe'; did you mean 'few'?"),
        (["register", "fwe"], "no study 'fwe'; did you mean 'few'?"),
        (["register", "tuned"], "run vgg16-transfer publish first"),
        (["predict", "mine", "--model", "models:/many@champion"], "can't be loaded from sqlite:"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_what_is_not_there_is_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert sentence in line


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["predict"], "Missing argument 'PICTURE...'"),
        (["predict", "mine", "--top", "0"], "Invalid value for '--top'"),
        (["predict", "mine", "--json", "--csv"], "--json and --csv exclude each other"),
        (["predict", "mine", "--study", "few", "--model", URI], "exclude each other"),
        (["predict", "mine", "--model", "few"], "must be like models:/NAME@champion"),
    ],
    ids=str,
)
def test_a_command_line_that_makes_no_sense_is_a_usage_error(
    run: Run, arguments: list[str], problem: str
) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert problem in outcome.err


FEW = ["--study", "few"]


@pytest.mark.parametrize("command", [["register", "few"], ["predict", "mine", *FEW]], ids=str)
def test_a_study_without_validation_pictures_is_refused(
    run: Run, workspace, relock, tmp_path: Path, monkeypatch, command: list[str]
) -> None:
    params = YAML(typ="safe", pure=True).load(workspace.layout.params)
    params["datasets"]["animals"]["split"]["validation_per_class"] = 0
    root = tmp_path / "without"
    workspace.copy(root)
    YAML(typ="safe", pure=True).dump(params, root / "params.yaml")
    trials = records.read_frame(root / "results" / "few" / "trials.csv")
    without = trials.drop(columns="validation_accuracy")
    records.write_frame(without, root / "results" / "few" / "trials.csv")
    relock(root)
    monkeypatch.chdir(root)
    before = sorted(root.rglob("*"))
    outcome = run(*command)
    assert (outcome.code, outcome.out) == (2, "")
    assert "set datasets.animals.split.validation_per_class in params.yaml" in outcome.err
    assert sorted(root.rglob("*")) == before


def test_results_that_are_not_those_of_the_lock_file_are_refused(
    run: Run, workspace, tmp_path: Path, monkeypatch
) -> None:
    root = tmp_path / "edited"
    workspace.copy(root)
    path = root / "results" / "few" / "trials.csv"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    monkeypatch.chdir(root)
    for command in (["register", "few"], ["predict", "mine", *FEW], ["results"]):
        outcome = run(*command)
        assert (outcome.code, outcome.out) == (2, "")
        assert "results/few/trials.csv: is not what train@few made, by dvc.lock" in outcome.err


def test_a_class_that_was_renamed_since_keeps_the_name_that_the_head_learned(
    run: Run, workspace, tmp_path: Path, monkeypatch
) -> None:
    root = tmp_path / "renamed"
    copied = workspace.copy(root)
    picture = root / "bee.jpg"
    with open_archive(copied.layout.source("animals")) as archive:
        picture.write_bytes(archive.read("bee/3.jpg"))
    monkeypatch.chdir(root)
    before = run("predict", "bee.jpg", "--csv", *FEW)
    for split in copied.layout.splits("animals").glob("?.csv"):
        text = split.read_text(encoding="utf-8").replace(",ant,", ",zebra,")
        split.write_text(text, encoding="utf-8")
    after = run("predict", "bee.jpg", "--csv", *FEW)
    assert (after.code, after.out) == (0, before.out)
    assert "was trained on another split than" in after.err
    assert "was trained on another split than" not in before.err
    refused = run("register", "few")
    assert (refused.code, refused.out) == (2, "")
    assert "run dvc repro train@few" in refused.err


def test_a_workspace_without_a_store_must_publish_first(
    run: Run, trained, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(trained.root)
    for command in (["register", "few"], ["predict", "params.yaml", "--model", URI]):
        outcome = run(*command)
        assert (outcome.code, outcome.out) == (2, "")
        assert "no such store; run vgg16-transfer publish first" in outcome.err
    assert not (trained.root / "mlflow.db").exists()
