"""What training large heads costs, as ratios within one run: python benchmarks/heads.py.

1. fc2 (4,112 x 4,096, 257 classes, 200 epochs) against this machine's float32 matrix product.
2. A block4_pool study (2,056 x 100,352, 257 classes, 200 epochs) against Keras's fit, per epoch.
3. A step of each optimiser against Keras's own, on the arrays of a small study's head.
4. All heads of profiles/paper.yaml against its forward pass: their arithmetic at measured rates.

``probes.py`` compares small heads on real features with scikit-learn and PyTorch.
"""

from __future__ import annotations

import math
import os
import resource
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from tables import print_table

from vgg16_transfer.backbones.store import CHUNK, FeatureStore
from vgg16_transfer.heads.base import Data, Pictures
from vgg16_transfer.heads.kinds import softmax
from vgg16_transfer.heads.rows import of_store
from vgg16_transfer.optimizers import OPTIMIZERS, move
from vgg16_transfer.params import Trial, read_params

if TYPE_CHECKING:
    from collections.abc import Callable

    from vgg16_transfer.params import Dataset

CLASSES = 257
GIGA = 1e9
VGG16_GFLOP = 30.7  # a 224 x 224 picture, all layers
PICTURES = {"caltech256": 30_607, "urban_tribes": 264}  # at most, over all splits
WIDTHS = {"fc1": 4096, "fc2": 4096, "predictions": 1000, "block5_pool": 25_088}
WIDTHS |= {"block4_pool": 100_352, "block3_pool": 200_704}


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def made(per_class: int, width: int, seed: int) -> Pictures:
    """Features of the size of real ones: what they cost does not depend on what they say."""
    labels = np.repeat(np.arange(CLASSES), per_class)
    features = np.random.default_rng(seed).random((len(labels), width), np.float32)
    np.maximum(features - np.float32(0.7), 0, out=features)  # zeros, as a ReLU leaves them
    return Pictures(features, labels)


def matmul_rate() -> float:
    """The best of five float32 products of 4096 x 4096 matrices, in GFLOP/s."""
    a = np.random.default_rng(0).random((4096, 4096), np.float32)
    return 2 * 4096**3 / min(seconds(lambda: a @ a) for _ in range(5)) / GIGA


def our_fit(trial: Trial, shape: tuple[int, ...], roles: dict[str, Pictures]) -> float:
    """Seconds for a whole head, with every epoch measured on train and test."""
    return seconds(lambda: softmax.fit(trial, Data(roles["train"], roles, shape, CLASSES)))


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of arrays. Given the arrays themselves, Keras would copy them."""

    def __init__(self, pictures: Pictures, size: int) -> None:
        super().__init__()
        self._pictures = pictures
        self._size = size

    def __len__(self) -> int:
        return math.ceil(len(self._pictures.labels) / self._size)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        rows = slice(number * self._size, (number + 1) * self._size)
        return self._pictures.features[rows], self._pictures.labels[rows]


def in_store(folder: Path, shape: tuple[int, ...], seeds: dict[str, int]) -> dict[str, Pictures]:
    """Made features of 8 pictures a class in a store, where a study leaves what is so wide."""
    store = FeatureStore.create(folder, {"dtype": "float16"}, {"wide": shape})
    roles = {}
    for role, seed in seeds.items():
        features, labels = made(8, int(np.prod(shape)), seed)
        ids = [f"{role} {number}" for number in range(len(labels))]
        for start in range(0, len(ids), CHUNK):
            rows = slice(start, start + CHUNK)
            store.append(ids[rows], {"wide": features[rows].astype(np.float16)})
        roles[role] = Pictures(of_store(store, "wide", ids), labels)
    return roles


def keras_epoch(trial: Trial, roles: dict[str, Pictures]) -> float:
    """Seconds for an epoch of Keras's fit on the features themselves, the second of two."""
    model = keras.Sequential(
        [
            keras.Input((roles["train"].features.shape[1],)),
            keras.layers.UnitNormalization(),
            keras.layers.Dense(CLASSES, activation="softmax", kernel_initializer="zeros"),
        ]
    )
    optimizer = keras.optimizers.SGD(trial.learning_rate, momentum=trial.momentum)
    top5 = keras.metrics.SparseTopKCategoricalAccuracy(5)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy", top5])

    def epoch() -> None:
        model.fit(
            Batches(roles["train"], trial.batch_size),
            validation_data=Batches(roles["test"], trial.batch_size),
            verbose=0,
        )

    epoch()
    return seconds(epoch)


Row = tuple[str, str, str]


def wide() -> Row:
    """The block4_pool study: what is cheap because pictures are few."""
    shape, seeds = (14, 14, 512), {"train": 0, "test": 1}
    trial = Trial(layer="block4_pool", samples_per_class=8)
    with tempfile.TemporaryDirectory() as folder:
        roles = in_store(Path(folder) / "features", shape, seeds)
        ours = our_fit(trial, shape, roles) / trial.epochs
    theirs = keras_epoch(trial, {role: made(8, 100_352, seed) for role, seed in seeds.items()})
    share = f"1/{theirs / ours:.0f}"
    return (
        "`block4_pool`, 2,056 × 100,352, 257 classes: an epoch, all included",
        f"{ours:.3f} s; Keras's `fit` on the features themselves {theirs:.2f} s: {share}",
        "1/20",
    )


def narrow(rate: float) -> tuple[float, Row]:
    """The fc2 study: more pictures than numbers, so that nothing can be saved but overhead."""
    roles = {"train": made(16, 4096, 0), "test": made(8, 4096, 1)}
    trial = Trial(layer="fc2", samples_per_class=16)
    took = our_fit(trial, (4096,), roles)
    products = 4096 * CLASSES * (6 * len(roles["train"].labels) + 2 * len(roles["test"].labels))
    reached = products * trial.epochs / took / GIGA
    return reached, (
        "`fc2`, 4,112 × 4,096, 257 classes, 200 epochs, every epoch measured",
        f"{took:.1f} s, {reached:.0f} GFLOP/s: {reached / rate:.2f} of the matrix product",
        "0.5",
    )


def optimizers() -> list[Row]:
    """200 steps on the coefficients of 224 pictures of 14 classes, without the gradient."""
    gradient = np.random.default_rng(0).random((224, 14), np.float32)
    in_keras = {
        "sgd": keras.optimizers.SGD(1.0, momentum=0.9),
        "adam": keras.optimizers.Adam(1.0),
    }
    rows = []
    for name, optimizer in in_keras.items():
        steps = (
            partial(our_steps, Trial(optimizer=name), gradient),
            keras_steps(optimizer, gradient),
        )
        ours, theirs = (min(seconds(run) for _ in range(3)) for run in steps)
        times = theirs / ours
        took = f"{1000 * ours:.1f} ms; Keras's optimiser {times:.0f} times that"
        rows.append((f"200 steps of `{name}`, 224 × 14, without the gradient", took, ""))
    return rows


def our_steps(trial: Trial, gradient: np.ndarray) -> None:
    """200 steps of the rule that heads are trained with."""
    weights = np.zeros_like(gradient)
    slots = (np.zeros_like(gradient),) * OPTIMIZERS[trial.optimizer].slots
    for step in range(1, 201):
        weights, slots = move(trial, weights, gradient, slots, step, 1.0)


def keras_steps(
    optimizer: keras.optimizers.Optimizer, gradient: np.ndarray
) -> Callable[[], object]:
    """The same by Keras, compiled, with the weights in NumPy's hands after every step."""
    variable = keras.Variable(np.zeros_like(gradient))
    optimizer.build([variable])

    @tf.function
    def apply(slope: tf.Tensor) -> None:
        optimizer.apply([slope], [variable])

    def steps() -> None:
        for _ in range(200):
            apply(gradient)
            variable.numpy()

    steps()  # traces the function
    return steps


def paper(rate: float, reached: float, profile: Path) -> Row:
    """Arithmetic of all heads, at the rate reached above, against that of the forward pass.

    The forward pass is taken to run at the full rate of the matrix product, which is about what
    VGG16's convolutions reach.
    """
    params = read_params(profile)
    forward = sum(PICTURES[dataset.layout] for dataset in params.datasets.values()) * VGG16_GFLOP
    heads = 0.0
    for study in params.studies.values():
        dataset = params.datasets[study.dataset]
        for trial in study.trials():
            if trial.approach == "features":
                heads += arithmetic(trial, study_classes(dataset), dataset.split.test_per_class)
    minutes = heads / reached / 60, forward / rate / 60
    return (
        "all heads of the paper profile against its forward pass: arithmetic at these rates",
        f"{minutes[0]:.0f} of {minutes[1]:.0f} min: {100 * minutes[0] / minutes[1]:.1f} %",
        "15 %",
    )


def study_classes(dataset: Dataset) -> int:
    """How many classes the layout's official archive has."""
    return {"caltech256": 257, "urban_tribes": 11}[dataset.layout]


def arithmetic(trial: Trial, classes: int, test_per_class: int) -> float:
    """GFLOP of a head: its steps, its measures, its inner products, and its teacher's."""
    train = classes * (trial.samples_per_class + trial.unlabelled_per_class)
    test = classes * test_per_class
    width = WIDTHS[trial.layer] if trial.pooling == "flatten" else 512
    dual = train < width
    step = (4 if dual else 6) * train + 2 * test
    once = width * train * (train + 2 * test + 2 * classes) if dual else 0
    own = (classes * min(train, width) * step * trial.epochs + once) / GIGA
    if trial.teacher_layer == "none" or not trial.teacher_weight:
        return own
    its = {"layer": trial.teacher_layer, "samples_per_class": trial.teacher_samples_per_class}
    alone = {"teacher_layer": "none", "unlabelled_per_class": 0, "pooling": "flatten"}
    teacher = trial.model_copy(update=its | alone)
    return own + arithmetic(teacher, classes, test_per_class)


def main() -> None:
    """Runs all of them and prints a table."""
    rate = matmul_rate()
    rows: list[Row] = [("float32 matrix product, 4096 × 4096", f"{rate:.0f} GFLOP/s", "")]
    reached, row = narrow(rate)
    rows += [row, wide(), *optimizers()]
    rows.append(paper(rate, reached, Path(__file__).parents[1] / "profiles" / "paper.yaml"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIGA
    rows.append(("memory of this benchmark at its widest", f"{peak:.1f} GB", "4 GB"))
    print_table(["heads", "measured", "target"], rows)


if __name__ == "__main__":
    main()
