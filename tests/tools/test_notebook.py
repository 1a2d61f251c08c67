"""The notebook runs on the shipped clip art and on a folder of one's own."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "first-steps.ipynb"


def shown(notebook) -> list[str]:
    """The text of each cell's result."""
    return [
        out["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
        if "data" in out
    ]


def read(path: Path = NOTEBOOK) -> Any:
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def run(path: Path, pictures: str) -> Any:
    """Runs a notebook in a process of its own, and returns it with its outputs."""
    subprocess.run(
        [sys.executable, ROOT / "tools" / "notebook.py", path],
        env={**os.environ, "PICTURES": pictures},
        check=True,
        capture_output=True,
    )
    return read(path)


def small(folder: Path) -> Path:
    """The notebook with a small network input, in a folder below which the clip art lies."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "image_size=112" in text
    (folder / "notebooks").mkdir()
    (folder / "data").symlink_to(ROOT / "data")
    path = folder / "notebooks" / NOTEBOOK.name
    path.write_text(text.replace("image_size=112", "image_size=32"), encoding="utf-8")
    return path


@pytest.mark.pipeline
def test_it_runs_on_the_clip_art(tmp_path):
    results = shown(run(small(tmp_path), "../data/clipart.tar"))
    committed = shown(read())
    assert results[0] == committed[0] == "<Data clipart: 571 pictures of 16 classes>"
    assert len(results) == len(committed)
    assert results[4].startswith("<Results of 50 trials>")


@pytest.mark.pipeline
def test_it_runs_on_a_folder_of_ones_own(tmp_path):
    for label, name in enumerate(("cat", "dog", "emu")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.random.default_rng([label, number]).integers(0, 256, (40, 40, 3))
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
            (tmp_path / "pets" / name / f"{number}.png").write_bytes(buffer.getvalue())
    notebook = run(small(tmp_path), str(tmp_path / "pets"))
    assert shown(notebook)[0] == "<Data pets: 15 pictures of 3 classes>"


def test_what_is_committed_ran_whole_and_names_no_place_of_a_machine():
    notebook = read()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells[1:])
    assert not any(str(Path.home()) in text or "/tmp" in text for text in shown(notebook))  # noqa: S108
    assert NOTEBOOK.stat().st_size < 300_000
