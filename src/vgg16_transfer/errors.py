"""What goes wrong because of what the user gave, not because of a bug."""

import re

_USER = re.compile(r"(?<=://)[^/\s]*@")
_SECRET = re.compile(
    r"(?i)([?&][^=&\s]*(?:password|passwd|pwd|token|secret|signature|credential|key)=)[^&\s]+?(?=[:;,.]?(?:[&\s]|$))"
)


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
