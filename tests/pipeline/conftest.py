"""Copies of the repository in which the real `dvc repro` runs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ..warm import COMMANDS, READ_EARLY, warmed  # noqa: TID252 (no test is installed)

ROOT = Path(__file__).parents[2]
ARCHIVE = ROOT.parent / "shared" / "data" / "caltech256-14.tar"

# Small pictures and few epochs: what is tested is the pipeline, not how far VGG16 takes you.
SMALL = {
    "backbone": {"weights": "random-conv", "image_size": 32},
    "datasets": {
        "clipart": {
            "source": "data/clipart.tar",
            "layout": "class_folders",
            "split": {"seeds": [0, 1], "train_per_class": 4, "test_per_class": 4},
            "layers": ["block4_pool", "block5_pool"],
        }
    },
    "studies": {
        "samples": {
            "dataset": "clipart",
            "samples_per_class": [2, 4],
            "seed": [0, 1],
            "epochs": 20,
        },
        "students": {
            "dataset": "clipart",
            "samples_per_class": 1,
            "unlabelled_per_class": 3,
            "teacher_layer": "block4_pool",
            "teacher_samples_per_class": 4,
            "teacher_weight": [0.0, 0.5],
            "seed": [0, 1],
            "epochs": 20,
        },
        "streamed": {
            "dataset": "clipart",
            "approach": "end_to_end",
            "augment": "flip+colour",
            "fine_tune_from": ["none", "block5"],
            "samples_per_class": 1,
            "epochs": 2,
        },
    },
}

RUNS = 13  # a trial each (4 + 4 + 2), and a study each


@dataclass
class Workspace:
    """A clone of the repository as its working tree is now, in a folder of its own."""

    root: Path

    def environment(self) -> dict[str, str]:
        """The environment of a person who has activated the virtual environment, and no more."""
        leaking = ("MLFLOW_", "DVC_", "GIT_", "PYTEST_")
        clean = {key: value for key, value in os.environ.items() if not key.startswith(leaking)}
        return clean | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"}

    def start(self, *command: str, **changes: str) -> subprocess.Popen[str]:
        """Starts a command in a process group of its own, so that all of it can be killed."""
        return self._start(command, self.environment() | changes)

    def finish(self, *command: str, **changes: str) -> tuple[int, str]:
        """The exit code of a command, and what it prints."""
        environment = self.environment() | changes
        warm = command[0] in COMMANDS and not any(key.startswith(READ_EARLY) for key in changes)
        process = self._start(command, warmed(environment) if warm else environment)
        printed, _ = process.communicate(timeout=900)
        return process.returncode, printed

    def run(self, *command: str, **changes: str) -> str:
        """What a command prints; one that fails fails the test."""
        code, printed = self.finish(*command, **changes)
        assert code == 0, printed
        return printed

    def _start(
        self, command: tuple[str, ...], environment: dict[str, str]
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def read(self, path: str) -> Any:
        """A YAML or JSON file."""
        return YAML(typ="safe", pure=True).load(self.root / path)

    def write_params(self, params: dict[str, Any]) -> None:
        YAML(typ="safe", pure=True).dump(params, self.root / "params.yaml")

    def files(self, *rooms: str) -> dict[str, bytes]:
        """Every file in some folders, but for those with the time, and links to weights."""
        paths = [path for room in rooms for path in sorted((self.root / room).rglob("*"))]
        paths = [path for path in paths if path.parent.name != "sources"]
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in paths
            if path.is_file() and not path.name.endswith((".gitignore", ".origin.json"))
        }


def stages_run(printed: str) -> list[str]:
    """The stages that `dvc repro` says it ran."""
    lines = [line for line in printed.splitlines() if line.startswith("Running stage '")]
    return [line.split("'")[1] for line in lines]


def clone(folder: Path, params: dict[str, Any]) -> Workspace:
    """The tracked and the new files of the repository, with other params, committed."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    generated = ("dvc.lock", "results/", "tests/", "docs/")
    for name in filter(None, listing.stdout.split("\0")):
        if not name.startswith(generated) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    workspace = Workspace(folder)
    workspace.write_params(params)
    workspace.run("git", "init", "--quiet")
    workspace.run("git", "config", "user.name", "test")
    workspace.run("git", "config", "user.email", "test@localhost")
    workspace.run("git", "add", "--all")
    workspace.run("git", "commit", "--quiet", "--message", "a clone")
    return workspace


def trained_and_pushed(folder: Path, remote: Path, params: dict[str, Any]) -> Workspace:
    """A clone that was trained and committed, and pushed to a DVC remote in a folder."""
    workspace = clone(folder, params)
    workspace.run("dvc", "repro")
    workspace.run("dvc", "remote", "add", "--default", "team", str(remote))
    workspace.run("git", "add", "--all")
    workspace.run("git", "commit", "--quiet", "--message", "trained")
    workspace.run("dvc", "push")
    return workspace


def caltech256_sample() -> Path:
    """Pictures of 14 classes, which lie beside the repository in CI but not in every checkout.

    A CI that has no copy says so by WITHOUT_CALTECH256=1; in any other one a missing copy fails.
    """
    if not ARCHIVE.exists():
        excused = os.environ.get("WITHOUT_CALTECH256") == "1" or not os.environ.get("CI")
        (pytest.skip if excused else pytest.fail)(f"needs the Caltech-256 sample at {ARCHIVE}")
    return ARCHIVE


@pytest.fixture
def make_clone(tmp_path: Path) -> Callable[..., Workspace]:
    """Makes a workspace with the small params, or others."""

    def make(params: dict[str, Any] = SMALL) -> Workspace:
        folder = tmp_path / "clone"
        folder.mkdir()
        return clone(folder, params)

    return make
