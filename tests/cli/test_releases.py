"""``vgg16-transfer changes`` and ``release``, and the commands that release prints."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from tests.versions.released import (
    TEST,
    TRAIN,
    Repository,
    isolate,
    make_repository,
    manifest,
)

from vgg16_transfer.cli import releases
from vgg16_transfer.params import ParamsError
from vgg16_transfer.versions.releases import ReleaseError

CHANGES = Path("data/splits/CHANGES.md")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Repository:
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.getbasetemp())
        return make_repository(tmp_path_factory.mktemp("made"))


@pytest.fixture
def repository(made, tmp_path, monkeypatch) -> Repository:
    """The current folder: splits that nobody has released."""
    isolate(monkeypatch, tmp_path)
    shutil.copytree(made.root, tmp_path / "repository", symlinks=True)
    monkeypatch.chdir(tmp_path / "repository")
    return Repository(tmp_path / "repository", made.remote)


def test_two_versions_are_released_one_after_the_other(
    repository, capsys, monkeypatch, tmp_path
) -> None:
    shared = tmp_path / "shared.git"
    repository.git("init", "--quiet", "--bare", str(shared))
    repository.git("remote", "add", "origin", str(shared))
    for name, value in (("user.name", "a"), ("user.email", "a@b.c"), ("push.default", "current")):
        repository.git("config", name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")

    releases.release("animals")
    first = capsys.readouterr().out
    assert "tag --annotate animals-v1 " in first
    repository.run("sh", "-ec", first)

    repository.split(manifest(["a/1", "b/3", "b/6"], ["a/2", "b/5"]))
    releases.release("animals")
    repository.run("sh", "-ec", capsys.readouterr().out)

    text = CHANGES.read_text()
    assert text.index("## animals-v2, 2") < text.index("## animals-v1, 2")
    assert "Since animals-v1: 5 → 5 pictures." in text
    assert "- added, 1: `b/6`" in text
    assert "- removed, 1: `a/4`" in text
    assert "  - moved from train to test, 1: `a/2`" in text
    assert repository.git("-C", str(shared), "tag").split() == ["animals-v1", "animals-v2"]
    assert repository.git("status", "--porcelain") == ""
    # It lies in a folder that the report depends on, and is nobody's input.
    assert repository.dvc("status") == "Data and pipelines are up to date."
    with pytest.raises(ReleaseError, match="nothing changed since animals-v2"):
        releases.release("animals")
    assert CHANGES.read_text() == text


def test_changes_writes_nothing(repository, capsys) -> None:
    repository.git("tag", "--annotate", "animals-v1", "--message", "m")
    releases.changes("animals")
    assert capsys.readouterr().out == "nothing changed since animals-v1\n"
    repository.split(manifest([*TRAIN, "b/6"], TEST))
    releases.changes("animals")
    by_default = capsys.readouterr().out
    assert by_default.startswith("## animals, not released\n\nSince animals-v1: 5 → 6 pictures.\n")
    releases.changes("animals", since="HEAD")
    assert capsys.readouterr().out == by_default.replace("animals-v1", "HEAD")
    assert not CHANGES.exists()


def test_all_is_new_before_the_first_release(repository, capsys) -> None:
    releases.changes("animals")
    assert "The first version: 5 pictures in 2 classes added." in capsys.readouterr().out


def test_splits_that_are_not_up_to_date_are_not_released(repository) -> None:
    (repository.root / "pictures.json").write_text("{}")
    with pytest.raises(ReleaseError, match="dvc repro splits@animals"):
        releases.release("animals")
    assert not CHANGES.exists()


@pytest.mark.parametrize("command", [releases.changes, releases.release])
def test_an_unknown_dataset_gets_the_nearest_name(repository, command) -> None:
    with pytest.raises(ParamsError, match="did you mean 'animals'"):
        command("animal")
