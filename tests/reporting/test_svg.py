"""Drawings follow light and dark mode, and the same figure has the same bytes."""

import base64
import io
import re
import xml.dom.minidom

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vgg16_transfer.diagnostics import sheets
from vgg16_transfer.diagnostics.sheets import NO, YES, Row, Tile
from vgg16_transfer.reporting import figures, svg
from vgg16_transfer.reporting.intervals import Interval


def curves(count: int) -> Figure:
    names = [f"p{index}" for index in range(count)]
    rows = [(name, epoch, 0.1, 0.2 * index) for index, name in enumerate(names) for epoch in (1, 2)]
    history = pd.DataFrame(rows, columns=["trial", "epoch", "train_loss", "test_loss"])
    return figures.study_curves(history, pd.Series({name: name for name in names}), "loss")


def sheet() -> Figure:
    red = Image.new("RGB", (60, 40), "red")
    return sheets.sheet([Row("a", [Tile(red, "x", YES), Tile(red, "y", NO), Tile(red, "z")])], 1.0)


def differences() -> Figure:
    return figures.differences(["a", "b"], [Interval(0.1, 0.1, 0.0, 0.2, 3)] * 2)


@pytest.mark.parametrize("draw", [lambda: curves(7), sheet, differences], ids=range(3))
def test_every_colour_has_a_counterpart_on_dark_paper(draw) -> None:
    text = svg.drawn(draw())
    light, _, dark = text.partition("@media (prefers-color-scheme:dark){")
    used = dict(re.findall(r"\.(c\d+)\{([^}]*#[0-9a-f]{6}[^}]*)\}", light))
    instead = dict(re.findall(r"\.(c\d+)\{([^}]*)\}", dark.partition("</style>")[0]))
    assert used.keys() == instead.keys()
    for name, style in used.items():
        for kind, colour in re.findall(r"(fill|stroke): (#[0-9a-f]{6})", style):
            assert f"{kind}:{svg.DARK[colour]}" in instead[name]
    # no colour is left where the style sheet can't reach it
    assert not re.findall(r"#[0-9a-f]{6}\b", text.partition("</style>")[2])


def test_text_is_text_and_is_bright_on_dark_paper() -> None:
    text = svg.drawn(curves(2))
    assert re.search(r"<text[^>]*>epoch</text>", text)
    assert f"text{{fill:{svg.DARK['#000000']}}}" in text


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", figures.COLOURS)
def test_curves_stand_out_from_dark_paper(colour: str) -> None:
    paper, line = luminance(svg.DARK["#ffffff"]), luminance(svg.DARK[colour.lower()])
    assert (line + 0.05) / (paper + 0.05) > 4.5  # WCAG 2 asks for 3


@pytest.mark.parametrize("draw", [lambda: curves(3), sheet], ids=["curves", "sheet"])
def test_the_same_figure_has_the_same_bytes(draw) -> None:
    assert svg.drawn(draw()) == svg.drawn(draw())


def test_a_drawing_is_whole_and_names_nothing_outside() -> None:
    text = svg.drawn(sheet())
    xml.dom.minidom.parseString(text)  # noqa: S318 (our own drawing)
    assert "matplotlib" not in text
    assert all(one.startswith(("#", "data:")) for one in re.findall(r'href="([^"]*)"', text))


def test_pictures_in_a_drawing_are_small_and_show_what_they_showed() -> None:
    encoded = re.findall(r"data:image/(\w+);base64,([^\"]*)", svg.drawn(sheet()))
    assert [kind for kind, _ in encoded] == ["webp"] * 3
    with Image.open(io.BytesIO(base64.b64decode(encoded[0][1]))) as picture:
        red, green, blue = picture.convert("RGB").getpixel(
            (picture.width // 2, picture.height // 2)
        )
    assert red > 240
    assert max(green, blue) < 20


def test_a_name_with_signs_of_markup_is_text() -> None:
    names = ['<b a="1">', "a & b"]
    history = pd.DataFrame(
        [(name, 1, 0.1, 0.2) for name in names],
        columns=["trial", "epoch", "train_loss", "test_loss"],
    )
    figure = figures.study_curves(history, pd.Series({n: n for n in names}), "loss")
    parsed = xml.dom.minidom.parseString(svg.drawn(figure))  # noqa: S318 (our own drawing)
    seen = {"".join(c.data for c in t.childNodes) for t in parsed.getElementsByTagName("text")}
    assert set(names) <= seen
