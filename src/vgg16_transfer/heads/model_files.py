"""Keras models as ``.keras`` files: the same model gives the same bytes. And heads made of them."""

from __future__ import annotations

import re
import shutil
import zipfile
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from vgg16_transfer.artifacts import reading, replacing
from vgg16_transfer.heads.saved import CONFIG, LONG_AGO, METADATA, HeadError, metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from vgg16_transfer.heads.linear import Step
    from vgg16_transfer.heads.rows import Features
    from vgg16_transfer.heads.saved import MadeOf

_AT_ONCE = 64  # pictures; more could fill the memory if a head has fine-tuned blocks

_COPIED = 1 << 20  # bytes that are copied at a time


class KerasHead:
    """A head that is a Keras model; see :class:`~vgg16_transfer.heads.base.Head`.

    Args:
        model: Input shape (n, height * width * channels), output shape (n, classes). Each output
            row sums to 1.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model

    @property
    def scalable(self) -> bool:
        """Whether the last layer is a softmax of a linear layer."""
        return getattr(self._model.layers[-1], "activation", None) is keras.activations.softmax

    def logits(self, features: Features) -> npt.NDArray[np.float32]:
        """Logits, shape (n, classes), up to a constant in each row.

        Probabilities near 0 and 1 would lose precision, so they are used only if the last layer is
        no softmax.
        """
        if self.scalable:
            return in_parts(partial(softmax_input, self._model), features)
        tiny = np.finfo(np.float32).tiny
        logarithms: npt.NDArray[np.float32] = np.log(np.maximum(self.probabilities(features), tiny))
        return logarithms

    def probabilities(self, features: Features) -> npt.NDArray[np.float32]:
        """Class probabilities, shape (n, classes)."""
        return probabilities(self._model, features)

    def scale(self, temperature: float) -> None:
        """Divides the logits by a temperature: the last kernel and bias."""
        last = self._model.layers[-1]
        last.set_weights([weights / np.float32(temperature) for weights in last.get_weights()])

    def to_keras(self) -> keras.Model:
        """The model."""
        return self._model

    def save(self, path: Path, made_of: MadeOf | None = None) -> None:
        """Writes the model as a ``.keras`` file."""
        save(self._model, path, made_of)


def layers_of(steps: Sequence[Step]) -> list[keras.Layer]:
    """Layers of Keras that do what steps do.

    Args:
        steps: Result of :func:`~vgg16_transfer.heads.linear.front`.
    """
    return [getattr(keras.layers, step.layer)(**step.config) for step in steps]


def softmax_input(model: keras.Model, features: Any) -> Any:
    """The input of the softmax of a head's last layer, as a tensor.

    Args:
        model: A head whose layers are a chain, with a softmax at its end.
        features: Shape (n, width), an array or a tensor.
    """
    *layers, last = model.layers
    for layer in layers:
        fixed = {"training": False} if isinstance(layer, keras.Model) else {}
        features = layer(features, **fixed)
    return keras.ops.matmul(features, last.kernel) + last.bias


def save(model: keras.Model, path: Path, made_of: MadeOf | None = None) -> None:
    """Saves a model as ``.keras`` such that the same model gives the same bytes.

    Keras writes the current time into the file's members and metadata. Both are replaced by the
    earliest time that a zip file can hold. Keras also identifies the objects of the configuration
    by their addresses in memory. These are replaced by numbers.

    Args:
        model: A head, or a backbone.
        path: The file to write. On errors, it is left unchanged.
        made_of: What a head was trained on, written to the file's metadata. None for a backbone.
    """
    with replacing(path) as fresh:
        stamped = fresh.with_name("stamped.keras")
        model.save(stamped)
        with zipfile.ZipFile(stamped) as source, zipfile.ZipFile(fresh, "w") as target:
            changed = {
                METADATA: metadata(made_of, keras.__version__),
                CONFIG: _numbered(source.read(CONFIG)),
            }
            for name in sorted(source.namelist()):
                member = zipfile.ZipInfo(name, LONG_AGO)
                if name in changed:
                    target.writestr(member, changed[name])
                    continue
                member.file_size = source.getinfo(name).file_size
                # Weights may have half a gigabyte, which need not be in memory once more.
                with source.open(name) as content, target.open(member, "w") as copy:
                    shutil.copyfileobj(content, copy, _COPIED)


def _numbered(config: bytes) -> bytes:
    """Replaces the ids of shared objects by 1, 2, … in the order of their first occurrence."""
    ids: dict[bytes, int] = {}
    return re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda match: b"%d" % ids.setdefault(match[0], len(ids) + 1),
        config,
    )


def load(path: Path) -> keras.Model:
    """Loads a model that :func:`save` wrote. Code in the file is never run.

    Raises:
        HeadError: The file is missing or damaged.
    """
    with reading(path, HeadError):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # compares every member with its checksum
        if damaged:
            raise ValueError(f"its member {damaged} has another checksum")
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def probabilities(model: keras.Model, features: Features) -> npt.NDArray[np.float32]:
    """Computes class probabilities.

    Args:
        model: A head.
        features: Shape (n, width), float32.

    Returns:
        Shape (n, classes), float32.
    """
    return in_parts(model, features)


def in_parts(
    function: Callable[[npt.NDArray[np.float32]], Any], features: Features
) -> npt.NDArray[np.float32]:
    """Applies a function, such as a model, to a few rows at a time.

    Args:
        function: Takes rows of shape (few, width), and returns a tensor of as many rows.
        features: Shape (n, width), float32.

    Returns:
        The results, one below the other.
    """
    rows = range(0, len(features), _AT_ONCE)
    parts = [function(features[row : row + _AT_ONCE]) for row in rows]
    return np.concatenate([part.numpy() for part in parts])
