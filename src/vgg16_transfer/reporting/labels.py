"""Makes labels for figures from names: short enough, visible, and never drawn as a formula.

A class may have any name: a line break, 300 letters, ``$x^$``, 犬. Every figure draws the labels
that :func:`fit_all` returns, with the properties of :func:`style`.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import math
import unicodedata
import warnings
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Pieces = tuple[str, ...]

_LOG = logging.getLogger(__name__)

_CUT = "…"
_POINTS = 72  # per inch
_LONGEST = 300  # pieces; longer names never fit
_EMPTY = "(empty)"
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Characters that Unicode counts as letters or symbols, but that are blank."""

_JOINERS = frozenset("\u200c\u200d")
"""Invisible characters that join or separate letters in some scripts."""

_NOT_FOR_TEXT = ("Last Resort", "STIX", "cm")
"""Beginnings of the names of matplotlib's fonts for missing letters and formulas."""

_CJK = ("CJK ", "HIRAGANA ", "KATAKANA ", "HANGUL ", "BOPOMOFO ", "FULLWIDTH ", "HALFWIDTH ")
"""Beginnings of the Unicode names of letters in Debian's fonts-noto-cjk."""

_NAMED = 10


class _Room(NamedTuple):
    """Largest width of a label in inches, and its font size in points."""

    inches: float
    size: float


def fit_all(names: Iterable[str], inches: float, size: float) -> list[str]:
    r"""Labels for names. Different names get different labels.

    A name that is too wide is cut in the middle. If several names then look the same, their common
    beginning is cut instead. Invisible characters are written as escapes, like ``\n``. A letter
    that no installed font has is written as its number, like ``U+72AC``; this is logged once per
    font package.

    Args:
        names: Names in any script.
        inches: Largest width of a label.
        size: Font size in points.
    """
    listed = list(names)
    texts = {name: unicodedata.normalize("NFC", name) for name in sorted(set(listed))}
    pieces = {name: _pieces(text) for name, text in texts.items()}
    _warn({letter for text in texts.values() for letter in text if not _is_known(letter)})
    room = _Room(inches, size)
    labels = _labelled(pieces, room)
    taken: Counter[str] = Counter()
    for name, label in labels.items():  # sorted, so that the numbering is always the same
        taken[label] += 1
        if taken[label] > 1:
            number = f" ({taken[label]})"
            labels[name] = _fit(pieces[name], room._replace(inches=inches - width(number, size)))
            labels[name] += number
    return [labels[name] for name in listed]


def style(labels: Iterable[str]) -> dict[str, Any]:
    """Properties of a matplotlib text for any of these labels.

    Returns:
        ``parse_math``, and ``fontfamily`` if the default font lacks a letter.
    """
    families = _families("".join(labels))
    return {"parse_math": False} | (
        {"fontfamily": [_default_font(), *families]} if families else {}
    )


def width(label: str, size: float) -> float:
    """Width of a label in inches; infinite if it can't be drawn.

    Args:
        label: Text on one line.
        size: Font size in points.
    """
    families = _families(label)
    properties = FontProperties(
        family=[_default_font(), *families] if families else None, size=size
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:  # without a renderer, so that the width is the same for all output formats
            measured, *_ = _measure().get_text_width_height_descent(label, properties, ismath=False)
        except UserWarning:  # a letter without a glyph
            return math.inf
    return float(measured) / _POINTS


def _pieces(text: str) -> Pieces:
    """Splits a name into pieces that are never cut: letters, escapes and letters' numbers."""
    if not text:
        return (_EMPTY,)
    clusters = _clusters(text)
    last = len(clusters) - 1
    pieces: list[str] = []
    for index, cluster in enumerate(clusters):
        if cluster == " ":
            is_inner = 0 < index < last and pieces[-1] not in {" ", "␣"} and text.rstrip(" ") != ""
            pieces.append(" " if is_inner else "␣")
        elif _is_drawn(cluster):
            pieces.append(cluster)
        else:
            pieces += map(_stand_in, cluster)
    return tuple(
        f" {piece}" if _is_number(before) and _is_number(piece) else piece
        for before, piece in itertools.pairwise(["", *pieces])
    )


def _clusters(text: str) -> list[str]:
    """Splits text into letters with their marks, which must be drawn with one font."""
    clusters: list[str] = []
    joined = False
    for before, letter, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        joins = letter in _JOINERS and not before.isascii() and not after.isascii()
        if clusters and (joins or joined or unicodedata.category(letter).startswith("M")):
            clusters[-1] += letter
        else:
            clusters.append(letter)
        joined = joins
    return clusters


@cache
def _is_drawn(cluster: str) -> bool:
    """Whether a letter and its marks are visible, and installed fonts have them."""
    if not cluster[0].isprintable() or cluster[0] in _BLANK:
        return False
    drawn = [letter for letter in cluster if letter not in _JOINERS]
    if not all(letter.isprintable() and _is_known(letter) for letter in drawn):
        return False
    return width(cluster, _POINTS) < math.inf


def _is_known(letter: str) -> bool:
    return _has(_default_font(), letter) or _family(letter) is not None


def _is_number(piece: str) -> bool:
    return piece.startswith("U+")


def _stand_in(letter: str) -> str:
    if not letter.isprintable() or letter in _BLANK:
        return letter.encode("unicode_escape").decode()
    is_mark = unicodedata.category(letter).startswith("M")
    return letter if not is_mark and _is_known(letter) else f"U+{ord(letter):04X}"


def _labelled(pieces: Mapping[str, Pieces], room: _Room) -> dict[str, str]:
    """Labels by name. If labels are equal, the common beginning of their names is cut."""
    labels = {name: _fit(parts, room) for name, parts in pieces.items()}
    names_by_label: dict[str, list[str]] = {}
    for name, label in labels.items():
        names_by_label.setdefault(label, []).append(name)
    for names in names_by_label.values():
        different = {"".join(pieces[name]) for name in names}
        columns = zip(*(pieces[name] for name in names), strict=False)
        shared = len(list(itertools.takewhile(lambda column: len(set(column)) == 1, columns)))
        rest = {name: (_CUT, *pieces[name][shared:]) for name in names}
        if len(different) > 1 and any(rest[name] != pieces[name] for name in names):
            labels |= _labelled(rest, room)
    return labels


def _fit(pieces: Pieces, room: _Room) -> str:
    """The pieces as text, cut in the middle if it is too wide."""
    if len(pieces) <= _LONGEST and width("".join(pieces), room.size) <= room.inches:
        return "".join(pieces)

    def cut(kept: int) -> str:
        head, tail = pieces[: kept - kept // 2], pieces[len(pieces) - kept // 2 :]
        return "".join([*head, _CUT, *tail])

    most = min(len(pieces), _LONGEST)
    too_many = bisect.bisect_right(
        range(most), room.inches, key=lambda kept: width(cut(kept), room.size)
    )
    return cut(max(too_many - 1, 0))


def _families(text: str) -> list[str]:
    """Fonts, besides the default one, that a text needs."""
    needed = {_family(letter) for letter in text if not _has(_default_font(), letter)}
    return sorted(family for family in needed if family is not None)


@cache
def _family(letter: str) -> str | None:
    """First installed font that has a letter, sorted by name with sans-serif fonts first."""
    return next((family for family in _installed() if _has(family, letter)), None)


@cache
def _installed() -> list[str]:
    """Font families with an upright face of normal weight."""
    names = {
        face.name
        for face in font_manager.fontManager.ttflist
        if face.style == "normal"
        and face.weight in range(400, 501)
        and not face.name.startswith(_NOT_FOR_TEXT)
    }
    return sorted(names, key=lambda name: ("Sans" not in name, "Mono" in name, name))


@cache
def _default_font() -> str:
    return str(font_manager.get_font(font_manager.findfont(FontProperties())).family_name)


def _has(family: str, letter: str) -> bool:
    return ord(letter) in _letters(family)


@cache
def _letters(family: str) -> frozenset[int]:
    """Code points of the upright face of a font, which is the one that figures use."""
    try:
        path = font_manager.findfont(FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(font_manager.get_font(path).get_charmap())
    except (
        OSError,
        RuntimeError,
        ValueError,
    ):  # the font was removed after matplotlib listed it, or it is damaged
        return frozenset()


@cache
def _measure() -> TextToPath:
    return TextToPath()


_warned_packages: set[str] = set()


def _warn(missing: set[str]) -> None:
    """Logs letters that no installed font has, once per Debian package with a font for them."""
    by_package = {letter: _package(letter) for letter in sorted(missing) if letter.isprintable()}
    new = [letter for letter, package in by_package.items() if package not in _warned_packages]
    if not new:
        return
    packages = {by_package[letter] for letter in new}
    _warned_packages.update(packages)
    named = " ".join(new[:_NAMED])
    rest = f" and {len(new) - _NAMED} more letters" if len(new) > _NAMED else ""
    _LOG.warning(
        "no installed font has %s%s, so figures show their numbers, like U+%04X; fonts with them "
        "are, for example, in Debian's %s",
        named,
        rest,
        ord(new[0]),
        " and ".join(sorted(packages)),
    )


def _package(letter: str) -> str:
    """Debian package with a font for a letter."""
    if unicodedata.name(letter, "").startswith(_CJK):
        return "fonts-noto-cjk"
    return "fonts-symbola" if unicodedata.category(letter) == "So" else "fonts-noto-core"
