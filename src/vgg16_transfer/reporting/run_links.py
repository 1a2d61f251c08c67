"""Placeholders of the page for MLflow run ids and digests of dvc.lock, and filling them in.

The page made by DVC depends only on its inputs, so it has empty placeholders. They are filled in
in the copy that is logged to MLflow.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def run_marker(study: str, trial: str) -> str:
    """Placeholder for a trial's MLflow run id: an HTML comment, which is not displayed."""
    return f"<!--run {escape(study)}/{escape(trial)}-->"  # a study's name has no slash


def lock_marker(study: str) -> str:
    """Placeholder for the digest of a study's entry in dvc.lock."""
    return f"<!--lock {escape(study)}-->"


def with_runs(page: str, runs: Mapping[tuple[str, str], str], locks: Mapping[str, str]) -> str:
    """Fills in run ids and lock digests. Those without a placeholder are not used.

    Args:
        page: Page written by :func:`~vgg16_transfer.reporting.report.write_report`.
        runs: MLflow run ids by study and trial.
        locks: Digests by study.
    """
    for (study, trial), run in runs.items():
        page = page.replace(run_marker(study, trial), escape(run))
    for study, digest in locks.items():
        page = page.replace(lock_marker(study), escape(digest))
    return page
