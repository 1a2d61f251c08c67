"""Pictures embedded in the page: bytes, alternative text and caption."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.reporting import alternatives, reading

if TYPE_CHECKING:
    from pathlib import Path


_EXAMPLES = "examples.png"
_CAPTIONS = {"probe": "the probe picture", "kernels": "the kernels of block1 conv1"}


class Picture(NamedTuple):
    """A picture of the page.

    Attributes:
        alternative: Alternative text, for readers who can't see the picture.
        caption: Text below the picture.
        uri: Bytes of the picture, as a data URI.
    """

    alternative: str
    caption: str
    uri: str


def read(path: Path, alternative: str, caption: str, command: str) -> Picture:
    """Reads a PNG file as a picture of the page.

    Args:
        path: Path of the file.
        alternative: Alternative text.
        caption: Text below the picture.
        command: Command that draws the picture again.

    Raises:
        ReadError: The file is missing or damaged.
    """
    reading.png(path, command)
    return Picture(alternative, caption, _uri(path.read_bytes(), "png"))


def filters(folder: Path, dataset: str) -> list[Picture]:
    """Pictures of the stage ``filters`` but for the examples: probe, kernels, activations by layer.

    Raises:
        ReadError: A picture is damaged.
    """
    paths = sorted(
        set(folder.glob("*.png")) - {folder / _EXAMPLES},
        key=lambda path: (path.stem.startswith("block"), path.stem != "probe", path),
    )
    return [
        read(
            path,
            alternatives.filters(path.stem, dataset),
            _CAPTIONS.get(path.stem, _words(path)),
            f"dvc repro filters@{dataset}",
        )
        for path in paths
    ]


def examples(folder: Path, dataset: str, listed: str) -> Picture | None:
    """Training pictures that the stage ``filters`` drew; None if it did not.

    Args:
        folder: Folder of the stage's pictures.
        dataset: Name of the dataset.
        listed: Paths of the training pictures, from left to right.

    Raises:
        ReadError: The picture is damaged.
    """
    path = folder / _EXAMPLES
    if not path.exists():
        return None
    alternative = f"Training pictures of {dataset}, side by side: {listed}"
    caption = "training pictures of the first split, as the network sees them"
    return Picture(alternative, caption, _webp(path, f"dvc repro filters@{dataset}"))


def explained(folder: Path, study: str) -> list[Picture]:
    """Pictures of the stage ``explain`` for a study; empty if there are none.

    Raises:
        ReadError: A picture or ``captions.json`` is damaged.
    """
    command = f"dvc repro explain@{study}"
    path = folder / "captions.json"
    captions = reading.captions(path, command) if path.exists() else {}
    return [
        Picture(
            captions.get(picture.name, _words(picture)), _words(picture), _webp(picture, command)
        )
        for picture in sorted(folder.glob("*.png"))
    ]


def _webp(path: Path, command: str) -> str:
    """Data URI of a sheet of photographs as WebP, which has a tenth of the PNG's size."""
    buffer = io.BytesIO()
    reading.png(path, command).convert("RGB").save(buffer, "WEBP", quality=80, method=4)
    return _uri(buffer.getvalue(), "webp")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _words(path: Path) -> str:
    return path.stem.replace("_", " ")
