"""Reads the class of a picture, and the split that the source gives it, from its path.

``_LAYOUTS`` has one function per layout. docs/datasets.md shows each layout.

Class names are compared and kept in Unicode's composed form (NFC), so that a folder made on macOS
and a folder of the same name made on Linux are one class. Paths keep the spelling of the source.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from vgg16_transfer.params import Layout

ROLES = ("test", "validation", "train")
"""Of equal pictures, the one with the first of these roles is kept: the test set stays complete."""

_SPLIT = re.compile(
    r"(?:(?P<train>train|training)|(?P<validation>val|valid|validation|dev)"
    r"|(?P<test>test|testing|eval))(?:[ _-]?(?:set|data))?",
    re.IGNORECASE,
)
_LIKE_SPLIT = re.compile(r"train|val|test|eval|dev", re.IGNORECASE)
_CALTECH256 = re.compile(r"(?:^|/)((\d{3})\.[^/]+)/\2_\d{4}\.jpg$")
_PACKED = re.compile(r"\.(?:zip|tar|tgz|tbz2?|txz|7z|rar|tar\.\w+)$", re.IGNORECASE)
_NAMED = 3

_COLUMNS = {
    "path": ("path", "file_name", "filename", "image", "file"),
    "label": ("label", "class", "class_name", "category"),
    "split": ("split", "set", "subset"),
}
"""Accepted titles of each column of a CSV. If several are present, the first one is used."""


class LayoutError(InputError):
    """A source whose files are not laid out as the layout says; the message says what it has."""


@dataclass(frozen=True)
class Files:
    """Files and folders of a source, without those that are ignored.

    Attributes:
        pictures: Names of the files that are pictures, sorted.
        others: Names of the other files, sorted.
        folders: Names of all folders.
        read: Function that returns the bytes of a file.
    """

    pictures: Sequence[str]
    others: Sequence[str] = ()
    folders: Sequence[str] = ()
    read: Callable[[str], bytes] = field(default=lambda _: b"")


@dataclass(frozen=True)
class Arrangement:
    """Classes and splits that a layout reads from a source.

    Attributes:
        classes: Class name by path, also for files that are not pictures.
        roles: The split that the source gives a picture (train, validation or test), by path;
            empty if the source gives none.
        reasons: Why a file has no class, by path. Files without a special reason are missing.
        empty: Classes without any file.
        used: Files that describe the pictures, such as a CSV; they are not listed as left out.
        notes: What the user should know: one sentence each.
    """

    classes: dict[str, str]
    roles: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def arrange(layout: Layout, files: Files) -> Arrangement:
    """Reads classes and given splits from the paths of files.

    Args:
        layout: Layout of the source.
        files: Files of the source.

    Raises:
        LayoutError: The source does not have this layout.
    """
    return _LAYOUTS[layout](files)


def recognise(files: Files) -> Layout:
    """The layout that a source seems to have: folders of classes, given splits, or a table.

    Args:
        files: Files of the source.

    Raises:
        LayoutError: Its folders look like given splits under other names.
    """
    arranged = _class_folders(files)
    if arranged.roles:
        return "split_folders"
    if len(set(arranged.classes.values())) < 2:  # noqa: PLR2004
        with suppress(LayoutError):
            return "csv" if _csv(files).classes else "class_folders"
    return "class_folders"


def composed(name: str) -> str:
    """A class name in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name)


def describe(files: Files) -> str:
    """Describes the files of a source in a few words, used in error messages."""
    parts = []
    packed = [name for name in files.others if _PACKED.search(name)]
    if packed:
        parts.append(f"the archive {_examples(packed)} inside it (unpack it, or set source to it)")
    tables = [name for name in files.others if name.lower().endswith(".csv")]
    if tables:
        parts.append(f"the table {_examples(tables)} (layout: csv reads labels from a CSV)")
    if not files.pictures:
        count = len(files.others)
        what = f"{count} files, none of them a picture" if count else "no files"
        return "; ".join([what, *parts])
    folders = Counter(str(PurePosixPath(name).parent) for name in files.pictures)
    where, pictures = next(iter(folders)), _examples(list(files.pictures))
    if len(folders) == 1:
        place = "without a folder" if where == "." else f"in one folder, {where}"
        counted = f"{len(files.pictures)} pictures {place} ({pictures})"
    else:
        counted = f"{len(files.pictures)} pictures in {len(folders)} folders ({pictures})"
    return "; ".join([counted, *parts])


def _class_folders(files: Files) -> Arrangement:
    """The classes are the folders on the topmost level that has more than one of them."""
    root = _root(files.pictures)
    splits = {name: _split(name) for name in _children(files.pictures, root)}
    _check_splits(root, splits, files)
    if len(splits) > 1 and all(splits.values()):
        given = _split_folders(files)
        note = (
            f"the folders {', '.join(sorted(splits))} are splits, not classes: the source "
            "is read with layout: split_folders"
        )
        return Arrangement(
            given.classes, given.roles, given.reasons, given.empty, given.used, (note, *given.notes)
        )
    return Arrangement(
        _below(root, [*files.pictures, *files.others]),
        empty=_empty(root, files),
        notes=_beside(root, files),
    )


def _check_splits(root: tuple[str, ...], folders: Mapping[str, str | None], files: Files) -> None:
    """Raises an error if some of the folders look like given splits, and others do not."""
    if all(folders.values()):
        return
    inside: dict[str, frozenset[str]] = {}
    for name in folders:
        if _LIKE_SPLIT.search(name):
            pictures, below = _inside((*root, name), files)
            inside[name] = frozenset(_children(pictures, below))
    counts = Counter(inside.values())
    alike = [name for name, held in inside.items() if len(held) > 1 and counts[held] > 1]
    if alike:
        classes = sorted(inside[alike[0]])
        raise LayoutError(
            f"the folders {', '.join(sorted(alike))} hold folders of the same names "
            f"({_examples(classes)}): they look like given splits, not classes; call them train, "
            "val or test and set layout: split_folders, or set source to one of them"
        )


def _inside(top: tuple[str, ...], files: Files) -> tuple[list[str], tuple[str, ...]]:
    """Pictures below a folder, and the folder that has their class folders."""
    pictures = [path for path in files.pictures if _parts(path)[: len(top)] == top]
    return pictures, _root(pictures, top)


def _split_folders(files: Files) -> Arrangement:
    """``train/CLASS/…``, ``val/CLASS/…`` and ``test/CLASS/…``."""
    root = _root(files.pictures)
    folders = {name: _split(name) for name in _children(files.pictures, root)}
    given = {name: split for name, split in folders.items() if split}
    if "train" not in given.values() or len(set(given.values())) < len(given):
        raise LayoutError(
            "layout: split_folders needs a folder train and a folder test or val, with "
            f"class folders in them; found {', '.join(sorted(folders)) or 'no folders'}: "
            f"{describe(files)}"
        )
    classes: dict[str, str] = {}
    roles: dict[str, str] = {}
    reasons: dict[str, str] = {}
    empty: set[str] = set()
    for name, split in given.items():
        inside, below = _inside((*root, name), files)
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
    """A table with a column of paths, a column of labels and an optional column of splits."""
    tables = [
        _read_table(name, files.read) for name in files.others if name.lower().endswith(".csv")
    ]
    fitting = [table for table in tables if {"path", "label"} <= table.columns.keys()]
    # Hugging Face's imagefolder has one table per split, all with the same name.
    same = len({PurePosixPath(table.name).name for table in fitting}) == 1
    if not fitting or (len(fitting) > 1 and not same):
        headers = "; ".join(f"{table.name} has {', '.join(table.header)}" for table in tables)
        raise LayoutError(
            "layout: csv needs one CSV with the columns path and label; "
            f"found {len(fitting)}: {headers or describe(files)}"
        )
    return _with_test(_from_tables(fitting, files))


def _caltech256(files: Files) -> Arrangement:
    """``…/NNN.name/NNN_MMMM.jpg``; other files, such as ``198.spider/RENAME2``, have no class."""
    names = [*files.pictures, *files.others]
    matches = {name: _CALTECH256.search(name) for name in names}
    return Arrangement({name: composed(match[1]) for name, match in matches.items() if match})


def _urban_tribes(files: Files) -> Arrangement:
    """No folders: the class is the part of the file name before the first underscore."""
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
"""What a source must have for each layout, in a few words."""


class _Table(NamedTuple):
    """A CSV: its name, its header, the index of each known column, and its rows."""

    name: str
    header: list[str]
    columns: dict[str, int]
    rows: list[list[str]]

    def cell(self, row: list[str], column: str) -> str:
        index = self.columns.get(column, len(row))
        return row[index].strip() if index < len(row) else ""


def _read_table(name: str, read: Callable[[str], bytes]) -> _Table:
    try:
        text = read(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LayoutError(f"{name}: is not UTF-8; save it as UTF-8") from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise LayoutError(f"{name}: line {reader.line_num}: is no CSV: {error}") from None
    header = [title.strip() for title in rows[0]] if rows else []
    titles = [title.lower() for title in header]
    columns = {
        column: next(titles.index(alias) for alias in aliases if alias in titles)
        for column, aliases in _COLUMNS.items()
        if not set(aliases).isdisjoint(titles)
    }
    return _Table(name, header, columns, rows[1:])


class _Row(NamedTuple):
    """The values of a row of a table, and the row's number in the file."""

    table: str
    number: int
    path: str
    label: str
    split: str


def _rows(table: _Table, known: dict[str, str]) -> Iterator[_Row]:
    folder = _base(table, known)
    # A table of Hugging Face is in the folder of its split.
    split_folder = next((part for part in reversed(folder.parts) if _split(part)), "")
    for number, row in enumerate(table.rows, start=2):
        path = str(folder / _relative(table.cell(row, "path")))
        split = table.cell(row, "split") or split_folder
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
                f"{row.table}: row {row.number}: split '{row.split}' is not train, val or test"
            )
        if not row.label:
            reasons[row.path] = f"has no label in {row.table}"
        elif classes.setdefault(row.path, row.label) != row.label:
            reasons[row.path] = f"has more than one label in {row.table}"
        elif role and roles.setdefault(row.path, role) != role:
            reasons[row.path] = f"is in more than one split in {row.table}"
    existing_paths = set(known.values())
    if classes and existing_paths.isdisjoint(classes):
        raise LayoutError(
            f"{tables[0].name}: no path in it exists: it lists {next(iter(classes))}, the source "
            f"has {_examples(list(files.pictures))}; paths must be relative to the CSV's folder"
        )
    classes = {path: label for path, label in classes.items() if path not in reasons}
    missing = [path for path in classes if path not in existing_paths]
    not_listed = [path for path in files.pictures if path not in classes and path not in reasons]
    reasons |= dict.fromkeys(missing, "is named in the CSV, but there is no such file")
    reasons |= dict.fromkeys(not_listed, "is named by no row of the CSV")
    notes: tuple[str, ...] = ()
    if roles and not roles.keys() >= classes.keys():
        count = len(classes.keys() - roles.keys())
        notes = (f"{count} rows of the CSV have no split: they are used as train",)
        roles = dict.fromkeys(classes, "train") | roles
    roles = {path: role for path, role in roles.items() if path in classes}
    used = frozenset(table.name for table in tables)
    return Arrangement(classes, roles, reasons, used=used, notes=notes)


def _relative(path: str) -> str:
    return path.replace("\\", "/").lstrip("/")


def _base(table: _Table, known: dict[str, str]) -> PurePosixPath:
    """The folder that a table's paths are relative to.

    It is the table's own folder, or the only folder in which one of the paths exists.
    """
    own = PurePosixPath(table.name).parent
    listed = [_relative(table.cell(row, "path")) for row in table.rows]
    folders = {PurePosixPath(name).parent for name in known}
    fitting = [
        folder
        for folder in folders
        if any(composed(str(folder / path)) in known for path in listed)
    ]
    return fitting[0] if len(fitting) == 1 and own not in fitting else own


def _with_test(given: Arrangement) -> Arrangement:
    """Uses the validation set as the test set if there is no test set.

    If only a training set is given, the source gives no splits.
    """
    roles, notes = given.roles, given.notes
    if set(roles.values()) == {"train"}:
        roles = {}
    if "test" not in roles.values() and "validation" in roles.values():
        roles = {path: {"validation": "test"}.get(role, role) for path, role in roles.items()}
        notes = (*notes, "there is no test set: the validation set is the test set")
    if roles and "train" not in roles.values():
        raise LayoutError(
            "the splits of the source have no training pictures; they need a split train"
        )
    return Arrangement(given.classes, roles, given.reasons, given.empty, given.used, notes)


def _split(name: str) -> str | None:
    match = _SPLIT.fullmatch(name)
    return match.lastgroup if match else None


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _children(pictures: Iterable[str], root: tuple[str, ...]) -> dict[str, list[int]]:
    """Subfolders of ``root`` with pictures, and the depth of each picture below its subfolder."""
    depth = len(root)
    children: dict[str, list[int]] = {}
    for name in pictures:
        parts = _parts(name)
        if parts[:depth] == root and len(parts) > depth + 1:
            children.setdefault(parts[depth], []).append(len(parts) - depth - 1)
    return children


def _root(pictures: Sequence[str], root: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The folder whose subfolders are the classes.

    The search starts at the top. It goes into a folder if that is the only one with pictures, and
    most of them are in subfolders. A folder with most of its pictures directly in it is a class.
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
    """Class name by path, for the files in subfolders of ``root``."""
    depth = len(root)
    parts = {name: _parts(name) for name in names}
    return {
        name: composed(path[depth])
        for name, path in parts.items()
        if path[:depth] == root and len(path) > depth + 1
    }


def _empty(root: tuple[str, ...], files: Files) -> frozenset[str]:
    """Subfolders of ``root`` without any file: classes without pictures."""
    depth = len(root)
    folders = {_parts(name) for name in files.folders}
    names = {path[depth] for path in folders if path[:depth] == root and len(path) > depth}
    with_files = _below(root, [*files.pictures, *files.others]).values()
    return frozenset(map(composed, names)) - set(with_files)


def _beside(root: tuple[str, ...], files: Files) -> tuple[str, ...]:
    """A sentence about the folders next to ``root`` and its parents, which hold no classes."""
    folders = {_parts(name) for name in [*files.folders]}
    not_used = sorted(
        "/".join(path)
        for path in folders
        for depth in range(len(root))
        if len(path) == depth + 1 and path[:depth] == root[:depth] and path != root[: depth + 1]
    )
    if not not_used:
        return ()
    return (f"the classes are the folders of {'/'.join(root)}; {', '.join(not_used)} is left out",)


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
