"""Whether what a remote holds is what was pushed: every byte is read, which DVC itself never does.

``dvc push`` looks at names alone, so that it neither notices a damaged object nor replaces it.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from tqdm import tqdm

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CHUNK = 1 << 20
_AT_ONCE = 4  # an SSH server takes ten sessions by default


class RemoteError(InputError):
    """A remote that can't be relied on: one sentence per object."""


@dataclass(frozen=True)
class Damage:
    """An object of a remote that is not what its name says.

    Attributes:
        path: A file of the workspace that needs it, or a folder whose list of files it is.
        place: Where it lies on the remote.
        problem: What is wrong.
        repaired: Whether the bytes of this clone's cache were put in its place.
    """

    path: str
    place: str
    problem: str
    repaired: bool


def verify_remote(workspace: Path, remote: str | None, *, repair: bool) -> tuple[int, list[Damage]]:
    """Reads everything that dvc.lock names from a remote.

    Args:
        workspace: The DVC root.
        remote: Name of the remote; the default one if None.
        repair: Whether to put this clone's bytes, where it has them, in the place of damaged ones.

    Returns:
        How many objects were read, and which are damaged or missing, by path.

    Raises:
        RemoteError: There is no such remote, or it can't be reached.
    """
    try:
        with Repo(str(workspace)) as repo:
            there = repo.cloud.get_remote_odb(remote, hash_name="md5")
            here = repo.cache.local
            tops = {
                out.hash_info.value: str(out)
                for out in repo.index.outs
                if out.use_cache and out.hash_info
            }
            bad = _bad(there, tops)
            inside = _inside(there, {oid: tops[oid] for oid in tops if oid not in bad})
            bad |= _bad(there, inside)
            names = tops | inside
            found = [
                Damage(
                    names[oid],
                    there.oid_to_path(oid),
                    problem,
                    repaired=repair and _resend(here, there, oid),
                )
                for oid, problem in bad.items()
            ]
    except (DvcException, OSError) as error:
        reason = " ".join(str(error).split())
        raise RemoteError(f"{remote or 'the default remote'}: can't be read: {reason}") from None
    return len(names), sorted(found, key=lambda damage: damage.path)


def _bad(odb: Any, oids: Iterable[str]) -> dict[str, str]:
    """What is wrong with objects, by name, for those with which something is."""
    listed = list(oids)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        problems = pool.map(lambda oid: _problem(odb, oid), listed)
        shown = tqdm(problems, total=len(listed), desc="verify", unit="object", disable=None)
        return {oid: problem for oid, problem in zip(listed, shown, strict=True) if problem}


def _problem(odb: Any, oid: str) -> str | None:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with odb.fs.open(odb.oid_to_path(oid), "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        return "is missing"
    # The list of a folder's files is called after its md5 as well, with .dir behind it.
    return None if digest.hexdigest() == oid.partition(".")[0] else "is damaged"


def _inside(odb: Any, tops: dict[str, str]) -> dict[str, str]:
    """The objects that whole lists of files name, with the files' paths."""
    files: dict[str, str] = {}
    for oid, path in tops.items():
        if oid.endswith(".dir"):
            listed = json.loads(odb.fs.cat_file(odb.oid_to_path(oid)))
            files |= {entry["md5"]: f"{path}/{entry['relpath']}" for entry in listed}
    return files


def _resend(here: Any, there: Any, oid: str) -> bool:
    """Puts the cache's copy in an object's place, if the cache has a whole one."""
    if _problem(here, oid):
        return False
    there.fs.makedirs(there.fs.parent(there.oid_to_path(oid)), exist_ok=True)
    there.fs.put_file(here.oid_to_path(oid), there.oid_to_path(oid))
    return _problem(there, oid) is None
