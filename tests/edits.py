"""Params with changes, to test what is checked."""

import copy
from typing import Any

GONE = "(removed)"
"""The value of a key that is removed."""


def edited(right: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """What is right, with other values at some paths like ``datasets/d/layers``."""
    raw = copy.deepcopy(right)
    for path, value in changes.items():
        *above, key = path.split("/")
        section: Any = raw
        for name in above:
            section = section.setdefault(name, {})
        if value is GONE:
            del section[key]
        else:
            section[key] = value
    return raw
