"""[stage] Trains a study's trials → models/heads/<study>/*.keras and results/<study>/."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from vgg16_transfer.artifacts import reading, remove, replacing, room
from vgg16_transfer.backbones.store import INDEX, FeatureStore
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import base, end_to_end, loss, model_files, records
from vgg16_transfer.heads.base import Fitted, Pictures
from vgg16_transfer.heads.saved import MadeOf
from vgg16_transfer.images.manifests import ManifestError, read_manifest
from vgg16_transfer.networks import DEFAULT, cached_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import keras

    from vgg16_transfer.images.source import Source
    from vgg16_transfer.params import Study, Trial


_TINY = np.finfo(np.float32).tiny


class Material(NamedTuple):
    """One split's pictures with one layer's features, for all trials that use them.

    Attributes:
        layer: The layer.
        manifest: The split's rows.
        features: Shape (rows of the manifest, width), float32.
        shape: Of one picture's activations: (height, width, channels) or (units,).
        recipe: How the features were made; see :func:`~vgg16_transfer.backbones.features.recipe`.
        split_md5: Of the manifest's file.
    """

    layer: str
    manifest: pd.DataFrame
    features: np.ndarray
    shape: tuple[int, ...]
    recipe: dict[str, Any]
    split_md5: str

    @property
    def class_names(self) -> np.ndarray:
        """The classes' names by label."""
        labels = self.manifest[["label", "class_name"]].drop_duplicates().sort_values("label")
        return labels["class_name"].to_numpy()

    def role(self, role: str, ranks: range | None = None) -> Pictures:
        """The pictures of a role, or those of some ranks in each class."""
        chosen = self.chosen(role, ranks)
        return Pictures(
            self.features[chosen.to_numpy()], self.manifest.loc[chosen, "label"].to_numpy()
        )

    def chosen(self, role: str, ranks: range | None = None) -> pd.Series[bool]:
        """Which rows of the manifest those are."""
        chosen = self.manifest["role"] == role
        return chosen if ranks is None else chosen & self.manifest["rank"].isin(ranks)

    def roles(self, samples_per_class: int) -> dict[str, Pictures]:
        """What a head is measured on: its own training pictures, validation, and test."""
        present = [r for r in ("validation", "test") if (self.manifest["role"] == r).any()]
        return {"train": self.role("train", range(samples_per_class))} | {
            role: self.role(role) for role in present
        }


class Streamed(NamedTuple):
    """What ``end_to_end`` needs beside features.

    Attributes:
        source: Where the pictures are.
        weights: What the stage ``weights`` wrote.
    """

    source: Source
    weights: Path


class Trained(NamedTuple):
    """What became of a trial.

    Attributes:
        head: The head, or None if the trial failed.
        history: As in :class:`~vgg16_transfer.heads.base.Fitted`; its last row is what the
            returned head itself reaches.
        predictions: For the test pictures, with the columns of ``records.PREDICTED``.
        failure: Of what the trial failed, in a sentence, if it did.
    """

    head: keras.Model | None
    history: pd.DataFrame
    predictions: pd.DataFrame
    failure: str | None = None


class DivergedError(Exception):
    """A loss that is not finite any more.

    Attributes:
        history: The epochs before.
        failure: What happened, in a sentence.
    """

    def __init__(self, trial: Trial, history: pd.DataFrame, whose: str = "the loss") -> None:
        # A student whose teacher failed has no epochs of its own.
        self.history = history if whose == "the loss" else history.iloc[:0]
        settings = ["learning_rate", "weight_decay", "normalise"]
        settings += ["teacher_temperature"] if trial.teacher_layer != "none" else []
        settings += ["fine_tune_learning_rate"] if trial.fine_tune_from != "none" else []
        told = ", ".join(f"{key} {getattr(trial, key)}" for key in settings)
        self.failure = (
            f"{whose} is not finite after epoch {len(history) + 1} of {trial.epochs}, with {told}"
        )
        super().__init__(self.failure)


def train_study(
    study: Study,
    *,
    splits: Path,
    features: Path,
    streamed: Streamed,
    heads: Path,
    results: Path,
) -> list[str]:
    """Trains every trial of a study, and writes heads and record when all of them are done.

    A trial that is trained is kept beside ``heads`` until then; if the run is killed, the next one
    goes on behind it, as long as the study, its inputs and this room's code are what they were. A
    trial that diverges fails by itself: the others go on.

    Args:
        study: What to train.
        splits: Folder of manifests.
        features: The store of the dataset's features.
        streamed: Where pictures and weights are, for ``end_to_end``.
        heads: Folder of one ``<trial>.keras`` each, but for trials that failed.
        results: Folder of the record; see :mod:`~vgg16_transfer.heads.records`.

    Returns:
        A sentence for each trial that failed.

    Raises:
        FeaturesError: The store is missing or damaged, or lacks a picture or a layer.
        ManifestError: A split is missing or damaged.
        ArtifactError: The disk is full; the trials that are done are kept for the next run.
    """
    trials = {study.trial_name(trial): trial for trial in study.trials()}
    store = FeatureStore.open(features)
    done = heads.with_name(f".{heads.name}.{_digest(study, splits, features)[:12]}.partial")
    ranks = max(_ranks_seen(trial) for trial in trials.values())

    @functools.lru_cache(maxsize=2)  # one split and layer after the other, and their teacher's
    def material(layer: str, seed: int) -> Material:
        return _material(store, splits, layer, seed, ranks)

    # Stores of versions before 0.2 knew one network, and did not name it.
    network = store.recipe.get("network", DEFAULT)
    cached = {
        name: cached_layer(network, trial.layer, trial.fine_tune_from)
        for name, trial in trials.items()
    }
    order = sorted(trials.items(), key=lambda item: (cached[item[0]], item[1].seed))
    with room(heads, "the trials that are done are kept: run this again"):
        done.mkdir(parents=True, exist_ok=True)
        for name, trial in tqdm(order, desc=f"train {study.name}", unit="head", disable=None):
            if not (done / f"{name}.json").exists():
                own = material(cached[name], trial.seed)
                _keep(train_trial(trial, own, material, streamed), own, done, name)
        return _publish(study, trials, done, heads, results)


def train_trial(
    trial: Trial, own: Material, material: Callable[[str, int], Material], streamed: Streamed
) -> Trained:
    """Trains one head.

    Args:
        trial: The setting.
        own: Its split, with the features of the layer that nothing is trained below.
        material: Gives the features of a layer for the split of a seed.
        streamed: Where pictures and weights are, for ``end_to_end``.
    """
    roles = own.roles(trial.samples_per_class)
    try:
        if trial.approach == "end_to_end":
            fitted = _train_end_to_end(trial, own, roles, streamed)
        elif trial.teacher_layer == "none" or not trial.teacher_weight:
            fitted = _train_on_features(trial, own, roles)
        else:
            fitted = _train_by_teacher(trial, own, roles, material)
        _check_finished(trial, fitted)
    except DivergedError as diverged:
        nothing = pd.DataFrame(columns=records.PREDICTED)
        return Trained(None, diverged.history, nothing, diverged.failure)
    head, history = fitted.model, fitted.history
    for measure, value in _evaluate(head, roles).items():
        history.loc[history.index[-1], measure] = value
    names, test = own.class_names, roles["test"]
    probabilities = model_files.probabilities(head, test.features)
    predictions = pd.DataFrame(
        {
            "path": own.manifest.loc[own.chosen("test"), "path"].to_numpy(),
            "true": names[test.labels],
            "predicted": names[probabilities.argmax(axis=1)],
            "probability": probabilities.max(axis=1),
        }
    )
    return Trained(head, history, predictions)


def _keep(trained: Trained, own: Material, done: Path, name: str) -> None:
    """Keeps a trial until all are done; its ``.json`` comes last, and says that it is whole."""
    if trained.head is not None:
        made_of = MadeOf(own.layer, own.recipe, tuple(own.class_names), own.split_md5)
        model_files.save(trained.head, done / f"{name}.keras", made_of)
    records.write_frame(trained.history, done / f"{name}.history.csv")
    records.write_frame(trained.predictions, done / f"{name}.predictions.csv")
    with replacing(done / f"{name}.json") as fresh:
        fresh.write_text(json.dumps({"failure": trained.failure}), encoding="utf-8")


def _check_finished(trial: Trial, fitted: Fitted, whose: str = "the loss") -> None:
    if not fitted.finished:
        raise DivergedError(trial, fitted.history, whose)


def _train_on_features(trial: Trial, own: Material, roles: Mapping[str, Pictures]) -> Fitted:
    fit = base.fit_of(trial.head)
    return fit(trial, own.shape, roles["train"], roles, len(own.class_names))


def _train_by_teacher(
    trial: Trial,
    own: Material,
    roles: Mapping[str, Pictures],
    material: Callable[[str, int], Material],
) -> Fitted:
    """A student: the teacher's head is trained first, in the same way, and thrown away."""
    of_teacher = material(trial.teacher_layer, trial.seed)
    teacher_trial = trial.model_copy(
        update={"layer": trial.teacher_layer, "samples_per_class": trial.teacher_samples_per_class}
    )
    teacher_roles = of_teacher.roles(trial.teacher_samples_per_class)
    teacher = _train_on_features(teacher_trial, of_teacher, teacher_roles)
    _check_finished(trial, teacher, "the loss of its teacher")
    ranks = range(trial.samples_per_class + trial.unlabelled_per_class)
    training = own.role("train", ranks)
    known = own.manifest.loc[own.chosen("train", ranks), "rank"] < trial.samples_per_class
    training = training._replace(labels=np.where(known, training.labels, loss.UNLABELLED))
    logits = _logits(teacher.model, of_teacher.role("train", ranks).features)
    fit = base.fit_of(trial.head)
    student = fit(trial, own.shape, training, roles, len(own.class_names), logits)
    teacher_accuracy = teacher.history["test_accuracy"].iloc[-1]
    return student._replace(history=student.history.assign(teacher_accuracy=teacher_accuracy))


def _train_end_to_end(
    trial: Trial, own: Material, roles: Mapping[str, Pictures], streamed: Streamed
) -> Fitted:
    chosen = own.manifest[own.chosen("train", range(trial.samples_per_class))]
    return end_to_end.fit(
        trial,
        streamed.weights,
        streamed.source,
        dict(zip(chosen["path"], chosen["sha256"], strict=True)),
        roles,
        len(own.class_names),
        own.recipe,
    )


def _logits(head: keras.Model, features: np.ndarray) -> np.ndarray:
    """The logarithm of a softmax is its logits but for a constant, which no measure sees."""
    logits: np.ndarray = np.log(np.maximum(model_files.probabilities(head, features), _TINY))
    return logits


def _evaluate(head: keras.Model, roles: Mapping[str, Pictures]) -> dict[str, float]:
    """The measures of the head itself, named like the columns of its history."""
    logits = {role: _logits(head, pictures.features) for role, pictures in roles.items()}
    return base.measure_roles(roles, logits, every_epoch=False)


def _ranks_seen(trial: Trial) -> int:
    """How many training pictures of each class a trial looks at, a teacher's included."""
    own = trial.samples_per_class + trial.unlabelled_per_class
    return own if trial.teacher_layer == "none" else max(own, trial.teacher_samples_per_class)


def _material(store: FeatureStore, splits: Path, layer: str, seed: int, ranks: int) -> Material:
    """A split with features; training pictures that no trial looks at stay on disk."""
    path = splits / f"{seed}.csv"
    manifest = read_manifest(path)
    unseen = (manifest["role"] == "train") & (manifest["rank"] >= ranks)
    manifest = manifest[~unseen].reset_index(drop=True)
    features = store.rows(layer, manifest["sha256"].tolist())
    return Material(layer, manifest, features, store.shapes[layer], store.recipe, file_md5(path))


def _digest(study: Study, splits: Path, features: Path) -> str:
    """Of everything that decides what the trials' heads will be."""
    md5s = {}
    for seed in study.grid["seed"]:
        path = splits / f"{seed}.csv"
        with reading(path, ManifestError, what="split"):
            md5s[str(seed)] = file_md5(path)
    content = {
        "grid": study.grid,
        "splits": md5s,
        "features": file_md5(features / INDEX),
        "code": [file_md5(path) for path in sorted(Path(__file__).parent.rglob("*.py"))],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _publish(
    study: Study, trials: Mapping[str, Trial], done: Path, heads: Path, results: Path
) -> list[str]:
    """Moves what is whole to where it belongs; all is read back, so a resumed run is equal."""
    failures = {name: _failure(done / f"{name}.json") for name in trials}
    record = records.join(
        [
            records.of_trial(
                name,
                trial,
                records.read_frame(done / f"{name}.history.csv"),
                records.read_frame(done / f"{name}.predictions.csv"),
                failures[name],
            )
            for name, trial in trials.items()
        ]
    )
    with replacing(results) as fresh:
        records.write(study, record, fresh)
    with replacing(heads) as fresh:
        fresh.mkdir()
        for name in trials:
            if not failures[name]:
                shutil.copyfile(done / f"{name}.keras", fresh / f"{name}.keras")
    for leftover in heads.parent.glob(f".{heads.name}.*.partial"):
        remove(leftover)
    return [f"{name}: {failure}" for name, failure in failures.items() if failure]


def _failure(path: Path) -> str | None:
    with reading(path, records.RecordError):
        failure: str | None = json.loads(path.read_text(encoding="utf-8"))["failure"]
        return failure
