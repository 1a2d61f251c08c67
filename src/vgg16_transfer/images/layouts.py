"""How a picture's class, and the split that a source gives it, are read from where it lies.

One row of ``_LAYOUTS`` per layout. docs/datasets.md shows each of them.

Class names are compared and kept in Unicode's composed form (NFC), so that a folder that macOS
named and one that Linux named are one class. Paths stay as the source spells them.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from vgg16_transfer.params import Layout

ROLES = ("test", "validation", "train")
"""The order in which pictures that are the same are kept: the test set stays whole."""

_SPLIT = re.compile(
    r"(?:(?P<train>train|training)|(?P<validation>val|valid|validation|dev)"
    r"|(?P<test>test|testing|eval))(?:[ _-]?(?:set|data))?",
    re.IGNORECASE,
)
_CALTECH256 = re.compile(r"(?:^|/)((\d{3})\.[^/]+)/\2_\d{4}\.jpg$")
_PACKED = re.compile(r"\.(?:zip|tar|tgz|tbz2?|txz|7z|rar|tar\.\w+)$", re.IGNORECASE)
_NAMED = 3

_COLUMNS = {
    "path": ("path", "file_name", "filename", "image", "file"),
    "label": ("label", "class", "class_name", "category"),
    "split": ("split", "set", "subset"),
}
"""What a column of a CSV may be called, the first name that is there first."""


class LayoutError(InputError):
    """A source that does not lie as its layout says; the message says what was found."""


@dataclass(frozen=True)
class Files:
    """What a source holds, but for what is passed by.

    Attributes:
        pictures: Names of the files that are pictures, sorted.
        others: Names of the other files, sorted.
        folders: Names of all folders.
        read: Reads a file.
    """

    pictures: Sequence[str]
    others: Sequence[str] = ()
    folders: Sequence[str] = ()
    read: Callable[[str], bytes] = field(default=lambda _: b"")


@dataclass(frozen=True)
class Arrangement:
    """What a layout says of a source's files.

    Attributes:
        classes: Class name by path; of files that are no pictures as well.
        roles: The split that the source gives a picture (train, validation or test), by path;
            empty if it gives none.
        reasons: By path, why a file has no class, if there is more to say than that it has none.
        empty: Classes without a single file.
        used: Files that say something of the pictures, and so are not left out.
        notes: What the user should know: one sentence each.
    """

    classes: dict[str, str]
    roles: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def arrange(layout: Layout, files: Files) -> Arrangement:
    """Reads classes, and given splits, from where files lie.

    Args:
        layout: How the source is laid out.
        files: What it holds.

    Raises:
        LayoutError: The source is not laid out like that at all.
    """
    return _LAYOUTS[layout](files)


def composed(name: str) -> str:
    """A class name in Unicode's composed form, in which two spellings of it are the same."""
    return unicodedata.normalize("NFC", name)


def found(files: Files) -> str:
    """What a source holds, in a few words, for an error about what it lacks."""
    said = []
    packed = [name for name in files.others if _PACKED.search(name)]
    if packed:
        said.append(
            f"the archive {_examples(packed)} inside it (unpack that, or name it as the source)"
        )
    tables = [name for name in files.others if name.lower().endswith(".csv")]
    if tables:
        said.append(f"the table {_examples(tables)} (layout: csv reads labels from a CSV)")
    if not files.pictures:
        count = len(files.others)
        what = f"{count} files, none of them a picture" if count else "no files"
        return "; ".join([what, *said])
    folders = Counter(str(PurePosixPath(name).parent) for name in files.pictures)
    where, pictures = next(iter(folders)), _examples(list(files.pictures))
    if len(folders) == 1:
        place = "beside each other" if where == "." else f"in the one folder {where}"
        held = f"{len(files.pictures)} pictures {place} ({pictures})"
    else:
        held = f"{len(files.pictures)} pictures in {len(folders)} folders ({pictures})"
    return "; ".join([held, *said])


def _class_folders(files: Files) -> Arrangement:
    """The topmost folders that stand beside each other are the classes."""
    root = _root(files.pictures)
    splits = {name: _split(name) for name in _children(files.pictures, root)}
    if len(splits) > 1 and all(splits.values()):
        given = _split_folders(files)
        note = (
            f"the folders {', '.join(sorted(splits))} are splits, not classes: read as layout: "
            "split_folders"
        )
        return Arrangement(
            given.classes, given.roles, given.reasons, given.empty, given.used, (note, *given.notes)
        )
    return Arrangement(
        _below(root, [*files.pictures, *files.others]),
        empty=_empty(root, files),
        notes=_beside(root, files),
    )


def _split_folders(files: Files) -> Arrangement:
    """``train/CLASS/…``, ``val/CLASS/…`` and ``test/CLASS/…``."""
    root = _root(files.pictures)
    folders = {name: _split(name) for name in _children(files.pictures, root)}
    given = {name: split for name, split in folders.items() if split}
    if "train" not in given.values() or len(set(given.values())) < len(given):
        raise LayoutError(
            "layout: split_folders needs one folder train, and test or val, each with class "
            f"folders; found {', '.join(sorted(folders)) or 'no folders'}: {found(files)}"
        )
    classes: dict[str, str] = {}
    roles: dict[str, str] = {}
    reasons: dict[str, str] = {}
    empty: set[str] = set()
    for name, split in given.items():
        top = (*root, name)
        inside = [path for path in files.pictures if _parts(path)[: len(top)] == top]
        below = _root(inside, top)
        for path, class_name in _below(below, [*inside, *files.others]).items():
            classes[path] = class_name
            roles[path] = split
        reasons |= dict.fromkeys(inside, f"lies in no class folder of {name}")
        empty |= _empty(below, files)
    reasons |= {
        path: "lies outside of the split folders"
        for path in files.pictures
        if path not in classes and path not in reasons
    }
    return _with_test(
        Arrangement(classes, roles, reasons, frozenset(empty - set(classes.values())))
    )


def _csv(files: Files) -> Arrangement:
    """A table with a column of paths, one of labels and, if wanted, one of splits."""
    tables = [
        _read_table(name, files.read) for name in files.others if name.lower().endswith(".csv")
    ]
    fitting = [table for table in tables if {"path", "label"} <= table.columns.keys()]
    # Hugging Face's imagefolder has one for each split, all of the same name.
    same = len({PurePosixPath(table.name).name for table in fitting}) == 1
    if not fitting or (len(fitting) > 1 and not same):
        listed = "; ".join(f"{table.name} has {', '.join(table.header)}" for table in tables)
        raise LayoutError(
            "layout: csv needs one CSV with the columns path and label; "
            f"found {len(fitting)} such: {listed or found(files)}"
        )
    return _with_test(_from_tables(fitting, files))


def _caltech256(files: Files) -> Arrangement:
    """``…/NNN.name/NNN_MMMM.jpg``; strays such as ``198.spider/RENAME2`` do not match."""
    names = [*files.pictures, *files.others]
    matches = {name: _CALTECH256.search(name) for name in names}
    return Arrangement({name: composed(match[1]) for name, match in matches.items() if match})


def _urban_tribes(files: Files) -> Arrangement:
    """Flat: the class is what stands before the first underscore of the file's name."""
    stems = {name: PurePosixPath(name).stem for name in files.pictures}
    return Arrangement(
        {name: composed(stem.split("_", 1)[0]) for name, stem in stems.items() if "_" in stem}
    )


_LAYOUTS: dict[str, Callable[[Files], Arrangement]] = {
    "class_folders": _class_folders,
    "split_folders": _split_folders,
    "csv": _csv,
    "caltech256": _caltech256,
    "urban_tribes": _urban_tribes,
}


EXPECTED: dict[str, str] = {
    "class_folders": "one folder for each class",
    "split_folders": "train/CLASS, val/CLASS and test/CLASS",
    "csv": "a CSV with the columns path and label",
    "caltech256": "pictures like 056.dog/056_0001.jpg",
    "urban_tribes": "pictures like CLASS_group_pic00001.jpg",
}
"""What each layout looks for, in a few words."""


class _Table(NamedTuple):
    """A CSV: what it is called, its header, where its columns are by what they are, its rows."""

    name: str
    header: list[str]
    columns: dict[str, int]
    rows: list[list[str]]

    def cell(self, row: list[str], column: str) -> str:
        place = self.columns.get(column, len(row))
        return row[place].strip() if place < len(row) else ""


def _read_table(name: str, read: Callable[[str], bytes]) -> _Table:
    try:
        text = read(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LayoutError(f"{name}: is not UTF-8; save it as UTF-8") from None
    first = text.partition("\n")[0]
    comma = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=comma) if row]
    header = [title.strip() for title in rows[0]] if rows else []
    titles = [title.lower() for title in header]
    columns = {
        column: next(titles.index(alias) for alias in aliases if alias in titles)
        for column, aliases in _COLUMNS.items()
        if not set(aliases).isdisjoint(titles)
    }
    return _Table(name, header, columns, rows[1:])


class _Row(NamedTuple):
    """What a row of a table says, and where it stands."""

    table: str
    number: int
    path: str
    label: str
    split: str


def _rows(table: _Table, known: dict[str, str]) -> Iterator[_Row]:
    folder = _base(table, known)
    # Of Hugging Face's tables, each lies in the folder of its split.
    inside = next((part for part in reversed(folder.parts) if _split(part)), "")
    for number, row in enumerate(table.rows, start=2):
        path = str(folder / _relative(table.cell(row, "path")))
        split = table.cell(row, "split") or inside
        yield _Row(
            table.name,
            number,
            known.get(composed(path), path),
            composed(table.cell(row, "label")),
            split,
        )


def _from_tables(tables: list[_Table], files: Files) -> Arrangement:
    classes: dict[str, str] = {}
    roles: dict[str, str] = {}
    reasons: dict[str, str] = {}
    known = {composed(name): name for name in [*files.pictures, *files.others]}
    for row in (row for table in tables for row in _rows(table, known)):
        role = _split(row.split)
        if row.split and not role:
            raise LayoutError(
                f"{row.table}: row {row.number}: split '{row.split}' is none of train, val and test"
            )
        if not row.label:
            reasons[row.path] = f"has no label in {row.table}"
        elif classes.setdefault(row.path, row.label) != row.label:
            reasons[row.path] = f"has more than one label in {row.table}"
        elif role and roles.setdefault(row.path, role) != role:
            reasons[row.path] = f"is in more than one split in {row.table}"
    there = set(known.values())
    if classes and there.isdisjoint(classes):
        raise LayoutError(
            f"{tables[0].name}: names no file that is there: it has {next(iter(classes))}, the "
            f"source {_examples(list(files.pictures))}; paths are relative to the CSV's folder"
        )
    classes = {path: label for path, label in classes.items() if path not in reasons}
    gone = [path for path in classes if path not in there]
    unnamed = [path for path in files.pictures if path not in classes and path not in reasons]
    reasons |= dict.fromkeys(gone, "is named in the CSV, but there is no such file")
    reasons |= dict.fromkeys(unnamed, "is named by no row of the CSV")
    notes: tuple[str, ...] = ()
    if roles and not roles.keys() >= classes.keys():
        count = len(classes.keys() - roles.keys())
        notes = (f"{count} rows of the CSV name no split: taken as train",)
        roles = dict.fromkeys(classes, "train") | roles
    roles = {path: role for path, role in roles.items() if path in classes}
    used = frozenset(table.name for table in tables)
    return Arrangement(classes, roles, reasons, used=used, notes=notes)


def _relative(path: str) -> str:
    return path.replace("\\", "/").lstrip("/")


def _base(table: _Table, known: dict[str, str]) -> PurePosixPath:
    """What a table's paths are relative to: its folder, or else the only folder that holds one."""
    own = PurePosixPath(table.name).parent
    asked = [_relative(table.cell(row, "path")) for row in table.rows]
    folders = {PurePosixPath(name).parent for name in known}
    fitting = [one for one in folders if any(composed(str(one / path)) in known for path in asked)]
    return fitting[0] if len(fitting) == 1 and own not in fitting else own


def _with_test(given: Arrangement) -> Arrangement:
    """Without a test set, the validation set is the test set; without both, nothing is given."""
    roles, notes = given.roles, given.notes
    if set(roles.values()) == {"train"}:
        roles = {}
    if "test" not in roles.values() and "validation" in roles.values():
        roles = {path: {"validation": "test"}.get(role, role) for path, role in roles.items()}
        notes = (*notes, "there is no test set: the validation set is the test set")
    if roles and "train" not in roles.values():
        raise LayoutError("the splits that the source gives hold no training pictures")
    return Arrangement(given.classes, roles, given.reasons, given.empty, given.used, notes)


def _split(name: str) -> str | None:
    match = _SPLIT.fullmatch(name)
    return match.lastgroup if match else None


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _children(pictures: Iterable[str], root: tuple[str, ...]) -> dict[str, list[int]]:
    """The folders of a folder that hold pictures, and how deep below the folder each one lies."""
    depth = len(root)
    children: dict[str, list[int]] = {}
    for name in pictures:
        parts = _parts(name)
        if parts[:depth] == root and len(parts) > depth + 1:
            children.setdefault(parts[depth], []).append(len(parts) - depth - 1)
    return children


def _root(pictures: Sequence[str], root: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The folder whose folders are the classes.

    It is looked for from the top down, as long as there is a single folder with pictures, and most
    of them lie in folders of it: a folder with more pictures of its own is a class.
    """
    while True:
        children = _children(pictures, root)
        if len(children) != 1:
            return root
        ((name, depths),) = children.items()
        if 2 * depths.count(1) >= len(depths):
            return root
        root = (*root, name)


def _below(root: tuple[str, ...], names: Iterable[str]) -> dict[str, str]:
    depth = len(root)
    parts = {name: _parts(name) for name in names}
    return {
        name: composed(one[depth])
        for name, one in parts.items()
        if one[:depth] == root and len(one) > depth + 1
    }


def _empty(root: tuple[str, ...], files: Files) -> frozenset[str]:
    """Folders beside the class folders that hold no file."""
    depth = len(root)
    folders = {_parts(name) for name in files.folders}
    names = {one[depth] for one in folders if one[:depth] == root and len(one) > depth}
    held = _below(root, [*files.pictures, *files.others]).values()
    return frozenset(map(composed, names)) - set(held)


def _beside(root: tuple[str, ...], files: Files) -> tuple[str, ...]:
    """A sentence about folders that were gone past on the way to the class folders."""
    folders = {_parts(name) for name in [*files.folders]}
    passed = sorted(
        "/".join(one)
        for one in folders
        for depth in range(len(root))
        if len(one) == depth + 1 and one[:depth] == root[:depth] and one != root[: depth + 1]
    )
    if not passed:
        return ()
    return (f"the classes are the folders of {'/'.join(root)}; {', '.join(passed)} is left out",)


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
