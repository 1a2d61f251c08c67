"""`dvc plots show` draws a line per trial, from the template that dvc.yaml names."""

from pathlib import Path
from typing import Any

import pytest
from dvc_render import VegaRenderer
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


@pytest.fixture
def plot() -> dict[str, Any]:
    """What dvc.yaml says of the plot of a study."""
    train = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]["train"]["do"]
    plots = {path: settings for plot in train["plots"] for path, settings in plot.items()}
    settings: dict[str, Any] = plots["results/${key}/history.csv"]
    return settings


def test_curves_are_drawn_from_the_record_itself(plot) -> None:
    assert (plot["x"], plot["y"]) == ("epoch", "test_accuracy")


def test_a_line_is_a_trial(plot) -> None:
    rows = [{"trial": "seed=0", "epoch": 1, "test_accuracy": 0.5, "rev": "workspace"}]
    template = {"template": plot["template"], "template_dir": ROOT / ".dvc" / "plots"}
    renderer = VegaRenderer(rows, "history.csv", x=plot["x"], y=plot["y"], **template)
    drawn = renderer.get_filled_template()
    assert drawn["data"]["values"] == rows
    fields = {channel: one["field"] for channel, one in drawn["encoding"].items()}
    assert fields == {"x": "epoch", "y": "test_accuracy", "color": "trial", "strokeDash": "rev"}


def test_what_train_leaves_to_git_does_not_bar_it_from_the_run_cache() -> None:
    train = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]["train"]["do"]
    assert [out for out in train["outs"] if not isinstance(out, str)] == []
