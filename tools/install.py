"""``pip install`` that says every few seconds how far it is: ``python tools/install.py ARGUMENTS``.

It runs before anything is installed, so it needs nothing but Python.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

EVERY_S = 5

_COLLECTING = re.compile(r"(?:Collecting|Processing) (?:\S*/)?(\S+?)(?=[<>=!~;\[ ]|-\d|$)")
_DOWNLOADING = re.compile(r"\s+Downloading (\S+?)-\S+ (\(.*\))")
_INSTALLING = re.compile(r"Installing collected packages: (.*)")


class Progress(NamedTuple):
    """How far pip is.

    Attributes:
        found: Number of packages that it looked up.
        now: What it does.
    """

    found: int = 0
    now: str = "starting pip"

    def after(self, line: str) -> Progress:
        """How far pip is once it printed a line."""
        if match := _COLLECTING.match(line):
            return Progress(self.found + 1, f"looking up {match[1]}")
        if match := _DOWNLOADING.match(line):
            return self._replace(now=f"downloading {match[1]} {match[2]}")
        if match := _INSTALLING.match(line):
            return self._replace(now=f"writing {len(match[1].split(', '))} packages")
        return self

    def sentence(self) -> str:
        """One line for people."""
        found = f"{self.found} packages so far, " if self.found else ""
        return f"installing: {found}{self.now}"


class Watched:
    """The progress of a pip whose lines are read by a thread."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.progress = Progress()
        self._lines = lines
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._lines:
            self.progress = self.progress.after(line)

    def ends_within(self, seconds: float) -> bool:
        """Waits until pip has printed its last line; whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


def main(arguments: list[str]) -> int:
    """Runs pip. What it complains of goes to stderr as it is.

    Returns:
        The exit code of pip.
    """
    command = [sys.executable, "-m", "pip", "install", "--progress-bar", "off", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, errors="replace", env=environment
    ) as pip:
        watched = Watched(pip.stdout or ())
        while not watched.ends_within(EVERY_S):
            print(watched.progress.sentence(), file=sys.stderr, flush=True)
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
