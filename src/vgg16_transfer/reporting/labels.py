"""Names as figures show them: whole if there is room, always visible, and never a formula.

A class may be called anything: a line break, 300 letters, ``$x^$``, 犬. Every figure draws names
that :func:`shown` returns, with the properties of :func:`style`.
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
_LONGEST = 300  # pieces: no label of a figure has room for more
_EMPTY = "(empty)"
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters by their category, and yet nothing is seen of them."""

_JOINERS = frozenset("\u200c\u200d")
"""Between letters of some scripts, and never seen themselves."""

_NOT_FOR_TEXT = ("Last Resort", "STIX", "cm")
"""Families that matplotlib brings for boxes and formulas begin so."""

_CJK = ("CJK ", "HIRAGANA ", "KATAKANA ", "HANGUL ", "BOPOMOFO ", "FULLWIDTH ", "HALFWIDTH ")
"""Names of the letters in Debian's fonts-noto-cjk begin so."""

_NAMED = 10


class _Room(NamedTuple):
    """What a label may take: width in inches, letters in points."""

    inches: float
    size: float


def shown(names: Iterable[str], inches: float, size: float) -> list[str]:
    r"""Names as a figure shows them: different names stay different.

    A name that is too wide loses its middle, or what it begins with if others begin and end alike.
    What can't be seen is written as its escape, like ``\n``. A letter that no installed font has
    is written as its number, like ``U+72AC``; a log message says so, once for each script.

    Args:
        names: In any writing.
        inches: The width that a name may take.
        size: Of its letters, in points.
    """
    listed = list(names)
    texts = {name: unicodedata.normalize("NFC", name) for name in sorted(set(listed))}
    pieces = {name: _pieces(text) for name, text in texts.items()}
    _say({letter for text in texts.values() for letter in text if not _is_known(letter)})
    room = _Room(inches, size)
    labels = _labelled(pieces, room)
    taken: Counter[str] = Counter()
    for name, label in labels.items():  # in order of the names, so that the same ones are numbered
        taken[label] += 1
        if taken[label] > 1:
            number = f" ({taken[label]})"
            labels[name] = _fit(pieces[name], room._replace(inches=inches - width(number, size)))
            labels[name] += number
    return [labels[name] for name in listed]


def style(labels: Iterable[str]) -> dict[str, Any]:
    """The properties of a matplotlib text that shows any of these labels.

    Returns:
        ``parse_math``, and ``fontfamily`` where the usual font lacks a letter.
    """
    families = _families("".join(labels))
    return {"parse_math": False} | ({"fontfamily": [_usual(), *families]} if families else {})


def width(label: str, size: float) -> float:
    """How wide a label is, in inches; infinite if it can't be drawn.

    Args:
        label: On one line.
        size: Of its letters, in points.
    """
    families = _families(label)
    properties = FontProperties(family=[_usual(), *families] if families else None, size=size)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:  # without a renderer: the same whatever is drawn with
            measured, *_ = _measure().get_text_width_height_descent(label, properties, ismath=False)
        except UserWarning:  # a letter without a glyph
            return math.inf
    return float(measured) / _POINTS


def _pieces(text: str) -> Pieces:
    """A name as a row of pieces that are not to be cut: letters, escapes and letters' numbers."""
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
    """Letters, each with the marks that belong to it, which have to come from one font."""
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
    """Whether something is seen of a letter and its marks, and installed fonts have them."""
    if not cluster[0].isprintable() or cluster[0] in _BLANK:
        return False
    drawn = [letter for letter in cluster if letter not in _JOINERS]
    if not all(letter.isprintable() and _is_known(letter) for letter in drawn):
        return False
    return width(cluster, _POINTS) < math.inf


def _is_known(letter: str) -> bool:
    return _has(_usual(), letter) or _family(letter) is not None


def _is_number(piece: str) -> bool:
    return piece.startswith("U+")


def _stand_in(letter: str) -> str:
    if not letter.isprintable() or letter in _BLANK:
        return letter.encode("unicode_escape").decode()
    is_mark = unicodedata.category(letter).startswith("M")
    return letter if not is_mark and _is_known(letter) else f"U+{ord(letter):04X}"


def _labelled(pieces: Mapping[str, Pieces], room: _Room) -> dict[str, str]:
    """Labels by name; of names that look alike, what they begin with in common is left out."""
    labels = {name: _fit(parts, room) for name, parts in pieces.items()}
    alike: dict[str, list[str]] = {}
    for name, label in labels.items():
        alike.setdefault(label, []).append(name)
    for names in alike.values():
        different = {"".join(pieces[name]) for name in names}
        columns = zip(*(pieces[name] for name in names), strict=False)
        shared = len(list(itertools.takewhile(lambda column: len(set(column)) == 1, columns)))
        rest = {name: (_CUT, *pieces[name][shared:]) for name in names}
        if len(different) > 1 and any(rest[name] != pieces[name] for name in names):
            labels |= _labelled(rest, room)
    return labels


def _fit(pieces: Pieces, room: _Room) -> str:
    """The pieces as text, without those in the middle if it is too wide."""
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
    """The fonts, besides the usual one, that a text's letters need."""
    found = {_family(letter) for letter in text if not _has(_usual(), letter)}
    return sorted(family for family in found if family is not None)


@cache
def _family(letter: str) -> str | None:
    """The first installed font that has a letter: by name, those without serifs first."""
    return next((family for family in _installed() if _has(family, letter)), None)


@cache
def _installed() -> list[str]:
    """Families that have an upright face of about the usual weight."""
    names = {
        face.name
        for face in font_manager.fontManager.ttflist
        if face.style == "normal"
        and face.weight in range(400, 501)
        and not face.name.startswith(_NOT_FOR_TEXT)
    }
    return sorted(names, key=lambda name: ("Sans" not in name, "Mono" in name, name))


@cache
def _usual() -> str:
    return str(font_manager.get_font(font_manager.findfont(FontProperties())).family_name)


def _has(family: str, letter: str) -> bool:
    return ord(letter) in _letters(family)


@cache
def _letters(family: str) -> frozenset[int]:
    """Code points that the upright face of a font has: the one that a figure's texts get."""
    try:
        path = font_manager.findfont(FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):  # removed since matplotlib listed it, or damaged
        return frozenset()


@cache
def _measure() -> TextToPath:
    return TextToPath()


_said: set[str] = set()


def _say(lost: set[str]) -> None:
    """Names letters that no font has, unless the package that has them was named before."""
    by_package = {letter: _package(letter) for letter in sorted(lost) if letter.isprintable()}
    new = [letter for letter, package in by_package.items() if package not in _said]
    if not new:
        return
    packages = {by_package[letter] for letter in new}
    _said.update(packages)
    named = " ".join(new[:_NAMED])
    rest = f" and {len(new) - _NAMED} more letters" if len(new) > _NAMED else ""
    _LOG.warning(
        "no installed font has %s%s, so figures show their numbers, like U+%04X; fonts that have "
        "them are, for example, in Debian's %s",
        named,
        rest,
        ord(new[0]),
        " and ".join(sorted(packages)),
    )


def _package(letter: str) -> str:
    """The package of Debian that has a letter."""
    if unicodedata.name(letter, "").startswith(_CJK):
        return "fonts-noto-cjk"
    return "fonts-symbola" if unicodedata.category(letter) == "So" else "fonts-noto-core"
