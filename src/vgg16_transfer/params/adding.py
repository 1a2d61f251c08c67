"""Adds a dataset and a study to the text of params.yaml. Every other byte stays as it is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from vgg16_transfer.params import yaml_text
from vgg16_transfer.params.reading import check_params
from vgg16_transfer.params.section import ParamsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ruamel.yaml.nodes import MappingNode

    Entries = Mapping[str, Mapping[str, Any]]
    """Section → name → its settings."""


_NEVER_WRAPPED = 10**6


def add(text: str, entries: Entries, *, source: str = "params.yaml") -> str:
    """Adds entries at the ends of sections, with their comments, order and style unchanged.

    Args:
        text: Text of a valid params file.
        entries: For each section, such as ``datasets``, one mapping of names to settings.
        source: File name, used in error messages.

    Returns:
        The new text, a valid params file.

    Raises:
        ParamsError: A name is in the section already, or the new text has mistakes.
    """
    before = yaml_text.load(text)
    taken = [
        f"{section}.{name}: exists already; choose another name"
        for section, named in entries.items()
        for name in named
        if name in before.get(section, {})
    ]
    if taken:
        raise ParamsError(source, taken)
    for section, named in entries.items():
        text = _inserted(text, section, named)
    wanted = before | {section: before[section] | dict(named) for section, named in entries.items()}
    if yaml_text.load(text) != wanted:
        known = " and ".join(entries)
        raise ParamsError(source, [f"{known}: can't be added to; write one entry per line in them"])
    check_params(wanted, source=source)
    return text


def _inserted(text: str, section: str, named: Mapping[str, Any]) -> str:
    value = _value_of(text, section)
    if value.flow_style:
        closing = value.end_mark.index - 1
        return f"{text[:closing]}, {_in_braces(named)}{text[closing:]}"
    lines = text.splitlines(keepends=True)
    newline = "\r\n" if lines[0].endswith("\r\n") else "\n"
    indent = " " * value.value[0][0].start_mark.column
    end = _end(lines, value, len(indent))
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += newline
    lines[end:end] = [f"{indent}{line}{newline}" for line in in_lines(named)]
    return "".join(lines)


def _value_of(text: str, section: str) -> MappingNode:
    root = YAML(typ="safe", pure=True).compose(text)
    value: MappingNode = next(value for key, value in root.value if key.value == section)
    return value


def _end(lines: list[str], value: MappingNode, indent: int) -> int:
    """Number of lines up to the section's last one. Comments of the next section are not its own.

    The parser says where the next section begins.
    """
    end: int = min(value.end_mark.line + bool(value.end_mark.column), len(lines))
    while end > value.start_mark.line + 1 and _is_outside(lines[end - 1], indent):
        end -= 1
    return end


def _is_outside(line: str, indent: int) -> bool:
    words = line.strip()
    return not words or (words.startswith("#") and len(line) - len(line.lstrip()) < indent)


def in_lines(named: Mapping[str, Any]) -> list[str]:
    """Lines of YAML. Lists, and mappings without lists, are written in one line each.

    Args:
        named: Settings by name.
    """
    return _written(named, in_braces=None).splitlines()


def _in_braces(named: Mapping[str, Any]) -> str:
    return _written(named, in_braces=True).strip()[1:-1]


def _written(named: Mapping[str, Any], *, in_braces: bool | None) -> str:
    # The reader's own writer, so that it reads back what was meant.
    writer: Any = YAML(typ="safe", pure=True)
    writer.default_flow_style = in_braces
    writer.sort_base_mapping_type_on_output = False
    writer.width = _NEVER_WRAPPED
    text = io.StringIO()
    writer.dump(dict(named), text)
    return text.getvalue()
