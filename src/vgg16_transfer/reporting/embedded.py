"""Pictures of the page: their bytes, what they show, and what stands below them."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.reporting import alternatives, reading

if TYPE_CHECKING:
    from pathlib import Path


_CAPTIONS = {"probe": "the probe picture", "kernels": "the kernels of block1 conv1"}


class Picture(NamedTuple):
    """A picture of the page.

    Attributes:
        alternative: What it shows, for those who can't see it.
        caption: What stands below it, for those who can.
        uri: Its bytes, as a data URI.
    """

    alternative: str
    caption: str
    uri: str


def read(path: Path, alternative: str, caption: str, command: str) -> Picture:
    """A PNG file as a picture of the page.

    Args:
        path: Of the file.
        alternative: What it shows.
        caption: What stands below it.
        command: Draws it again.

    Raises:
        ReadError: The file is missing or damaged.
    """
    reading.png(path, command)
    return Picture(alternative, caption, _uri(path.read_bytes(), "png"))


def filters(folder: Path, dataset: str) -> list[Picture]:
    """What the stage ``filters`` drew, from the probe through the kernels up the network.

    Raises:
        ReadError: A picture is damaged.
    """
    paths = sorted(
        folder.glob("*.png"),
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


def explained(folder: Path, study: str) -> list[Picture]:
    """What the stage ``explain`` drew for a study, if it did.

    Raises:
        ReadError: A picture or ``captions.json`` is damaged.
    """
    command = f"dvc repro explain@{study}"
    path = folder / "captions.json"
    told = reading.captions(path, command) if path.exists() else {}
    return [
        Picture(
            told.get(picture.name, _words(picture)), _words(picture), _smaller(picture, command)
        )
        for picture in sorted(folder.glob("*.png"))
    ]


def _smaller(path: Path, command: str) -> str:
    """A sheet of photographs as WebP: a tenth of its PNG, which would fill the page."""
    buffer = io.BytesIO()
    reading.png(path, command).convert("RGB").save(buffer, "WEBP", quality=80, method=4)
    return _uri(buffer.getvalue(), "webp")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _words(path: Path) -> str:
    return path.stem.replace("_", " ")
