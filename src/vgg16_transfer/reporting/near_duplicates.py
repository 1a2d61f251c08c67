"""Near-duplicates on different sides of a split: sentences and table rows for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vgg16_transfer.reporting import reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

FILE = "near_duplicates.csv"
SHOWN = 20
"""Largest number of pairs that the table lists; the rest is counted."""

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
    """Near-duplicates of a dataset.

    Attributes:
        sentences: One sentence per split.
        pairs: Table rows, sorted by split, then by distance.
        rest: Number of pairs that are not in the table.
    """

    sentences: list[str]
    pairs: list[dict[str, Any]]
    rest: int


def read(folder: Path, dataset: str, seeds: Sequence[int]) -> NearDuplicates | None:
    """Reads the near-duplicates of a dataset's splits; None if there are none.

    Args:
        folder: Folder of the dataset's manifests.
        dataset: Name of the dataset.
        seeds: Seeds of its splits.

    Raises:
        ReadError: A file is damaged, or a manifest is missing.
    """
    command = f"dvc repro splits@{dataset}"
    if not (folder / FILE).exists():
        return None
    frame = reading.table(folder / FILE, _COLUMNS, command)
    if frame.empty:
        return None
    sentences = []
    for seed in seeds:
        manifest = reading.table(folder / f"{seed}.csv", {"path": str, "role": str}, command)
        tests = int((manifest["role"] == "test").sum())
        sentences.append(f"Split {seed}: {_counts(frame[frame['seed'] == seed], tests)}.")
    ordered = frame.sort_values(["seed", "distance", "path", "near_path"])
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
    return NearDuplicates(sentences, pairs, max(len(frame) - SHOWN, 0))


def _counts(pairs: pd.DataFrame, tests: int) -> str:
    """Says how many test pictures nearly equal a picture of another side.

    The test picture may be the first or the second of a pair.
    """
    near: dict[str, set[str]] = {side: set() for side in _SIDES}
    for row in pairs.to_dict("records"):
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
