"""[stage] Trains a study's trials → models/heads/<study>/*.keras and results/<study>/."""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import re
import shutil
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from vgg16_transfer import optimizers
from vgg16_transfer.artifacts import alone, reading, remove, replacing, room
from vgg16_transfer.backbones.store import INDEX, FeatureStore
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import base, calibration, loss, records, rows
from vgg16_transfer.heads.base import Fitted, Pictures
from vgg16_transfer.heads.checkpoints import Checkpoint
from vgg16_transfer.heads.measures import NAMES
from vgg16_transfer.heads.records import Outcome
from vgg16_transfer.heads.saved import MadeOf
from vgg16_transfer.heads.watching import (
    Ended,
    Nobody,
    Progress,
    Recorder,
    Times,
    milliseconds,
)
from vgg16_transfer.images.manifests import ManifestError, read_manifest
from vgg16_transfer.networks import cached_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from vgg16_transfer.compute.base import Pool
    from vgg16_transfer.heads.base import Head
    from vgg16_transfer.heads.rows import Features
    from vgg16_transfer.heads.watching import Watch
    from vgg16_transfer.images.source import Source
    from vgg16_transfer.params import Study, Trial


_CALIBRATED = ("loss", "calibration_error")
"""Measures that are recorded before calibration as well."""

_SIZES = frozenset(
    {
        "approach",
        "backbone",
        "layer",
        "pooling",
        "samples_per_class",
        "batch_size",
        "optimizer",
        "fine_tune_from",
    }
)
"""Keys that decide how much memory a trial needs for tensors."""

_EXHAUSTED = "ResourceExhaustedError"

_WHERE = re.compile(r"\s+File |Graph execution error|Detected at|<stack traces")
"""Lines of an error of TensorFlow before what it says."""


class Material(NamedTuple):
    """Pictures of one split with features of one layer, for all trials that use them.

    Attributes:
        layer: Layer name.
        manifest: Rows of the split's manifest.
        features: Shape (rows of the manifest, width), float32; in the store if they are wide.
        shape: Shape of one picture's activations: (height, width, channels) or (units,).
        recipe: How the features were made; see :func:`~vgg16_transfer.backbones.features.recipe`.
        split_md5: md5 of the manifest's file.
    """

    layer: str
    manifest: pd.DataFrame
    features: Features
    shape: tuple[int, ...]
    recipe: dict[str, Any]
    split_md5: str

    @property
    def class_names(self) -> np.ndarray:
        """Class names, in the order of their labels."""
        labels = self.manifest[["label", "class_name"]].drop_duplicates().sort_values("label")
        return labels["class_name"].to_numpy()

    def role(self, role: str, ranks: range | None = None) -> Pictures:
        """The pictures of a role, or only those of some ranks in each class."""
        chosen = self.chosen(role, ranks)
        return Pictures(
            rows.select(self.features, chosen.to_numpy()),
            self.manifest.loc[chosen, "label"].to_numpy(),
        )

    def chosen(self, role: str, ranks: range | None = None) -> pd.Series[bool]:
        """Which rows of the manifest :meth:`role` takes."""
        chosen = self.manifest["role"] == role
        return chosen if ranks is None else chosen & self.manifest["rank"].isin(ranks)

    def roles(self, samples_per_class: int) -> dict[str, Pictures]:
        """Pictures to measure a head on: its training pictures, and validation and test pictures.

        Args:
            samples_per_class: Number of training pictures of each class.

        Returns:
            The pictures by role. A role without pictures is left out.
        """
        present = [r for r in ("validation", "test") if (self.manifest["role"] == r).any()]
        return {"train": self.role("train", range(samples_per_class))} | {
            role: self.role(role) for role in present
        }


class Streamed(NamedTuple):
    """Additional inputs of ``end_to_end``.

    Attributes:
        source: The source that has the pictures.
        weights: The file of each network, by backbone.
    """

    source: Source
    weights: Mapping[str, Path]

    def absolute(self) -> Streamed:
        """The same, with paths that other processes understand."""
        return Streamed(
            self.source._replace(path=self.source.path.absolute()),
            {name: path.absolute() for name, path in self.weights.items()},
        )


class Trained(NamedTuple):
    """Result of a trial.

    Attributes:
        head: The head, or None if the trial failed.
        history: As in :class:`~vgg16_transfer.heads.base.Fitted`; its last row has the
            measures of the returned head.
        predictions: One row per test picture, with the columns of ``records.PREDICTED``.
        probabilities: Probability of each class, shape (test pictures, classes).
        outcome: The measures of the head, or why the trial failed.
    """

    head: Head | None
    history: pd.DataFrame
    predictions: pd.DataFrame
    probabilities: npt.NDArray[np.float32]
    outcome: Outcome


class Done(NamedTuple):
    """A study whose trials are all over.

    Attributes:
        failures: A sentence for each trial that failed.
        times: How long each trial took, by its name.
    """

    failures: list[str]
    times: dict[str, Times]


class DivergedError(Exception):
    """A loss is no longer finite.

    Attributes:
        history: Measures of the epochs before.
        failure: A sentence that says what happened.
    """

    def __init__(self, trial: Trial, history: pd.DataFrame, whose: str = "the loss") -> None:
        # If the teacher failed, the history is the teacher's: the student has no epochs.
        self.history = history if whose == "the loss" else history.iloc[:0]
        keys = ["learning_rate", "weight_decay", "normalise"]
        keys += ["teacher_temperature"] if trial.teacher_layer != "none" else []
        keys += ["fine_tune_learning_rate"] if trial.fine_tune_from != "none" else []
        settings = ", ".join(f"{key} {getattr(trial, key)}" for key in keys)
        self.failure = (
            f"{whose} is not finite after epoch {len(history) + 1} of {trial.epochs}, "
            f"with {settings}"
        )
        super().__init__(self.failure)


class BrokenError(InputError):
    """Some trials broke: their training raised an error. The others are stored.

    Attributes:
        broken: What broke each of them, by the name of the trial.
    """

    def __init__(self, study: str, broken: Mapping[str, str], others: int, done: Path) -> None:
        self.broken = dict(broken)
        lines = [
            f"{study}: trial {name} broke: {why}; {_error_file(done, name)} has the traceback"
            for name, why in broken.items()
        ]
        kept = f"{others} of {others + len(broken)} trials are kept"
        super().__init__("\n".join([*lines, f"{study}: {kept}; run this again to repeat the rest"]))


def train_study(
    study: Study,
    *,
    splits: Path,
    features: Mapping[str, Path],
    streamed: Streamed,
    heads: Path,
    results: Path,
    watch: Watch | None = None,
    pool: Pool | None = None,
) -> Done:
    """Trains all trials of a study. Writes heads and record when all trials are done.

    Until then, each trained trial is stored beside ``heads``, and so is the last complete epoch of
    a trial with ``end_to_end``. If the run is killed, the next run continues after these, unless
    the study, its inputs or the code of vgg16_transfer.heads has changed. If a trial diverges, it
    fails and the other trials continue. If a trial breaks, the others are trained and stored, but
    nothing is written.

    Args:
        study: The study to train.
        splits: Folder of manifests.
        features: Feature store of the dataset, by backbone.
        streamed: Pictures and weights, for ``end_to_end``.
        heads: Folder to write: one ``<trial>.keras`` per trial, without trials that failed.
        results: Folder to write the record to; see :mod:`~vgg16_transfer.heads.records`.
        watch: Is told of each trial and epoch; by default nobody is.
        pool: Processes that train trials; None if this process does. The results are the same.

    Raises:
        FeaturesError: The store is missing or damaged, or has no such picture or layer.
        ManifestError: A split is missing or damaged, or has no validation pictures for
            ``early_stopping``.
        ArtifactError: The disk is full. Finished trials are kept for the next run.
        BrokenError: Some trials broke. The next run repeats only these.
    """
    trials = {study.trial_name(trial): trial for trial in study.trials()}
    absolute = {name: features[name].absolute() for name in study.grid["backbone"]}
    for path in absolute.values():
        FeatureStore.open(path)  # a sentence about a missing one, before anything else
    watch = watch or Nobody()
    done = heads.with_name(f".{heads.name}.{digest(study, splits, features)[:12]}.partial")
    if any(study.grid["early_stopping"]):
        _check_validation(study, splits)
    trainer = Trainer(study, splits.absolute(), absolute, streamed.absolute(), done.absolute())
    order = sorted(trials, key=lambda name: trainer.needs(trials[name]))
    # The lock has a name of its own, because the heads are locked again when they are replaced.
    unfinished = heads.with_name(f"{heads.name}.trials")
    broken: dict[str, str] = {}
    with room(heads, "the trials that are done are kept: run this again"), alone(unfinished):
        done.mkdir(parents=True, exist_ok=True)
        names = [name for name in order if not (done / f"{name}.json").exists()]
        trained = _there(pool, trainer, names, watch) if pool else _here(trainer, names, watch)
        for name, why in tqdm(
            zip(names, trained, strict=True),
            desc=f"train {study.name}",
            total=len(order),
            initial=len(order) - len(names),
            unit="head",
            disable=None,
        ):
            if why is not None:
                broken[name] = why
                watch.broke(name, why)
                continue
            kept = _kept(name, trials[name], done)
            files = (done / f"{name}.keras", heads / f"{name}.keras")
            watch.ended(name, Ended(kept.record, files, kept.times))
        if broken:
            raise BrokenError(study.name, broken, len(trials) - len(broken), done)
        return _publish(study, trials, done, heads, results)


class Trainer(NamedTuple):
    """Trains trials of a study; see :class:`~vgg16_transfer.compute.base.Opener`.

    Attributes:
        study: The study.
        splits: Folder of manifests.
        features: Feature store of the dataset, by backbone.
        streamed: Pictures and weights, for ``end_to_end``.
        done: Folder that trained trials are stored in.
    """

    study: Study
    splits: Path
    features: Mapping[str, Path]
    streamed: Streamed
    done: Path

    @contextmanager
    def __call__(self) -> Iterator[Callable[[str], Heard]]:
        """Opens the stores: gives a function that trains a trial and returns what it told."""
        train = self.opened()

        def heard(name: str) -> Heard:
            told = Recorder()
            return Heard(train(name, milliseconds(), told), told.events)

        yield heard

    def needs(self, trial: Trial) -> tuple[str, str, int]:
        """Backbone, cached layer and seed of a trial: its features and its split."""
        return trial.backbone, _cached_layer(self.study, trial), trial.seed

    def opened(self) -> Callable[[str, int, Watch], str | None]:
        """Opens the stores.

        Returns:
            A function that trains a trial and stores it in ``done``. Its arguments are the trial's
            name, milliseconds since 1970, and who is told of epochs. It returns why the trial
            broke, or None.
        """
        trials = {self.study.trial_name(trial): trial for trial in self.study.trials()}
        stores = {name: FeatureStore.open(path) for name, path in self.features.items()}
        ranks = max(ranks_seen(trial) for trial in trials.values())

        @functools.lru_cache(maxsize=2)  # that of a trial, and that of its teacher
        def material_of(backbone: str, layer: str, seed: int) -> Material:
            return load_material(stores[backbone], self.splits, layer, seed, ranks)

        def train(name: str, started: int, watch: Watch) -> str | None:
            trial, began = trials[name], time.perf_counter()
            material = material_of(*self.needs(trial))
            features_seconds = time.perf_counter() - began
            kept = Checkpoint(self.done / f"{name}.epochs.npz", started)
            progress = Progress(name, watch, kept)
            broken: dict[str, str] = {}
            with _surviving(name, self.study, self.done, broken):
                trained = train_trial(trial, material, material_of, self.streamed, progress)
                times = _times(trial, trained, material, kept, features_seconds)
                _keep(trained, times, material, self.done, name)
            if name in broken:
                gc.collect()  # what the trial held would stay in memory with the error's frames
            else:
                kept.remove()
            return broken.get(name)

        return train


class Heard(NamedTuple):
    """What a worker says of a trial.

    Attributes:
        why: Why the trial broke; None if it did not.
        events: What it told on the way; see :class:`~vgg16_transfer.heads.watching.Recorder`.
    """

    why: str | None
    events: list[tuple[str, Any]]


def _here(trainer: Trainer, names: Sequence[str], watch: Watch) -> Iterator[str | None]:
    """Trains trials in this process: gives why each broke, or None."""
    train = trainer.opened()
    for name in names:
        started = milliseconds()
        watch.began(name, started)
        yield train(name, started, watch)


def _there(
    pool: Pool, trainer: Trainer, names: Sequence[str], watch: Watch
) -> Iterator[str | None]:
    """The same in workers. What they tell of a trial is told when it is over."""
    told = set[str]()

    def began(name: str) -> None:
        if name not in told:
            told.add(name)
            watch.began(name, milliseconds())

    for why, events in pool.map(trainer, names, began=began, gpu=_on_gpu(trainer.study)):
        for event, arguments in events:
            getattr(watch, event)(*arguments)
        yield why


def _on_gpu(study: Study) -> bool:
    """Whether trials of a study need a GPU, if there is one. Heads on features don't use it."""
    if "end_to_end" not in study.grid["approach"]:
        return False
    import tensorflow as tf  # noqa: PLC0415 - takes seconds

    return bool(tf.config.list_physical_devices("GPU"))


@contextmanager
def _surviving(name: str, study: Study, done: Path, broken: dict[str, str]) -> Iterator[None]:
    """Notes in ``broken`` if a trial breaks, and lets the others go on.

    An error that the others would run into as well is raised: bad input, which they share, a disk
    that can't be written to or read, a full memory. Tensors that are too large are the trial's own,
    if trials of the study differ in what decides how large tensors are.
    """
    remove(_error_file(done, name))
    try:
        yield
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:
        # By its name: TensorFlow, whose error it is, may not be imported.
        exhausted = any(each.__name__ == _EXHAUSTED for each in type(error).__mro__)
        if exhausted and _SIZES.isdisjoint(study.axes):
            raise
        text = "".join(traceback.format_exception(error))
        _error_file(done, name).write_text(text, encoding="utf-8")
        broken[name] = "out of memory" if exhausted else _reason(error)


def _error_file(done: Path, name: str) -> Path:
    return done / f"{name}.error.txt"


def _reason(error: Exception) -> str:
    """An error in one line. TensorFlow says first where in a graph it happened."""
    lines = re.sub(r"\{\{.*?\}\}", "", str(error)).splitlines()
    told = [line for line in lines if line.strip() and not _WHERE.match(line)]
    return f"{type(error).__name__}: {' '.join(told[0].split())}" if told else type(error).__name__


def _times(
    trial: Trial, trained: Trained, material: Material, kept: Checkpoint, features_seconds: float
) -> Times:
    fit_seconds = kept.seconds
    seen = len(material.role("train", range(_student_ranks(trial))).labels)
    speed = seen * len(trained.history) / fit_seconds
    return Times(kept.started, milliseconds(), fit_seconds, features_seconds, speed)


def train_trial(
    trial: Trial,
    material: Material,
    material_of: Callable[[str, str, int], Material],
    streamed: Streamed,
    progress: Progress,
) -> Trained:
    """Trains one head.

    Args:
        trial: The trial's setting.
        material: The split of the trial's seed, with the features of the cached layer.
        material_of: Returns the material of a backbone, a layer and a seed.
        streamed: Pictures and weights, for ``end_to_end``.
        progress: Who is told of each epoch of ``end_to_end``, and where it is kept. The epochs of
            other trials take a millisecond.
    """
    roles = material.roles(trial.samples_per_class)
    try:
        if trial.approach == "end_to_end":
            fitted = _train_end_to_end(trial, material, roles, streamed, progress)
        elif trial.teacher_layer == "none" or not trial.teacher_weight:
            fitted = _train_on_features(trial, material, roles)
        else:
            fitted = _train_by_teacher(trial, material, roles, material_of)
        _check_finished(trial, fitted)
    except DivergedError as diverged:
        no_rows = pd.DataFrame(columns=records.PREDICTED)
        none = np.empty((0, len(material.class_names)), np.float32)
        return Trained(None, diverged.history, no_rows, none, Outcome({}, diverged.failure))
    head, history = fitted.head, fitted.history
    measured = _evaluate(head, roles)
    for column in history.columns.intersection(list(measured)):
        history.loc[history.index[-1], column] = measured[column]
    data = base.Data(roles["train"], roles, material.shape, len(material.class_names))
    calibrated = calibration.of_head(trial, head, data)
    before = {f"uncalibrated_{name}": measured[f"test_{name}"] for name in _CALIBRATED}
    names, test = material.class_names, roles["test"]
    if calibrated is not None:
        head.scale(calibrated)
        measured = _evaluate(head, {"test": test})
    probabilities = head.probabilities(test.features)
    predictions = pd.DataFrame(
        {
            "path": material.manifest.loc[material.chosen("test"), "path"].to_numpy(),
            "true": names[test.labels],
            "predicted": names[probabilities.argmax(axis=1)],
            "probability": probabilities.max(axis=1),
        }
    )
    of_test = {name: measured[f"test_{name}"] for name in NAMES} | before
    of_test["calibration_temperature"] = 1.0 if calibrated is None else calibrated
    return Trained(head, history, predictions, probabilities, Outcome(of_test, None))


def _keep(trained: Trained, times: Times, material: Material, done: Path, name: str) -> None:
    """Stores a trial until all are done. ``.json`` is written last: the trial is then complete."""
    if trained.head is not None:
        made_of = MadeOf(
            material.layer, material.recipe, tuple(material.class_names), material.split_md5
        )
        trained.head.save(done / f"{name}.keras", made_of)
    records.write_frame(trained.history, done / f"{name}.history.csv")
    records.write_frame(trained.predictions, done / f"{name}.predictions.csv")
    np.save(done / f"{name}.npy", trained.probabilities, allow_pickle=False)
    with replacing(done / f"{name}.json") as fresh:
        kept = {"outcome": trained.outcome._asdict(), "times": times._asdict()}
        fresh.write_text(json.dumps(kept), encoding="utf-8")


def _check_finished(trial: Trial, fitted: Fitted, whose: str = "the loss") -> None:
    if not fitted.finished:
        raise DivergedError(trial, fitted.history, whose)


def _train_on_features(trial: Trial, material: Material, roles: Mapping[str, Pictures]) -> Fitted:
    data = base.Data(roles["train"], roles, material.shape, len(material.class_names))
    return base.fit_of(trial.head)(trial, data)


def _train_by_teacher(
    trial: Trial,
    material: Material,
    roles: Mapping[str, Pictures],
    material_of: Callable[[str, str, int], Material],
) -> Fitted:
    """Trains a student. Its teacher is trained first, in the same way, and is not saved."""
    teacher_material = material_of(trial.backbone, trial.teacher_layer, trial.seed)
    teacher_trial = trial.model_copy(
        update={"layer": trial.teacher_layer, "samples_per_class": trial.teacher_samples_per_class}
    )
    first = _student_ranks(trial) if trial.teacher_pictures == "disjoint" else 0
    seen = range(first, first + trial.teacher_samples_per_class)
    teacher_roles = teacher_material.roles(trial.teacher_samples_per_class)
    teacher_roles["train"] = teacher_material.role("train", seen)
    teacher = _train_on_features(teacher_trial, teacher_material, teacher_roles)
    _check_finished(trial, teacher, "the loss of its teacher")
    ranks = range(_student_ranks(trial))
    training = material.role("train", ranks)
    labelled = (
        material.manifest.loc[material.chosen("train", ranks), "rank"] < trial.samples_per_class
    )
    training = training._replace(labels=np.where(labelled, training.labels, loss.UNLABELLED))
    logits = teacher.head.logits(teacher_material.role("train", ranks).features)
    data = base.Data(training, roles, material.shape, len(material.class_names), logits)
    student = base.fit_of(trial.head)(trial, data)
    teacher_accuracy = teacher.history["test_accuracy"].iloc[-1]
    return student._replace(history=student.history.assign(teacher_accuracy=teacher_accuracy))


def _train_end_to_end(
    trial: Trial,
    material: Material,
    roles: Mapping[str, Pictures],
    streamed: Streamed,
    progress: Progress,
) -> Fitted:
    from vgg16_transfer.heads import end_to_end  # noqa: PLC0415 - TensorFlow takes seconds

    chosen = material.manifest[material.chosen("train", range(trial.samples_per_class))]
    return end_to_end.fit(
        trial,
        streamed.weights[trial.backbone],
        streamed.source,
        dict(zip(chosen["path"], chosen["sha256"], strict=True)),
        roles,
        len(material.class_names),
        material.recipe,
        progress,
    )


def _evaluate(head: Head, roles: Mapping[str, Pictures]) -> dict[str, float]:
    """All measures of a trained head, named like the columns of its history."""
    logits = {role: head.logits(pictures.features) for role, pictures in roles.items()}
    return base.measure_roles(roles, logits, every_epoch=False)


def _student_ranks(trial: Trial) -> int:
    """Number of training pictures of each class that a head learns from, labelled or not."""
    return trial.samples_per_class + trial.unlabelled_per_class


def ranks_seen(trial: Trial) -> int:
    """Number of training pictures of each class that a trial and its teacher use.

    Args:
        trial: The trial's setting.
    """
    ranks = _student_ranks(trial)
    if trial.teacher_layer == "none":
        return ranks
    if trial.teacher_pictures == "disjoint":
        return ranks + trial.teacher_samples_per_class
    return max(ranks, trial.teacher_samples_per_class)


def load_material(store: FeatureStore, splits: Path, layer: str, seed: int, ranks: int) -> Material:
    """Loads a split with features.

    Args:
        store: Feature store of the dataset.
        splits: Folder of manifests.
        layer: A layer of the store.
        seed: Seed of the split.
        ranks: Number of training pictures of each class to load: the most that a trial uses.

    Raises:
        ManifestError: The split is missing or damaged.
        FeaturesError: The store is damaged, or has no such picture or layer.
    """
    path = splits / f"{seed}.csv"
    manifest = read_manifest(path)
    unseen = (manifest["role"] == "train") & (manifest["rank"] >= ranks)
    manifest = manifest[~unseen].reset_index(drop=True)
    features = rows.of_store(store, layer, manifest["sha256"].tolist())
    return Material(layer, manifest, features, store.shapes[layer], store.recipe, file_md5(path))


def _check_validation(study: Study, splits: Path) -> None:
    """Whether there are validation pictures is known late, if the source has them."""
    for seed in study.grid["seed"]:
        path = splits / f"{seed}.csv"
        if "validation" not in set(read_manifest(path)["role"]):
            raise ManifestError(
                f"{path}: has no validation pictures, which studies.{study.name}.early_stopping "
                f"needs; set datasets.{study.dataset}.split.validation_per_class"
            )


def _cached_layer(study: Study, trial: Trial) -> str:
    return cached_layer(study.networks[trial.backbone], trial.layer, trial.fine_tune_from)


def digest(study: Study, splits: Path, features: Mapping[str, Path]) -> str:
    """sha256 of everything that decides what the trials' heads will be.

    Args:
        study: The study.
        splits: Folder of manifests.
        features: Feature store of the dataset, by backbone.

    Raises:
        ManifestError: A split is missing.
    """
    md5s = {}
    for seed in study.grid["seed"]:
        path = splits / f"{seed}.csv"
        with reading(path, ManifestError, what="split"):
            md5s[str(seed)] = file_md5(path)
    code = sorted(Path(__file__).parent.rglob("*.py"))
    content = {
        "grid": study.grid,
        "splits": md5s,
        "features": [file_md5(features[name] / INDEX) for name in study.grid["backbone"]],
        "code": [file_md5(path) for path in [*code, Path(optimizers.__file__)]],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _publish(
    study: Study, trials: Mapping[str, Trial], done: Path, heads: Path, results: Path
) -> Done:
    """Writes heads and record from the stored trials, and removes the stored trials.

    All trials are read from files, so that a resumed run gives the same bytes.
    """
    kept = {name: _kept(name, trial, done) for name, trial in trials.items()}
    failures = {name: one.failure for name, one in kept.items()}
    record = records.join([one.record for one in kept.values()])
    probabilities = {
        name: np.load(done / f"{name}.npy", allow_pickle=False)
        for name in trials
        if not failures[name]
    }
    with replacing(results) as fresh:
        records.write(study, record, fresh)
        records.write_probabilities(probabilities, fresh)
    with replacing(heads) as fresh:
        fresh.mkdir()
        for name in trials:
            if not failures[name]:
                _share(done / f"{name}.keras", fresh / f"{name}.keras")
    for leftover in heads.parent.glob(f".{heads.name}.*.partial"):
        remove(leftover)
    return Done(
        [f"{name}: {failure}" for name, failure in failures.items() if failure],
        {name: one.times for name, one in kept.items()},
    )


def _share(stored: Path, file: Path) -> None:
    """Gives a file a second name, which takes no room, or copies it where that can't be done."""
    try:
        file.hardlink_to(stored)
    except (OSError, NotImplementedError):
        shutil.copyfile(stored, file)


class _Kept(NamedTuple):
    """A stored trial."""

    record: records.Record
    failure: str | None
    times: Times


def _kept(name: str, trial: Trial, done: Path) -> _Kept:
    """Reads a stored trial. What a watcher hears is so what the record will say."""
    path = done / f"{name}.json"
    with reading(path, records.RecordError):
        stored = json.loads(path.read_text(encoding="utf-8"))
        outcome, times = Outcome(**stored["outcome"]), Times(**stored["times"])
    history = records.read_frame(done / f"{name}.history.csv")
    predictions = records.read_frame(done / f"{name}.predictions.csv")
    record = records.of_trial(name, trial, history, predictions, outcome)
    return _Kept(record, outcome.failure, times)
