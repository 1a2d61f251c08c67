"""Pictures of the page: their bytes, what they show, and what stands below them."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, NamedTuple

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
    encoded = base64.b64encode(path.read_bytes()).decode()
    return Picture(alternative, caption, f"data:image/png;base64,{encoded}")


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
        read(picture, told.get(picture.name, _words(picture)), _words(picture))
        for picture in sorted(folder.glob("*.png"))
    ]


def _words(path: Path) -> str:
    return path.stem.replace("_", " ")
