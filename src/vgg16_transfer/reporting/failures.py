"""Trials that failed: they are counted and named, and none of their numbers is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vgg16_transfer.heads.records import has_failed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def finished(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that did not fail; trials as in ``trials.csv``."""
    return trials[~has_failed(trials)]


def sentences(trials: pd.DataFrame) -> list[str]:
    """What happened to each trial that failed, with its name."""
    failed = trials[has_failed(trials)]
    return [f"{row['trial']}: {row['failure']}" for row in failed.to_dict("records")]


def mark(row: Mapping[Any, Any]) -> str:
    """How many trials of a point failed, like ``failed: 1 of 3 trials``; empty if none did.

    Args:
        row: Of :func:`~vgg16_transfer.heads.records.summarise`.
    """
    failed = int(row.get("failed", 0))
    return marked(failed, failed + int(row["seeds"])) if failed else ""


def marked(failed: int, trials: int) -> str:
    """The words of :func:`mark`."""
    return f"failed: {failed} of {trials} {'trial' if trials == 1 else 'trials'}"
