"""A made report that holds everything a page may hold."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from vgg16_transfer.diagnostics import sheets
from vgg16_transfer.diagnostics.sheets import Row, Tile
from vgg16_transfer.heads import measures, records
from vgg16_transfer.images.cards import EXAMPLES, card_path, write_card
from vgg16_transfer.images.manifests import COLUMNS
from vgg16_transfer.params import Params, Study, Trial, check_params
from vgg16_transfer.reporting import figures
from vgg16_transfer.reporting.report import write_report

LONG = "a-study-with-a-name-that-is-longer-than-a-phone-is-wide-and-then-some"
STUDIES: dict[str, dict[str, Any]] = {
    "samples": {"samples_per_class": [2, 4, 8, 16], "seed": [0, 1]},
    LONG: {
        "layer": ["block4_pool", "block5_pool"],
        "learning_rate": [0.01, 0.1, 1.0],
        "seed": [0, 1],
    },
}

CARD = {
    "origin": "https://example.org/a-long-address/of-what-is-wider-than-a-phone?page=1 <by> Ann",
    "licence": "CC BY 4.0",
    EXAMPLES: "a/ant_1.jpg (ant), b/bee_1.jpg (bee)",
}


def make_params(published_as: str | None, studies: dict[str, dict[str, Any]]) -> Params:
    dataset = {
        "layers": ["block4_pool", "block5_pool", "predictions"],
        "published_as": published_as,
        "source": "photos",
        "split": {"seeds": [0, 1, 2], "train_per_class": 16},
    }
    return check_params(
        {
            "backbone": {"weights": "random"},
            "datasets": {"photos": dataset},
            "studies": {name: {"dataset": "photos"} | study for name, study in studies.items()},
        }
    )


def record_of(study: Study, trial: Trial, predictions: pd.DataFrame) -> records.Record:
    """A trial with these predictions, and curves that are made up."""
    columns = [f"{role}_{name}" for role in ("train", "test") for name in measures.EVERY_EPOCH]
    history = pd.DataFrame({"epoch": [1, 2]} | {column: [0.25, 0.75] for column in columns})
    hits = predictions["true"] == predictions["predicted"]
    recall = hits.groupby(predictions["true"]).mean().mean()
    measured = dict.fromkeys(measures.NAMES, 0.75)
    measured |= {"accuracy": hits.mean(), "mean_class_recall": recall}
    name = study.trial_name(trial)
    return records.of_trial(name, trial, history, predictions, records.Outcome(measured, None))


def make_record(study: Study) -> records.Record:
    """Heads of which each takes one picture more for what it is."""
    true = [name for name in ("ant", "bee") for _ in range(8)]
    of_trials = []
    for index, trial in enumerate(study.trials()):
        right = 8 + index % 8
        predicted = true[:right] + ["ant"] * (len(true) - right)
        predictions = pd.DataFrame(
            {"path": true, "true": true, "predicted": predicted, "probability": 0.5}
        )
        of_trials.append(record_of(study, trial, predictions))
    return records.join(of_trials)


def folders_in(folder: Path) -> dict[str, Path]:
    names = ("results", "splits", "filters", "gradients", "explained")
    return {name: folder / name for name in names}


def manifest(seed: int) -> str:
    """A manifest with five training pictures and a test picture of each class."""
    rows = [
        f"{name}/{seed}_{rank}.jpg,{label},{name},0,{role},{rank}\n"
        for label, name in enumerate(("ant", "bee"))
        for role, ranks in (("train", range(5)), ("test", range(1)))
        for rank in ranks
    ]
    return f"{','.join(COLUMNS)}\n{''.join(rows)}"


def measure(params: Params, folders: dict[str, Path]) -> None:
    for name, study in params.studies.items():
        records.write(study, make_record(study), folders["results"] / name)
    (folders["splits"] / "photos").mkdir(parents=True)
    for seed in (0, 1, 2):
        (folders["splits"] / "photos" / f"{seed}.csv").write_text(manifest(seed), encoding="utf-8")


@pytest.fixture
def write_page(tmp_path) -> Callable[..., str]:
    """Gives the text of a page of studies on one dataset, and of nothing else."""

    def write(published_as: str | None, **studies: dict[str, Any]) -> str:
        params, folders = make_params(published_as, studies), folders_in(tmp_path)
        measure(params, folders)
        write_report(params, tmp_path, **folders)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a page with all that there is; its pictures are wider than a phone."""
    folder = tmp_path_factory.mktemp("full")
    params, folders = make_params("caltech256", STUDIES), folders_in(folder)
    measure(params, folders)
    write_card(card_path(folders["splits"] / "photos"), "photos", CARD)
    drawn, explained = folders["filters"] / "photos", folders["explained"] / "samples"
    for made in (drawn, explained):
        made.mkdir(parents=True)
    Image.new("RGB", (980, 160)).save(drawn / "block1_conv1.png")
    Image.new("RGB", (652, 160), "blue").save(drawn / "examples.png")
    samples = Image.new("RGB", (332, 164), "red")  # two rows of four pictures
    samples.paste("lime", (0, 84, 332, 164))
    samples.save(drawn / "samples.png")
    tile = Tile(Image.new("RGB", (100, 80), "red"), "an ant")
    figures.save(sheets.sheet([Row("", [tile] * 9)], 1.0), explained / "nearest.svg")
    captions = {"nearest.png": "Where the head sees an ant"}
    (explained / "captions.json").write_text(json.dumps(captions))
    folders["gradients"].mkdir()
    (folders["gradients"] / "photos.csv").write_text(
        "weights,layer,checked,average,max\nω_ij,block5_conv3,200,1.25e-11,5e-10\n",
        encoding="utf-8",
    )
    write_report(params, folder, **folders)
    return folder


@pytest.fixture(scope="session")
def page(full) -> Path:
    return full / "report.html"
