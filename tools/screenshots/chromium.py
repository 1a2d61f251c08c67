"""A headless Chromium, driven through its debugging pipe: no package, no port."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class Chromium:
    """A page of a headless browser; messages are JSON, each ended by a zero byte.

    Args:
        program: Path of Chromium.
        profile: Empty folder for the browser's own files.

    Attributes:
        errors: What the console heard since the page was opened.
    """

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
        """Opens an empty page, which all further calls are about."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the Chrome DevTools Protocol, and returns its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params} | self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        answer = self._until(lambda heard: heard.get("id") == number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def size(self, width: int, height: int, scale: float = 1, *, phone: bool = False) -> None:
        """Sets the size of the page in CSS pixels, and how many pixels of the screen one is."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )

    def open(self, address: str) -> None:
        """Opens a page, and waits until it is loaded."""
        self.errors.clear()
        self.call("Page.navigate", url=address)
        self._until(lambda heard: heard.get("method") == "Page.loadEventFired")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Waits until a JavaScript expression is true.

        Raises:
            TimeoutError: It never was.
        """
        deadline = time.monotonic() + seconds
        while not self.ask(expression):
            if time.monotonic() > deadline:
                raise TimeoutError(f"never true: {expression}")
            time.sleep(0.2)

    def screenshot(self) -> bytes:
        """The page as it is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def close(self) -> None:
        """Ends the browser."""
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
            if not byte:
                raise EOFError("the browser is gone")
            heard += byte
        message: dict[str, Any] = json.loads(heard)
        return message
