"""Reads a head's file without Keras, which takes seconds to import.

The file says what the head was trained on. So its classes are known without the split and the
features, and a wrong backbone is noticed.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py

from vgg16_transfer.artifacts import reading
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

# Keras writes its version to this member and does not read it. If the head had an additional
# member instead, Keras would unpack the file to disk.
METADATA = "metadata.json"
MADE_OF = "made_of"


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
        path: A ``.keras`` file that :func:`~vgg16_transfer.heads.model_files.save` wrote.

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


def config(path: Path) -> bytes:
    """Reads the configuration of a head's layers, after a check of the whole file.

    Args:
        path: A ``.keras`` file that :func:`~vgg16_transfer.heads.model_files.save` wrote.

    Raises:
        HeadError: The file is missing or damaged.
    """
    with reading(path, HeadError, what="head"), zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # compares every member with its checksum
        if damaged:
            raise ValueError(f"its member {damaged} has another checksum")
        return archive.read("config.json")


def kernel(path: Path) -> npt.NDArray[np.float32]:
    """Reads the kernel of a head's softmax.

    Args:
        path: A ``.keras`` file that :func:`~vgg16_transfer.heads.model_files.save` wrote.

    Returns:
        Shape (width, classes), float32.

    Raises:
        HeadError: The file is missing or damaged.
    """
    with reading(path, HeadError, what="head"):
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content) as file:
            variables = [layer["vars"] for layer in file["layers"].values()]
            softmax = {group.attrs["name"]: group for group in variables}["softmax"]
            weights: npt.NDArray[np.float32] = softmax["0"][:]
    return weights
