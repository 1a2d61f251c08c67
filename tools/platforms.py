"""Ask the package registry whether all can be installed elsewhere: ``make platforms``.

It resolves for each system and Python below, with constraints.txt and wheels only, and installs
nothing. pip can't do that: its ``--platform`` chooses wheels, and reads markers as those of here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SYSTEMS = {
    "Linux, x86-64": "x86_64-unknown-linux-gnu",
    "Linux, ARM": "aarch64-unknown-linux-gnu",
    "macOS 14, ARM": "aarch64-apple-darwin",
    "Windows, x86-64": "x86_64-pc-windows-msvc",
}
"""What docs/installing.md lists, and uv's names of it."""

MACOS = "14.0"
PYTHONS = ("3.11", "3.12", "3.13")
SOURCES = ("antlr4-python3-runtime",)
"""Packages without a wheel. They hold nothing that a compiler is needed for."""

EXTRAS = {"run": ("cpu", "offline"), "all": ("cpu", "offline", "team", "dev")}


def command(system: str, python: str, extras: tuple[str, ...]) -> list[str]:
    """The command that resolves the dependencies for a system.

    Args:
        system: A value of ``SYSTEMS``.
        python: A version of Python, as ``3.13``.
        extras: Extras of pyproject.toml.
    """
    return [
        *("uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--no-annotate"),
        *("--constraint", "constraints.txt", "--python-platform", system),
        *("--python-version", python, "--only-binary", ":all:"),
        *(part for name in SOURCES for part in ("--no-binary", name)),
        *(part for extra in extras for part in ("--extra", extra)),
    ]


def main() -> int:
    """Prints a line for each system and Python.

    Returns:
        0 if everything resolves.
    """
    failed = False
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": MACOS}
    for title, system in SYSTEMS.items():
        for python in PYTHONS:
            for name, extras in EXTRAS.items():
                done = subprocess.run(
                    command(system, python, extras),
                    cwd=ROOT,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                packages = [line for line in done.stdout.splitlines() if "==" in line]
                tensorflow = [line for line in packages if line.startswith("tensorflow")]
                good = done.returncode == 0 and len(tensorflow) == 1
                said = f"{len(packages)} packages, {' '.join(tensorflow)}" if good else done.stderr
                print(f"{title}, Python {python}, {name}: {said.strip()}", flush=True)
                failed |= not good
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
