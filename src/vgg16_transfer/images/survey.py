"""Reads every file of a source once: lists usable pictures, and why other files are left out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from tqdm import tqdm

from vgg16_transfer.images.archives import MAX_BYTES, map_files
from vgg16_transfer.images.duplicates import fingerprint
from vgg16_transfer.images.ignored import passed_by
from vgg16_transfer.images.layouts import ROLES, Files, arrange, describe
from vgg16_transfer.images.pictures import PictureError, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vgg16_transfer.images.archives import Archive, ArchiveError
    from vgg16_transfer.params import Layout

LEFT_OUT_COLUMNS = ["path", "class_name", "reason"]


class Picture(NamedTuple):
    """A usable picture of a dataset.

    Attributes:
        path: Path in the source.
        class_name: Class name in Unicode's composed form.
        sha256: Hash of the file's bytes.
        role: Split given by the source: train, validation, test, or None.
        fingerprint: Perceptual hash; see :mod:`~vgg16_transfer.images.duplicates`.
        size: Width and height in pixels, of the upright picture.
    """

    path: str
    class_name: str
    sha256: str
    role: str | None = None
    fingerprint: bytes = b""
    size: tuple[int, int] = (0, 0)


class Survey(NamedTuple):
    """Pictures and other files of a source.

    Attributes:
        pictures: Usable pictures, sorted by path.
        left_out: The other files: path, class_name (empty if none), reason, and kind, which is the
            reason without details of the file.
        classes: Names of all classes, also of classes without a usable picture.
        notes: What the user should know: one sentence each.
        contents: Description of the source in a few words.
    """

    pictures: list[Picture]
    left_out: pd.DataFrame
    classes: frozenset[str]
    notes: tuple[str, ...]
    contents: str


class _Inspected(NamedTuple):
    """Result of reading a file: why it is not a picture, or the picture's properties."""

    sha256: str = ""
    reason: str | None = None
    kind: str = ""
    size: tuple[int, int] = (0, 0)
    fingerprint: bytes = b""


def survey(
    archive: Archive,
    layout: Layout,
    not_used: Callable[[str], str | None] = lambda _: None,
    progress: str = "survey",
) -> Survey:
    """Reads every file that is not ignored once, and separates usable pictures from other files.

    One of several pictures with the same pixels is kept, so that train and test have no picture in
    common. It is the first by given split (test, validation, train), then by path.

    Args:
        archive: Archive with the pictures.
        layout: Layout of the source, which decides the class of a picture.
        not_used: Returns the key of params.yaml for which a class is left out, or None. Class names
            are in Unicode's composed form.
        progress: Title of the progress bar.

    Raises:
        LayoutError: The source does not have this layout.
    """
    ignored = {name: reason for name in archive.names() if (reason := passed_by(name))}
    inspected = _inspect_all(
        archive, [name for name in archive.names() if name not in ignored], progress
    )
    files = Files(
        pictures=sorted(name for name, file in inspected.items() if file.reason is None),
        others=sorted(name for name, file in inspected.items() if file.reason is not None),
        folders=[name for name in archive.folders() if passed_by(name) is None],
        read=archive.read,
    )
    arranged = arrange(layout, files)
    left_out = [(name, "", reason, reason.partition(": ")[0]) for name, reason in ignored.items()]
    for name in sorted(inspected.keys() | arranged.reasons.keys()):
        class_name = arranged.classes.get(name, "")
        if name in arranged.used or name in ignored:
            continue
        file = inspected.get(name)
        if file is not None and file.reason is not None:
            left_out.append((name, class_name, file.reason, file.kind))
        elif not class_name or file is None:
            reason = arranged.reasons.get(name, "belongs to no class")
            left_out.append((name, class_name, reason, reason))
        elif key := not_used(class_name):
            left_out.append((name, class_name, f"its class is {key}", f"class {key}"))
    no_pictures = {name for name, *_ in left_out} | arranged.used
    pictures = [
        Picture(
            name,
            arranged.classes[name],
            file.sha256,
            arranged.roles.get(name),
            file.fingerprint,
            file.size,
        )
        for name, file in sorted(inspected.items())
        if name not in no_pictures
    ]
    copies = _copies(archive, pictures)
    left_out += [
        (picture.path, picture.class_name, *copies[picture.path])
        for picture in pictures
        if picture.path in copies
    ]
    return Survey(
        [picture for picture in pictures if picture.path not in copies],
        pd.DataFrame(sorted(left_out), columns=[*LEFT_OUT_COLUMNS, "kind"]),
        frozenset(arranged.classes.values()) | arranged.empty,
        arranged.notes,
        describe(files),
    )


def _inspect_all(archive: Archive, names: list[str], progress: str) -> dict[str, _Inspected]:
    large = {name: archive.size(name) for name in names if archive.size(name) > MAX_BYTES}
    to_read = [name for name in names if name not in large]
    results = tqdm(
        map_files(archive, to_read, _inspect, on_damage=_damaged),
        total=len(to_read),
        desc=progress,
        unit="file",
        disable=None,
    )
    inspected = dict(zip(to_read, results, strict=True))
    kind = f"holds more than {MAX_BYTES / 1e6:.0f} MB"
    inspected |= {
        name: _Inspected(reason=f"holds {size / 1e6:,.0f} MB, more than any picture", kind=kind)
        for name, size in large.items()
    }
    return inspected


def _inspect(content: bytes) -> _Inspected:
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        picture = decode(content)
    except PictureError as error:
        return _Inspected(sha256, str(error), error.kind)
    return _Inspected(sha256, None, "", picture.size, fingerprint(picture))


def _damaged(error: ArchiveError) -> _Inspected:
    return _Inspected(reason=error.problem, kind="is damaged")


def _copies(archive: Archive, pictures: list[Picture]) -> dict[str, tuple[str, str]]:
    """Reason and kind, by path, for every picture that equals a picture that is kept."""
    ordered = sorted(
        pictures,
        key=lambda picture: (ROLES.index(picture.role) if picture.role else 0, picture.path),
    )
    candidates: dict[object, list[Picture]] = defaultdict(list)
    for picture in ordered:
        # Equal pixels have equal size and fingerprint. Pixels are compared only in that case.
        candidates[picture.size, picture.fingerprint].append(picture)
    to_compare = {
        picture.path
        for group in candidates.values()
        if len({picture.sha256 for picture in group}) > 1
        for picture in group
    }
    in_archive_order = [name for name in archive.names() if name in to_compare]
    pixels = dict(zip(in_archive_order, map_files(archive, in_archive_order, _pixels), strict=True))
    kept: dict[str, Picture] = {}
    copies = {}
    for picture in ordered:
        first = kept.setdefault(pixels.get(picture.path, picture.sha256), picture)
        if first is picture:
            continue
        what = "bytes" if first.sha256 == picture.sha256 else "pixels"
        is_same = first.class_name == picture.class_name
        other = "" if is_same else f" of another class ({first.class_name})"
        copies[picture.path] = (
            f"has the same {what} as {first.path}{other}",
            f"has the same {what} as a picture{' of another class' if other else ' that is used'}",
        )
    return copies


def _pixels(content: bytes) -> str:
    picture = decode(content)
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def by_kind(left_out: pd.DataFrame, named: int = 3) -> Iterable[str]:
    """One line for every kind of reason: the number of files, and the first of them."""
    by_count = sorted(left_out.groupby("kind"), key=lambda group: (-len(group[1]), group[0]))
    for kind, rows in by_count:
        examples = ", ".join(rows["path"].head(named)) + (", …" if len(rows) > named else "")
        yield f"left out, {len(rows)}: {kind} ({examples})"
