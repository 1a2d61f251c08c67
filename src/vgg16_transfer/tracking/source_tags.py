"""The tags of a run that say who made it, and by which command."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vgg16_transfer.lineage.lineage import Lineage


def source_tags(lineage: Lineage, command: str) -> dict[str, str]:
    """The tags of a run that MLflow's UI shows in columns of their own.

    Args:
        lineage: Lineage of the results.
        command: The command that made them.
    """
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": command,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": lineage.commit,
    }
    return {key: value for key, value in tags.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a user without a name
        return "unknown"
