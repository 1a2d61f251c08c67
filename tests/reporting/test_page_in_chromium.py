"""The page as a browser shows it: headless Chromium, driven through its debugging pipe."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .conftest import LONG

pytestmark = pytest.mark.server

PHONE, DESK = 390, 1280
DETAILS = "document.querySelectorAll('details')"
WHITE, DARK = (255, 255, 255), (0x15, 0x19, 0x1E)


def show(browser: Any, page: Path, width: int, scheme: str = "light") -> None:
    browser.size(width, 844, phone=width == PHONE)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.call("Emulation.setEmulatedMedia", features=[feature])
    browser.open(page.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_console_stays_empty(chromium, page, width: int, scheme: str) -> None:
    show(chromium, page, width, scheme)
    assert chromium.ask("document.querySelectorAll('section').length") == 4
    assert chromium.errors == []


def test_an_error_on_the_console_would_be_heard(chromium, tmp_path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<img src='gone.png' alt=''><script>missing()</script>", encoding="utf-8")
    show(chromium, broken, DESK)
    assert len(chromium.errors) == 2


def test_no_picture_is_broken(chromium, page) -> None:
    show(chromium, page, PHONE)
    widths = chromium.ask("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 14
    assert min(widths) > 0


def test_every_picture_has_an_alternative_text(chromium, page) -> None:
    show(chromium, page, PHONE)
    texts = chromium.ask("[...document.images].map(image => image.alt)")
    assert all(text.strip() for text in texts)


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened"])
def test_a_phone_does_not_scroll_sideways(chromium, page, opened: bool) -> None:
    show(chromium, page, PHONE)
    chromium.ask(f"document.querySelectorAll('details').forEach(one => one.open = {int(opened)})")
    assert chromium.ask("document.documentElement.scrollWidth") <= PHONE
    assert chromium.ask("Math.max(...[...document.images].map(image => image.width))") <= PHONE


def test_a_wide_table_scrolls_in_a_box_of_its_own(chromium, page) -> None:
    show(chromium, page, PHONE)
    boxes = "[...document.querySelectorAll('table')].map(table => table.parentElement)"
    assert chromium.ask(f"{boxes}.every(box => box.matches('.table'))")
    assert chromium.ask(f"{boxes}.some(box => box.scrollWidth > box.clientWidth)")


def test_nothing_but_a_table_in_its_box_is_wider_than_a_phone(chromium, page) -> None:
    show(chromium, page, PHONE)
    chromium.ask(f"{DETAILS}.forEach(one => one.open = true)")
    outside = f"""[...document.body.querySelectorAll('*')]
        .filter(one => !one.closest('.table > *') && one.getBoundingClientRect().right > {PHONE})
        .map(one => one.tagName + '.' + one.className)"""
    assert chromium.ask(outside) == []


def test_a_phone_shows_the_whole_key_table_above_the_curve(chromium, page) -> None:
    show(chromium, page, PHONE)
    box, table = "document.querySelector('.key')", "document.querySelector('.key table')"
    assert chromium.ask(f"{table}.rows.length") == 1 + 4
    assert chromium.ask(f"{box}.scrollWidth <= {box}.clientWidth")
    edges = chromium.ask(
        f"[{table}.getBoundingClientRect().left, {table}.getBoundingClientRect().right]"
    )
    assert 0 <= edges[0] < edges[1] <= PHONE
    curve = "document.querySelector('#answer img').getBoundingClientRect().top"
    assert chromium.ask(f"{table}.getBoundingClientRect().bottom < {curve}")


def test_tables_of_studies_fit_a_desk(chromium, page) -> None:
    show(chromium, page, DESK)
    chromium.ask(f"{DETAILS}.forEach(one => one.open = true)")
    boxes = "[...document.querySelectorAll('.study > .inside > .table')]"
    assert chromium.ask(f"{boxes}.length") == 2
    assert chromium.ask(f"{boxes}.every(box => box.scrollWidth <= box.clientWidth)")


def test_cards_open_without_a_script(chromium, page) -> None:
    show(chromium, page, DESK)
    assert chromium.ask("document.scripts.length") == 0
    opened = "[...document.querySelectorAll('details.card')].map(one => one.open)"
    assert chromium.ask(opened) == [True, False, False, False, False]
    chromium.ask("document.querySelectorAll('.study > summary')[1].click()")
    assert chromium.ask(opened) == [True, True, False, False, False]
    inside = "document.querySelectorAll('.study > .inside')[1].getBoundingClientRect().height"
    assert chromium.ask(inside) > 0


def test_an_address_in_a_closed_card_opens_it(chromium, page) -> None:
    show(chromium, page, DESK)
    chromium.ask(f"location.hash = '#study-{LONG}'")
    assert chromium.ask("document.querySelectorAll('.study')[1].open")


def test_paper_shows_what_is_in_closed_cards(chromium, page) -> None:
    show(chromium, page, DESK)
    seen = """[...document.querySelectorAll('details > :not(summary)')]
        .filter(one => !one.checkVisibility()).map(one => one.className)"""
    assert len(chromium.ask(seen)) > 5
    chromium.call("Emulation.setEmulatedMedia", media="print")
    printed = chromium.ask(seen)
    chromium.call("Emulation.setEmulatedMedia", media="")
    assert printed == []


@pytest.mark.parametrize("picture", ["#answer img", ".explained img"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_figures_follow_dark_mode(chromium, page, width: int, picture: str) -> None:
    papers = {}
    for scheme in ("light", "dark"):
        show(chromium, page, width, scheme)
        chromium.ask(f"{DETAILS}.forEach(one => one.open = true)")
        place = chromium.ask(
            f"document.querySelector('{picture}').scrollIntoView(),"
            f"document.querySelector('{picture}').getBoundingClientRect().toJSON()"
        )
        with Image.open(io.BytesIO(chromium.screenshot())) as seen:
            # below the upper edge, where nothing is drawn, and the paper of the page beside it
            at = (round(place["x"]) + 3, round(place["y"]) + 3)
            papers[scheme] = (
                seen.convert("RGB").getpixel(at),
                seen.convert("RGB").getpixel((2, 400)),
            )
    assert papers == {"light": (WHITE, WHITE), "dark": (DARK, DARK)}
