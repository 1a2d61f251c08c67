"""A number goes out only if its bytes are those that dvc.lock names."""

import json
import subprocess
from pathlib import Path

import pytest

from vgg16_transfer.lineage.lineage import LineageError
from vgg16_transfer.lineage.locked import check_current, check_locked, md5_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the real DVC ran a stage with a file, a folder and a nested folder."""
    root = tmp_path_factory.mktemp("made")
    (root / "dvc.yaml").write_text(
        "stages:\n  make:\n    foreach: [s]\n    do:\n"
        "      cmd: mkdir -p heads/in && touch heads/a && echo 2 > heads/in/ü && touch table.csv\n"
        "      outs: [heads]\n      metrics: [table.csv: {cache: false}]\n"
    )
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q", "make@s"]):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", str(made), str(tmp_path / "w")], check=True)
    return tmp_path / "w"


def test_the_md5_of_a_file_and_of_a_folder_is_dvcs_own(workspace: Path) -> None:
    check_locked(workspace, ["make@s"])
    lock = (workspace / "dvc.lock").read_text(encoding="utf-8")
    assert md5_of(workspace / "heads") in lock
    assert md5_of(workspace / "table.csv") in lock


def change(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b"x")


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda w: change(w / "table.csv"), "table.csv: is not what make@s made, by dvc.lock; run"),
        (lambda w: change(w / "heads/in/ü"), "heads/in/ü: is not what make@s made, by dvc.lock"),
        (lambda w: (w / "heads/a").unlink(), "heads/a: is not what make@s made, by dvc.lock; run"),
        (lambda w: (w / "heads/b").touch(), "heads/b: is not what make@s made, by dvc.lock; run"),
        (lambda w: (w / "table.csv").unlink(), "table.csv: is missing; run dvc pull, or dvc repro"),
        (lambda w: (w / "dvc.lock").unlink(), "dvc.lock: has no entry for 'make@s'; run dvc repro"),
        (lambda w: (w / "dvc.lock").write_text("stages: ["), "dvc.lock: is damaged ("),
        (
            lambda w: (w / "dvc.lock").write_text("a\n<<<<<<< x\n"),
            "dvc.lock: has conflict markers of",
        ),
        (lambda w: (w / "dvc.lock").write_bytes(b"\xff\xfe"), "dvc.lock: is damaged ("),
        (
            lambda w: (w / "dvc.lock").write_text("stages: {make@s: {outs: [1]}}"),
            "dvc.lock: is",
        ),
    ],
)
def test_the_first_file_that_is_another_one_is_named(workspace: Path, edit, sentence: str) -> None:
    edit(workspace)
    with pytest.raises(LineageError) as caught:
        check_locked(workspace, ["make@s"])
    assert str(caught.value).removeprefix(f"{workspace}/").startswith(sentence)


def test_without_the_caches_list_the_folder_is_named(workspace: Path) -> None:
    change(workspace / "heads/a")
    for listing in (workspace / ".dvc/cache").rglob("*.dir"):
        json.loads(listing.read_text(encoding="utf-8"))
        listing.unlink()
    with pytest.raises(LineageError, match=r"^heads: is not what make@s made"):
        check_locked(workspace, ["make@s"])


def test_only_what_is_read_is_looked_at(workspace: Path) -> None:
    change(workspace / "heads/a")
    check_locked(workspace, ["make@s"], only="table")
    with pytest.raises(LineageError, match="heads/a"):
        check_locked(workspace, ["make@s"], only="heads")


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages that DVC ran: the second one has a param, and the first one's output."""
    root = tmp_path_factory.mktemp("chained")
    (root / "params.yaml").write_text("studies: {s: {epochs: 5, seed: [0, 1]}}\n")
    (root / "dvc.yaml").write_text(
        "stages:\n  split:\n    cmd: echo 1 > split\n    outs: [split]\n"
        "  train:\n    cmd: cp split head\n    deps: [split]\n"
        "    params: [studies.s]\n    outs: [head]\n"
    )
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def chain(chained: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", str(chained), str(tmp_path / "c")], check=True)
    return tmp_path / "c"


def test_results_of_the_params_and_splits_of_today_are_current(chain: Path) -> None:
    check_current(chain, ["split", "train"])


@pytest.mark.parametrize("text", ["studies: {s: {epochs: 6, seed: [0, 1]}}\n", "studies: {}\n"])
def test_params_that_were_changed_after_the_stage_ran_are_named(chain: Path, text: str) -> None:
    (chain / "params.yaml").write_text(text)
    with pytest.raises(LineageError) as caught:
        check_current(chain, ["train"])
    assert str(caught.value) == (
        "params.yaml: studies.s is not what train was run with, by dvc.lock; run dvc repro train, "
        "or undo the change"
    )


def test_a_stage_that_was_run_again_alone_is_named_by_those_that_used_it(chain: Path) -> None:
    text = (chain / "dvc.yaml").read_text().replace("echo 1", "echo 2")
    (chain / "dvc.yaml").write_text(text)
    subprocess.run(["dvc", "repro", "-q", "split"], cwd=chain, check=True, capture_output=True)
    check_current(chain, ["split"])
    with pytest.raises(LineageError) as caught:
        check_current(chain, ["train"])
    assert str(caught.value) == "dvc.lock: train was run with another split; run dvc repro train"
