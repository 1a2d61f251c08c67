"""[stage] Trains a study's trials → models/heads/<study>/*.keras and results/<study>/."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from vgg16_transfer.backbone.store import FeaturesError, FeatureStore
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import records, softmax, training
from vgg16_transfer.images.manifests import read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

    from vgg16_transfer.heads.training import Pictures
    from vgg16_transfer.params import Study, Trial


_TINY = np.finfo(np.float32).tiny


class Inputs(NamedTuple):
    """Where a study reads from.

    Attributes:
        splits: Folder of manifests.
        features: The store of the dataset's features.
    """

    splits: Path
    features: Path


class Material(NamedTuple):
    """One split's pictures with one layer's features, for all trials that use them.

    Attributes:
        manifest: Its rows.
        features: Shape (rows of the manifest, width), float32.
    """

    manifest: pd.DataFrame
    features: np.ndarray

    def role(self, role: str, below_rank: int | None = None) -> Pictures:
        """The pictures of a role, or the first ``below_rank`` of each class."""
        chosen = self.manifest["role"] == role
        if below_rank is not None:
            chosen &= self.manifest["rank"] < below_rank
        return training.Pictures(
            self.features[chosen.to_numpy()], self.manifest.loc[chosen, "label"].to_numpy()
        )


def train_study(study: Study, inputs: Inputs, heads: Path, results: Path) -> None:
    """Trains every trial of a study, and writes heads and record when all of them are done.

    A trial that is trained is kept beside ``heads`` until then; if the run is killed, the next one
    goes on behind it, as long as the study, its inputs and this room's code are what they were.

    Args:
        study: What to train.
        inputs: What to train on.
        heads: Folder of one ``<trial>.keras`` each.
        results: Folder of the record; see :mod:`~vgg16_transfer.heads.records`.

    Raises:
        FeaturesError: The store is missing, or lacks a picture or a layer.
    """
    trials = {study.trial_name(trial): trial for trial in study.trials()}
    done = heads.with_name(f".{heads.name}.{_digest(study, inputs)[:12]}.partial")
    done.mkdir(parents=True, exist_ok=True)
    store = FeatureStore.open(inputs.features)
    if store is None:
        raise FeaturesError(f"{inputs.features}: no features; run dvc repro")
    material: tuple[tuple[str, int], Material] | None = None
    # One split and layer after the other, so that only one of them is in memory.
    order = sorted(trials.items(), key=lambda item: (item[1].layer, item[1].seed))
    for name, trial in tqdm(order, desc=f"train {study.name}", unit="head", disable=None):
        if (done / f"{name}.predictions.csv").exists():
            continue
        if material is None or material[0] != (trial.layer, trial.seed):
            material = (trial.layer, trial.seed), _material(store, inputs.splits, trial)
        head, history, predictions = train_trial(trial, material[1])
        softmax.save(head, done / f"{name}.keras")
        records.write_frame(history, done / f"{name}.history.csv")
        # Written last, under a name that nothing waits for, and renamed: the trial is done.
        unnamed = done / ".predictions.csv"
        records.write_frame(predictions, unnamed)
        unnamed.rename(done / f"{name}.predictions.csv")
    _publish(study, trials, done, heads, results)


def train_trial(trial: Trial, material: Material) -> tuple[keras.Model, pd.DataFrame, pd.DataFrame]:
    """Trains one head.

    Returns:
        The head; its history, whose last row is what the returned head itself reaches; and its
        predictions for the test pictures: columns path, true, predicted, probability.
    """
    roles = {"train": material.role("train", below_rank=trial.samples_per_class)}
    roles |= {
        role: material.role(role)
        for role in ("validation", "test")
        if (material.manifest["role"] == role).any()
    }
    names = (
        material.manifest[["label", "class_name"]]
        .drop_duplicates()
        .sort_values("label")["class_name"]
        .to_numpy()
    )
    kernel, bias, history = training.fit(trial, roles, classes=len(names))
    head = softmax.head(trial, kernel, bias)
    history.iloc[-1] = pd.Series({"epoch": trial.epochs} | _evaluate(head, roles))
    history["epoch"] = history["epoch"].astype(int)
    probabilities = softmax.probabilities(head, roles["test"].features)
    predictions = pd.DataFrame(
        {
            "path": material.manifest.loc[material.manifest["role"] == "test", "path"].to_numpy(),
            "true": names[roles["test"].labels],
            "predicted": names[probabilities.argmax(axis=1)],
            "probability": probabilities.max(axis=1),
        }
    )
    return head, history, predictions


def _evaluate(head: keras.Model, roles: Mapping[str, Pictures]) -> dict[str, float]:
    """The measures of the head itself, named like the columns of its history."""
    measured = {}
    for role, (features, labels) in roles.items():
        # The logarithm of a softmax is its logits but for a constant, which no measure sees.
        logits = np.log(np.maximum(softmax.probabilities(head, features), _TINY))
        for measure, value in training.measure(labels, logits).items():
            measured[f"{role}_{measure}"] = value
    return measured


def _material(store: FeatureStore, splits: Path, trial: Trial) -> Material:
    path = splits / f"{trial.seed}.csv"
    if not path.exists():
        raise FeaturesError(f"{path}: no such split; run dvc repro")
    manifest = read_manifest(path)
    return Material(manifest, store.rows(trial.layer, manifest["sha256"].tolist()))


def _digest(study: Study, inputs: Inputs) -> str:
    """Of everything that decides what the trials' heads will be."""
    store = FeatureStore.open(inputs.features)
    content = {
        "grid": study.grid,
        "splits": [file_md5(path) for path in sorted(inputs.splits.glob("*.csv"))],
        "features": (store.recipe, store.ids) if store else None,
        "code": [file_md5(path) for path in sorted(Path(__file__).parent.glob("*.py"))],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _publish(
    study: Study, trials: Mapping[str, Trial], done: Path, heads: Path, results: Path
) -> None:
    """Moves what is whole to where it belongs; all is read back, so a resumed run is equal."""
    record = records.join(
        [
            records.of_trial(
                name,
                trial,
                pd.read_csv(done / f"{name}.history.csv"),
                pd.read_csv(done / f"{name}.predictions.csv"),
            )
            for name, trial in trials.items()
        ]
    )
    unnamed = results.with_name(f".{results.name}.incoming")
    shutil.rmtree(unnamed, ignore_errors=True)
    records.write(study, record, unnamed)
    shutil.rmtree(results, ignore_errors=True)
    unnamed.rename(results)
    trained = heads.with_name(f".{heads.name}.incoming")
    shutil.rmtree(trained, ignore_errors=True)
    trained.mkdir()
    for name in trials:
        shutil.copyfile(done / f"{name}.keras", trained / f"{name}.keras")
    shutil.rmtree(heads, ignore_errors=True)
    trained.rename(heads)
    for leftover in heads.parent.glob(f".{heads.name}.*.partial"):
        shutil.rmtree(leftover)
