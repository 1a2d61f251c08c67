"""Reads and writes a head's file without Keras, which takes seconds to import.

The file says what the head was trained on. So its classes are known without the split and the
features, and a wrong backbone is noticed.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py

from vgg16_transfer.artifacts import reading, replacing
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

# Keras writes its version to this member and does not read it. If the head had an additional
# member instead, Keras would unpack the file to disk.
METADATA = "metadata.json"
MADE_OF = "made_of"
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"

LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The earliest time stamp that a zip file can hold."""


class HeadError(InputError):
    """A head that is missing or damaged."""


class MadeOf(NamedTuple):
    """What a head was trained on.

    Attributes:
        layer: The layer whose activations the head takes.
        features: How the features were made; see
            :func:`~vgg16_transfer.backbones.features.recipe`.
        class_names: Class names, in the order of their labels.
        split_md5: md5 of the split's manifest.
    """

    layer: str
    features: dict[str, Any]
    class_names: tuple[str, ...]
    split_md5: str


def made_of(path: Path) -> MadeOf:
    """Reads what a head was trained on.

    Args:
        path: A ``.keras`` file that training wrote.

    Raises:
        HeadError: The file is missing or damaged, or does not say what the head was trained on.
    """
    with reading(path, HeadError, what="head"), zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read(METADATA))
        if MADE_OF not in metadata:
            raise ValueError("it does not say what it was trained on")
        raw = metadata[MADE_OF]
        names = tuple(map(str, raw["class_names"]))
        return MadeOf(raw["layer"], dict(raw["features"]), names, raw["split_md5"])


def metadata(made_of: MadeOf | None, keras_version: str) -> bytes:
    """Content of the member ``metadata.json``. The time is no input of the head, so it is left out.

    Args:
        made_of: What a head was trained on. None for a backbone.
        keras_version: Version of Keras that reads the file for certain.
    """
    content: dict[str, Any] = {"keras_version": keras_version, "date_saved": "1980-01-01@00:00:00"}
    if made_of is not None:
        content[MADE_OF] = made_of._asdict()
    return json.dumps(content, ensure_ascii=False).encode()


def write_dense(
    path: Path,
    config: dict[str, Any],
    name: str,
    weights: Sequence[npt.NDArray[np.float32]],
    made_of: MadeOf | None,
) -> None:
    """Writes a ``.keras`` file of a model whose only layer with weights is a ``Dense``.

    Args:
        path: The file to write. On errors, it is left unchanged.
        config: The model's configuration, as Keras reads it.
        name: Name of the layer.
        weights: The layer's weights.
        made_of: What the head was trained on.
    """
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        variables = file.create_group("layers/dense/vars")
        variables.attrs["name"] = name
        for number, weight in enumerate(weights):
            variables.create_dataset(str(number), data=weight)
    members = {
        CONFIG: json.dumps(config).encode(),
        METADATA: metadata(made_of, importlib.metadata.version("keras")),
        WEIGHTS: content.getvalue(),
    }
    with replacing(path) as fresh, zipfile.ZipFile(fresh, "w") as archive:
        for member, value in members.items():
            archive.writestr(zipfile.ZipInfo(member, LONG_AGO), value)


def config(path: Path) -> bytes:
    """Reads the configuration of a head's layers, after a check of the whole file.

    Args:
        path: A ``.keras`` file that training wrote.

    Raises:
        HeadError: The file is missing or damaged.
    """
    with reading(path, HeadError, what="head"), zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # compares every member with its checksum
        if damaged:
            raise ValueError(f"its member {damaged} has another checksum")
        return archive.read(CONFIG)


def shapes(config: bytes) -> tuple[int, int]:
    """Number of features and number of classes of a head.

    Args:
        config: Result of :func:`config`.
    """
    layers = json.loads(config)["config"]["layers"]
    by_name = {layer["config"]["name"]: layer["config"] for layer in layers}
    return by_name["features"]["batch_shape"][-1], by_name["softmax"]["units"]


def kernel(path: Path) -> npt.NDArray[np.float32]:
    """Reads the kernel of a head's softmax.

    Args:
        path: A ``.keras`` file that training wrote.

    Returns:
        Shape (width, classes), float32.

    Raises:
        HeadError: The file is missing or damaged.
    """
    with reading(path, HeadError, what="head"):
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read(WEIGHTS))
        with h5py.File(content) as file:
            variables = [layer["vars"] for layer in file["layers"].values()]
            softmax = {group.attrs["name"]: group for group in variables}["softmax"]
            weights: npt.NDArray[np.float32] = softmax["0"][:]
    return weights
