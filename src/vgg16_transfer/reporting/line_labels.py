"""Names of curves, written at their ends instead of in a legend."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from vgg16_transfer.reporting import labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

MARK = "name of a curve"
"""The ``gid`` of each name, so that it can be told from other texts."""

_MOST = 6  # more names would be far from their curves
_ROOM = (1.75, 9)  # largest width of a name in inches, and its font size in points
_HEADING = 3.5  # inches
_WIDTH = 4.0  # inches: about the width of the axes
_APART = 0.065  # smallest distance of two names, as a share of the height of the axes
_LEFT = 1.035  # of the names, as a share of the width of the axes
_FURTHEST = 0.8  # of the axes' width: curves that end further left need a legend


class End(NamedTuple):
    """Where a curve ends, and its name there.

    Attributes:
        name: Name of the curve.
        colour: Colour of the line from the curve to its name.
        x: Last position of the curve; infinite at the right edge; None for a curve without points.
        y: Value there.
    """

    name: str
    colour: str
    x: float | None
    y: float | None


def fit(axes: Axes, ends: Sequence[End]) -> bool:
    """Whether names can be read at the ends: a few that need no cut, and all ends at the right."""
    places = [_share(axes, end)[0] for end in ends if end.x is not None]
    names = [end.name for end in ends]
    is_short = len(ends) <= _MOST and labels.fit_all(names, *_ROOM) == names
    return is_short and all(place >= _FURTHEST for place in places)


def write(axes: Axes, ends: Sequence[End], heading: str = "") -> None:
    """Writes names to the right of the axes, each as near to the end of its curve as fits.

    The limits of the axes must be final.

    Args:
        axes: Axes with the curves.
        ends: Ends of the curves.
        heading: What the names are values of, written above them and to the left.
    """
    ordered = sorted(ends, key=lambda end: _share(axes, end)[1])  # sorted keeps equal ones
    wanted = [_share(axes, end)[1] for end in ordered]
    texts = labels.fit_all([end.name for end in ordered], *_ROOM)
    for end, text, place in zip(ordered, texts, spread(wanted), strict=True):
        if end.x is None or end.y is None or not math.isfinite(end.y):
            axes.text(_LEFT, place, text, transform=axes.transAxes, **_style(text))
            continue
        line = {"arrowstyle": "-", "color": end.colour, "linewidth": 1, "shrinkA": 1, "shrinkB": 3}
        axes.annotate(
            text,
            (min(end.x, axes.get_xlim()[1]), end.y),
            (_LEFT, place),
            textcoords="axes fraction",
            arrowprops=line | {"relpos": (0, 0.5)},
            annotation_clip=False,
            **_style(text),
        )
    if heading:
        (above,) = labels.fit_all([heading], _HEADING, _ROOM[1])
        right = _LEFT + max(labels.width(text, _ROOM[1]) for text in texts) / _WIDTH
        top = max(1.0, *spread(wanted)) + _APART
        axes.text(right, top, above, transform=axes.transAxes, ha="right", **_style(above))


def spread(wanted: Sequence[float]) -> list[float]:
    """Places as near as possible to the wanted ones, but apart from each other.

    Args:
        wanted: Rising shares of the height of the axes.

    Returns:
        As many shares. Those of neighbours that are too near are moved away from their middle.
    """
    groups: list[list[float]] = []
    for place in wanted:
        groups.append([place])
        while len(groups) > 1 and _lowest(groups[-1]) < _lowest(groups[-2]) + _APART * len(
            groups[-2]
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_lowest(group) + _APART * index for group in groups for index in range(len(group))]


def _lowest(group: Sequence[float]) -> float:
    """Place of the first of a group whose members have the smallest distance."""
    half = _APART * (len(group) - 1) / 2
    middle = min(max(sum(group) / len(group), half), max(1 - half, half))
    return middle - half


def _share(axes: Axes, end: End) -> tuple[float, float]:
    """Position of an end, as shares of the width and height of the axes."""
    if end.x is None or end.y is None or not math.isfinite(end.y):
        return 1.0, 0.0
    place = axes.transData.transform((min(end.x, axes.get_xlim()[1]), end.y))
    across, up = axes.transAxes.inverted().transform(place)
    return float(across), float(up)


def _style(text: str) -> dict[str, Any]:
    return {
        "fontsize": _ROOM[1],
        "va": "center",
        "gid": MARK,
        **labels.style([text]),
    }
