"""`dvc repro` of a study that compares networks, and of weights of your own."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from .conftest import SMALL, Workspace, stages_run

pytestmark = pytest.mark.pipeline

NETWORKS = {name: {"weights": "random-conv", "image_size": 64} for name in ("vgg16", "mobilenetv2")}
DATASET = {
    "source": "data/clipart.tar",
    "split": {"seeds": [0], "train_per_class": 2, "test_per_class": 2, "validation_per_class": 2},
    "layers": ["block_12_add", "last"],
}
STUDIES = {
    "networks": {
        "dataset": "clipart",
        "backbone": list(NETWORKS),
        "layer": "last",
        "samples_per_class": 2,
        "epochs": 20,
    },
    "streamed": {
        "dataset": "clipart",
        "backbone": "mobilenetv2",
        "approach": "end_to_end",
        "layer": "last",
        "fine_tune_from": "block_13",
        "samples_per_class": 1,
        "epochs": 1,
    },
}


def rows(workspace: Workspace, path: str) -> list[dict[str, str]]:
    with (workspace.root / path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_networks_are_compared_in_one_study(make_clone: Callable[..., Workspace]) -> None:
    params = {"backbone": NETWORKS, "datasets": {"clipart": DATASET}, "studies": STUDIES}
    workspace = make_clone(params)
    workspace.run("dvc", "repro")
    trials = rows(workspace, "results/networks/trials.csv")
    assert [(row["backbone"], row["layer"]) for row in trials] == [
        ("vgg16", "block5_pool"),
        ("mobilenetv2", "out_relu"),
    ]
    # Of 16 classes. Random weights tell drawings apart better than chance.
    assert [float(row["accuracy"]) > 1 / 16 for row in trials] == [True, True], trials
    page = (workspace.root / "reports/report.html").read_text(encoding="utf-8")
    assert "mobilenetv2" in page
    kept = sorted(path.name for path in (workspace.root / "data/features/clipart").iterdir())
    assert kept == ["block5_pool.rows", "index.jsonl", "mobilenetv2"]
    for study in STUDIES:
        picture = next((workspace.root / "reports/filters/clipart").glob("*.png"))
        answer = workspace.run("vgg16-transfer", "predict", "--study", study, str(picture))
        assert picture.name in answer
        assert f"{study}: trial" in answer
    workspace.run("vgg16-transfer", "register", "streamed")
    assert stages_run(workspace.run("dvc", "repro")) == []


def test_a_network_that_is_added_costs_no_picture_of_the_first(
    make_clone: Callable[..., Workspace],
) -> None:
    few = {"few": {"dataset": "clipart", "layer": "last", "samples_per_class": 2, "epochs": 5}}
    dataset = DATASET | {"layers": ["last"]}
    params = {"backbone": NETWORKS["vgg16"], "datasets": {"clipart": dataset}, "studies": few}
    workspace = make_clone(params)
    workspace.run("dvc", "repro", "features@clipart")
    store = workspace.files("data/features", "models")
    workspace.write_params(params | {"backbone": NETWORKS})
    printed = workspace.run("dvc", "repro", "features@clipart")
    assert "0 pictures went through vgg16" in printed
    after = workspace.files("data/features", "models")
    assert {path: after[path] for path in store if "models/backbones" not in path}.items() <= (
        store.items()
    )
    assert "models/backbones/mobilenetv2.weights.h5" in after


def double_a_layer(path: Path) -> None:
    """Makes other weights of the same network of a file."""
    with h5py.File(path, "r+") as file:
        kernel = file["layers/conv2d/vars/0"]
        kernel[...] = 2 * kernel[...]


def test_weights_of_your_own_that_are_replaced_are_noticed(
    make_clone: Callable[..., Workspace], tmp_path: Path
) -> None:
    own_rows = tmp_path / "mine.weights.h5"
    workspace = make_clone(SMALL)
    workspace.run("dvc", "repro", "weights")
    shutil.copyfile(workspace.root / "models/vgg16.weights.h5", own_rows)
    first = own_rows.read_bytes()
    own = {"weights": str(own_rows), "image_size": 64}
    workspace.write_params(SMALL | {"backbone": own})
    workspace.run("dvc", "repro", "weights")
    assert stages_run(workspace.run("dvc", "repro", "weights")) == []
    workspace.write_params(SMALL | {"backbone": own | {"weights": "random-conv"}})
    workspace.run("dvc", "repro", "weights")
    double_a_layer(own_rows)
    assert own_rows.read_bytes() != first
    workspace.write_params(SMALL | {"backbone": own})
    workspace.run("dvc", "repro", "weights")
    own_rows.write_bytes(first)
    assert "models/sources" in workspace.run("dvc", "status", "weights")
    assert stages_run(workspace.run("dvc", "repro", "weights")) == ["sources", "weights"]
    assert stages_run(workspace.run("dvc", "repro", "weights")) == []
