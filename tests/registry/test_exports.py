"""An exported model gives the probabilities of ``predict``, in every format and for every head.

A program of its own as well: ``python -m tests.registry.test_exports FOLDER`` exports a small
classifier.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from vgg16_transfer.backbones import base as networks
from vgg16_transfer.backbones.weights import write_weights
from vgg16_transfer.head_kinds import HEAD_KINDS
from vgg16_transfer.heads import base, classifier
from vgg16_transfer.heads.base import Data, Pictures
from vgg16_transfer.heads.classifier import Classifier, Recipe
from vgg16_transfer.heads.linear import Linear
from vgg16_transfer.heads.selection import assemble
from vgg16_transfer.images import pictures
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.params import Trial
from vgg16_transfer.registry import exports
from vgg16_transfer.registry.exports import ExportError
from vgg16_transfer.registry.formats import FORMATS

ROOT = Path(__file__).parents[2]


def compare(model: Classifier, name: str, files: list[bytes], out: Path) -> None:
    """Exports a classifier, and runs what was written as somebody without this package would."""
    exports.export(model, name, out, {})
    facts = json.loads(exports.json_path(out).read_text(encoding="utf-8"))
    size = facts["image_size"]
    way = facts["resize"]["way"]
    squares = np.stack([pictures.to_square(pictures.decode(file), size, way) for file in files])
    assert list(squares.shape[1:]) == facts["input"]["shape"][1:]
    expected = np.stack([model.probabilities(file) for file in files])
    assert expected.max(axis=0).min() > expected.min()  # they differ
    result = FORMATS[name].run(out, squares)
    assert list(result.shape[1:]) == facts["output"]["shape"][1:]
    # Features are rounded to float16: the last bit of a float32 can decide between two of them.
    np.testing.assert_allclose(result, expected, atol=1e-4)


def of_study(trained: Any, study: str) -> Classifier:
    chosen = trained.params.study(study)
    trial = chosen.trial_name(chosen.trials()[-1])
    return assemble(trained.layout.heads(study) / f"{trial}.keras", trained.layout.weights)


@pytest.fixture(scope="module")
def files(trained) -> list[bytes]:
    with open_archive(trained.layout.source("animals")) as archive:
        return [archive.read(name) for name in ("ant/0.jpg", "bee/5.jpg", "cat/3.jpg")]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("study", ["few", "tuned"])
def test_a_study_s_head_gives_the_probabilities_of_predict(
    trained, files: list[bytes], study: str, name: str, tmp_path: Path
) -> None:
    compare(of_study(trained, study), name, files, tmp_path / "model")


def fitted(
    kind: str,
    network: str,
    model: keras.Model,
    layer: str,
    size: int,
    trained_on: tuple[np.ndarray, np.ndarray] | None = None,
) -> Classifier:
    """A classifier of a kind of head, trained on pictures of three classes, or else on noise."""
    tapped = networks.tap(network, model, [layer])
    shape = tapped.shapes[layer]
    squares, labels = trained_on or noise(size, 12)
    activations = np.concatenate([tapped.forward(square[np.newaxis])[layer] for square in squares])
    features = activations.reshape(len(squares), -1).astype("float16").astype("float32")
    training = Pictures(features, labels)
    trial = Trial(head=kind, epochs=20, layer=layer)
    data = Data(training, {"train": training}, shape, 3)
    head = base.fit_of(kind)(trial, data).head
    if head.scalable:
        head.scale(0.5)
    recipe = Recipe(network, layer, size, "squash", "float16", ("ant", "bee", "cat"))
    return classifier.make(recipe, model, head.to_keras())


def noise(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    pixels = (
        random.integers(0, 128, (count, size, size, 3))
        + 100 * np.eye(3, dtype=int)[labels, np.newaxis, np.newaxis]
    )
    return pixels.astype(np.uint8), labels


def network() -> keras.Model:
    """Two convolutions, with names of VGG16."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3), name="pictures")
    outputs = keras.layers.Conv2D(4, 3, 2, "same", activation="relu")(inputs)
    outputs = keras.layers.MaxPooling2D(4, name="block4_pool")(outputs)
    outputs = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(outputs)
    return keras.Model(inputs, keras.layers.MaxPooling2D(2, name="block5_pool")(outputs))


def small(kind: str = "softmax") -> Classifier:
    return fitted(kind, "vgg16", network(), "block5_pool", 32)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_every_kind_of_head_can_be_exported(
    kind: str, name: str, files: list[bytes], tmp_path: Path
) -> None:
    compare(small(kind), name, files, tmp_path / "model")


DETERMINISTIC = [name for name in FORMATS if name != "savedmodel"]


def test_the_same_head_has_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    for folder, seed in (("a", "1"), ("b", "2")):
        subprocess.run(
            [sys.executable, "-m", "tests.registry.test_exports", str(tmp_path / folder)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
    for name in DETERMINISTIC:
        first, second = ((tmp_path / one / f"few.{name}").read_bytes() for one in "ab")
        assert first == second


def test_activations_are_rounded_as_those_of_training(files: list[bytes], tmp_path: Path) -> None:
    """The difference is larger than that between runtimes: the rounding is in the model."""
    model = small()
    head = Linear(
        Trial(layer="block5_pool", normalise="none"),
        (2, 2, 8),
        np.random.default_rng(0).normal(0, 0.005, (32, 3)).astype(np.float32),
        np.zeros(3, np.float32),
    )
    rounded, exact = (
        classifier.make(model.recipe._replace(dtype=dtype), model.backbone, head.to_keras())
        for dtype in ("float16", "float32")
    )
    by_rounded, by_exact = (
        np.stack([each.probabilities(file) for file in files]) for each in (rounded, exact)
    )
    assert np.abs(by_rounded - by_exact).max() > 3e-5
    for name in FORMATS:
        compare(rounded, name, files, tmp_path / name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_network_that_scales_its_input_by_fixed_means_can_be_exported(
    name: str, files: list[bytes], tmp_path: Path
) -> None:
    scaled = keras.layers.Normalization(mean=[99.0, 90.0, 80.0], variance=[50.0, 60.0, 70.0])
    inputs = keras.Input((32, 32, 3), name="pictures")
    model = keras.Model(inputs, network()(scaled(inputs)))
    flat = keras.layers.Flatten(name="block5_pool")(model.output)
    made = fitted("softmax", "vgg16", keras.Model(inputs, flat), "block5_pool", 32)
    compare(made, name, files, tmp_path / "model")


def test_an_operation_that_a_format_lacks_is_named(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 4), name="pictures")
    grouped = keras.layers.Conv2D(4, 3, 2, groups=4, name="grouped")(inputs)
    model = small()
    colours = keras.layers.Conv2D(4, 1)(model.backbone.input)
    whole = keras.Model(model.backbone.input, keras.Model(inputs, grouped)(colours))
    flat = keras.layers.GlobalAveragePooling2D(name="block5_pool")(whole.output)
    model = fitted("softmax", "vgg16", keras.Model(whole.input, flat), "block5_pool", 32)
    with pytest.raises(ExportError, match=r"can't be written as onnx .*; choose another --format"):
        exports.export(model, "onnx", tmp_path / "few.onnx", {})
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def mobile() -> keras.Model:
    """MobileNetV2 with random weights, and with the means that its batch normalisation learns."""
    keras.utils.set_random_seed(0)
    model = networks.architecture("mobilenetv2", dense=False, image_size=32)
    inputs = networks.preprocess("mobilenetv2", noise(32, 12)[0])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(inputs, training=True)
    return model


@pytest.fixture(scope="module")
def photographed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, list[bytes]]:
    """ImageNet's convolutions with a head for three classes of clip art, and other pictures."""
    weights = tmp_path_factory.mktemp("weights") / "vgg16.weights.h5"
    write_weights("vgg16", "imagenet-conv", weights)
    drawn = {}
    with open_archive(ROOT / "data" / "clipart.tar") as archive:
        for name in ("birds", "flags", "tools"):
            paths = sorted(path for path in archive.names() if f"/{name}/" in f"/{path}")
            drawn[name] = [archive.read(path) for path in paths[:6]]
    assert {len(each) for each in drawn.values()} == {6}
    model = networks.load("vgg16", weights, 160)
    training = [each[:4] for each in drawn.values()]
    squares = np.stack(
        [
            pictures.to_square(pictures.decode(one), 160, "squash")
            for each in training
            for one in each
        ]
    )
    made = fitted("softmax", "vgg16", model, "block5_pool", 160, (squares, np.arange(12) // 4))
    return made, [one for each in drawn.values() for one in each[4:]]


@pytest.mark.parametrize("name", FORMATS)
def test_real_pictures_get_the_probabilities_of_predict(
    photographed: tuple[Classifier, list[bytes]], name: str, tmp_path: Path
) -> None:
    model, others = photographed
    compare(model, name, others, tmp_path / "model")


@pytest.fixture(scope="module")
def mobilenet() -> Classifier:
    return fitted("softmax", "mobilenetv2", mobile(), "out_relu", 32)


@pytest.mark.parametrize("name", FORMATS)
def test_another_network_can_be_exported(
    mobilenet: Classifier, name: str, files: list[bytes], tmp_path: Path
) -> None:
    compare(mobilenet, name, files, tmp_path / "model")


if __name__ == "__main__":
    for each in DETERMINISTIC:
        exports.export(small(), each, Path(sys.argv[1]) / f"few.{each}", {})
