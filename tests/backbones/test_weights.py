"""Known answers of ImageNet's VGG16: independent prints of Keras's weights (docs/weights.md)."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.sources import write_sources
from vgg16_transfer.backbones.weights import INDEX, write_all, write_weights
from vgg16_transfer.errors import WeightsError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images.fetch import FetchError
from vgg16_transfer.networks import NETWORKS
from vgg16_transfer.params import Backbone
from vgg16_transfer.workspace import Workspace

from .conftest import serving

FIRST_VALUES = {
    "block1_conv1": (0.42947057, 0.73429835),
    "block1_conv2": (0.16621928, -0.30912212),
    "block2_conv1": (-0.00890296, -0.04577766),
    "block2_conv2": (-0.00230124, -0.06418542),
    "block3_conv1": (0.00248632, -0.07435887),
    "block3_conv2": (-0.01032663, 0.01967502),
    "block3_conv3": (0.00249183, 0.03541524),
    "block4_conv1": (-0.01245381, 0.01348567),
    "block4_conv2": (0.00711654, 0.02368046),
    "block4_conv3": (-0.00413557, 0.03757768),
    "block5_conv1": (-0.00060689, 0.09722325),
    "block5_conv2": (-0.00112611, 0.21327873),
    "block5_conv3": (0.00040788, 0.18837857),
}

STATISTICS = {  # mean, standard deviation, least, largest
    ("block1_conv1", 0): (-0.0024379087, 0.20669945, -0.67140007, 0.6085159),
    ("block5_conv3", 0): (-0.0010818949, 0.008478405, -0.09288482, 0.28699666),
    ("block5_conv3", 1): (0.14986369, 0.4928213, -0.50036746, 9.431553),
}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> keras.Model:
    path = tmp_path_factory.mktemp("weights") / "vgg16.weights.h5"
    write_weights("vgg16", "imagenet-conv", path)
    return base.load("vgg16", path, 224)


def test_the_convolutions_are_those_of_imagenet(imagenet: keras.Model) -> None:
    assert base.digest(imagenet) == NETWORKS["vgg16"].convolutions_sha256


@pytest.mark.parametrize(("layer", "first"), FIRST_VALUES.items())
def test_first_kernel_value_and_bias(
    imagenet: keras.Model, layer: str, first: tuple[float, float]
) -> None:
    kernel, bias = imagenet.get_layer(layer).get_weights()
    np.testing.assert_allclose((kernel[0, 0, 0, 0], bias[0]), first, atol=5e-9)


@pytest.mark.parametrize(("tensor", "expected"), STATISTICS.items())
def test_statistics(
    imagenet: keras.Model, tensor: tuple[str, int], expected: tuple[float, ...]
) -> None:
    layer, index = tensor
    values = imagenet.get_layer(layer).get_weights()[index].astype(np.float64)
    result = values.mean(), values.std(), values.min(), values.max()
    np.testing.assert_allclose(result, expected, rtol=2e-5)


def test_random_weights_are_the_same_every_time_and_no_others(tmp_path, random_weights) -> None:
    write_weights("vgg16", "random-conv", tmp_path / "again.weights.h5")
    assert (tmp_path / "again.weights.h5").read_bytes() == random_weights.read_bytes()


def test_random_activations_keep_their_scale(random_weights) -> None:
    tapped = base.tap(
        "vgg16", base.load("vgg16", random_weights, 32), ["block1_pool", "block5_pool"]
    )
    pictures = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    first, last = (output.std() for output in tapped.forward(pictures).values())
    assert 0.01 < last / first < 100


def test_a_path_is_a_source(tmp_path, random_weights) -> None:
    write_weights("vgg16", str(random_weights), tmp_path / "copy.weights.h5")
    copied, original = (
        base.digest(base.load("vgg16", path, 32))
        for path in (tmp_path / "copy.weights.h5", random_weights)
    )
    assert copied == original


def test_weights_that_lie_where_the_stage_writes_are_left_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "vgg16.weights.h5"
    path.write_bytes(b"mine")
    for source in ("vgg16.weights.h5", str(path)):
        with pytest.raises(WeightsError, match=r"backbone\.weights: .* is what this stage writes"):
            write_weights("vgg16", source, path)
    assert path.read_bytes() == b"mine"


def test_a_missing_path_is_named_and_nothing_is_written(tmp_path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere.h5: no such file"):
        write_weights("vgg16", "nowhere.h5", tmp_path / "vgg16.weights.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras's cache of downloads."""
    home: Path = tmp_path_factory.mktemp("keras")
    monkeypatch.setenv("KERAS_HOME", str(home))
    return home / "models"


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@contextmanager
def offered(
    content: bytes, monkeypatch: pytest.MonkeyPatch, expected: bytes | None = None, **answers: int
) -> Iterator[None]:
    """Lets the row of VGG16 name a loopback server and the md5 of these or of other bytes."""
    md5 = md5_of(expected or content)
    with serving(content, **answers) as address:
        row = NETWORKS["vgg16"]._replace(address=(f"{address}/vgg16.h5", md5))
        monkeypatch.setitem(NETWORKS, "vgg16", row)
        yield


@pytest.mark.parametrize(
    ("content", "status", "cuts", "sentence"),
    [
        (b"gone", 404, 0, "the server answered 404"),
        (b"other bytes", 200, 0, "does not have the md5"),
        (b"weights" * 1000, 200, 99, "could not be reached"),
    ],
)
def test_a_download_that_fails_leaves_no_weights(
    tmp_path, monkeypatch, content: bytes, status: int, cuts: int, sentence: str
) -> None:
    with (
        offered(content, monkeypatch, b"weights" * 1000, status=status, cuts=cuts),
        pytest.raises(FetchError, match=sentence),
    ):
        write_weights("vgg16", "imagenet", tmp_path / "vgg16.weights.h5")
    assert not (tmp_path / "vgg16.weights.h5").exists()


def older_format(network: keras.Model, path: Path) -> bytes:
    """The network's weights in the format of Keras 2, in which ImageNet's are served."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        for layer in network.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{kind}" for kind in ("kernel", "bias")]
            weights = dict(zip(names, layer.get_weights(), strict=False))
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, values in weights.items():
                group[name] = values
    return path.read_bytes()


def test_a_download_in_the_older_format_is_read(tmp_path, imagenet) -> None:
    older_format(imagenet, tmp_path / "older.h5")
    assert (
        base.digest(base.load("vgg16", tmp_path / "older.h5", 224))
        == NETWORKS["vgg16"].convolutions_sha256
    )


def test_a_download_that_is_whole_but_not_imagenets_is_refused(
    tmp_path, random_weights, monkeypatch
) -> None:
    content = older_format(base.load("vgg16", random_weights, 32), tmp_path / "older.h5")
    (tmp_path / "older.h5").unlink()
    refused = pytest.raises(WeightsError, match="not those of ImageNet's VGG16")
    with offered(content, monkeypatch), refused:
        write_weights("vgg16", "imagenet", tmp_path / "vgg16.weights.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cuts", [0, 1])
def test_imagenets_download_is_read_even_if_it_breaks_off(
    tmp_path, imagenet, monkeypatch, cuts: int
) -> None:
    content = older_format(imagenet, tmp_path / "older.h5")
    (tmp_path / "older.h5").unlink()
    with offered(content, monkeypatch, cuts=cuts):
        write_weights("vgg16", "imagenet", tmp_path / "vgg16.weights.h5")
        again = NETWORKS["vgg16"]._replace(address=("http://127.0.0.1:1/vgg16.h5", md5_of(content)))
        monkeypatch.setitem(NETWORKS, "vgg16", again)  # nothing is there to download from
        write_weights("vgg16", "imagenet", tmp_path / "again.weights.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.weights.h5",
        "vgg16.weights.h5",
    ]
    for path in tmp_path.iterdir():
        network = base.load("vgg16", path, 224)
        assert base.digest(network) == NETWORKS["vgg16"].convolutions_sha256


def test_a_download_that_keeps_breaking_off_waits_to_be_continued(
    tmp_path, monkeypatch, cache: Path
) -> None:
    content = b"weights!" * 100_000
    kept = pytest.raises(FetchError, match="bytes are kept; run this again to go on")
    with offered(content, monkeypatch, cuts=99), kept:
        write_weights("vgg16", "imagenet", tmp_path / "vgg16.weights.h5")
    assert list(tmp_path.iterdir()) == []
    (path,) = cache.iterdir()
    assert path.name == ".vgg16.h5.part"
    part = path.read_bytes()
    assert 0 < len(part) < len(content)
    assert content.startswith(part)


def write_each(root: Path, **sources: str) -> Path:
    """Runs the stages ``sources`` and ``weights`` for some networks. Returns the folder models."""
    workspace = Workspace(root)
    write_sources(sources, workspace.weights_sources)
    write_all(
        {name: Backbone(network=name, weights=source) for name, source in sources.items()},
        sources=workspace.weights_sources,
        files=workspace.weights_of(sources),
        others=workspace.other_weights,
    )
    return root / "models"


def test_each_network_has_a_file_and_an_entry_in_the_index(tmp_path) -> None:
    models = write_each(tmp_path, vgg16="random-conv", mobilenetv2="random-conv")
    files = {
        "vgg16": models / "vgg16.weights.h5",
        "mobilenetv2": models / "backbones" / "mobilenetv2.weights.h5",
    }
    index = json.loads((models / "backbones" / INDEX).read_text(encoding="utf-8"))
    for name, path in files.items():
        assert base.load(name, path, 32).layers
        assert index[name] == {"network": name, "md5": file_md5(path)}


def test_weights_of_a_network_that_is_gone_are_removed(tmp_path) -> None:
    write_each(tmp_path, vgg16="random-conv", mobilenetv2="random-conv")
    models = write_each(tmp_path, vgg16="random-conv")
    assert [path.name for path in (models / "backbones").iterdir()] == [INDEX]


def test_a_file_of_your_own_that_is_replaced_is_read_again(tmp_path, random_weights) -> None:
    own = tmp_path / "mine.weights.h5"
    own.write_bytes(random_weights.read_bytes())
    write_each(tmp_path, vgg16=str(own))
    network = base.load("vgg16", own, 32)
    layer = network.get_layer("block1_conv1")
    layer.set_weights([2 * values for values in layer.get_weights()])
    network.save_weights(own)
    models = write_each(tmp_path, vgg16=str(own))
    written = base.load("vgg16", models / "vgg16.weights.h5", 32)
    assert base.digest(written) == base.digest(network)


def test_a_file_of_your_own_is_read_without_its_link_too(tmp_path, random_weights) -> None:
    """So the command works by hand, without the stage before it."""
    workspace = Workspace(tmp_path)
    write_sources({"vgg16": "random"}, workspace.weights_sources)
    write_all(
        {"vgg16": Backbone(weights=str(random_weights))},
        sources=workspace.weights_sources,
        files=workspace.weights_of(["vgg16"]),
        others=workspace.other_weights,
    )
    written = base.load("vgg16", workspace.weights, 32)
    assert base.digest(written) == base.digest(base.load("vgg16", random_weights, 32))


@pytest.mark.parametrize("place", ["vgg16.weights.h5", "backbones/mine.weights.h5"])
def test_a_file_of_your_own_is_not_removed_as_an_output(tmp_path, place: str) -> None:
    path = tmp_path / "models" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(WeightsError, match="is what this stage writes; move your weights"):
        write_each(tmp_path, vgg16=str(path))
    assert path.read_bytes() == b"mine"
