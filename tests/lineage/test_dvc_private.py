"""DVC's private interfaces give known answers, with the versions that constraints.txt names."""

import hashlib
import importlib.metadata
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from vgg16_transfer.lineage import dvc_private

ROOT = Path(__file__).parents[2]
SEEN = {"dvc": "3.67.1", "dvc-data": "3.18.3", "dvc-objects": "5.2.0"}
ONE, TWO = (hashlib.md5(text, usedforsecurity=False).hexdigest() for text in (b"1", b"2"))
LIST = [{"md5": ONE, "relpath": "a"}, {"md5": TWO, "relpath": "b"}]
FOLDER = hashlib.md5(json.dumps(LIST).encode(), usedforsecurity=False).hexdigest() + ".dir"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a committed stage, whose output was pushed to a remote."""
    root = tmp_path_factory.mktemp("private") / "workspace"
    root.mkdir()
    (root / "dvc.yaml").write_text(
        "stages:\n  make:\n    cmd: mkdir out && printf 1 > out/a && printf 2 > out/b\n"
        "    outs: [out]\n"
    )
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["dvc", "remote", "add", "-q", "-d", "lab", str(root.with_name("remote"))],
        ["dvc", "repro", "-q"],
        ["dvc", "push", "-q"],
        ["git", "add", "--all"],
        ["git", *who, "commit", "-q", "-m", "m"],
    ):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root


@pytest.mark.parametrize("package", SEEN)
def test_the_version_is_the_one_that_was_tested(package: str) -> None:
    """If it fails: run the tests of this file with the new version, then change the bound."""
    assert importlib.metadata.version(package) == SEEN[package]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.findall(rf"^{package}==(.+)$", constraints, re.MULTILINE) == [SEEN[package]]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (bound,) = [one for one in map(Requirement, project["dependencies"]) if one.name == package]
    major, minor, _ = map(int, SEEN[package].split("."))
    assert bound.specifier.contains(SEEN[package])
    assert not bound.specifier.contains(f"{major}.{minor + 1}.0")


def test_the_lock_entry_is_the_one_in_dvc_lock(workspace: Path) -> None:
    lock = YAML(typ="safe", pure=True).load((workspace / "dvc.lock").read_text(encoding="utf-8"))
    assert dvc_private.lock_entry(workspace, "make") == lock["stages"]["make"]
    with pytest.raises(DvcException, match="other"):
        dvc_private.lock_entry(workspace, "other")


def test_the_md5_of_a_folder_is_that_of_its_list_of_files(workspace: Path) -> None:
    assert dvc_private.folder_md5s(workspace / "out") == (FOLDER, {"a": ONE, "b": TWO})


def test_a_stage_that_ran_is_up_to_date(workspace: Path) -> None:
    assert dvc_private.stage_is_up_to_date(workspace, "make")


def test_an_output_is_found_in_the_workspace_and_in_the_cache(workspace: Path) -> None:
    with Repo(str(workspace)) as repo:
        (out,) = dvc_private.outputs(repo)
        assert (out.path, out.in_workspace(FOLDER), out.in_cache(FOLDER)) == ("out", True, True)
        other = "0" * 32 + ".dir"
        assert not out.in_workspace(other)
        assert not out.in_cache(other)


def test_a_folder_is_copied_from_a_revision(workspace: Path, tmp_path: Path) -> None:
    assert dvc_private.copy_folder(workspace, "HEAD", "out", tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "2"}
    assert not dvc_private.copy_folder(workspace, "HEAD", "other", tmp_path)
    with pytest.raises(DvcException, match="nothing"):
        dvc_private.copy_folder(workspace, "nothing", "out", tmp_path)


def test_objects_of_the_cache_and_the_remote_are_read_and_written(workspace: Path) -> None:
    with Repo(str(workspace)) as repo:
        assert dvc_private.cached_outputs(repo) == {FOLDER: "out"}
        remote, cache = dvc_private.remote(repo, "lab"), dvc_private.cache(repo)
    assert remote.files(FOLDER) == cache.files(FOLDER) == {ONE: "a", TWO: "b"}
    assert b"".join(remote.chunks(ONE)) == b"1"
    Path(remote.location(ONE)).unlink()
    with pytest.raises(FileNotFoundError):
        next(remote.chunks(ONE))
    remote.upload(ONE, cache)
    assert b"".join(remote.chunks(ONE)) == b"1"
