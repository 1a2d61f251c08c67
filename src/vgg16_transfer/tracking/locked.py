"""Whether files are what dvc.lock says their stage made.

Within a stage DVC has looked already. A command that a person runs looks here, before it prints,
logs or registers what it read: a number goes out only under the digest of the bytes it came from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dvc_data.hashfile.build import build
from dvc_data.hashfile.db import HashFileDB
from dvc_objects.fs.local import LocalFileSystem

from vgg16_transfer.hashing import file_md5
from vgg16_transfer.tracking.lineage import LineageError, entry, lock_entries

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


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
    # DVC's own, so that what is a folder's md5 is said in one place; nothing is written there.
    files = LocalFileSystem()
    _, _, tree = build(HashFileDB(files, str(path)), str(path), files, "md5", dry_run=True)
    return tree.hash_info.value, {"/".join(key): info.value for key, _, info in tree}


def _first_difference(workspace: Path, md5: str, files: dict[str, str]) -> str | None:
    """The first file of a folder that is another one, if the cache lists what it held."""
    listing = workspace / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    if not md5.endswith(".dir") or not listing.exists():
        return None
    held = {one["relpath"]: one["md5"] for one in json.loads(listing.read_text(encoding="utf-8"))}
    differ = {name for name in held.keys() | files.keys() if held.get(name) != files.get(name)}
    return min(differ, default=None)
