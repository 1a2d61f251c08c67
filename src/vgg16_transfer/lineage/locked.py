"""Checks whether the outputs of stages are those that dvc.lock names.

Inside a stage, DVC has checked this already. A command that a person runs checks it here, before it
prints, logs or registers results. So each number is published with the digest of its own bytes.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from vgg16_transfer.artifacts import reading
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.lineage.dvc_private import folder_md5s

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class LineageError(InputError):
    """The origin of results can't be found."""


def check_locked(workspace: Path, stages: Iterable[str], only: str = "") -> None:
    """Compares the outputs of stages with their entries in dvc.lock.

    Args:
        workspace: The folder of dvc.yaml.
        stages: Stage names, like ``train@clipart-samples``.
        only: Compares only outputs whose path starts with this.

    Raises:
        LineageError: dvc.lock has no entry of a stage or can't be read, or an output is missing or
            differs. The message names the first file that differs.
    """
    entries = lock_entries(workspace)
    for stage in stages:
        for out in entry(entries, stage).get("outs", []):
            if out["path"].startswith(only):
                _check(workspace, stage, out)


def check_current(workspace: Path, stages: Iterable[str]) -> None:
    """Compares what stages were run with, by dvc.lock, with today's params and other stages.

    Results may be those of dvc.lock, and yet not those of params.yaml: it was edited, or one stage
    was run again alone.

    Args:
        workspace: The folder of dvc.yaml.
        stages: Stage names, like ``train@clipart-samples``.

    Raises:
        LineageError: A stage ran with other params, or with another output of another stage.
    """
    entries = lock_entries(workspace)
    files: dict[str, Any] = {}
    made = {out["path"]: out["md5"] for each in entries.values() for out in each.get("outs", [])}
    for stage in stages:
        locked = entry(entries, stage)
        for file, values in locked.get("params", {}).items():
            if file not in files:
                with reading(workspace / file, LineageError):
                    files[file] = YAML(typ="safe", pure=True).load((workspace / file).read_bytes())
            for key, value in values.items():
                if _at(files[file], key) != value:
                    raise LineageError(
                        f"{file}: {key} is not what {stage} was run with, by dvc.lock; run dvc "
                        f"repro {stage}, or undo the change"
                    )
        for dep in locked.get("deps", []):
            if made.get(dep["path"], dep["md5"]) != dep["md5"]:
                raise LineageError(
                    f"dvc.lock: {stage} was run with another {dep['path']}; run dvc repro {stage}"
                )


def _at(values: Any, key: str) -> Any:
    """The value at a dotted key, or None."""
    for name in key.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def lock_entries(workspace: Path) -> dict[str, Any]:
    """The entries of dvc.lock by stage name, or no entries if the file does not exist.

    They are not to be changed.

    Raises:
        LineageError: dvc.lock can't be read.
    """
    path = workspace / "dvc.lock"
    if not path.exists():
        return {}
    text = path.read_bytes()
    if b"\n<<<<<<< " in b"\n" + text:
        raise LineageError(
            f"{path}: has conflict markers of a git merge; choose one side with git checkout "
            "--ours dvc.lock, then run dvc repro, which updates it"
        )
    with reading(path, LineageError, mend="restore it with git checkout dvc.lock"):
        return _parsed(text)


@lru_cache(maxsize=2)
def _parsed(text: bytes) -> dict[str, Any]:
    """The entries of a text of dvc.lock. A command asks several times, and parsing takes a while.

    Raises:
        LookupError, TypeError, ValueError or YAMLError: It is not in DVC's format.
    """
    entries: dict[str, Any] = dict(YAML(typ="safe", pure=True).load(text)["stages"])
    for stage, contents in entries.items():
        for item in [*contents.get("deps", []), *contents.get("outs", [])]:
            if not (isinstance(item["path"], str) and isinstance(item["md5"], str)):
                raise TypeError(f"the entry of {stage} is not in DVC's format")
    return entries


def entry(entries: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The lock entry of a stage.

    Args:
        entries: All entries of dvc.lock, by stage name.
        stage: Stage name, like ``train@clipart-samples``.

    Raises:
        LineageError: dvc.lock has no entry of the stage.
    """
    if stage not in entries:
        raise LineageError(f"dvc.lock: has no entry for '{stage}'; run dvc repro first")
    stage_entry: dict[str, Any] = entries[stage]
    return stage_entry


def lock_digest(entry: dict[str, Any]) -> str:
    """sha256 of a lock entry as sorted JSON, so that the order of its keys does not matter."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def input_digest(entry: dict[str, Any]) -> str:
    """sha256 of what goes into a stage, by its lock entry: command, dependencies, params."""
    return lock_digest({key: entry[key] for key in ("cmd", "deps", "params") if key in entry})


def md5_of(path: Path) -> str:
    """The md5 that DVC gives to a file or folder."""
    return _md5(path)[0]


def _check(workspace: Path, stage: str, out: dict[str, Any]) -> None:
    path = workspace / out["path"]
    if not path.exists():
        raise LineageError(f"{out['path']}: is missing; run dvc pull, or dvc repro {stage}")
    md5, files = _md5(path)
    if md5 == out["md5"]:
        return
    name = _first_difference(workspace, out["md5"], files)
    raise LineageError(
        f"{out['path']}{'/' + name if name else ''}: is not what {stage} made, by dvc.lock; run "
        f"dvc repro {stage}, which makes it again, or dvc checkout {out['path']}, which restores "
        "it from the cache"
    )


def _md5(path: Path) -> tuple[str, dict[str, str]]:
    """The md5 that DVC gives to a file or folder, and the md5 of every file in the folder."""
    if not path.is_dir():
        return file_md5(path), {}
    # DVC computes it, so that only DVC defines what the md5 of a folder is.
    return folder_md5s(path)


def _first_difference(workspace: Path, md5: str, files: dict[str, str]) -> str | None:
    """The first file of a folder that differs, or None if the cache has no list of its files."""
    listing = workspace / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    if not md5.endswith(".dir") or not listing.exists():
        return None
    locked = {
        item["relpath"]: item["md5"] for item in json.loads(listing.read_text(encoding="utf-8"))
    }
    differ = {name for name in locked.keys() | files.keys() if locked.get(name) != files.get(name)}
    return min(differ, default=None)
