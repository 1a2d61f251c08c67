"""Failed trials: they are counted and listed by name, and their numbers are not used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vgg16_transfer.heads.records import has_failed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``trials.csv`` of the trials that did not fail."""
    return trials[~has_failed(trials)]


def sentences(trials: pd.DataFrame) -> list[str]:
    """Name and error of each failed trial."""
    failed = trials[has_failed(trials)]
    return [f"{row['trial']}: {row['failure']}" for row in failed.to_dict("records")]


def mark(row: Mapping[Any, Any]) -> str:
    """Text such as ``failed: 1 of 3 trials`` for a point; empty if no trial failed.

    Args:
        row: A row of :func:`~vgg16_transfer.heads.records.summarise`.
    """
    failed = int(row.get("failed", 0))
    return marked(failed, failed + int(row["seeds"])) if failed else ""


def marked(failed: int, trials: int) -> str:
    """The text of :func:`mark`, from the numbers of failed and of all trials."""
    return f"failed: {failed} of {trials} {'trial' if trials == 1 else 'trials'}"
