"""Pictures in rows, with words above them: pure functions, like :mod:`figures` is for numbers."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from vgg16_transfer.reporting.figures import COLOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

YES, NO = "✓", "✗"
"""Said by a mark as well as by a frame's colour, which not everybody sees."""

_FRAMES = {YES: COLOURS[2], NO: COLOURS[1], "": "#bbbbbb"}
_FOR, _AGAINST = (213, 94, 0), (0, 114, 178)  # RGB of COLOURS[1] and COLOURS[0]
_OPAQUE = 0.85
_PALE = 0.45

_DPI = 120
_GAP = 0.09  # inches, as all that follows
_SPACE = 0.16
_HEADING = 0.19
_LINE = 0.13
_LIFT = 0.05
_LETTER = 0.06
_LARGE_LETTER = 0.078


class Tile(NamedTuple):
    """A picture of a row.

    Attributes:
        picture: RGB, of any size and shape.
        title: Stands above it, in up to two lines.
        mark: ``YES``, ``NO``, or nothing to mark.
    """

    picture: Image.Image
    title: str
    mark: str = ""


class Row(NamedTuple):
    """Tiles side by side.

    Attributes:
        heading: Stands above them.
        tiles: Any number; None leaves a place empty.
    """

    heading: str
    tiles: Sequence[Tile | None] = ()


def sheet(rows: Sequence[Row], side: float) -> Figure:
    """Rows of tiles, all of the same size, below each other.

    Args:
        rows: At least one that has a tile.
        side: Of a tile, in inches.
    """
    columns = max(len(row.tiles) for row in rows)
    width = _GAP + columns * (side + _GAP)
    top = _SPACE + sum(_height(row, side) for row in rows)
    figure = Figure(figsize=(width, top), dpi=_DPI)
    for row in rows:
        heading = textwrap.shorten(row.heading, int(width / _LARGE_LETTER), placeholder=" …")
        _write(figure, heading, _GAP, top - _SPACE - _LINE, size=9)
        top -= _height(row, side)
        for column, tile in enumerate(row.tiles):
            if tile is not None:
                _draw(figure, tile, _GAP + column * (side + _GAP), top, side)
    return figure


def overlay(picture: npt.NDArray[np.uint8], shares: npt.NDArray[np.float32]) -> Image.Image:
    """A picture in pale grey under a heat map: orange where it is positive, blue where negative.

    Args:
        picture: Shape (height, width, 3), RGB.
        shares: Of fewer pixels; the largest of them, positive or negative, is drawn strongest.
    """
    height, width = picture.shape[:2]
    smooth = Image.fromarray(shares.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    heat = np.asarray(smooth) / max(float(np.abs(shares).max()), 1e-12)
    opacity = _OPAQUE * np.clip(np.abs(heat), 0, 1)[..., np.newaxis]
    colour = np.where(heat[..., np.newaxis] > 0, _FOR, _AGAINST)
    grey = np.asarray(Image.fromarray(picture).convert("L"), np.float64)[..., np.newaxis]
    pale = 255 - (1 - _PALE) * (255 - grey)
    return Image.fromarray(np.round(opacity * colour + (1 - opacity) * pale).astype(np.uint8))


def _height(row: Row, side: float) -> float:
    lines = [len(_lines(tile, side)) for tile in row.tiles if tile is not None]
    heading = _HEADING if row.heading else 0
    return _SPACE + heading + (max(lines) * _LINE + side if lines else 0)


def _lines(tile: Tile, side: float) -> list[str]:
    marked = f"{tile.mark} {tile.title}".strip()
    return textwrap.wrap(marked, int(side / _LETTER), max_lines=2, placeholder=" …")


def _draw(figure: Figure, tile: Tile, left: float, bottom: float, side: float) -> None:
    for index, line in enumerate(reversed(_lines(tile, side))):
        _write(figure, line, left, bottom + side + _LIFT + index * _LINE, size=7)
    width, height = figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    pixels = 2 * round(side * _DPI)
    axes.imshow(np.asarray(ImageOps.pad(tile.picture, (pixels, pixels), color="white")))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=_FRAMES[tile.mark], linewidth=3 if tile.mark else 0.5)


def _write(figure: Figure, text: str, left: float, baseline: float, size: float) -> None:
    width, height = figure.get_size_inches()
    # A class may well have dollars in its name: they begin no formula.
    figure.text(left / width, baseline / height, text, fontsize=size, parse_math=False)
