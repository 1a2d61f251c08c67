"""Backbone and head together: a picture's bytes → the probability of each class.

A classifier can be used outside the workspace. Its folder has all that it needs: the backbone up to
the layer that feeds the head, the head, and the preprocessing of pictures.

Pictures are classified one at a time, so the probabilities depend on nothing but the picture.
Activations are rounded to the number format of the features that the head was trained on, so the
probabilities are those that the study recorded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import keras
import numpy as np

from vgg16_transfer.artifacts import reading
from vgg16_transfer.backbones import base
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import model_files
from vgg16_transfer.heads.saved import HeadError
from vgg16_transfer.images import pictures
from vgg16_transfer.networks import DEFAULT

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from vgg16_transfer.backbones.base import Tapped

BACKBONE = "backbone.keras"
HEAD = "head.keras"
RECIPE = "recipe.json"

_MD5S = "md5s"
_MEND = "delete this version of the model, and register it again"


class Recipe(NamedTuple):
    """How a picture becomes the input of the head.

    Attributes:
        network: A key of ``NETWORKS``. It decides the preprocessing.
        layer: The layer that feeds the head. For a head with fine-tuned blocks, the layer below
            these blocks.
        image_size: Side of the network's input, in pixels.
        resize: How a picture is made square.
        dtype: Number format that activations are rounded to.
        class_names: Class names, in the order of their labels.
    """

    network: str
    layer: str
    image_size: int
    resize: Literal["squash", "crop"]
    dtype: str
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Classifier:
    """A backbone and a head.

    Attributes:
        recipe: How a picture becomes the input of the head, and the class names.
        backbone: Preprocessed pictures → activations of its last layer.
        head: Flattened activations → probabilities.
    """

    recipe: Recipe
    backbone: keras.Model
    head: keras.Model
    _tapped: Tapped

    def probabilities(self, content: bytes) -> npt.NDArray[np.float32]:
        """Computes the probability of each class for one picture.

        Args:
            content: Bytes of a picture file, in any format that Pillow reads.

        Returns:
            Shape (classes,), float32. The probabilities sum to 1.

        Raises:
            PictureError: The file is not a usable picture. The message is the reason.
        """
        picture = pictures.decode(content)
        return self.of_square(
            pictures.to_square(picture, self.recipe.image_size, self.recipe.resize)
        )

    def of_square(self, square: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Computes the probability of each class for one picture of the network's size.

        Args:
            square: Shape (image_size, image_size, 3), RGB, 0 to 255.

        Returns:
            Shape (classes,), float32. The probabilities sum to 1.

        Raises:
            PictureError: The activations are beyond the number format of the features.
        """
        recipe = self.recipe
        activations = self._tapped.forward(square[np.newaxis])[recipe.layer].reshape(1, -1)
        largest, most = float(np.abs(activations).max()), float(np.finfo(recipe.dtype).max)
        if not largest <= most:
            raise pictures.PictureError(
                f"makes {recipe.layer} reach {largest:,.0f}, and {recipe.dtype} ends at {most:,.0f}"
            )
        features = activations.astype(recipe.dtype).astype(np.float32)
        probabilities = model_files.probabilities(self.head, features)
        one_picture: npt.NDArray[np.float32] = probabilities[0]
        return one_picture


def make(recipe: Recipe, network: keras.Model, head: keras.Model) -> Classifier:
    """Makes a classifier from a head and the part of the network that feeds it.

    Args:
        recipe: How a picture becomes the input of the head, and the class names.
        network: The network, with at least the layers up to ``recipe.layer``.
        head: Flattened activations → probabilities.

    Raises:
        WeightsError: The network has no such layer.
    """
    tapped = base.tap(recipe.network, network, [recipe.layer])
    backbone = keras.Model(network.input, network.get_layer(recipe.layer).output, name="backbone")
    return Classifier(recipe, backbone, head, tapped)


def save(classifier: Classifier, folder: Path) -> None:
    """Writes a classifier to a new folder. The same classifier gives the same bytes."""
    folder.mkdir(parents=True)
    model_files.save(classifier.backbone, folder / BACKBONE)
    model_files.save(classifier.head, folder / HEAD)
    md5s = {_MD5S: {name: file_md5(folder / name) for name in (BACKBONE, HEAD)}}
    recipe = json.dumps(classifier.recipe._asdict() | md5s, indent=2, ensure_ascii=False)
    (folder / RECIPE).write_text(recipe + "\n", encoding="utf-8")


def load(folder: Path) -> Classifier:
    """Loads a classifier that :func:`save` wrote. Code in its files is never run.

    Raises:
        HeadError: A file of the classifier is missing, damaged, or not the one that was saved.
    """
    path = folder / RECIPE
    with reading(path, HeadError, mend=_MEND):
        raw = json.loads(path.read_text(encoding="utf-8"))
        for name, md5 in raw.pop(_MD5S, {}).items():  # versions before 0.3 have none
            if file_md5(folder / name) != md5:
                raise HeadError(f"{folder / name}: is not the file that was registered; {_MEND}")
        # Versions before 0.2 had one network and did not write its name.
        recipe = Recipe(**{"network": DEFAULT} | raw | {"class_names": tuple(raw["class_names"])})
    return make(recipe, model_files.load(folder / BACKBONE), model_files.load(folder / HEAD))
