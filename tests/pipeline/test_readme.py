"""The way that the README shows for one's own pictures, command by command."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
COLOURS = {"cat": (200, 90, 40), "dog": (40, 160, 60), "emu": (50, 70, 190)}


def pictures(folder: Path) -> None:
    """Eight pictures of each class: noise with a tinge of the class's colour."""
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(8):
            (folder / name / f"{number}.jpg").write_bytes(picture(colour, number))


def picture(colour: tuple[int, int, int], number: int) -> bytes:
    noise = np.random.default_rng([*colour, number]).integers(0, 120, (60, 80, 3))
    buffer = io.BytesIO()
    Image.fromarray((noise + np.array(colour) // 2).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def commands() -> list[str]:
    """The commands of the README's section, without those that the test's environment replaces."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Your own pictures")[2]
    (block,) = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)[:1]
    lines = [line.partition("  #")[0].strip() for line in block.splitlines()]
    assert lines.pop(0) == ". .venv/bin/activate"
    return lines


@pytest.mark.pipeline
def test_from_a_folder_to_a_prediction_in_three_commands(make_clone, tmp_path):
    workspace = make_clone()
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    (workspace.root / "params.yaml").write_text(params, encoding="utf-8")
    pictures(tmp_path / "pets")
    (workspace.root / "cat.jpg").write_bytes(picture(COLOURS["cat"], 99))
    first, *others = commands()
    assert len(others) == 2
    printed = workspace.run("bash", "-c", first, HOME=str(tmp_path))
    assert "24 usable pictures of 3 classes" in printed
    assert (workspace.root / "params.yaml").read_text(encoding="utf-8").startswith(params[:500])
    for command in others:
        assert command in printed.replace("PICTURE", "cat.jpg")
    repro, predict = (workspace.run("bash", "-c", c, HOME=str(tmp_path)) for c in others)
    assert "Running stage 'train@pets-samples'" in repro
    assert "clipart" not in repro
    rows = [line for line in predict.splitlines() if "cat.jpg" in line]
    assert re.search(r"cat\.jpg\W+cat\W+\d", rows[-1])
