"""A source, read once from end to end: usable pictures, and why other files are of no use."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from tqdm import tqdm

from vgg16_transfer.images.archives import map_files
from vgg16_transfer.images.duplicates import fingerprint
from vgg16_transfer.images.ignored import passed_by
from vgg16_transfer.images.layouts import ROLES, Files, arrange, found
from vgg16_transfer.images.pictures import PictureError, decode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from vgg16_transfer.images.archives import Archive, ArchiveError
    from vgg16_transfer.params import Layout

MAX_BYTES = 1 << 30
"""A file of more bytes is not read: a picture of as many pixels as are allowed has fewer."""

LEFT_OUT_COLUMNS = ["path", "class_name", "reason"]


class Picture(NamedTuple):
    """A usable picture of a dataset.

    Attributes:
        path: In the source.
        class_name: In Unicode's composed form.
        sha256: Of its bytes.
        role: The split that the source gives it, if it gives one: train, validation or test.
        fingerprint: See :mod:`~vgg16_transfer.images.duplicates`.
    """

    path: str
    class_name: str
    sha256: str
    role: str | None = None
    fingerprint: bytes = b""


class Survey(NamedTuple):
    """What a source holds.

    Attributes:
        pictures: The usable ones, sorted by path.
        left_out: The other files: path, class_name (empty if none), reason, and kind, which is the
            reason without what differs from file to file.
        classes: Names of all classes, those without a usable picture as well.
        notes: What the user should know: one sentence each.
        found: What the source holds, in a few words.
    """

    pictures: list[Picture]
    left_out: pd.DataFrame
    classes: frozenset[str]
    notes: tuple[str, ...]
    found: str


class _Seen(NamedTuple):
    """What is known of a file's bytes: why they are no picture, or what picture they are."""

    sha256: str = ""
    reason: str | None = None
    kind: str = ""
    size: tuple[int, int] = (0, 0)
    fingerprint: bytes = b""


def survey(
    archive: Archive, layout: Layout, leave_out: Collection[str] = (), progress: str = "survey"
) -> Survey:
    """Reads every file once, but for what is passed by, and sorts out what can't be used.

    Of pictures with the same pixels one is kept, so that train and test share none: the first by
    the split that the source gives (test, validation, train), then by path.

    Args:
        archive: Where the pictures are.
        layout: How a picture's class is read from its path.
        leave_out: Classes that are not wanted, in Unicode's composed form.
        progress: Title of the progress bar.

    Raises:
        LayoutError: The source is not laid out like that.
    """
    ignored = {name: reason for name in archive.names() if (reason := passed_by(name))}
    seen = _look(archive, [name for name in archive.names() if name not in ignored], progress)
    files = Files(
        pictures=sorted(name for name, one in seen.items() if one.reason is None),
        others=sorted(name for name, one in seen.items() if one.reason is not None),
        folders=[name for name in archive.folders() if passed_by(name) is None],
        read=archive.read,
    )
    arranged = arrange(layout, files)
    left_out = [(name, "", reason, reason.partition(": ")[0]) for name, reason in ignored.items()]
    for name in sorted(seen.keys() | arranged.reasons.keys()):
        class_name = arranged.classes.get(name, "")
        if name in arranged.used or name in ignored:
            continue
        if name in seen and seen[name].reason is not None:
            left_out.append((name, class_name, str(seen[name].reason), seen[name].kind))
        elif not class_name or name not in seen:
            reason = arranged.reasons.get(name, "belongs to no class")
            left_out.append((name, class_name, reason, reason))
        elif class_name in leave_out:
            left_out.append((name, class_name, "its class is in leave_out", "class in leave_out"))
    gone = {name for name, *_ in left_out}
    pictures = [
        Picture(name, arranged.classes[name], one.sha256, arranged.roles.get(name), one.fingerprint)
        for name, one in sorted(seen.items())
        if name not in gone and name not in arranged.used
    ]
    repeated = _repeated(archive, pictures, seen)
    left_out += [
        (one.path, one.class_name, *repeated[one.path]) for one in pictures if one.path in repeated
    ]
    return Survey(
        [one for one in pictures if one.path not in repeated],
        pd.DataFrame(sorted(left_out), columns=[*LEFT_OUT_COLUMNS, "kind"]),
        frozenset(arranged.classes.values()) | arranged.empty,
        arranged.notes,
        found(files),
    )


def _look(archive: Archive, names: list[str], progress: str) -> dict[str, _Seen]:
    large = {name: archive.size(name) for name in names if archive.size(name) > MAX_BYTES}
    looked_at = [name for name in names if name not in large]
    results = tqdm(
        map_files(archive, looked_at, _inspect, on_damage=_damaged),
        total=len(looked_at),
        desc=progress,
        unit="file",
        disable=None,
    )
    seen = dict(zip(looked_at, results, strict=True))
    kind = f"holds more than {MAX_BYTES >> 30} GiB"
    seen |= {
        name: _Seen(reason=f"holds {size / 2**30:.1f} GiB, more than any picture", kind=kind)
        for name, size in large.items()
    }
    return seen


def _inspect(content: bytes) -> _Seen:
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        picture = decode(content)
    except PictureError as error:
        return _Seen(sha256, str(error), error.kind)
    return _Seen(sha256, None, "", picture.size, fingerprint(picture))


def _damaged(error: ArchiveError) -> _Seen:
    return _Seen(reason=error.problem, kind="is damaged")


def _repeated(
    archive: Archive, pictures: list[Picture], seen: dict[str, _Seen]
) -> dict[str, tuple[str, str]]:
    """Reason and kind, by path, for every picture that is the same as one that is kept."""
    ordered = sorted(pictures, key=lambda one: (ROLES.index(one.role) if one.role else 0, one.path))
    alike: dict[object, list[Picture]] = defaultdict(list)
    for one in ordered:
        # Pictures with the same pixels have the same size and fingerprint: only of those that do,
        # the pixels themselves are compared.
        alike[seen[one.path].size, one.fingerprint].append(one)
    doubtful = {
        one.path for group in alike.values() if len({p.sha256 for p in group}) > 1 for one in group
    }
    in_archive_order = [name for name in archive.names() if name in doubtful]
    pixels = dict(zip(in_archive_order, map_files(archive, in_archive_order, _pixels), strict=True))
    kept: dict[str, Picture] = {}
    repeated = {}
    for one in ordered:
        first = kept.setdefault(pixels.get(one.path, one.sha256), one)
        if first is one:
            continue
        what = "bytes" if first.sha256 == one.sha256 else "pixels"
        other = (
            "" if first.class_name == one.class_name else f" of another class ({first.class_name})"
        )
        repeated[one.path] = (
            f"has the same {what} as {first.path}{other}",
            f"has the same {what} as a picture{' of another class' if other else ' that is used'}",
        )
    return repeated


def _pixels(content: bytes) -> str:
    picture = decode(content)
    return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()


def by_kind(left_out: pd.DataFrame, named: int = 3) -> Iterable[str]:
    """One line for every kind of reason: how many files it concerns, and the first of them."""
    for kind, rows in sorted(left_out.groupby("kind"), key=lambda one: (-len(one[1]), one[0])):
        examples = ", ".join(rows["path"].head(named)) + (", …" if len(rows) > named else "")
        yield f"left out, {len(rows)}: {kind} ({examples})"
