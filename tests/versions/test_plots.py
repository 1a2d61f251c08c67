"""``vgg16-transfer plots``: DVC's page, which then needs no network."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vgg16_transfer.versions.plots import PlotsError, draw

ROOT = Path(__file__).parents[2]
STAGES = """\
stages:
  measure:
    cmd: echo
    plots:
      - accuracies.csv:
          cache: false
          template: accuracies
          title: Accuracy of <every> split
          x: accuracy
          y: point
"""
ROWS = "point,seed,accuracy\nn=2,0,0.5\nn=2,1,0.6\nn=4,0,0.7\nn=4,1,0.8\n"


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository of git and DVC with one plot."""
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    shutil.copytree(ROOT / ".dvc" / "plots", tmp_path / ".dvc" / "plots", dirs_exist_ok=True)
    (tmp_path / "dvc.yaml").write_text(STAGES, encoding="utf-8")
    (tmp_path / "accuracies.csv").write_text(ROWS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.server
def test_the_plots_are_drawn_without_a_network(repository, chromium):
    page = draw(Path("dvc_plots"), [])
    assert page == Path("dvc_plots/index.html")
    assert "<script src" not in page.read_text(encoding="utf-8")
    chromium.size(1000, 800)
    chromium.open(page.absolute().as_uri())
    assert chromium.ask("document.querySelectorAll('.vega-embed canvas, .vega-embed svg').length")
    assert chromium.errors == []


def test_revisions_are_compared(repository):
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", *who, "commit", "--quiet", "--message", "first"], check=True)
    (repository / "accuracies.csv").write_text(ROWS.replace("0.8", "0.9"), encoding="utf-8")
    text = draw(Path("out"), ["HEAD"]).read_text(encoding="utf-8")
    assert json.dumps({"accuracy": "0.8"})[1:-1] in text
    assert json.dumps({"accuracy": "0.9"})[1:-1] in text


def test_what_dvc_can_not_draw_is_one_sentence(repository):
    with pytest.raises(PlotsError, match="dvc plots diff nowhere drew nothing; run it to see why"):
        draw(Path("out"), ["nowhere"])


def test_without_the_extra_the_sentence_says_what_to_install(repository, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(PlotsError, match=r"pip install -e '\.\[plots\]'.*or use dvc plots show"):
        draw(Path("out"), [])
    assert not Path("out").exists()
