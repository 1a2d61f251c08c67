"""Draws sheets: rows of pictures with titles above them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from vgg16_transfer.reporting import labels
from vgg16_transfer.reporting.figures import COLOURS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

YES, NO = "✓", "✗"
"""Marks for right and wrong, besides the frame colour, which not everybody can distinguish."""

_FRAMES = {YES: COLOURS[2], NO: COLOURS[1], "": "#bbbbbb"}
_FOR, _AGAINST = (213, 94, 0), (0, 114, 178)  # RGB of COLOURS[1] and COLOURS[0]
_OPAQUE = 0.85
_PALE = 0.45

_DPI = 120
_GAP = 0.09  # inches, like the next constants
_SPACE = 0.16
_HEADING = 0.19
_LINE = 0.13
_LIFT = 0.05
_LETTER = 0.06
_LARGE_LETTER = 0.078
_SMALL, _LARGE = 7, 9  # points

_MOST_LINES = 2
_SHARES = [share / 20 for share in range(20, 0, -1)]
_CUT = "…"


class Tile(NamedTuple):
    """A picture with a title.

    Attributes:
        picture: RGB picture of any size and shape.
        title: Text above the picture, in up to two lines.
        mark: ``YES``, ``NO``, or an empty string.
    """

    picture: Image.Image
    title: str
    mark: str = ""


class Row(NamedTuple):
    """Tiles side by side.

    Attributes:
        heading: Text above the tiles, in up to two lines.
        tiles: Any number of tiles; None is an empty position.
    """

    heading: str
    tiles: Sequence[Tile | None] = ()


def sheet(rows: Sequence[Row], side: float) -> Figure:
    """Draws rows of tiles below each other. All tiles have the same size.

    Args:
        rows: Rows; at least one of them has a tile.
        side: Side of a tile in inches.
    """
    columns = max(len(row.tiles) for row in rows)
    width = _GAP + columns * (side + _GAP)
    headings = _wrapped(
        [row.heading for row in rows], width - 2 * _GAP, int(width / _LARGE_LETTER), _LARGE
    )
    tiles = [tile for row in rows for tile in row.tiles if tile is not None]
    titles = _wrapped(map(_title, tiles), side + _GAP / 2, int(side / _LETTER), _SMALL)
    heights = [_height(row, headings[row.heading], titles, side) for row in rows]
    top = _SPACE + sum(heights)
    figure = Figure(figsize=(width, top), dpi=_DPI)
    for row, height in zip(rows, heights, strict=True):
        for index, line in enumerate(headings[row.heading]):
            baseline = top - _SPACE - _LINE - index * _HEADING
            _write(figure, line, _GAP, baseline, _LARGE)
        top -= height
        for column, tile in enumerate(row.tiles):
            if tile is not None:
                left = _GAP + column * (side + _GAP)
                _draw(figure, tile, titles[_title(tile)], left, top, side)
    return figure


def overlay(picture: npt.NDArray[np.uint8], shares: npt.NDArray[np.float32]) -> Image.Image:
    """Draws a heat map over a pale grey picture: positive values orange, negative values blue.

    Args:
        picture: Shape (height, width, 3), RGB.
        shares: Heat map with fewer pixels than the picture. Opacity is relative to its largest
            absolute value.
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


def _height(row: Row, heading: list[str], titles: Mapping[str, list[str]], side: float) -> float:
    lines = [len(titles[_title(tile)]) for tile in row.tiles if tile is not None]
    above = _HEADING * len(heading)
    return _SPACE + above + (max(lines) * _LINE + side if lines else 0)


def _title(tile: Tile) -> str:
    return f"{tile.mark} {tile.title}".strip()


def _wrapped(
    texts: Iterable[str], inches: float, letters: int, size: float
) -> dict[str, list[str]]:
    """Wraps texts to up to two lines. Longer texts are cut in the middle until they fit.

    Args:
        texts: Any texts.
        inches: Width of a line.
        letters: Number of letters of average width per line.
        size: Font size in points.
    """
    wrapped: dict[str, list[str]] = {}
    left = sorted(set(texts) - {""})
    for share in _SHARES:
        names = labels.fit_all(left, _MOST_LINES * inches * share, size)
        for text, name in zip(left, names, strict=True):
            if lines := _lines(name, inches, letters, size):
                wrapped[text] = lines
        left = [text for text in left if text not in wrapped]
    return {"": []} | {text: [_CUT] for text in left} | wrapped


def _lines(label: str, inches: float, letters: int, size: float) -> list[str]:
    """A label in up to two lines; empty if it does not fit."""
    for count in range(letters, 1, -1):
        lines = textwrap.wrap(label, count)
        if len(lines) > _MOST_LINES:
            break
        if all(labels.width(line, size) <= inches for line in lines):
            return lines
    return []


def _draw(
    figure: Figure, tile: Tile, lines: Sequence[str], left: float, bottom: float, side: float
) -> None:
    for index, line in enumerate(reversed(lines)):
        _write(figure, line, left, bottom + side + _LIFT + index * _LINE, _SMALL)
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
    style = labels.style([text])
    figure.text(left / width, baseline / height, text, fontsize=size, **style)
