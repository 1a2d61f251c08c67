"""A head's file without Keras, which takes seconds to import: what it is made of, and its kernel.

Whoever reads a head needs neither the split nor the features to know its classes, and notices a
backbone that is another one.
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

# Keras writes its version here, and reads nothing. For a member of its own, it would unpack the
# file to disk.
METADATA = "metadata.json"
MADE_OF = "made_of"


class HeadError(InputError):
    """A head that is missing or damaged."""


class MadeOf(NamedTuple):
    """What a head was trained on.

    Attributes:
        layer: The layer whose activations it takes.
        features: How they were made; see :func:`~vgg16_transfer.backbones.features.recipe`.
        class_names: By label.
        split_md5: Of the manifest.
    """

    layer: str
    features: dict[str, Any]
    class_names: tuple[str, ...]
    split_md5: str


def made_of(path: Path) -> MadeOf:
    """What a head was trained on.

    Args:
        path: A ``.keras`` file that :func:`~vgg16_transfer.heads.model_files.save` wrote.

    Raises:
        HeadError: The file is missing or damaged, or says nothing of it.
    """
    with reading(path, HeadError, what="head"), zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read(METADATA))
        if MADE_OF not in metadata:
            raise ValueError("it does not say what it was trained on")
        raw = metadata[MADE_OF]
        names = tuple(map(str, raw["class_names"]))
        return MadeOf(raw["layer"], dict(raw["features"]), names, raw["split_md5"])


def kernel(path: Path) -> npt.NDArray[np.float32]:
    """The kernel of a head's softmax, shape (width, classes).

    Raises:
        HeadError: The file is missing or damaged.
    """
    with reading(path, HeadError, what="head"):
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
        with h5py.File(content) as file:
            of_layers = [layer["vars"] for layer in file["layers"].values()]
            softmax = {weights.attrs["name"]: weights for weights in of_layers}["softmax"]
            found: npt.NDArray[np.float32] = softmax["0"][:]
    return found
