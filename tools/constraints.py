"""Write the versions that are installed to constraints.txt: ``make constraints``.

What is installed on other systems only stands at the end of constraints.txt, and stays. uv sync
reads no such file, so pyproject.toml has the same lines.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADING = "# What the results were made with."
ELSEWHERE = "# What is installed on other systems only"

_CPU, _PLAIN = "tensorflow_cpu==", "tensorflow=="
_LIST = re.compile(r"(?<=^constraint-dependencies = \[\n).*?(?=^\]$)", re.MULTILINE | re.DOTALL)


def constraints(before: str, installed: str) -> str:
    """The new content of constraints.txt.

    Args:
        before: The old content.
        installed: What ``pip freeze`` prints.

    Raises:
        ValueError: The old content has no section of other systems.
    """
    heading, _, rest = before.partition("\n")
    _, found, elsewhere = rest.partition(f"\n{ELSEWHERE}")
    if not heading.startswith(HEADING) or not found:
        raise ValueError(f"constraints.txt: has no line '{HEADING} …', or none '{ELSEWHERE} …'")
    versions = [line.removeprefix(_CPU) for line in installed.splitlines() if _CPU in line]
    for version in versions:  # both are one TensorFlow
        elsewhere = re.sub(rf"^{_PLAIN}.*$", f"{_PLAIN}{version}", elsewhere, flags=re.MULTILINE)
    return f"{heading}\n{installed.rstrip()}\n{ELSEWHERE}{elsewhere}"


def pins(text: str) -> list[str]:
    """The requirements in constraints.txt."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def project(before: str, text: str) -> str:
    """The new content of pyproject.toml.

    Args:
        before: The old content.
        text: The content of constraints.txt.

    Raises:
        ValueError: The old content has no list ``constraint-dependencies``.
    """
    quoted = "".join(f"    '{pin}',\n" for pin in pins(text))
    after, found = _LIST.subn(lambda _: quoted, before)
    if not found:
        raise ValueError("pyproject.toml: has no list constraint-dependencies of several lines")
    return after


def write(root: Path, installed: str) -> None:
    """Writes both files of a repository."""
    pinned, described = root / "constraints.txt", root / "pyproject.toml"
    text = constraints(pinned.read_text(encoding="utf-8"), installed)
    new = project(described.read_text(encoding="utf-8"), text)
    pinned.write_text(text, encoding="utf-8", newline="\n")
    described.write_text(new, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    freeze = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    write(ROOT, subprocess.run(freeze, check=True, capture_output=True, text=True).stdout)
