"""A tiny made-up study as a stage leaves it behind, and a store to log it to."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vgg16_transfer.heads import records
from vgg16_transfer.heads.linear import Linear
from vgg16_transfer.heads.measures import EVERY_EPOCH, NAMES
from vgg16_transfer.images.manifests import COLUMNS
from vgg16_transfer.lineage.lineage import Lineage
from vgg16_transfer.params import Study, Trial, check_params
from vgg16_transfer.tracking.mlflow_store import DATABASE, Store, find_store
from vgg16_transfer.tracking.publish import publish_study

DATASET = "animals"
TEST = ["ant", "ant", "ant", "bee", "bee", "cat"]  # true classes: some have more pictures
CLASSES = sorted(set(TEST))
WIDTH = 12
CHECKED = {"weights": ["ω_jk"], "layer": ["softmax"], "average": [1e-9], "max": [2e-8]}
FILTERS = ["block1_conv1", "kernels"]


class Outputs(NamedTuple):
    """Where a study's results lie, and what was drawn beside them."""

    results: Path
    heads: Path
    splits: Path
    filters: Path
    gradients: Path


MakeOutputs = Callable[[Study], Outputs]

LEAKING = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


class Killed(BaseException):
    """Stands in for a SIGKILL: nothing in the package may catch it."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the store of another one, or that of whoever runs the tests."""
    for name in [*LEAKING, *(name for name in os.environ if name.startswith("DVC_"))]:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store's database, made once, since its tables take seconds."""
    root = tmp_path_factory.mktemp("database")
    find_store(root, None).client()
    mlflow.set_tracking_uri(None)
    return root / DATABASE


@pytest.fixture(scope="session")
def make_store(database: Path) -> Callable[[Path], Store]:
    def make(root: Path) -> Store:
        root.mkdir(exist_ok=True)
        shutil.copyfile(database, root / DATABASE)
        return find_store(root, None)

    return make


@pytest.fixture
def store(make_store, tmp_path) -> Store:
    """A fresh store in this test's folder."""
    return make_store(tmp_path)


def make_study(name: str = "samples", **settings: Any) -> Study:
    """A study of two samples per class and two seeds, unless the settings say otherwise."""
    dataset = {
        "source": "animals.tar",
        "layers": ["block4_pool", "block5_pool"],
        "split": {"seeds": [0, 1], "train_per_class": 4, "test_per_class": 3},
    }
    study = {"dataset": DATASET, "samples_per_class": [2, 4], "seed": [0, 1], "epochs": 3}
    raw = {
        "backbone": {"weights": "random-conv"},
        "datasets": {DATASET: dataset},
        "studies": {name: study | settings},
    }
    return check_params(raw).studies[name]


def made_up_history(trial: Trial, random: np.random.Generator) -> pd.DataFrame:
    columns = [f"{role}_{measure}" for role in ("train", "test") for measure in EVERY_EPOCH]
    values = random.uniform(0.1, 0.9, (trial.epochs, len(columns)))
    history = pd.DataFrame(values, columns=columns)
    history.insert(0, "epoch", range(1, trial.epochs + 1))
    return history


def made_up_predictions(random: np.random.Generator) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": [f"{name}/{index}.jpg" for index, name in enumerate(TEST)],
            "true": TEST,
            "predicted": random.choice(CLASSES, len(TEST)),
            "probability": random.uniform(0.4, 1.0, len(TEST)),
        }
    )


def made_up_record(study: Study) -> records.Record:
    """What a study might have measured: another thing for every trial, the same every time."""
    random = np.random.default_rng(0)
    return records.join(
        [
            records.of_trial(
                study.trial_name(trial),
                trial,
                made_up_history(trial, random),
                made_up_predictions(random),
                records.Outcome({name: random.uniform(0.1, 0.9) for name in NAMES}, None),
            )
            for trial in study.trials()
        ]
    )


def outputs_of(study: Study, root: Path) -> Outputs:
    return Outputs(
        root / "results" / study.name,
        root / "models" / "heads" / study.name,
        root / "data" / "splits" / study.dataset,
        root / "reports" / "filters" / study.dataset,
        root / "reports" / "gradients" / f"{study.dataset}.csv",
    )


def write_outputs(study: Study, root: Path) -> Outputs:
    outputs = outputs_of(study, root)
    records.write(study, made_up_record(study), outputs.results)
    for folder in (outputs.heads, outputs.splits, outputs.filters, outputs.gradients.parent):
        folder.mkdir(parents=True)
    records.write_frame(pd.DataFrame(CHECKED), outputs.gradients)
    random = np.random.default_rng(1)
    for trial in study.trials():
        kernel = random.standard_normal((WIDTH, len(CLASSES))).astype(np.float32)
        bias = random.standard_normal(len(CLASSES)).astype(np.float32)
        path = outputs.heads / f"{study.trial_name(trial)}.keras"
        Linear(trial, (1, 1, WIDTH), kernel, bias).save(path)
    for seed in study.grid["seed"]:
        rows = [
            (f"{name}/{index}.jpg", CLASSES.index(name), name, f"{seed}{index:063}", "test", index)
            for index, name in enumerate(TEST)
        ]
        pd.DataFrame(rows, columns=COLUMNS).to_csv(outputs.splits / f"{seed}.csv", index=False)
    for index, name in enumerate(FILTERS):
        Image.new("RGB", (8, 8), (0, 0, 90 * index)).save(outputs.filters / f"{name}.png")
    return outputs


@pytest.fixture
def make_outputs(tmp_path) -> MakeOutputs:
    """Writes what a study leaves behind into this test's folder."""
    return lambda study: write_outputs(study, tmp_path / "outputs" / study.name)


def log(store: Store, study: Study, outputs: Outputs, lineage: Lineage, **more: Any) -> int:
    """Logs a study to a store, as the stage ``train`` does."""
    of_study = {key: getattr(outputs, key) for key in ("results", "heads", "splits")}
    return publish_study(store, study, lineage, **of_study, **more)


def make_lineage(study: Study, digest: str = "a", stage: str | None = None) -> Lineage:
    return Lineage(
        stage=stage or f"train@{study.name}",
        lock_digest=digest * 64,
        dependencies={
            f"data/splits/{DATASET}": "5" * 32,
            f"data/features/{DATASET}": "f" * 32,
            "src/vgg16_transfer/params.py": "c" * 32,
        },
        commit="0" * 40,
        dirty=False,
        experiment="brave-ant",
    )
