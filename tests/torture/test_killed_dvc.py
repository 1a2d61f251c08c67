"""`dvc pull` and `dvc checkout` that are killed, and run again."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from tests.pipeline.conftest import SMALL, Workspace, trained_and_pushed

pytestmark = [pytest.mark.pipeline, pytest.mark.torture]

PARAMS = SMALL | {"studies": {"samples": SMALL["studies"]["samples"]}}
ROOMS = ("models", "results", "data/features", "data/splits", "reports")
KILLS = 10
LONGEST = 1.5
STAGES = ("features@clipart", "train@samples", "explain@samples", "report")
LEFT_BY_DVC = f".{'?' * 22}.tmp"


@pytest.fixture(scope="module")
def ada(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Who trained and pushed to a folder."""
    make = tmp_path_factory.mktemp
    return trained_and_pushed(make("ada"), make("remote"), PARAMS)


@pytest.mark.parametrize("command", ["pull", "checkout"])
@pytest.mark.parametrize("number", range(KILLS))
def test_killed_and_run_again(ada: Workspace, tmp_path: Path, command: str, number: int) -> None:
    workspace = Workspace(tmp_path / "clone")
    ada.run("git", "clone", "--quiet", str(ada.root), str(workspace.root))
    if command == "checkout":
        workspace.run("dvc", "fetch")
    process = workspace.start("dvc", command)
    time.sleep(random.Random(number).uniform(0.3, LONGEST))  # noqa: S311
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    for option in ([], ["--force"]):
        # DVC may still believe what it had begun, or not know its own leftover.
        workspace.start("dvc", command, *option).communicate(timeout=600)
        for left in workspace.root.rglob(LEFT_BY_DVC):  # .gitignore names them
            left.unlink()
        whole = workspace.files(*ROOMS) == ada.files(*ROOMS)
        said = workspace.run("dvc", "status", *STAGES)
        assert ("up to date" in said) == whole  # it is never wrong silently
        if whole:
            return
    workspace.run("dvc", "repro")
    assert workspace.files(*ROOMS) == ada.files(*ROOMS)
