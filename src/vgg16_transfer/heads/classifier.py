"""Backbone and head together: a picture's bytes → the probability of each class.

A classifier is what leaves the workspace. Its folder holds all that it needs: the backbone up to
the layer that feeds the head, the head, and how a picture enters. A picture goes through alone and
its activations are rounded to the number format of the features that the head was trained on, so
its probabilities depend on nothing but the picture, and are those that the study recorded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import keras
import numpy as np

from vgg16_transfer.artifacts import reading
from vgg16_transfer.backbones import base
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


class Recipe(NamedTuple):
    """How a picture becomes what the head takes.

    Attributes:
        network: A key of ``NETWORKS``; decides the preprocessing.
        layer: The layer that feeds the head; for a head with fine-tuned blocks, the one below them.
        image_size: Side of the network's input, in pixels.
        resize: How a picture is made square.
        dtype: The number format that activations are rounded to.
        class_names: By label.
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
        recipe: How a picture enters them, and what the classes are.
        backbone: Pictures → activations, as its last layer gives them.
        head: Activations, flattened → probabilities.
    """

    recipe: Recipe
    backbone: keras.Model
    head: keras.Model
    _tapped: Tapped

    def probabilities(self, content: bytes) -> npt.NDArray[np.float32]:
        """The probabilities of the classes for one picture, shape (classes,); they sum to 1.

        Args:
            content: A whole file of any format that Pillow reads.

        Raises:
            PictureError: It is no usable picture; the message is the reason.
        """
        recipe = self.recipe
        picture = pictures.decode(content)
        square = pictures.to_square(picture, recipe.image_size, recipe.resize)
        activations = self._tapped.forward(square[np.newaxis])[recipe.layer].reshape(1, -1)
        largest, most = float(np.abs(activations).max()), float(np.finfo(recipe.dtype).max)
        if not largest <= most:
            raise pictures.PictureError(
                f"makes {recipe.layer} reach {largest:,.0f}, and {recipe.dtype} ends at {most:,.0f}"
            )
        features = activations.astype(recipe.dtype).astype(np.float32)
        found: npt.NDArray[np.float32] = model_files.probabilities(self.head, features)[0]
        return found


def make(recipe: Recipe, network: keras.Model, head: keras.Model) -> Classifier:
    """Cuts a network off behind the layer that feeds a head, and puts the two together.

    Raises:
        WeightsError: The network has no such layer.
    """
    tapped = base.tap(recipe.network, network, [recipe.layer])
    backbone = keras.Model(network.input, network.get_layer(recipe.layer).output, name="backbone")
    return Classifier(recipe, backbone, head, tapped)


def save(classifier: Classifier, folder: Path) -> None:
    """Writes a classifier to a folder that is made; the same one gives the same bytes."""
    folder.mkdir(parents=True)
    model_files.save(classifier.backbone, folder / BACKBONE)
    model_files.save(classifier.head, folder / HEAD)
    recipe = json.dumps(classifier.recipe._asdict(), indent=2, ensure_ascii=False)
    (folder / RECIPE).write_text(recipe + "\n", encoding="utf-8")


def load(folder: Path) -> Classifier:
    """Loads what :func:`save` wrote; no code is ever loaded with it.

    Raises:
        HeadError: A part of it is missing or damaged.
    """
    path = folder / RECIPE
    with reading(path, HeadError, mend="register the model again"):
        raw = json.loads(path.read_text(encoding="utf-8"))
        # Versions before 0.2 knew one network, and did not name it.
        recipe = Recipe(**{"network": DEFAULT} | raw | {"class_names": tuple(raw["class_names"])})
    return make(recipe, model_files.load(folder / BACKBONE), model_files.load(folder / HEAD))
