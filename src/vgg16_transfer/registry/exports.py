"""A classifier as one model that needs neither this package nor Python.

The model takes pictures that are already as large as the network's input. Preprocessing, rounding
of the activations and the calibrated head are inside, so its probabilities are those of
:meth:`~vgg16_transfer.heads.classifier.Classifier.probabilities`. A JSON file beside it says what
goes in and what comes out.
"""

from __future__ import annotations

import json
from hashlib import file_digest, sha256
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.backbones import base
from vgg16_transfer.errors import InputError
from vgg16_transfer.registry.formats import FORMATS, INPUT, OUTPUT

if TYPE_CHECKING:
    from pathlib import Path

    from vgg16_transfer.heads.classifier import Classifier
    from vgg16_transfer.registry.formats import Format

_RESIZE = {
    "squash": "resize to image_size x image_size, whatever the aspect ratio",
    "crop": "resize the short side to image_size, and keep the centre of the long side",
}
_SAVED_MODEL = "saved_model.pb"
_SAME = 0.1  # rounding makes differences of 0.00001, but of 0.03 if weights are random and deep


class ExportError(InputError):
    """A classifier that can't be exported, or not to this path."""


class _Whole(keras.Model):  # type: ignore[misc]  # Keras has no types
    """Pictures → probabilities, as a classifier computes them."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(name="classifier")
        self._network, self._dtype = classifier.recipe.network, classifier.recipe.dtype
        self._backbone, self._head = classifier.backbone, classifier.head
        for layer in self._backbone.layers:
            if isinstance(layer, keras.layers.Normalization):
                # Tensors would become inputs of an ONNX model; arrays become constants.
                layer.mean, layer.variance = np.array(layer.mean), np.array(layer.variance)
        self._flatten = keras.layers.Flatten(dtype=self._dtype)

    def call(self, pictures: Any) -> dict[str, Any]:
        """Computes what the export writes down."""
        preprocessed = base.preprocess(self._network, pictures)
        activations = self._backbone(preprocessed, training=False)
        # ONNX's converter would drop two casts in a row, and with them the rounding.
        rounded = self._flatten(keras.ops.cast(activations, self._dtype))
        return {OUTPUT: self._head(keras.ops.cast(rounded, "float32"), training=False)}


def json_path(out: Path) -> Path:
    """Path of the JSON file that describes an exported model."""
    return out.with_name(f"{out.name}.json")


def check_place(out: Path, form: Format) -> None:
    """Refuses a path at which something else lies that the export would replace.

    Args:
        out: Where the model is to be written.
        form: Its format.

    Raises:
        ExportError: A folder is there, and it is not one that the format makes; or a file is there
            and the format makes a folder.
    """
    if out.is_dir() and not (form.is_folder and (out / _SAVED_MODEL).exists()):
        raise ExportError(f"{out}: is a folder; name what to write, as {out / 'NAME'}{form.suffix}")
    if form.is_folder and out.exists() and not out.is_dir():
        raise ExportError(f"{out}: is a file, and the format makes a folder; choose another --out")


def export(classifier: Classifier, name: str, out: Path, about: dict[str, Any]) -> None:
    """Writes a classifier as a model of another format, and a JSON file beside it.

    Args:
        classifier: The classifier.
        name: A key of ``FORMATS`` whose packages are installed.
        out: The file or folder to write.
        about: Is added to the JSON file, such as licences.

    Raises:
        ExportError: The format lacks an operation of the network or the head, the written model
            gives other probabilities, or something else lies at ``out``.
        ArtifactError: The disk is full, or may not be written to.
    """
    form = FORMATS[name]
    check_place(out, form)
    size = classifier.recipe.image_size
    model = _Whole(classifier)
    model(keras.Input((size, size, 3), dtype="uint8"))  # Keras exports only what was called
    signature = [keras.InputSpec("uint8", (None, size, size, 3), name=INPUT)]
    with replacing(json_path(out)) as facts, replacing(out) as fresh:
        written = fresh.with_name(f"model{form.suffix}")  # Keras looks at the ending
        try:
            form.write(model, written, signature)
        except (InputError, OSError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - converters raise anything
            raise ExportError(
                f"{out}: {classifier.recipe.network} with this head can't be written as {name} "
                f"({_reason(error)}); choose another --format: {', '.join(FORMATS)}"
            ) from None
        _check(classifier, form, written, out)
        written.rename(fresh)
        described = _interface(classifier, name) | about | {"sha256": _sha256(fresh)}
        text = json.dumps(described, indent=2, ensure_ascii=False)
        facts.write_text(text + "\n", encoding="utf-8")


def _check(classifier: Classifier, form: Format, written: Path, out: Path) -> None:
    """Compares what was written with the classifier, on pictures of noise.

    Raises:
        ExportError: The probabilities differ.
    """
    size = classifier.recipe.image_size
    random = np.random.default_rng(0)
    squares = random.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    expected = np.stack([classifier.of_square(square) for square in squares])
    difference = float(np.abs(form.run(written, squares) - expected).max())
    if not difference < _SAME:
        raise ExportError(
            f"{out}: was not written: its probabilities would differ from those of predict by "
            f"{difference:.2g}; choose another --format: {', '.join(FORMATS)}"
        )


def _interface(classifier: Classifier, name: str) -> dict[str, Any]:
    """What goes into an exported model, and what comes out."""
    recipe = classifier.recipe
    size = recipe.image_size
    return {
        "format": name,
        "classes": list(recipe.class_names),
        "image_size": size,
        "resize": {
            "way": recipe.resize,
            "how": _RESIZE[recipe.resize],
            "filter": "bilinear, with antialiasing when it shrinks (Pillow's BILINEAR)",
            "before": "turn upright by EXIF, put on white where transparent, convert to RGB",
        },
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": [None, size, size, 3],
            "values": "red, green, blue, 0 to 255; all further preprocessing is in the model",
        },
        "output": {
            "name": OUTPUT,
            "dtype": "float32",
            "shape": [None, len(recipe.class_names)],
            "values": "calibrated probability of each class, in the order of classes",
        },
        "network": recipe.network,
        "layer": recipe.layer,
    }


def _sha256(path: Path) -> dict[str, str]:
    """sha256 of a file, or of all files of a folder, by name."""
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    digests = {}
    for file in files:
        with file.open("rb") as content:
            name = path.name if file == path else file.relative_to(path).as_posix()
            digests[name] = file_digest(content, sha256).hexdigest()
    return digests


def _reason(error: Exception) -> str:
    return " ".join(str(error).partition("\n")[0].split())[:300] or type(error).__name__
