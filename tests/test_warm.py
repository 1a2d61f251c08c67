"""Commands that start warm do what commands do."""

import os
import subprocess
from pathlib import Path

import pytest

from .warm import warmed

PRINT = ("vgg16-transfer", "--version")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = warmed(dict(os.environ))
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_prints_and_ends_as_a_cold_one() -> None:
    cold = subprocess.run(PRINT, capture_output=True, text=True, check=False)
    warm = run(*PRINT)
    assert (warm.returncode, warm.stdout, warm.stderr) == (0, cold.stdout, cold.stderr)


def test_it_has_its_own_folder_and_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = run("vgg16-transfer", "train", "few")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert "params.yaml" in failed.stderr
