"""Text of params.yaml → plain values, within bounds.

A few lines of YAML can stand for gigabytes: an alias may repeat a part that has aliases itself. So
the size of the whole is counted before it is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import CollectionNode

if TYPE_CHECKING:
    from pathlib import Path

    from ruamel.yaml.nodes import Node

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 20
"""Mappings and lists within each other."""

MAX_VALUES = 100_000
"""Keys and values, with every repetition by an alias."""


def read(path: Path) -> Any:
    """Reads a YAML file, as :func:`load` does.

    Raises:
        OSError: There is no such file, or it can't be read.
        YAMLError: The file is not YAML, or is beyond a bound.
    """
    if path.exists() and not path.is_file():  # reading a pipe might never end
        raise YAMLError("it is no file")
    with path.open(encoding="utf-8") as file:
        return load(file.read(MAX_CHARACTERS + 1))


def load(text: str) -> Any:
    """Parses YAML. No object is built but mappings, lists, text, numbers and dates.

    Raises:
        YAMLError: The text is not YAML, or is beyond a bound.
    """
    if len(text) > MAX_CHARACTERS:
        raise YAMLError(f"it has more than {MAX_CHARACTERS:,} characters")
    depth = 0
    for event in _yaml().parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise YAMLError(f"more than {MAX_DEPTH} mappings and lists are within each other")
    root = _yaml().compose(text)
    if root is not None and _size(root, {}) > MAX_VALUES:
        raise YAMLError(f"it stands for more than {MAX_VALUES:,} values")
    return _yaml().load(text)


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _size(node: Node, known: dict[int, int]) -> int:
    """Number of values below a node. Aliases are counted as often as they are used."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # what an alias within its own anchor would see
        size = 1
        if isinstance(node, CollectionNode):
            for item in node.value:
                parts = item if isinstance(item, tuple) else (item,)
                size += sum(_size(part, known) for part in parts)
        known[id(node)] = size
    return known[id(node)]
