"""``vgg16-transfer init``: from a folder of pictures to entries of params.yaml."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vgg16_transfer.images.splits import write_splits
from vgg16_transfer.params import read_params

PARAMS = """\
backbone: {weights: random-conv, image_size: 32}
datasets:
  ants: {source: ants.tar, layers: [block5_pool]}  # somebody's comment
studies:
  few: {dataset: ants}
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A workspace, which is the current folder, in a home of its own."""
    root = tmp_path / "work"
    root.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(root)
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    return root


def fill(folder: Path, *names: str, count: int = 8) -> Path:
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng([label, number]).integers(0, 256, (24, 24, 3))
            buffer = io.BytesIO()
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
            (folder / name / f"{number}.png").write_bytes(buffer.getvalue())
    return folder


def test_a_folder_becomes_a_dataset_and_a_study_that_the_stages_take(here, run):
    pets = fill(here.parent / "pets", "cat", "dog")
    (pets / "cat" / "notes.txt").write_text("x", encoding="utf-8")
    outcome = run("init", str(pets))
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.splitlines() == [
        f"{pets}: 16 usable pictures of 2 classes",
        "  cat     8  0.png, 1.png, 2.png, …",
        "  dog     8  0.png, 1.png, 2.png, …",
        "left out, 1: is no picture (cat/notes.txt)",
        "of each class, up to 4 train, 2 choose settings, 2 test; 10 splits",
        "params.yaml: added datasets.pets and studies.pets-samples",
        "next: dvc repro train@pets-samples",
        "then: vgg16-transfer predict --study pets-samples PICTURE",
    ]
    text = (here / "params.yaml").read_text(encoding="utf-8")
    assert "# somebody's comment" in text
    params = read_params(here / "params.yaml")
    dataset, study = params.dataset("pets"), params.study("pets-samples")
    assert dataset.source == "~/pets"
    assert study.grid["samples_per_class"] == (2, 4)
    assert study.grid["seed"] == tuple(range(10))
    written = write_splits("pets", dataset, pets, here / "splits")
    assert (written.usable, written.classes) == (16, 2)


def test_pictures_inside_the_workspace_have_a_relative_path(here, run):
    fill(here / "data" / "pets", "cat", "dog")
    assert run("init", "data/pets").code == 0
    assert read_params(here / "params.yaml").dataset("pets").source == "data/pets"


def test_a_dry_run_prints_what_would_be_added_and_changes_nothing(here, run):
    fill(here / "pets", "cat", "dog")
    outcome = run("init", "pets", "--dry-run")
    assert outcome.out.splitlines() == [
        "datasets:",
        "  pets:",
        "    source: pets",
        "    split: {train_per_class: 4, test_per_class: 2, validation_per_class: 2}",
        "    layers: [block5_pool]",
        "studies:",
        "  pets-samples:",
        "    dataset: pets",
        "    samples_per_class: [2, 4]",
        "    seed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]",
    ]
    assert (here / "params.yaml").read_text(encoding="utf-8") == PARAMS


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["pets", "--name", "ants"], "params.yaml: datasets.ants: exists already"),
        (["pets", "--name", "My Pets"], "params.yaml: datasets.My Pets: a name is lower-case"),
        (["pets", "--layout", "csv"], "layout: csv needs one CSV with the columns path and label"),
        (["pets/cat"], "one folder for each class, but the source has 8 pictures"),
        (["params.yaml"], "params.yaml: "),
    ],
)
def test_what_can_not_be_added_is_one_sentence_and_changes_nothing(here, run, arguments, sentence):
    fill(here / "pets", "cat", "dog")
    outcome = run("init", *arguments)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert "Traceback" not in outcome.err
    assert (here / "params.yaml").read_text(encoding="utf-8") == PARAMS


def test_another_network_gets_its_own_last_layer(here, run):
    fill(here / "pets", "cat", "dog")
    text = PARAMS.replace("weights: random-conv", "network: mobilenetv2, weights: random")
    text = text.replace("block5_pool]", "last]").replace("few: {", "few: {layer: last, ")
    (here / "params.yaml").write_text(text, encoding="utf-8")
    assert run("init", "pets").code == 0
    params = read_params(here / "params.yaml")
    assert params.dataset("pets").layers == ["out_relu"]
    assert params.study("pets-samples").grid["layer"] == ("out_relu",)
