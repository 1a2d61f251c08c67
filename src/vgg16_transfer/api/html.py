"""What notebooks show: tables and small pictures as HTML, without scripts."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.figure import Figure

_SIDE = 72
_CELL = 'style="text-align:left;vertical-align:middle"'


def text(value: object) -> str:
    """Escapes a value, such as a class name."""
    return html.escape(str(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table.

    Args:
        columns: Titles, which are escaped.
        rows: Cells, which are HTML.
    """
    head = "".join(f"<th {_CELL}>{text(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td {_CELL}>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def thumbnail(picture: Image.Image, alternative: str) -> str:
    """A small square of a picture.

    Args:
        picture: RGB picture.
        alternative: Alternative text, which is escaped.
    """
    buffer = io.BytesIO()
    ImageOps.fit(picture, (_SIDE, _SIDE)).save(buffer, "WEBP", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/webp;base64,{data}" width="{_SIDE}" height="{_SIDE}" '
        f'alt="{text(alternative)}" style="display:inline;margin:0 2px 0 0">'
    )


def bar(share: float) -> str:
    """A bar of a length from 0 to 1."""
    return (
        '<span style="display:inline-block;height:0.8em;background:#0072B2;'
        f'width:{100 * share:.0f}px"></span>'
    )


def picture(figure: Figure, alternative: str) -> str:
    """A figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{text(alternative)}">'
