"""Pictures in rows: what is drawn where."""

import numpy as np
import pytest
from PIL import Image

from vgg16_transfer.reporting import figures, sheets
from vgg16_transfer.reporting.sheets import NO, YES, Row, Tile

RED = Image.new("RGB", (40, 20), (255, 0, 0))
WHITE = np.full((64, 64, 3), 255, dtype=np.uint8)
ORANGE, BLUE = np.array([213, 94, 0]), np.array([0, 114, 178])


def words(rows: list[Row], side: float = 1.0) -> list[str]:
    return [text.get_text() for text in sheets.sheet(rows, side).texts]


def test_headings_and_titles_are_written() -> None:
    found = words([Row("first", [Tile(RED, "an ant"), None]), Row("second", [Tile(RED, "b", YES)])])
    assert found == ["first", "an ant", "second", "✓ b"]


def test_a_long_title_ends_in_its_second_line() -> None:
    title = "a class of a name that nobody would want to type"
    found = words([Row("", [Tile(RED, title, NO)])])
    assert [line for line in reversed(found) if line] == ["✗ a class of a", "name that …"]


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
    shown = np.asarray(figure.axes[0].get_images()[0].get_array())
    red = (shown == (255, 0, 0)).all(axis=2)
    assert red.any(axis=1).mean() == pytest.approx(0.5, abs=0.02)
    assert red.any(axis=0).all()
    assert (shown[~red] == 255).all()


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
