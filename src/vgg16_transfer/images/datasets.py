"""How class names are read from paths, layout by layout.

A layout maps the paths of an archive to class names; a path that is no picture of a class maps to
None and is left alone.
"""

from __future__ import annotations

import os.path
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from vgg16_transfer.images.pictures import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vgg16_transfer.params import Layout

_CALTECH256 = re.compile(r"(?:^|/)((\d{3})\.[^/]+)/\2_\d{4}\.jpg$")


def class_names(layout: Layout, names: Iterable[str]) -> dict[str, str]:
    """The class of every picture of an archive.

    Args:
        layout: How the archive is laid out.
        names: Names of the archive's files.

    Returns:
        Class name by file name, in sorted order of file names.
    """
    return _LAYOUTS[layout](sorted(filter(_is_picture, names)))


def _class_folders(names: list[str]) -> dict[str, str]:
    """The first folder in which the paths differ is the class; folders below it do not matter."""
    folders = [str(PurePosixPath(name).parent) for name in names]
    root = os.path.commonpath(folders) if folders else ""
    classes = {}
    for name in names:
        parts = PurePosixPath(name).relative_to(root).parts
        if len(parts) > 1:
            classes[name] = parts[0]
    return classes


def _caltech256(names: list[str]) -> dict[str, str]:
    """``…/NNN.name/NNN_MMMM.jpg``; strays such as ``198.spider/RENAME2`` do not match."""
    matches = {name: _CALTECH256.search(name) for name in names}
    return {name: match[1] for name, match in matches.items() if match}


def _urban_tribes(names: list[str]) -> dict[str, str]:
    """Flat: the class is what stands before the first underscore of the file's name."""
    stems = {name: PurePosixPath(name).stem for name in names}
    return {name: stem.split("_", 1)[0] for name, stem in stems.items() if "_" in stem}


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    # macOS adds a "._x.jpg" of metadata beside every x.jpg in the archives that it makes.
    return path.suffix.lower() in SUFFIXES and not path.name.startswith("._")


_LAYOUTS: dict[str, Callable[[list[str]], dict[str, str]]] = {
    "class_folders": _class_folders,
    "caltech256": _caltech256,
    "urban_tribes": _urban_tribes,
}
