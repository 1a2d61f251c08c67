"""Figures as SVG that follow light and dark mode. The bytes depend only on the figure.

Each colour that figures use has a counterpart on dark paper. The style sheet of a file has a class
for each style, and the counterparts where ``prefers-color-scheme`` is dark. Text stays text, in the
reader's fonts.
"""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

from matplotlib import rc_context
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK = {
    "#ffffff": "#15191e",  # paper, as in templates/report.css
    "#000000": "#e3e6ea",  # ink
    "#0072b2": "#4ba3e8",
    "#d55e00": "#ff8a45",
    "#009e73": "#2fc79a",
    "#cc79a7": "#e8a3c8",
    "#56b4e9": "#a8dcff",
    "#e69f00": "#f5bd3d",
    "#333333": "#d0d4d9",
    "#777777": "#9aa4af",
    "#999999": "#808a94",
    "#b0b0b0": "#8b949e",  # the grid
    "#bbbbbb": "#4a525b",  # the frame of a picture
}
"""The colour on dark paper of each colour that figures use on white paper."""

_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_DPI = 96  # of pictures in a figure
_QUALITY = 50  # of these pictures, as WebP

_BASE = (
    "*{stroke-linejoin:round;stroke-linecap:butt}"
    "text{font-family:system-ui,'Helvetica Neue',Arial,sans-serif}"
)
_COLOUR = re.compile(r"(fill|stroke): ?(#[0-9a-f]{6})")
_STYLE = re.compile(r' style="([^"]*)"')
_PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]*)")
_PATH = re.compile(r'(?<= d=")[^"]*')
_SHORTER = (
    (re.compile(r"\A.*?(?=<svg)|<!--.*?-->|<metadata>.*?</metadata>", re.DOTALL), ""),
    (re.compile(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", re.DOTALL), ""),
    (re.compile(r"font-family: [^;\"]*;? ?"), ""),
    (re.compile(r' transform="rotate\(-0 [^"]*"'), ""),
    (re.compile(r' id="image[^"]*"'), ""),
    (re.compile(r'<g id="[^"]*"'), "<g"),  # nothing refers to a group
    (re.compile(r"<g/>"), ""),
    (re.compile(r"\n\s*"), "\n"),
)
_ALONE = re.compile(r"<g>\n(<[^<>]*/>|<text[^<>]*>[^<>]*</text>)\n</g>")


def drawn(figure: Figure) -> str:
    """A figure as SVG, with its pictures as WebP.

    Args:
        figure: A figure with colours of :data:`DARK`; others are the same on dark paper.
    """
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "vgg16-transfer"}):
        figure.savefig(buffer, format="svg", dpi=_DPI, metadata=_NO_METADATA)
    text = _PNG.sub(lambda picture: _webp(picture.group(1)), buffer.getvalue())
    text = _PATH.sub(lambda path: _short(path.group()), text)
    for useless, instead in _SHORTER:
        text = useless.sub(instead, text)
    grouped = ""
    while grouped != text:  # a group of one element, from the inside out
        grouped, text = text, _ALONE.sub(r"\1", text)
    start, end, rest = text.partition(">")
    styles = sorted(set(_STYLE.findall(rest)))
    rest = _STYLE.sub(lambda style: f' class="c{styles.index(style.group(1))}"', rest)
    return f"{start}{end}\n<style>{_sheet(styles)}</style>{rest}"


def _sheet(styles: list[str]) -> str:
    """A style sheet with a class for each style, on white paper and on dark paper."""
    light = [f".c{index}{{{style}}}" for index, style in enumerate(styles)]
    dark = [f"text{{fill:{DARK['#000000']}}}"]  # text without a colour is black
    for index, style in enumerate(styles):
        colours = [(kind, DARK.get(colour)) for kind, colour in _COLOUR.findall(style)]
        rule = ";".join(f"{kind}:{colour}" for kind, colour in colours if colour is not None)
        if rule:
            dark.append(f".c{index}{{{rule}}}")
    return f"{_BASE}{''.join(light)}@media (prefers-color-scheme:dark){{{''.join(dark)}}}"


def _short(path: str) -> str:
    """A path with a tenth of a point as its precision, and without line breaks."""
    rounded = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number.group()):.1f}", path)
    return re.sub(r"\s*\n\s*", "", rounded).replace(".0 ", " ").strip()


def _webp(encoded: str) -> str:
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
