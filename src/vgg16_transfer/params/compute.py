"""The key ``compute``: which processes work. No result depends on it, so no stage does either."""

from __future__ import annotations

from vgg16_transfer.params.section import nearest

COMPUTE = {
    "local": "this process",
    "ray": "workers on the Ray cluster that `RAY_ADDRESS` names, or on this machine",
}
"""Where pictures go through the network and where trials are trained, by the name in params.yaml.

To add a place, add a row, and a module of its name in :mod:`vgg16_transfer.compute`.
"""

DEFAULT_COMPUTE = "local"

DESCRIPTION = "where pictures go through the network and where trials are trained"


def mistake(value: object) -> str | None:
    """What is wrong with a value of the key; None if it is valid.

    Args:
        value: The value, as YAML or an environment variable has it.
    """
    if isinstance(value, str) and value in COMPUTE:
        return None
    return f"unknown value {value!r}; {nearest(str(value), list(COMPUTE))}"
