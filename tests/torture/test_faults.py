"""Every stage on a disk that is full or may not be written to, and with too little memory.

Each stage says so in one sentence with exit code 2, and leaves nothing half written. Run again with
room, it writes the bytes that it writes on any other disk.
"""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vgg16_transfer import cli
from vgg16_transfer.artifacts import remove
from vgg16_transfer.lineage import locked

FULL = os.environ.get("TORTURE") == "1"
SIZE = 512_000_000
"""Bytes of the small disk."""

STAGES = {
    "fetch animals": ["data/raw/animals"],
    "splits animals": ["data/splits/animals", "data/splits/animals.card.md"],
    "sources": ["models/sources"],
    "weights": ["models/vgg16.weights.h5", "models/backbones"],
    "features animals": ["data/features/animals"],
    "filters animals": ["reports/filters/animals"],
    "gradients animals": ["reports/gradients/animals.csv"],
    "train few": ["models/heads/few", "results/few"],
    "train tuned": ["models/heads/tuned", "results/tuned"],
    "explain few": ["reports/explained/few"],
    "report": ["reports/report.html", "reports/figures"],
}
"""Commands, and what they write."""

NO_ROOM_NEEDED = {"fetch animals"}
"""A link takes no room on this disk."""

KEPT = (".partial",)
"""Ends of the names of what is kept for the next run, which removes it."""


@dataclass
class Disk:
    """A small disk with a workspace in which all stages have run."""

    root: Path
    run: Callable[..., tuple[Any, list[str]]]

    @property
    def workspace(self) -> Path:
        return self.root / "w"

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.root)]
        subprocess.run(command, check=True, capture_output=True)

    def fill(self, left: int) -> None:
        """Leaves no more than so many bytes, in whole pages."""
        with (self.root / "filler").open("wb") as filler:
            size = shutil.disk_usage(self.root).free - left
            if size > 0:
                os.posix_fallocate(filler.fileno(), 0, size)

    def contents(self, outs: list[str]) -> dict[str, bytes]:
        """All files of a stage's outputs."""
        roots = [self.workspace / out for out in outs]
        paths = [path for root in roots for path in (root, *sorted(root.rglob("*")))]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}

    def hidden(self) -> list[Path]:
        """What stages have left beside their outputs, but for git's folder."""
        names = [path for path in self.workspace.rglob(".*") if ".git" not in path.parts]
        return [path for path in names if not path.name.endswith((".gitignore", ".origin.json"))]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The small disk. Root may mount one, and others skip."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(mounted: Path, trained, monkeypatch, capsys) -> Disk:
    """The disk, with commands that run in its workspace."""
    monkeypatch.setattr(locked, "check_locked", lambda *_: None)  # there is no real dvc.lock
    monkeypatch.setattr(locked, "check_current", lambda *_: None)
    monkeypatch.delenv("DVC_STAGE", raising=False)

    def run(command: str) -> tuple[Any, list[str]]:
        monkeypatch.setattr(sys, "argv", ["vgg16-transfer", *command.split()])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, capsys.readouterr().err.splitlines()

    disk = Disk(mounted, run)
    if not disk.workspace.exists():
        trained.copy(disk.workspace)
        archive = disk.workspace / "data" / "raw" / "animals"
        archive.rename(disk.workspace / "animals.tar")
        monkeypatch.chdir(disk.workspace)
        for command in not_run_yet(disk.workspace):
            assert run(command)[0] == 0, command
    monkeypatch.chdir(disk.workspace)
    return disk


def not_run_yet(workspace: Path) -> list[str]:
    """The stages that the session's workspace was trained without."""
    return [
        command
        for command, outs in STAGES.items()
        if not all((workspace / out).exists() for out in outs)
    ]


def check_made_again(disk: Disk, command: str, before: dict[str, bytes]) -> None:
    code, lines = disk.run(command)
    assert code == 0, lines
    assert disk.contents(STAGES[command]) == before
    assert disk.hidden() == []


@pytest.mark.parametrize("number", range(8 if FULL else 1))
@pytest.mark.parametrize("command", STAGES)
def test_full_disk(disk: Disk, command: str, number: int) -> None:
    before = disk.contents(STAGES[command])
    assert before
    for out in STAGES[command]:
        remove(disk.workspace / out)
    size = sum(map(len, before.values()))
    disk.fill(random.Random(number).randrange(size) if number else 0)  # noqa: S311
    code, lines = disk.run(command)
    (disk.root / "filler").unlink()
    if command not in NO_ROOM_NEEDED:
        assert code == 2, lines
        (error,) = [line for line in lines if line.startswith("error: ")]
        assert "no room to write it (No space left on device); make room; " in error
        assert [path for path in disk.hidden() if not path.name.endswith(KEPT)] == []
    check_made_again(disk, command, before)


@pytest.mark.parametrize("command", STAGES)
def test_read_only_disk(disk: Disk, command: str) -> None:
    before = disk.contents(STAGES[command])
    for out in STAGES[command]:
        remove(disk.workspace / out)
    disk.mount("remount,ro")
    code, lines = disk.run(command)
    disk.mount("remount,rw")
    assert code == 2, lines
    (error,) = [line for line in lines if line.startswith("error: ")]
    assert "can't be written (Read-only file system); allow it; " in error
    check_made_again(disk, command, before)


SCRIPT = Path(sys.executable).with_name("vgg16-transfer")
HEAVY = ["features animals", "filters animals", "gradients animals", "train few", "train tuned"]
LEAST, ENOUGH = 1200, 4500
"""Megabytes of addresses: TensorFlow can just be imported, and all goes well."""


@pytest.mark.parametrize("number", range(4 if FULL else 1))
@pytest.mark.parametrize("command", HEAVY if FULL else ["train tuned"])
def test_memory_limit(trained, tmp_path: Path, command: str, number: int) -> None:
    workspace = trained.copy(tmp_path / "w")
    disk = Disk(workspace.root.parent, lambda _: (None, []))
    outs = STAGES[command]
    if command in not_run_yet(workspace.root):
        subprocess.run(
            [SCRIPT, *command.split()], cwd=workspace.root, check=True, capture_output=True
        )
    before = disk.contents(outs)
    for out in outs:
        remove(workspace.root / out)
    megabytes = random.Random(number).uniform(LEAST, ENOUGH) if number else 3000  # noqa: S311
    limit = int(megabytes * 1e6)
    code = f"import resource, os, sys; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))"
    code += "; os.execv(sys.argv[1], sys.argv[1:])"
    limited = subprocess.run(
        [sys.executable, "-c", code, SCRIPT, *command.split()],
        cwd=workspace.root,
        check=False,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in limited.stderr, limited.stderr
    # If a library in C++ gets no memory, it ends the process itself.
    errors = [line for line in limited.stderr.splitlines() if line.startswith("error: ")]
    assert limited.returncode != 2 or "out of memory" in errors[0], limited
    subprocess.run([SCRIPT, *command.split()], cwd=workspace.root, check=True, capture_output=True)
    assert disk.contents(outs) == before
    assert disk.hidden() == []
