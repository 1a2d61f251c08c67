"""The page as a browser shows it: headless Chromium, driven through its debugging pipe."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

PHONE, DESK = 390, 1280


def load_chromium() -> Any:
    """The class of tools/screenshots/chromium.py, which is no package."""
    path = Path(__file__).parents[2] / "tools" / "screenshots" / "chromium.py"
    spec = importlib.util.spec_from_file_location("chromium", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Chromium


def show(browser: Any, page: Path, width: int, scheme: str = "light") -> None:
    browser.size(width, 844, phone=width == PHONE)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.call("Emulation.setEmulatedMedia", features=[feature])
    browser.open(page.as_uri())


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium; apt-get install chromium")
        pytest.skip("no chromium; apt-get install chromium")
    browser = load_chromium()(program, tmp_path_factory.mktemp("profile"))
    try:
        browser.attach()
        yield browser
    finally:
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_console_stays_empty(chromium, page, width: int, scheme: str) -> None:
    show(chromium, page, width, scheme)
    assert chromium.ask("document.querySelectorAll('section').length") == 9
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


def test_every_entry_of_the_contents_leads_somewhere(chromium, page) -> None:
    show(chromium, page, DESK)
    links = "[...document.querySelectorAll('nav a')]"
    assert chromium.ask(f"{links}.length") == 9
    assert chromium.ask(f"{links}.every(a => document.getElementById(a.hash.slice(1)) !== null)")
