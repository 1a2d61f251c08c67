"""Checks whether a remote still holds what was pushed. It reads every byte.

``dvc push`` compares names only. It neither notices a damaged object nor replaces it.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvc.exceptions import DvcException
from dvc.repo import Repo
from tqdm import tqdm

from vgg16_transfer.errors import InputError
from vgg16_transfer.lineage import dvc_private

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from vgg16_transfer.lineage.dvc_private import ObjectStore

_AT_ONCE = 4  # an SSH server takes ten sessions by default


class RemoteError(InputError):
    """A remote that can't be read or has damaged objects: one sentence per object."""


@dataclass(frozen=True)
class Damage:
    """An object of a remote that is missing, or whose bytes do not have the md5 in its name.

    Attributes:
        path: Path in the workspace of the file, or of the folder whose list of files it is.
        place: Its location on the remote.
        problem: ``is missing`` or ``is damaged``.
        repaired: Whether it was replaced by the copy in this clone's cache.
    """

    path: str
    place: str
    problem: str
    repaired: bool


def verify_remote(workspace: Path, remote: str | None, *, repair: bool) -> tuple[int, list[Damage]]:
    """Reads every object of a remote that dvc.lock names.

    Args:
        workspace: The DVC root.
        remote: Name of the remote, or None for the default one.
        repair: Whether to replace damaged and missing objects by the copies in this clone's cache.

    Returns:
        The number of objects, and those that are damaged or missing, sorted by path.

    Raises:
        RemoteError: There is no such remote, or it can't be reached.
    """
    try:
        with Repo(str(workspace)) as repo:
            objects = dvc_private.remote(repo, remote)
            cache = dvc_private.cache(repo)
            outputs = dvc_private.cached_outputs(repo)
            problems = _problems(objects, outputs)
            sound = {oid: path for oid, path in outputs.items() if oid not in problems}
            files = _files(objects, sound)
            problems |= _problems(objects, files)
            paths = outputs | files
            damages = [
                Damage(
                    paths[oid],
                    objects.location(oid),
                    problem,
                    repaired=repair and _repair(objects, cache, oid),
                )
                for oid, problem in problems.items()
            ]
    except (DvcException, OSError) as error:
        reason = " ".join(str(error).split())
        raise RemoteError(f"{remote or 'the default remote'}: can't be read: {reason}") from None
    return len(paths), sorted(damages, key=lambda damage: damage.path)


def _problems(objects: ObjectStore, oids: Iterable[str]) -> dict[str, str]:
    """Reads objects and says what is wrong with those that are missing or damaged, by name."""
    names = list(oids)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = pool.map(lambda oid: _problem(objects, oid), names)
        bar = tqdm(results, total=len(names), desc="verify", unit="object", disable=None)
        return {oid: problem for oid, problem in zip(names, bar, strict=True) if problem}


def _problem(objects: ObjectStore, oid: str) -> str | None:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        for chunk in objects.chunks(oid):
            digest.update(chunk)
    except FileNotFoundError:
        return "is missing"
    # A folder's list of files is named after its own md5 as well, with .dir appended.
    return None if digest.hexdigest() == oid.partition(".")[0] else "is damaged"


def _files(objects: ObjectStore, outputs: dict[str, str]) -> dict[str, str]:
    """The objects of all files in folders: path in the workspace, by name of the object.

    Args:
        objects: The remote.
        outputs: Path by name of the object. The lists of all folders among them are undamaged.
    """
    return {
        md5: f"{folder}/{path}"
        for oid, folder in outputs.items()
        if oid.endswith(".dir")
        for md5, path in objects.files(oid).items()
    }


def _repair(objects: ObjectStore, cache: ObjectStore, oid: str) -> bool:
    """Replaces an object by the cache's copy, if the cache has an undamaged one."""
    if _problem(cache, oid):
        return False
    objects.upload(oid, cache)
    return _problem(objects, oid) is None
