"""Pictures embedded in the page: bytes, alternative text and caption."""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from vgg16_transfer.images import cards
from vgg16_transfer.reporting import alternatives, reading

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

_NO_FILTERS = {"examples.png", "samples.png"}
_CAPTIONS = {
    "probe": "The test picture that is sent through the network",
    "kernels": "The 64 kernels of the first convolution, in colour",
    "confusions": "Test pictures that the head mistakes most often (✗), beside training pictures "
    "of the class that it takes them for",
    "nearest": "Test pictures, and the training pictures that are nearest to each in the layer "
    "that the head sees; ✓ marks those of the same class",
    "activation_maps": "Where the head finds what speaks for its answer",
}
_QUALITY = 60
_UNESCAPED = " /:;,.=()[]{}+*!?@$|~"
_CONVOLUTION = re.compile(r"block(\d)_conv(\d)")


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


def drawing(text: str, alternative: str, caption: str) -> Picture:
    """An SVG drawing as a picture of the page.

    Args:
        text: The drawing, as :func:`~vgg16_transfer.reporting.svg.drawn` makes it.
        alternative: Alternative text.
        caption: Text below the picture.
    """
    # Shorter than base64, and the photographs in it are not encoded twice.
    encoded = quote(text.replace("\n", " "), safe=_UNESCAPED)
    return Picture(alternative, caption, f"data:image/svg+xml,{encoded}")


def filters(folder: Path, dataset: str) -> list[Picture]:
    """Pictures of the stage ``filters`` but for the examples: probe, kernels, activations by layer.

    Raises:
        ReadError: A picture is damaged.
    """
    paths = sorted(
        (path for path in folder.glob("*.png") if path.name not in _NO_FILTERS),
        key=lambda path: (path.stem.startswith("block"), path.stem != "probe", path),
    )
    command = f"dvc repro filters@{dataset}"
    return [
        Picture(
            alternatives.filters(path.stem, dataset),
            _caption(path),
            _webp(reading.png(path, command)),
        )
        for path in paths
    ]


def samples(folder: Path, dataset: str, manifest: Path) -> list[Picture]:
    """Training pictures of each class, from the sheet of the stage ``filters``.

    Args:
        folder: Folder of the stage's pictures.
        dataset: Name of the dataset.
        manifest: Manifest of the split whose training pictures were drawn.

    Returns:
        A picture for each class that is shown; none if the stage did not run.

    Raises:
        ReadError: The sheet or the manifest is damaged, or they do not fit together.
    """
    path, command = folder / "samples.png", f"dvc repro filters@{dataset}"
    if not path.exists():
        return []
    columns = {"class_name": str, "label": int, "role": str, "rank": int}
    shown = cards.samples(reading.table(manifest, columns, f"dvc repro splits@{dataset}"))
    names = shown.groupby("label")["class_name"].first().tolist()
    sheet = reading.png(path, command)
    row = cards.THUMBNAIL + cards.GAP
    with reading.checked(path, command):
        if sheet.height + cards.GAP != row * len(names):
            raise ValueError(f"does not have a row for each of {len(names)} classes")
    return [
        Picture(
            f"Training pictures of {name} ({dataset})",
            name,
            _webp(sheet.crop((0, top, sheet.width, top + cards.THUMBNAIL))),
        )
        for name, top in zip(names, range(0, sheet.height, row), strict=True)
    ]


def explained(folder: Path, study: str) -> list[Picture]:
    """Pictures of the stage ``explain`` for a study; empty if there are none.

    Raises:
        ReadError: A picture or ``captions.json`` is damaged.
    """
    command = f"dvc repro explain@{study}"
    path = folder / "captions.json"
    captions = reading.captions(path, command) if path.exists() else {}
    return [
        drawing(
            reading.svg(picture, command),
            captions.get(f"{picture.stem}.png", _words(picture)),
            _caption(picture),
        )
        for picture in sorted(folder.glob("*.svg"))
    ]


def _caption(path: Path) -> str:
    """What stands below a picture, in words."""
    convolution = _CONVOLUTION.fullmatch(path.stem)
    if convolution:
        block, layer = convolution.groups()
        return f"Set {block}, convolution {layer}"
    return _CAPTIONS.get(path.stem, _words(path))


def _webp(picture: Image.Image) -> str:
    """Data URI of a picture as WebP, which has a tenth of the PNG's size."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _words(path: Path) -> str:
    return path.stem.replace("_", " ")
