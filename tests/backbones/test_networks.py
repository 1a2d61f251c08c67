"""Every row of NETWORKS, held against Keras's own network. A new network adds a row to SHAPES."""

import hashlib
import warnings
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications import efficientnet_v2
from keras.src.legacy.saving import legacy_h5_format
from keras.src.utils import file_utils

from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.weights import write_weights
from vgg16_transfer.heads import end_to_end
from vgg16_transfer.networks import LAST, NETWORKS
from vgg16_transfer.params import Trial

from .conftest import serving

SIDE = 64

SHAPES = {  # of the layers, at 64 pixels
    "vgg16": [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512), (2, 2, 512)],
    "vgg19": [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512), (2, 2, 512)],
    "resnet50v2": [(8, 8, 256), (4, 4, 512), (2, 2, 1024), (2, 2, 2048)],
    "mobilenetv2": [(16, 16, 24), (8, 8, 32), (4, 4, 96), (2, 2, 1280)],
    "efficientnetv2b0": [(16, 16, 32), (8, 8, 48), (4, 4, 112), (2, 2, 1280)],
    "convnexttiny": [(8, 8, 192), (4, 4, 384), (2, 2, 768), (2, 2, 768)],
    "densenet121": [(8, 8, 128), (4, 4, 256), (2, 2, 512), (2, 2, 1024)],
}


@pytest.fixture(scope="module", params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def weights(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.weights.h5"
    write_weights(name, "random-conv", path)
    return path


@pytest.fixture(scope="module")
def network(name: str, weights: Path) -> keras.Model:
    return base.load(name, weights, SIDE)


@pytest.fixture(scope="module")
def reference(name: str, weights: Path) -> keras.Model:
    """Keras's own network, with the same file of random weights."""
    constructor = getattr(module(name), NETWORKS[name].model.split(".")[1])
    network = constructor(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    network.load_weights(weights)
    return network


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def activations(name: str, network: keras.Model, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Those of the layers that feed a head or a tail."""
    row = NETWORKS[name]
    layers = dict.fromkeys([*row.layers, *row.fine_tune.values()])
    return base.tap(name, network, list(layers)).forward(pictures)


def module(name: str) -> object:
    return getattr(keras.applications, NETWORKS[name].model.split(".")[0])


def test_every_network_has_a_row_of_shapes() -> None:
    assert list(SHAPES) == list(NETWORKS)


def test_layers_have_the_shapes_that_were_looked_up(name: str, network: keras.Model) -> None:
    shapes = base.tap(name, network, NETWORKS[name].layers).shapes
    assert list(shapes.values()) == SHAPES[name]


def test_pictures_enter_as_keras_says(name: str, pictures: np.ndarray) -> None:
    expected = module(name).preprocess_input(pictures.astype(np.float32))
    np.testing.assert_array_equal(base.preprocess(name, pictures), expected)


def test_the_forward_pass_is_kerass(
    name: str,
    reference: keras.Model,
    pictures: np.ndarray,
    activations: dict[str, np.ndarray],
) -> None:
    last = NETWORKS[name].layers[-1]
    end = reference.output if last == LAST else reference.get_layer(last).output
    body = keras.Model(reference.input, end)

    @tf.function  # operations are joined in a graph, and rounding depends on that
    def run(batch: tf.Tensor) -> tf.Tensor:
        return body(module(name).preprocess_input(batch), training=False)

    expected = run(pictures.astype(np.float32))
    result = activations[last]
    scale = float(np.abs(expected).max())
    assert scale > 0
    np.testing.assert_allclose(result / scale, expected / scale, atol=1e-5)


def test_the_weights_survive_their_file(network: keras.Model, reference: keras.Model) -> None:
    for one, other in zip(network.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_frozen_part_and_the_tail_are_the_whole(
    name: str, network: keras.Model, activations: dict[str, np.ndarray]
) -> None:
    row = NETWORKS[name]
    last = row.layers[-1]
    whole = activations[last]
    for block, below in row.fine_tune.items():
        trial = Trial(approach="end_to_end", layer=last, fine_tune_from=block, normalise="none")
        tail = end_to_end.make_tail(trial, network, below, 3)
        part = activations[below]
        body = keras.Model(tail.inputs[0], tail.get_layer("softmax").input)
        result = body(part.reshape(len(part), -1), training=False)
        scale = float(np.abs(whole).max())
        np.testing.assert_allclose(
            np.asarray(result) / scale, whole.reshape(len(whole), -1) / scale, atol=1e-5
        )
        assert len(tail.trainable_variables) > 2, block
    network.trainable = False


def test_kernels_and_convolutions_to_show_are_there(name: str, network: keras.Model) -> None:
    assert base.first_kernels(network).shape[2] == 3
    names = {layer.name for layer in network.layers}
    assert set(NETWORKS[name].shown) <= names


@pytest.mark.parametrize("dense", [name for name, row in NETWORKS.items() if row.dense])
def test_dense_layers_are_there_and_the_last_one_gives_logits(dense: str) -> None:
    row = NETWORKS[dense]
    network = base.architecture(dense, dense=True, image_size=row.image_size)
    shapes = base.tap(dense, network, row.dense).shapes
    assert all(len(shape) == 1 for shape in shapes.values())
    assert shapes["predictions"] == (1000,)
    assert network.get_layer("predictions").activation is keras.activations.linear


def test_kerass_own_download_is_taken(tmp_path, monkeypatch) -> None:
    """EfficientNetV2's module names its hashes; a loopback server stands in for Keras's."""
    network = base.architecture("efficientnetv2b0", dense=True, image_size=224)
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    content = (tmp_path / "theirs.h5").read_bytes()

    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    hashes = efficientnet_v2.WEIGHTS_HASHES
    monkeypatch.setitem(hashes, "b0", (md5, *hashes["b0"][1:]))
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path / "home"))
    with serving(content) as address, warnings.catch_warnings():
        monkeypatch.setattr(efficientnet_v2, "BASE_WEIGHTS_PATH", f"{address}/")
        warnings.simplefilter("ignore")
        write_weights("efficientnetv2b0", "imagenet", tmp_path / "out.weights.h5")
        monkeypatch.setitem(hashes, "b0", ("0" * 32, *hashes["b0"][1:]))
        with pytest.raises(base.WeightsError, match="imagenet of efficientnetv2b0 can't be had"):
            write_weights("efficientnetv2b0", "imagenet", tmp_path / "other.weights.h5")
    loaded = base.load("efficientnetv2b0", tmp_path / "out.weights.h5", 64)
    assert base.digest(loaded) == base.digest(network)
    assert not (tmp_path / "other.weights.h5").exists()
