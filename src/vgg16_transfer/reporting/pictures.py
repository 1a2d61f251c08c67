"""Pictures of the page: their bytes, what they show, and what stands below them."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from vgg16_transfer.errors import InputError
from vgg16_transfer.reporting import alternatives

if TYPE_CHECKING:
    from pathlib import Path


_CAPTIONS = {"probe": "the probe picture", "kernels": "the kernels of block1 conv1"}


class CaptionsError(InputError):
    """A captions.json that can't be read."""


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


def read(path: Path, alternative: str, caption: str) -> Picture:
    """A PNG file as a picture of the page."""
    return Picture(alternative, caption, _uri(path.read_bytes(), "png"))


def filters(folder: Path, dataset: str) -> list[Picture]:
    """What the stage ``filters`` drew, from the probe through the kernels up the network."""
    paths = sorted(
        folder.glob("*.png"),
        key=lambda path: (path.stem.startswith("block"), path.stem != "probe", path),
    )
    return [
        read(path, alternatives.filters(path.stem, dataset), _CAPTIONS.get(path.stem, _words(path)))
        for path in paths
    ]


def explained(folder: Path) -> list[Picture]:
    """What the stage ``explain`` drew for a study, if it did.

    Raises:
        CaptionsError: ``captions.json`` is not what it should be.
    """
    path = folder / "captions.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise CaptionsError(f"{path}: is damaged ({error}); run dvc repro") from None
    return [
        Picture(told.get(picture.name, _words(picture)), _words(picture), _smaller(picture))
        for picture in sorted(folder.glob("*.png"))
    ]


def _smaller(path: Path) -> str:
    """A sheet of photographs as WebP: a tenth of its PNG, which would fill the page."""
    buffer = io.BytesIO()
    with Image.open(path) as sheet:
        sheet.convert("RGB").save(buffer, "WEBP", quality=80, method=4)
    return _uri(buffer.getvalue(), "webp")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _words(path: Path) -> str:
    return path.stem.replace("_", " ")
