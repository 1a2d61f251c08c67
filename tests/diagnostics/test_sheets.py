"""Pictures in rows: what is drawn where."""

import numpy as np
import pytest
from PIL import Image

from vgg16_transfer.diagnostics import sheets
from vgg16_transfer.diagnostics.sheets import NO, YES, Row, Tile
from vgg16_transfer.reporting import figures

RED = Image.new("RGB", (40, 20), (255, 0, 0))
WHITE = np.full((64, 64, 3), 255, dtype=np.uint8)
ORANGE, BLUE = np.array([213, 94, 0]), np.array([0, 114, 178])


def words(rows: list[Row], side: float = 1.0) -> list[str]:
    return [text.get_text() for text in sheets.sheet(rows, side).texts]


def test_headings_and_titles_are_written() -> None:
    texts = words([Row("first", [Tile(RED, "an ant"), None]), Row("second", [Tile(RED, "b", YES)])])
    assert texts == ["first", "an ant", "second", "✓ b"]


def test_a_title_of_more_than_two_lines_loses_its_middle() -> None:
    title = "a class of a name that nobody would want to type"
    texts = words([Row("", [Tile(RED, title, NO)])])
    assert texts[::-1] == ["✗ a class of a", "…ld want to type"]


def test_a_long_heading_keeps_its_end() -> None:
    heading = f"Corn_(maize)___{'x' * 40} → Corn_(maize)___{'y' * 40}: 3 of 8 test pictures"
    texts = words([Row(heading, [Tile(RED, "a"), None, None])])
    assert texts[0].startswith("Corn_(maize)___")
    assert texts[1].endswith("8 test pictures")


NAMES = ["犬" * 60, "WMWM" * 20, "कुत्ता" * 20, "a\nb\tc" * 20, "\u200b", "عربى" * 30, "x" * 3000, ""]


@pytest.mark.parametrize("side", [1.0, 1.3])
def test_no_words_leave_the_sheet_or_touch_the_next_title(side: float) -> None:
    rows = [Row(name, [Tile(RED, name, NO), Tile(RED, "next"), None]) for name in NAMES]
    figure = sheets.sheet(rows, side)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.texts]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert not [
        (one, two)
        for index, one in enumerate(boxes)
        for two in boxes[:index]
        if abs(one.y0 - two.y0) < 2 and one.overlaps(two)
    ]


def test_titles_that_begin_and_end_alike_stay_different() -> None:
    titles = [f"{'a' * 60}{letter}{'z' * 60}" for letter in "bcd"]
    texts = words([Row("", [Tile(RED, title) for title in titles])])
    assert all(any(f"…{letter}" in line for line in texts) for letter in "bcd")


def test_dollars_begin_no_formula(tmp_path) -> None:
    rows = [Row("$a → b$", [Tile(RED, r"$\nonsense$")])]
    figures.save(sheets.sheet(rows, 1.0), tmp_path / "sheet.png")


def test_a_frame_says_by_its_colour_what_the_mark_says() -> None:
    row = Row("", [Tile(RED, "a", YES), Tile(RED, "b", NO), Tile(RED, "c")])
    axes = sheets.sheet([row], 1.0).axes
    colours = [tuple(one.spines["left"].get_edgecolor()) for one in axes]
    assert len(set(colours)) == 3


def test_a_picture_keeps_its_shape(tmp_path) -> None:
    figure = sheets.sheet([Row("", [Tile(RED, "a")])], 1.0)
    pixels = np.asarray(figure.axes[0].get_images()[0].get_array())
    red = (pixels == (255, 0, 0)).all(axis=2)
    assert red.any(axis=1).mean() == pytest.approx(0.5, abs=0.02)
    assert red.any(axis=0).all()
    assert (pixels[~red] == 255).all()


def test_the_same_sheet_gives_the_same_bytes(tmp_path) -> None:
    for name in ("a.png", "b.png"):
        figures.save(sheets.sheet([Row("x", [Tile(RED, "a", NO)])], 1.0), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_speaks_for_is_orange_and_what_speaks_against_is_blue() -> None:
    shares = np.zeros((4, 4), dtype=np.float32)
    shares[0, 0], shares[3, 3] = 1.0, -1.0
    drawn = np.asarray(sheets.overlay(WHITE, shares), dtype=float)
    assert np.abs(drawn[4, 4] - ORANGE).max() < np.abs(drawn[4, 4] - 255).max()
    assert np.abs(drawn[60, 60] - BLUE).max() < np.abs(drawn[60, 60] - 255).max()
    assert (drawn[4, 60] > 250).all()


def test_a_map_of_zeros_leaves_a_pale_picture() -> None:
    drawn = np.asarray(sheets.overlay(WHITE, np.zeros((2, 2), dtype=np.float32)))
    assert (drawn == 255).all()


def test_a_map_lies_where_its_positions_are() -> None:
    shares = np.zeros((7, 7), dtype=np.float32)
    shares[5, 1] = 1.0
    drawn = np.asarray(sheets.overlay(np.full((224, 224, 3), 255, np.uint8), shares), dtype=float)
    row, column = np.unravel_index(drawn[..., 2].argmin(), (224, 224))
    assert (row // 32, column // 32) == (5, 1)
