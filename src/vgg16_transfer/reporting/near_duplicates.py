"""Pictures that nearly equal each other across the sides of a split: what the page says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vgg16_transfer.reporting import reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

FILE = "near_duplicates.csv"
SHOWN = 20
"""So many pairs are listed before the rest is counted."""

_COLUMNS = {
    "seed": int,
    "path": str,
    "role": str,
    "near_path": str,
    "near_role": str,
    "distance": float,
}
_SIDES = {"train": "a training picture", "validation": "a validation picture"}


class NearDuplicates(NamedTuple):
    """What the page says of a dataset.

    Attributes:
        sentences: One per split.
        pairs: Rows of a table: the closest pairs first, split by split.
        rest: How many further pairs there are.
    """

    sentences: list[str]
    pairs: list[dict[str, Any]]
    rest: int


def read(folder: Path, dataset: str, seeds: Sequence[int]) -> NearDuplicates | None:
    """What was found in a dataset's splits; None if nothing was.

    Args:
        folder: Of the dataset's manifests.
        dataset: Its name.
        seeds: Of its splits.

    Raises:
        ReadError: A file is damaged, or a manifest is missing.
    """
    command = f"dvc repro splits@{dataset}"
    if not (folder / FILE).exists():
        return None
    found = reading.table(folder / FILE, _COLUMNS, command)
    if found.empty:
        return None
    sentences = []
    for seed in seeds:
        manifest = reading.table(folder / f"{seed}.csv", {"path": str, "role": str}, command)
        tests = int((manifest["role"] == "test").sum())
        sentences.append(f"Split {seed}: {_counts(found[found['seed'] == seed], tests)}.")
    ordered = found.sort_values(["seed", "distance", "path", "near_path"])
    pairs = [
        {
            "split": row["seed"],
            "picture": row["path"],
            "role": row["role"],
            "nearly equals": row["near_path"],
            "its role": row["near_role"],
            "distance": f"{row['distance']:g}",
        }
        for row in ordered.head(SHOWN).to_dict("records")
    ]
    return NearDuplicates(sentences, pairs, max(len(found) - SHOWN, 0))


def _counts(found: pd.DataFrame, tests: int) -> str:
    """How many test pictures nearly equal one of another side, whichever way a pair is listed."""
    near: dict[str, set[str]] = {side: set() for side in _SIDES}
    for row in found.to_dict("records"):
        one, two = (row["path"], row["role"]), (row["near_path"], row["near_role"])
        for (path, role), (_, other) in ((one, two), (two, one)):
            if role == "test" and other in near:
                near[other].add(path)
    parts = [
        f"{len(paths)} nearly {'equals' if len(paths) == 1 else 'equal'} {_SIDES[side]}"
        for side, paths in near.items()
        if paths
    ]
    none = "none nearly equals a training or validation picture"
    return f"of {tests} test pictures, {' and '.join(parts) or none}"
