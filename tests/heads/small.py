"""End-to-end training in a second: a network of three convolutions, and pictures of 32 x 32.

A program of its own as well: ``python -m tests.heads.small FOLDER STEP`` trains the study of
``AXES`` below a folder, and is gone without a word in that step.
"""

import hashlib
import io
import os
import signal
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
from PIL import Image

from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.store import FeatureStore
from vgg16_transfer.heads import end_to_end
from vgg16_transfer.heads.studies import Done, Streamed, train_study
from vgg16_transfer.heads.watching import Ended, Nobody, Watch
from vgg16_transfer.images import pictures
from vgg16_transfer.images.manifests import COLUMNS
from vgg16_transfer.images.source import Source
from vgg16_transfer.params import Study, check_params

SIDE = 32
RECIPE = {"network": "vgg16", "image_size": SIDE, "resize": "squash", "dtype": "float16"}
LAYERS = ("block4_pool", "block5_pool")
CLASSES = ("ant", "bee", "cat")
ROLES = ["train"] * 4 + ["test"] * 2 + ["validation"] * 2
AXES = {
    "approach": "end_to_end",
    "fine_tune_from": "block5",
    "fine_tune_learning_rate": 0.01,
    "augment": "flip+crop+colour",
    "optimizer": "adam",
    "learning_rate": 0.05,
    "schedule": "cosine",
    "batch_size": 5,
    "epochs": 5,
}
STEPS = 3
"""Steps of an epoch of ``AXES``: 12 pictures, 5 at a time."""


class Killed(BaseException):
    """Stands in for a SIGKILL: nothing in the package may catch it."""


class Watching(Nobody):
    """Notes what it is told of the only trial of a study. It can end the training."""

    def __init__(self, last: int | None = None) -> None:
        self.epochs: list[int] = []
        self.measured: list[dict[str, float]] = []
        self.ended_with: Ended | None = None
        self._last = last

    def epoch(self, trial: str, epoch: int, measured: Mapping[str, float]) -> None:
        assert trial == "only"
        self.epochs.append(epoch)
        self.measured.append(dict(measured))
        if epoch == self._last:
            raise Killed

    def ended(self, trial: str, ended: Ended) -> None:
        assert trial == "only"
        self.ended_with = ended


class Inputs(NamedTuple):
    splits: Path
    features: Path
    archive: Path


def network(*_: Any) -> keras.Model:
    """Three convolutions, with names of VGG16. Stands in for ``base.load``."""
    pictures = keras.Input((SIDE, SIDE, 3), name="pictures")

    def convolved(inputs: Any, name: str, channels: int, strides: int = 1) -> Any:
        kernels = keras.initializers.HeNormal(seed=len(name) + strides)
        return keras.layers.Conv2D(
            channels, 3, strides, "same", name=name, activation="relu", kernel_initializer=kernels
        )(inputs)

    outputs = convolved(pictures, "block4_conv1", 4, strides=8)
    outputs = keras.layers.MaxPooling2D(2, name="block4_pool")(outputs)
    outputs = convolved(convolved(outputs, "block5_conv1", 8), "block5_conv2", 6)
    outputs = keras.layers.MaxPooling2D(2, name="block5_pool")(outputs)
    model = keras.Model(pictures, outputs)
    model.trainable = False
    return model


def make_inputs(folder: Path, roles: list[str] = ROLES) -> Inputs:
    """Pictures of noise with a tinge of their class, their split, and their features."""
    inputs = Inputs(folder / "splits", folder / "features", folder / "pictures.tar")
    rows, files = [], []
    with tarfile.open(inputs.archive, "w") as tar:
        for label, name in enumerate(CLASSES):
            for number, role in enumerate(roles):
                random = np.random.default_rng([label, number])
                pixels = random.integers(0, 256, (20, 20, 3)) // 2 + 40 * np.eye(3)[label]
                buffer = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
                member = tarfile.TarInfo(f"{name}/{number}.png")
                member.size = len(buffer.getvalue())
                tar.addfile(member, io.BytesIO(buffer.getvalue()))
                sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
                rank = number - roles.index(role)
                rows.append((member.name, label, name, sha256, role, rank))
                files.append(buffer.getvalue())
    inputs.splits.mkdir()
    manifest = pd.DataFrame(rows, columns=COLUMNS)
    manifest.to_csv(inputs.splits / "0.csv", index=False)
    tapped = base.tap("vgg16", network(), LAYERS)
    squares = [pictures.to_square(pictures.decode(file), SIDE, "squash") for file in files]
    activations = [tapped.forward(square[np.newaxis]) for square in squares]
    store = FeatureStore.create(inputs.features, RECIPE, tapped.shapes)
    store.append(
        manifest["sha256"].tolist(),
        {
            layer: np.float16(np.stack([of[layer].ravel() for of in activations]))
            for layer in LAYERS
        },
    )
    return inputs


def make_study(**axes: Any) -> Study:
    split = {"seeds": [0], "train_per_class": 4, "validation_per_class": 2}
    raw = {
        "backbone": {"weights": "random-conv", "image_size": SIDE},
        "datasets": {"d": {"source": "d.tar", "layers": list(LAYERS), "split": split}},
        "studies": {"s": {"dataset": "d", "samples_per_class": 4} | AXES | axes},
    }
    return check_params(raw).studies["s"]


def train(study: Study, inputs: Inputs, folder: Path, watch: Watch | None = None) -> Done:
    return train_study(
        study,
        splits=inputs.splits,
        features={"vgg16": inputs.features},
        streamed=Streamed(Source(inputs.archive), {"vgg16": Path()}),
        heads=folder / "heads" / "s",
        results=folder / "results" / "s",
        watch=watch,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All files of heads and results, by path. Locks are no content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for room in ("heads", "results")
        for path in sorted((folder / room).rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def killed(folder: Path, step: int) -> None:
    """Trains the study of ``AXES`` and is killed after some steps."""
    steps = 0

    def on_train_batch_end(*_: Any, **__: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            os.kill(os.getpid(), signal.SIGKILL)

    end_to_end._Training.on_train_batch_end = on_train_batch_end
    end_to_end.base.load = network
    inputs = Inputs(folder / "splits", folder / "features", folder / "pictures.tar")
    train(make_study(), inputs, folder)


if __name__ == "__main__":
    killed(Path(sys.argv[1]), int(sys.argv[2]))
