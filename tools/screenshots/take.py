"""Take the picture of MLflow's UI that the README shows, of the workspace in the current folder.

Usage: ``python tools/screenshots/take.py docs/images/mlflow-runs.png``, after ``make reproduce``.
It needs Chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import argparse
import io
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import requests
from chromium import Chromium
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH, HEIGHT, SCALE = 1280, 800, 2

# The assistant of MLflow 3 covers a third of the page, and the notice of a shared view some rows.
_CLOSE = """
[...document.querySelectorAll('button')]
  .filter((button) => /close|dismiss/i.test(button.getAttribute('aria-label') || ''))
  .forEach((button) => button.click())
"""
_ROWS = "document.querySelectorAll('.ag-center-cols-container .ag-row').length"
_STARTED_WITHIN = 180


@contextmanager
def served() -> Iterator[str]:
    """Serves the UI of the current folder's workspace; gives the address of its first dataset.

    Raises:
        RuntimeError: The workspace has no runs, or the server did not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("vgg16-transfer")
    with tempfile.TemporaryFile("w+") as said:
        server = subprocess.Popen(
            [program, "ui", "--no-open", "--port", str(port)], stdout=said, stderr=said
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health")
            said.seek(0)
            pages = [line for line in said if line.startswith("runs of ")]
            if not pages:
                raise RuntimeError("this workspace has no runs; run make reproduce")
            yield pages[0].partition(": ")[2].strip()
        finally:
            server.terminate()
            server.wait()


def take(address: str, profile: Path) -> Image.Image:
    """Takes the picture.

    Args:
        address: Address of a page with runs.
        profile: Empty folder for the browser's own files.
    """
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("no chromium; apt-get install chromium")
    browser = Chromium(program, profile)
    try:
        browser.attach()
        browser.size(WIDTH, HEIGHT, SCALE)
        browser.open(address)
        browser.wait(f"{_ROWS} > 2")
        browser.ask(_CLOSE)
        time.sleep(3)  # the page moves after that, without saying when it is over
        return Image.open(io.BytesIO(browser.screenshot()))
    finally:
        browser.close()


def _wait(address: str) -> None:
    deadline = time.monotonic() + _STARTED_WITHIN
    while True:
        try:
            requests.get(address, timeout=5).raise_for_status()
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{address}: no answer") from None
            time.sleep(0.5)
        else:
            return


def main() -> None:
    """Write the picture to the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    with served() as address, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        take(address, Path(profile)).convert("RGB").quantize(256).save(out, optimize=True)


if __name__ == "__main__":
    main()
