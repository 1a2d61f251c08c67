"""Texts of users in Markdown: names, addresses and sentences that must not become markup."""

from __future__ import annotations

import html
import re

_MARKUP = re.compile(r"([\\`*_{}\[\]()#!|~])")
_ESCAPED = re.compile(rf"\\{_MARKUP.pattern}")


def plain(text: object) -> str:
    """Text of a user as Markdown: without markup, and in one line."""
    return _MARKUP.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def from_plain(text: str) -> str:
    """The text that :func:`plain` was given, but for its white space."""
    return html.unescape(_ESCAPED.sub(r"\1", text))
