"""When, and from which commit, a study's results were made: results/<study>.origin.json.

Git keeps it beside the numbers, so that MLflow can be told the same in a clone as where they were
made. It is no output of DVC, for those are the same whenever they are made.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from types import NoneType
from typing import TYPE_CHECKING, Any

from vgg16_transfer.artifacts import reading, replacing
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from vgg16_transfer.lineage.lineage import Lineage

_KEPT: dict[str, tuple[type, ...]] = {
    "lock_digest": (str,),
    "commit": (str, NoneType),
    "dirty": (bool,),
    "experiment": (str, NoneType),
    "started": (int, NoneType),
    "ended": (int, NoneType),
}


class OriginError(InputError):
    """A note of where results come from that can't be read."""


def remember(folder: Path, lineage: Lineage) -> None:
    """Notes where results come from; the same results made again keep their first origin.

    Args:
        folder: The study's record.
        lineage: Of the stage that made it.

    A note that can't be read is replaced: it is to cost no result.
    """
    with suppress(OriginError):
        if _noted(folder).get("lock_digest") == lineage.lock_digest:
            return
    noted = {key: getattr(lineage, key) for key in _KEPT}
    with replacing(_beside(folder)) as fresh:
        fresh.write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")


def recall(folder: Path, lineage: Lineage) -> Lineage:
    """A lineage with the time and the commit that its results were first made at, if noted.

    Raises:
        OriginError: There is a note that can't be read.
    """
    noted = _noted(folder)
    if noted.get("lock_digest") != lineage.lock_digest:
        return lineage
    return replace(lineage, **{key: noted[key] for key in _KEPT if key in noted})


def _noted(folder: Path) -> dict[str, Any]:
    path = _beside(folder)
    if not path.exists():
        return {}
    mend = f"bring it back with git checkout {path.name}, or remove it"
    with reading(path, OriginError, mend=mend):
        noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key, kinds in _KEPT.items():
            if not isinstance(noted.get(key), kinds):
                raise TypeError(f"its {key} is {noted.get(key)!r}")
        return noted


def _beside(folder: Path) -> Path:
    """Beside the record and not in it, for training replaces that folder as a whole."""
    return folder.with_name(f"{folder.name}.origin.json")
