"""`dvc plots show` draws from the record itself, with the templates that dvc.yaml names."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import vl_convert
from dvc_render import VegaRenderer
from ruamel.yaml import YAML

from vgg16_transfer.heads import records
from vgg16_transfer.reporting import tables

from .reporting.conftest import make_params, make_record

ROOT = Path(__file__).parents[1]
STAGES = YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"]
PLOTS: dict[str, dict[str, Any]] = {
    path: settings
    for stage in (STAGES["train"]["do"], STAGES["report"])
    for plot in stage["plots"]
    for path, settings in plot.items()
}
STUDY = make_params(None, {"s": {"samples_per_class": [2, 4], "seed": [0, 1]}}).studies["s"]


def rows(path: str, folder: Path) -> list[dict[str, str]]:
    """The rows of a file as DVC hands them over: text."""
    record = make_record(STUDY)
    records.write(STUDY, record, folder)
    records.write_frame(tables.accuracies({"s": record}, {"s": STUDY}), folder / "all.csv")
    name = "all.csv" if path.startswith("reports/") else Path(path).name
    frame = pd.read_csv(folder / name, dtype=str, keep_default_na=False).assign(rev="workspace")
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


@pytest.fixture(params=PLOTS, ids=lambda path: Path(path).name)
def drawn(request, tmp_path) -> tuple[str, dict[str, Any], str]:
    """A plot of dvc.yaml: its path, its specification, and what Vega draws of it, as SVG."""
    settings = {key: value for key, value in PLOTS[request.param].items() if key != "cache"}
    data = rows(request.param, tmp_path)
    renderer = VegaRenderer(data, "plot", template_dir=str(ROOT / ".dvc" / "plots"), **settings)
    specification = renderer.get_filled_template()
    return (
        request.param,
        specification,
        vl_convert.vegalite_to_svg(json.dumps(specification)),
    )


EXPECTED = {
    "accuracies.csv": ["samples_per_class=2", "samples_per_class=4"],
    "history.csv": ["test loss", "test_accuracy", "epoch"],
    "confusion.csv": ["true", "predicted", "ant"],
}


def test_a_plot_has_its_title_and_shows_its_columns(drawn):
    path, specification, svg = drawn
    assert PLOTS[path]["title"] == specification["title"]
    for text in EXPECTED[Path(path).name]:
        assert f">{text}<" in svg
    assert svg.count("<path") > 10


def test_every_trial_is_a_line_and_every_split_a_mark(tmp_path):
    history = "results/${key}/history.csv"
    template = (ROOT / ".dvc" / "plots" / f"{PLOTS[history]['template']}.json").read_text("utf-8")
    assert template.count('"color": {"field": "trial"') == 2
    frame = pd.DataFrame(rows("results/${key}/accuracies.csv", tmp_path))
    assert frame["point"].value_counts().to_dict() == {
        "samples_per_class=2": 2,
        "samples_per_class=4": 2,
    }


def test_the_interval_is_that_of_the_page(tmp_path):
    (first, second) = rows("reports/accuracies.csv", tmp_path)
    assert (first["study"], first["point"]) == ("s", "samples_per_class=2")
    assert float(first["low"]) < float(first["accuracy"]) < float(first["high"])
    table = tables.table(STUDY, make_record(STUDY))
    assert [row["splits"] for row in table] == [int(first["splits"]), int(second["splits"])]


def test_what_train_leaves_to_git_is_small_and_does_not_bar_it_from_the_run_cache():
    train = STAGES["train"]["do"]
    assert [out for out in train["outs"] if not isinstance(out, str)] == []
    in_git = [
        path
        for out in [*train["metrics"], *train["plots"]]
        for path, settings in out.items()
        if settings.get("cache") is False
    ]
    assert in_git == ["results/${key}/metrics.json", "results/${key}/accuracies.csv"]


def test_git_ignores_what_dvc_has():
    ignored = io.StringIO((ROOT / ".gitignore").read_text(encoding="utf-8")).read().splitlines()
    train = STAGES["train"]["do"]
    cached = [out for out in train["outs"] if out.startswith("results/")]
    cached += [path for plot in train["plots"] for path, s in plot.items() if "cache" not in s]
    assert {path.replace("${key}", "*") for path in cached} <= set(ignored)
    assert "dvc_plots/" in ignored
