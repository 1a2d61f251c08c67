"""The script that takes the README's picture of the UI, on a small workspace."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
TAKE = ROOT / "tools" / "screenshots" / "take.py"

pytestmark = pytest.mark.server


@pytest.fixture
def workspace(trained: Any, publish: Any, tmp_path: Path) -> Any:
    if shutil.which("chromium") is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("no chromium; apt-get install chromium")
    copied = trained.copy(tmp_path / "workspace")
    publish(copied, "few")
    return copied


def test_the_picture_shows_the_runs(workspace: Any, tmp_path: Path) -> None:
    """The script itself waits for rows of the table, and fails without them."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_", "GIT_"))}
    out = tmp_path / "ui.png"
    done = subprocess.run(
        [sys.executable, TAKE, out],
        cwd=workspace.root,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(out) as picture:
        assert picture.size == (2560, 1600)
        table = np.asarray(picture.convert("L").crop((500, 700, 2400, 1400)))
    assert 0.005 < (table < 100).mean() < 0.3  # letters


def test_the_picture_of_the_readme_is_one_of_the_script() -> None:
    with Image.open(ROOT / "docs" / "images" / "mlflow-runs.png") as picture:
        assert picture.size == (2560, 1600)
