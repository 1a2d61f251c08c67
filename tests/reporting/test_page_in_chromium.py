"""The page as a browser shows it: headless Chromium, driven through its debugging pipe."""

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

PHONE, DESK = 390, 1280


class Chromium:
    """A page of a headless browser; messages are JSON, each ended by a zero byte."""

    def __init__(self, program: str, profile: Path) -> None:
        from_us, to_browser = os.pipe()
        from_browser, to_us = os.pipe()
        # The browser reads from file descriptor 3 and writes to 4.
        pipes = f'exec "$@" 3<&{from_us} 4>&{to_us}'
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ]
        command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self._browser = subprocess.Popen(
            ["bash", "-c", pipes, "bash", *command],
            pass_fds=(from_us, to_us),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        self._to = os.fdopen(to_browser, "wb")
        self._from = os.fdopen(from_browser, "rb")
        self._ids = itertools.count(1)
        self._session: dict[str, str] = {}
        self.errors: list[Any] = []

    def attach(self) -> None:
        """Opens a page, which all further calls are about."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params} | self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        answer = self._until(lambda heard: heard.get("id") == number)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, page: Path, width: int, scheme: str = "light") -> None:
        self.errors.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=844,
            deviceScaleFactor=1,
            mobile=width == PHONE,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Page.navigate", url=page.as_uri())
        self._until(lambda heard: heard.get("method") == "Page.loadEventFired")

    def ask(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def close(self) -> None:
        self._to.close()
        self._browser.terminate()
        self._browser.wait()
        self._from.close()

    def _until(self, condition: Any) -> dict[str, Any]:
        while True:
            heard = self._hear()
            if heard.get("method") in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled"} or (
                heard.get("method") == "Log.entryAdded"
            ):
                self.errors.append(heard["params"])
            if condition(heard):
                return heard

    def _hear(self) -> dict[str, Any]:
        heard = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser is gone"
            heard += byte
        message: dict[str, Any] = json.loads(heard)
        return message


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium; apt-get install chromium")
        pytest.skip("no chromium; apt-get install chromium")
    browser = Chromium(program, tmp_path_factory.mktemp("profile"))
    try:
        browser.attach()
        yield browser
    finally:
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_console_stays_empty(chromium, page, width: int, scheme: str) -> None:
    chromium.open(page, width, scheme)
    assert chromium.ask("document.querySelectorAll('section').length") == 9
    assert chromium.errors == []


def test_an_error_on_the_console_would_be_heard(chromium, tmp_path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<img src='gone.png' alt=''><script>missing()</script>", encoding="utf-8")
    chromium.open(broken, DESK)
    assert len(chromium.errors) == 2


def test_no_picture_is_broken(chromium, page) -> None:
    chromium.open(page, PHONE)
    widths = chromium.ask("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 14
    assert min(widths) > 0


def test_every_picture_has_an_alternative_text(chromium, page) -> None:
    chromium.open(page, PHONE)
    texts = chromium.ask("[...document.images].map(image => image.alt)")
    assert all(text.strip() for text in texts)


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "opened"])
def test_a_phone_does_not_scroll_sideways(chromium, page, opened: bool) -> None:
    chromium.open(page, PHONE)
    chromium.ask(f"document.querySelectorAll('details').forEach(one => one.open = {int(opened)})")
    assert chromium.ask("document.documentElement.scrollWidth") <= PHONE
    assert chromium.ask("Math.max(...[...document.images].map(image => image.width))") <= PHONE


def test_a_wide_table_scrolls_in_a_box_of_its_own(chromium, page) -> None:
    chromium.open(page, PHONE)
    boxes = "[...document.querySelectorAll('table')].map(table => table.parentElement)"
    assert chromium.ask(f"{boxes}.every(box => box.matches('.table'))")
    assert chromium.ask(f"{boxes}.some(box => box.scrollWidth > box.clientWidth)")


def test_every_entry_of_the_contents_leads_somewhere(chromium, page) -> None:
    chromium.open(page, DESK)
    links = "[...document.querySelectorAll('nav a')]"
    assert chromium.ask(f"{links}.length") == 9
    assert chromium.ask(f"{links}.every(a => document.getElementById(a.hash.slice(1)) !== null)")
