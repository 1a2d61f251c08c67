"""Stores when, and at which commit, a study's results were made: results/<study>.origin.json.

The file is in git, beside the numbers. So a clone logs the same times and commit to MLflow as the
original workspace. It is not an output of DVC, because outputs must not depend on the time. The
times of each trial are in it too, one line per trial.

The same results made again keep their first origin. On another kind of CPU, the last bits of
features differ, so that dvc.lock changes. Results in git have fewer digits; where they are the
same, so is this file.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import replace
from types import NoneType
from typing import TYPE_CHECKING, Any

from vgg16_transfer.artifacts import reading, replacing
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5

if TYPE_CHECKING:
    from collections.abc import Mapping
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

_RESULTS = "results_md5"

_DIGITS = 4  # of seconds and of pictures per second


class OriginError(InputError):
    """The origin file of a study can't be read."""


def remember(folder: Path, lineage: Lineage) -> None:
    """Writes the origin file of a study, unless it has the origin of the same results.

    An origin file that can't be read is replaced, so that it costs no result.

    Args:
        folder: Folder of the study's record.
        lineage: Lineage of the stage that made the record.
    """
    with suppress(OriginError):
        if _is_of(_noted(folder), folder, lineage):
            return
    noted = {key: getattr(lineage, key) for key in _KEPT} | {_RESULTS: _results_md5(folder)}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in noted.items()]
    if lineage.times:
        rows = (f"    {json.dumps(name)}: {json.dumps(t)}" for name, t in lineage.times.items())
        lines.append('  "times": {\n' + ",\n".join(rows) + "\n  }")
    with replacing(_path(folder)) as fresh:
        fresh.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def rounded(times: Mapping[str, float]) -> dict[str, float]:
    """The times of a trial, with as many digits as the file has."""
    return {key: round(value, _DIGITS) for key, value in times.items()}


def recall(folder: Path, lineage: Lineage) -> Lineage:
    """A lineage with the time and commit of the first origin of its results, if the file has them.

    Args:
        folder: Folder of the study's record.
        lineage: Lineage of the record, from dvc.lock.

    Raises:
        OriginError: The origin file exists but can't be read.
    """
    noted = _noted(folder)
    if not _is_of(noted, folder, lineage):
        return lineage
    noted["lock_digest"] = lineage.lock_digest
    return replace(
        lineage, **{key: noted[key] for key in _KEPT if key in noted}, times=noted.get("times", {})
    )


def _is_of(noted: Mapping[str, Any], folder: Path, lineage: Lineage) -> bool:
    """Whether an origin is that of a lock entry, or of the same results."""
    if noted.get("lock_digest") == lineage.lock_digest:
        return True
    results = _results_md5(folder)
    return results is not None and noted.get(_RESULTS) == results


def _results_md5(folder: Path) -> str | None:
    """The md5 of what git has of a study's results, or None if a file is missing."""
    from vgg16_transfer.heads.records import ACCURACIES, METRICS  # noqa: PLC0415 - imports pandas

    try:
        md5s = [file_md5(folder / name) for name in (METRICS, ACCURACIES)]
    except OSError:
        return None
    return hashlib.md5("".join(md5s).encode(), usedforsecurity=False).hexdigest()


def _noted(folder: Path) -> dict[str, Any]:
    path = _path(folder)
    if not path.exists():
        return {}
    mend = f"restore it with git checkout {path.parent.name}/{path.name}, or remove it"
    with reading(path, OriginError, mend=mend):
        noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key, kinds in _KEPT.items():
            if not isinstance(noted.get(key), kinds):
                raise TypeError(f"{key} is {noted.get(key)!r}")
        for name, times in noted.get("times", {}).items():
            if not all(isinstance(value, (int, float)) for value in times.values()):
                raise TypeError(f"the times of {name} are {times!r}")
        return noted


def _path(folder: Path) -> Path:
    """Path of the origin file. It is not in the record's folder, because training replaces that."""
    return folder.with_name(f"{folder.name}.origin.json")
