"""Where the page has room for what only MLflow and dvc.lock know, and how it is filled in.

The page that DVC makes depends on its inputs alone, so these places are empty there; the copy that
is logged to MLflow has them filled.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def run_marker(study: str, trial: str) -> str:
    """Stands where a trial's MLflow run id belongs; a comment, which nobody sees."""
    return f"<!--run {escape(study)}/{escape(trial)}-->"  # a study's name has no slash


def lock_marker(study: str) -> str:
    """Stands where the digest of a study's entry in dvc.lock belongs."""
    return f"<!--lock {escape(study)}-->"


def with_runs(page: str, runs: Mapping[tuple[str, str], str], locks: Mapping[str, str]) -> str:
    """The page with run ids and lock digests; what it has no place for is left out.

    Args:
        page: As :func:`~vgg16_transfer.reporting.report.write_report` wrote it.
        runs: MLflow run ids by study and trial.
        locks: Digests by study.
    """
    for (study, trial), run in runs.items():
        page = page.replace(run_marker(study, trial), escape(run))
    for study, digest in locks.items():
        page = page.replace(lock_marker(study), escape(digest))
    return page
