"""Whether files are what dvc.lock says their stage made.

Within a stage DVC has looked already. A command that a person runs looks here, before it prints,
logs or registers what it read: a number goes out only under the digest of the bytes it came from.
"""

from __future__ import annotations

import hashlib
import json
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
    """Results whose origin can't be told."""


def check_locked(workspace: Path, stages: Iterable[str], only: str = "") -> None:
    """Compares what stages made with their entries in dvc.lock.

    Args:
        workspace: The folder of dvc.yaml.
        stages: Like ``train@clipart-samples``.
        only: Looks at outputs whose path begins so.

    Raises:
        LineageError: dvc.lock lacks an entry or can't be read, or an output is missing or another
            one; the sentence names the first file that is.
    """
    entries = lock_entries(workspace)
    for stage in stages:
        for out in entry(entries, stage).get("outs", []):
            if out["path"].startswith(only):
                _check(workspace, stage, out)


def lock_entries(workspace: Path) -> dict[str, Any]:
    """The entries of dvc.lock by stage; none if there is no such file.

    Raises:
        LineageError: It can't be read.
    """
    path = workspace / "dvc.lock"
    if not path.exists():
        return {}
    text = path.read_bytes()
    if b"\n<<<<<<< " in b"\n" + text:
        raise LineageError(
            f"{path}: holds the marks of a merge that git could not finish; take one side with git "
            "checkout --ours dvc.lock, then run dvc repro, which brings it up to date"
        )
    with reading(path, LineageError, mend="bring it back with git checkout dvc.lock"):
        entries: dict[str, Any] = dict(YAML(typ="safe", pure=True).load(text)["stages"])
        for stage, held in entries.items():
            for one in [*held.get("deps", []), *held.get("outs", [])]:
                if not (isinstance(one["path"], str) and isinstance(one["md5"], str)):
                    raise TypeError(f"the entry of {stage} is none of DVC's")
        return entries


def entry(entries: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The entry of a stage.

    Raises:
        LineageError: There is none.
    """
    if stage not in entries:
        raise LineageError(f"dvc.lock: has no entry for '{stage}'; run dvc repro first")
    found: dict[str, Any] = entries[stage]
    return found


def lock_digest(entry: dict[str, Any]) -> str:
    """sha256 of a lock entry as sorted JSON: the same whether DVC or YAML handed it over."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def md5_of(path: Path) -> str:
    """What DVC knows a file or folder by."""
    return _md5(path)[0]


def _check(workspace: Path, stage: str, out: dict[str, Any]) -> None:
    path = workspace / out["path"]
    if not path.exists():
        raise LineageError(f"{out['path']}: is missing; run dvc pull, or dvc repro {stage}")
    found, files = _md5(path)
    if found == out["md5"]:
        return
    name = _first_difference(workspace, out["md5"], files)
    raise LineageError(
        f"{out['path']}{'/' + name if name else ''}: is not what {stage} made, by dvc.lock; run "
        f"dvc repro {stage}, which makes it again, or dvc checkout {out['path']}, which brings it "
        "back from the cache"
    )


def _md5(path: Path) -> tuple[str, dict[str, str]]:
    """What DVC knows a file or folder by, and the md5 of every file in a folder."""
    if not path.is_dir():
        return file_md5(path), {}
    # DVC computes it, so that only DVC defines what the md5 of a folder is.
    return folder_md5s(path)


def _first_difference(workspace: Path, md5: str, files: dict[str, str]) -> str | None:
    """The first file of a folder that is another one, if the cache lists what it held."""
    listing = workspace / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    if not md5.endswith(".dir") or not listing.exists():
        return None
    held = {one["relpath"]: one["md5"] for one in json.loads(listing.read_text(encoding="utf-8"))}
    differ = {name for name in held.keys() | files.keys() if held.get(name) != files.get(name)}
    return min(differ, default=None)
