"""The changes between two versions of a dataset's splits, as a frame and as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from vgg16_transfer.images.manifests import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Manifests = Mapping[int, pd.DataFrame]

FIELDS = [column for column in COLUMNS if column != "path"]
ROLES = ["train", "validation", "test"]
NAMED = 20  # pictures to name in a line; the others are only counted


def difference(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """The differences between two manifests of the same seed.

    Args:
        before: The old manifest; see :mod:`~vgg16_transfer.images.manifests`.
        after: The new one.

    Returns:
        One row per picture that differs, sorted by ``path``. Each other column of a manifest is
        there as ``<column>_before`` and ``<column>_after``. The value is missing if the old or the
        new split does not have the picture.
    """
    both = before.astype(object).merge(
        after.astype(object),
        on="path",
        how="outer",
        suffixes=("_before", "_after"),
        indicator="side",
    )
    same = both["side"] == "both"
    for field in FIELDS:
        same &= both[f"{field}_before"] == both[f"{field}_after"]
    return both[~same].drop(columns="side").sort_values("path", ignore_index=True)


def entry(title: str, since: str | None, before: Manifests, after: Manifests) -> str:
    """An entry of CHANGES.md.

    Args:
        title: Title of the entry.
        since: Name of the old version, or None if there is none.
        before: The old manifests, by seed.
        after: The new manifests, by seed.

    Returns:
        Markdown: the changes of the dataset's pictures, and of the split of each seed.
    """
    then = f"Since {since}" if since else "The first version"
    lines = [f"## {title}", "", f"{then}: {_count(before)} → {_count(after)} pictures.", ""]
    if not since:
        lines[2] = f"{then}: {_count(after)} pictures in {len(_classes(after))} classes added."
    else:
        lines += _of_pictures(_pictures(before), _pictures(after))
    for seed in sorted(before.keys() | after.keys()):
        lines += _of_seed(seed, before.get(seed), after.get(seed))
    return "\n".join(lines) + "\n"


def same(before: Manifests, after: Manifests) -> bool:
    """Whether two versions have the same splits."""
    return before.keys() == after.keys() and all(
        difference(before[seed], after[seed]).empty for seed in before
    )


def _of_pictures(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """The changes of the dataset's pictures, independent of the seed."""
    old, new = before.index, after.index
    kept = old.intersection(new)
    then, now = before.loc[kept], after.loc[kept]
    relabelled = kept[then["class_name"] != now["class_name"]].sort_values()
    classes = (frame["class_name"].loc[relabelled] for frame in (then, now))
    labels = [map(_code, column) for column in (relabelled, *classes)]
    return [
        *_bullet("added", map(_code, new.difference(old).sort_values())),
        *_bullet("removed", map(_code, old.difference(new).sort_values())),
        *_bullet("relabelled", map("{} ({} → {})".format, *labels)),
        *_bullet("other bytes", map(_code, kept[then["sha256"] != now["sha256"]].sort_values())),
    ]


def _of_seed(seed: int, before: pd.DataFrame | None, after: pd.DataFrame | None) -> list[str]:
    if after is None:
        return [f"- seed {seed} is gone"]
    if before is None:
        return [f"- seed {seed} is new: {_sizes(after)}"]
    rows = difference(before, after)
    then, now = rows["role_before"], rows["role_after"]
    lines = []
    for role in ROLES:
        lines += _bullet(f"new in {role}", _paths(rows[then.isna() & (now == role)]))
        lines += _bullet(f"no longer in {role}", _paths(rows[now.isna() & (then == role)]))
        for other in ROLES:
            if other != role:
                moved = rows[(then == role) & (now == other)]
                lines += _bullet(f"moved from {role} to {other}", _paths(moved))
    reordered = (then == now) & (rows["rank_before"] != rows["rank_after"])
    lines += [f"- in another place of the order: {reordered.sum()}"] if reordered.any() else []
    if not lines:
        return []
    return [f"- seed {seed}: {_sizes(after)}", *(f"  {line}" for line in lines)]


def _pictures(manifests: Manifests) -> pd.DataFrame:
    """Class name and sha256 of every picture in any split, by path."""
    empty = pd.DataFrame(columns=["path", "class_name", "sha256"])
    rows = pd.concat([empty, *(manifest[empty.columns] for manifest in manifests.values())])
    return rows.drop_duplicates("path").set_index("path")


def _count(manifests: Manifests) -> int:
    return len(_pictures(manifests))


def _classes(manifests: Manifests) -> set[str]:
    return set(_pictures(manifests)["class_name"])


def _sizes(manifest: pd.DataFrame) -> str:
    counts = manifest["role"].value_counts()
    return ", ".join(f"{counts[role]} {role}" for role in ROLES if role in counts)


def _bullet(what: str, items: Iterable[str]) -> list[str]:
    """``- added, 2: `a.jpg`, `b.jpg```, or no line without items."""
    listed = list(items)
    if not listed:
        return []
    rest = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return [f"- {what}, {len(listed)}: {', '.join(listed[:NAMED])}{rest}"]


def _paths(rows: pd.DataFrame) -> Iterable[str]:
    return map(_code, rows["path"])


def _code(text: str) -> str:
    """A name as Markdown code on one line, with escapes for characters that can't be printed."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"
