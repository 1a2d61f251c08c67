"""Notes in files which lock entries were logged to which store, because asking MLflow is slow.

The notes are in the folder of the workspace's own artifacts, so that they are removed with them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.lineage.locked import entry, lock_digest, lock_entries

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vgg16_transfer.lineage.lineage import Lineage

_NOTES = "mlartifacts/.logged"


def note(workspace: Path, store: str | None, origin: Lineage) -> None:
    """Notes that a stage was logged, so that ``publish --if-new`` need not ask MLflow.

    Args:
        workspace: The folder of dvc.yaml.
        store: Address of the MLflow store; None or '' for the workspace's own store.
        origin: Lineage of the stage.
    """
    with replacing(workspace / _NOTES / origin.stage) as fresh:
        fresh.write_text(_noted(store, origin.lock_digest), encoding="utf-8")


def is_noted(workspace: Path, store: str | None, stages: Iterable[str]) -> bool:
    """Whether the current lock entries of stages were logged to a store.

    Args:
        workspace: The folder of dvc.yaml.
        store: Address of the MLflow store; None or '' for the workspace's own store.
        stages: Stage names, like ``train@clipart-samples``.

    Raises:
        LineageError: dvc.lock has no entry of a stage, or can't be read.
    """
    entries = lock_entries(workspace)
    for stage in stages:
        path = workspace / _NOTES / stage
        digest = lock_digest(entry(entries, stage))
        if not path.is_file() or path.read_text(encoding="utf-8") != _noted(store, digest):
            return False
    return True


def _noted(store: str | None, digest: str) -> str:
    """The text of a note: a digest, because the address of a store may hold a password."""
    return hashlib.sha256(f"{digest} {store or ''}".encode()).hexdigest() + "\n"
