"""The file of a trained head in the workspace, and whether it belongs to the workspace's split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads.saved import made_of

if TYPE_CHECKING:
    from pathlib import Path

    from vgg16_transfer.heads.selection import Chosen
    from vgg16_transfer.workspace import Workspace


class StaleError(InputError):
    """A head that was trained on another split than the one in the workspace."""


def head_path(workspace: Workspace, study: str, chosen: Chosen) -> Path:
    """Path of the head that training saved for a trial.

    Args:
        workspace: Paths of the workspace.
        study: Study name.
        chosen: The trial.
    """
    return workspace.heads(study) / f"{chosen.name}.keras"


def check_split(workspace: Workspace, dataset: str, study: str, chosen: Chosen) -> None:
    """Compares the split that a head was trained on with the split in the workspace.

    Args:
        workspace: Paths of the workspace.
        dataset: Dataset name.
        study: Study name.
        chosen: The trial of the head.

    Raises:
        HeadError: The head is missing or damaged.
        StaleError: The splits differ, or the workspace has no such split.
    """
    split = workspace.splits(dataset) / f"{chosen.trial.seed}.csv"
    trained_on = made_of(head_path(workspace, study, chosen)).split_md5
    if not split.exists() or file_md5(split) != trained_on:
        raise StaleError(
            f"models/heads/{study}: was trained on another split than {split} is now; "
            f"run dvc repro train@{study}"
        )
