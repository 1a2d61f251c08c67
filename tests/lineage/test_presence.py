"""What of a run a workspace has."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vgg16_transfer.lineage.lineage import LineageError, locked_stages
from vgg16_transfer.lineage.presence import CACHED, GONE, HERE, Fact, facts

DVC_YAML = {
    "stages": {
        "splits": {"cmd": "mkdir -p data/splits && cp p data/splits/a", "deps": ["p"]},
        "train": {"cmd": "mkdir -p models/heads && cp data/splits/a models/heads/train"},
    }
}
DVC_YAML["stages"]["splits"]["outs"] = ["data/splits/a"]
DVC_YAML["stages"]["train"] |= {"deps": ["data/splits/a"], "outs": ["models/heads/train"]}


class Workspace:
    """A git repository whose only stages copy a file."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self) -> None:
        (self.root / "dvc.yaml").write_text(json.dumps(DVC_YAML))
        (self.root / "p").write_text("one")
        (self.root / ".gitignore").write_text("data/\nmodels/\n")
        self.git("init", "--quiet")
        self.dvc("init", "--quiet")
        self.dvc("repro", "--quiet")
        self.commit()

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def dvc(self, *command: str) -> None:
        self.run(sys.executable, "-m", "dvc", *command)

    def git(self, *command: str) -> str:
        return self.run("git", "-c", "user.name=a", "-c", "user.email=a@b.c", *command)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "m")

    def tags(self) -> dict[str, str]:
        return locked_stages(self.root, ["train"])["train"].tags()

    def facts(self, tags: dict[str, str]) -> dict[str, Fact]:
        return {fact.what: fact for fact in facts(self.root, tags)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The workspace itself, of which each test has a copy: DVC takes a second to make it."""
    workspace = Workspace(tmp_path_factory.mktemp("made"))
    workspace.make()
    return workspace


@pytest.fixture
def workspace(made: Workspace, tmp_path: Path) -> Workspace:
    shutil.copytree(made.root, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path)


def test_a_run_of_this_workspace_is_all_here(workspace) -> None:
    tags = workspace.tags()
    parts = workspace.facts(tags)
    head = workspace.git("rev-parse", "HEAD")
    assert parts["stage"].value == "train"
    assert parts["trained at"] == Fact("trained at", head, "checked out")
    assert parts["lock entry"] == Fact("lock entry", tags["dvc.lock_digest"], "in this dvc.lock")
    assert parts["splits"] == Fact("splits", tags["dvc.splits_md5"], HERE)
    assert parts["get it back"].value == f"git checkout {head} && dvc checkout"
    assert "experiment" not in parts


def test_an_older_run_is_found_in_git_and_in_the_cache(workspace) -> None:
    old, first = workspace.tags(), workspace.git("rev-parse", "HEAD")
    (workspace.root / "p").write_text("two")
    workspace.dvc("repro", "--quiet")
    workspace.commit()
    parts = workspace.facts(old)
    assert parts["trained at"].where == "in this repository"
    assert parts["lock entry"].where == f"in dvc.lock of {first[:12]}"
    assert parts["splits"].where == CACHED
    assert parts["get it back"].value == f"git checkout {first} && dvc checkout"
    assert parts["get it back"].where == ""
    workspace.git("checkout", "--quiet", first)
    workspace.dvc("checkout", "--quiet")
    assert workspace.tags()["dvc.lock_digest"] == old["dvc.lock_digest"]
    assert workspace.facts(old)["splits"].where == HERE


def test_what_is_neither_here_nor_in_the_cache_must_be_pulled(workspace) -> None:
    tags = workspace.tags()
    shutil.rmtree(workspace.root / "data")
    assert workspace.facts(tags)["splits"].where == CACHED
    shutil.rmtree(workspace.root / ".dvc" / "cache")
    assert workspace.facts(tags)["splits"].where == GONE


def test_of_a_run_that_nobody_committed_it_says_so(workspace) -> None:
    (workspace.root / "p").write_text("three")
    workspace.dvc("repro", "--quiet")
    tags = workspace.tags()
    workspace.git("checkout", "--quiet", "dvc.lock", "p")
    parts = workspace.facts(tags)
    assert parts["trained at"].value.endswith("with changes that were not committed")
    assert parts["lock entry"].where == "in no dvc.lock of this git repository"
    assert parts["get it back"].value == "no commit has it yet"


def test_a_commit_of_another_clone_must_be_fetched(workspace) -> None:
    tags = workspace.tags() | {"git.commit": "1" * 40}
    assert workspace.facts(tags)["trained at"].where == "not here: git fetch"


def test_a_run_of_something_else_is_refused(workspace) -> None:
    with pytest.raises(LineageError, match=r"no tag dvc\.lock_digest"):
        workspace.facts({})
