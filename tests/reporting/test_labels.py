"""Names as figures show them, whatever they are made of."""

import io
import logging
from pathlib import Path

import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.figure import Figure

from vgg16_transfer.reporting import figures, labels

SIZE, INCHES = 8, 1.9
LONG = "a" * 60
NAMES = [
    "Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot",
    "W" * 300,
    f"{LONG}b{LONG}",
    f"{LONG}c{LONG}",
    r"$\nonsense$",
    "_hidden",
    "a\nb\tc",
    "\x07",
    "\udcff",
    " ",
    "",
    "عربى طويل",
    "עברית",
    "犬",
    "कुत्ता",
    "👨‍👩‍👧 😀",
    "\ufffd\U0010ffff\ue000",
]


def one(name: str, inches: float = INCHES) -> str:
    (label,) = labels.fit_all([name], inches, SIZE)
    return label


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch):
    """Clears the caches of fonts and warnings, before and after."""

    def forget() -> None:
        labels._family.cache_clear()
        labels._installed.cache_clear()
        labels._letters.cache_clear()
        labels._is_drawn.cache_clear()

    monkeypatch.setattr(labels, "_warned_packages", set())
    forget()
    yield
    forget()


@pytest.fixture
def _bare(_fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no fonts but matplotlib's own."""
    own = [face for face in font_manager.fontManager.ttflist if "mpl-data" in face.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)


@pytest.fixture
def _dogs(_bare, tmp_path: Path) -> None:
    """A machine that has, besides, a font of one letter."""
    square = TTGlyphPen(None)
    square.moveTo((100, 0))
    for corner in ((900, 0), (900, 800), (100, 800)):
        square.lineTo(corner)
    square.closePath()
    glyph = square.glyph()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "dog"])
    font.setupCharacterMap({ord("犬"): "dog"})
    font.setupGlyf({".notdef": glyph, "dog": glyph})
    font.setupHorizontalMetrics({".notdef": (1000, 100), "dog": (1000, 100)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Dog Sans", "styleName": "Regular"})
    font.setupOS2(usWeightClass=400)
    font.setupPost()
    font.save(tmp_path / "dog.ttf")
    font_manager.fontManager.addfont(tmp_path / "dog.ttf")


@pytest.mark.parametrize("name", ["backpack", "touring-bike", "$x^2$", "_x", "naïve", "собака"])
def test_a_name_that_fits_is_shown_as_it_is(name: str) -> None:
    assert one(name) == name


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("a\nb", r"a\nb"),
        ("a\x07\u200b", r"a\x07\u200b"),
        (" a  b ", "␣a ␣b␣"),
        ("   ", "␣␣␣"),
        ("", "(empty)"),
        ("\u3164", r"\u3164"),
        ("\udcff", r"\udcff"),
        ("e\u0301", "é"),
    ],
)
def test_what_cannot_be_seen_is_made_visible(name: str, label: str) -> None:
    assert one(name) == label


def test_a_joiner_between_letters_that_join_is_kept_and_any_other_is_made_visible() -> None:
    assert one("می\u200cشود") == "می\u200cشود"
    assert one("a\u200cb") == r"a\u200cb"
    assert one("م\u200c") == r"م\u200c"


def test_a_long_name_loses_its_middle() -> None:
    label = one("Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot")
    head, _, tail = label.partition("…")
    assert head.startswith("Corn_(maize)___")
    assert tail.endswith("Gray_leaf_spot")


@pytest.mark.parametrize("inches", [0.5, 1.9, 4.0])
def test_a_label_is_no_wider_than_it_may_be(inches: float) -> None:
    fitted = labels.fit_all(NAMES, inches, SIZE)
    assert max(labels.width(label, SIZE) for label in fitted) <= inches


def test_names_that_begin_and_end_alike_stay_different() -> None:
    first, second = labels.fit_all([f"{LONG}b{LONG}", f"{LONG}c{LONG}"], INCHES, SIZE)
    assert first.startswith("…b")
    assert second.startswith("…c")


def test_names_that_look_alike_are_numbered_in_the_same_order_whatever_the_order() -> None:
    assert labels.fit_all(["a\nb", r"a\nb"], INCHES, SIZE) == [r"a\nb", r"a\nb (2)"]
    assert labels.fit_all([r"a\nb", "a\nb"], INCHES, SIZE) == [r"a\nb (2)", r"a\nb"]


def test_a_name_that_comes_twice_has_one_label() -> None:
    assert labels.fit_all(["a", "b", "a"], INCHES, SIZE) == ["a", "b", "a"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=80), unique=True, max_size=6))
def test_different_names_have_different_labels_that_can_be_drawn(names: list[str]) -> None:
    fitted = labels.fit_all(names, INCHES, SIZE)
    assert len(set(fitted)) == len(names)
    figure = Figure()
    for label in fitted:
        figure.text(0, 0, label, **labels.style([label]))
    figure.draw_without_rendering()  # a letter without a glyph would warn, which is an error here


@pytest.mark.usefixtures("_bare")
def test_a_letter_that_no_font_has_is_shown_by_its_number_and_logged_once(caplog) -> None:
    assert labels.fit_all(["犬", "क a", "犬"], INCHES, SIZE) == ["U+72AC", "U+0915 a", "U+72AC"]
    assert one("猫") == "U+732B"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "no installed font has क 犬, so figures show their numbers, like U+0915; fonts with them "
        "are, for example, in Debian's fonts-noto-cjk and fonts-noto-core"
    )


@pytest.mark.usefixtures("_dogs")
def test_a_letter_of_an_installed_font_is_drawn_with_it(caplog) -> None:
    assert labels.fit_all(["犬", "猫"], INCHES, SIZE) == ["犬", "U+732B"]
    assert labels.style(["犬"]) == {"parse_math": False, "fontfamily": ["DejaVu Sans", "Dog Sans"]}
    assert labels.width("犬", 72) == pytest.approx(800 / 1000, abs=0.21)
    assert "犬" not in caplog.text
    counts = pd.DataFrame({"true": ["犬"], "predicted": ["犬"], "count": [1]})
    content = [io.BytesIO(), io.BytesIO()]
    for file in content:
        figures.confusion_matrix(counts, ["犬"]).savefig(file)
    assert content[0].getvalue() == content[1].getvalue()


@pytest.mark.usefixtures("_dogs")
def test_a_mark_that_no_font_has_together_with_its_letter_is_shown_by_its_number() -> None:
    assert one("犬\u0301") == "犬U+0301"


@pytest.mark.usefixtures("_fresh")
def test_fonts_are_not_searched_for_letters_that_matplotlibs_own_font_has() -> None:
    assert labels.style(labels.fit_all(["ant", "собака", "ابن", "😀"], INCHES, SIZE)) == {
        "parse_math": False
    }
    assert labels._installed.cache_info().currsize == 0
