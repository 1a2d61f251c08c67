"""What goes wrong because of what the user gave, not because of a bug."""

import re

_USER = re.compile(r"(?<=://)[^/\s]*@")
_SECRET = re.compile(
    r"(?i)([?&][^=&\s]*(?:password|passwd|pwd|token|secret|signature|credential|key)=)[^&\s]+?(?=[:;,.]?(?:[&\s]|$))"
)

TERMINATED = 143
"""Exit code of a command that SIGTERM ended: 128 + 15, as shells have it."""

MAX_LINES = 20
MAX_CHARACTERS = 1500
"""Bounds of what one error prints: lines, and characters of a line."""


def shown(text: str) -> list[str]:
    """The lines of a message as they are printed: without passwords, and not too many or too long.

    A part in the middle of a long line is left out: its beginning names the file or key, and its
    end says what to do.
    """
    lines = [
        line
        if len(line) <= MAX_CHARACTERS
        else f"{line[: MAX_CHARACTERS * 2 // 3]} […] {line[-MAX_CHARACTERS // 3 :]}"
        for line in redacted(text).splitlines()
    ]
    more = len(lines) - MAX_LINES
    return [*lines[:MAX_LINES], *([f"and {more} more"] if more > 0 else [])]


def redacted(text: str) -> str:
    """Hides user names, passwords and signatures of all addresses in a text.

    Every text that is printed or stored and may hold an address goes through this function.
    """
    return _SECRET.sub(r"\1***", _USER.sub("***@", text))


class InputError(Exception):
    """Bad input: the message is one sentence that names the file or key and says what would do.

    The command line prints it without a traceback and exits with code 2. Every room derives its own
    class from this one, so that callers can tell them apart.
    """


class WeightsError(InputError):
    """Weights that are missing or damaged, or have no such layer."""
