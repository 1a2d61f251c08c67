"""Finds which parts of a run's origin the workspace has: lock entry, split, features, heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dvc.exceptions import DvcException
from dvc.repo import Repo

from vgg16_transfer.lineage import dvc_private
from vgg16_transfer.lineage.lineage import DATA, committed, git, locked_stages
from vgg16_transfer.lineage.locked import LineageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from vgg16_transfer.lineage.dvc_private import Output

HERE = "in the workspace"
CACHED = "in DVC's cache: dvc checkout"
GONE = "not here: dvc pull"


class Fact(NamedTuple):
    """One part of a run's origin.

    Attributes:
        what: Name of the part, such as ``splits``.
        value: Digest, commit or name.
        where: Whether the workspace has it, or the command that gets it. May be empty.
    """

    what: str
    value: str
    where: str


def facts(workspace: Path, tags: Mapping[str, str]) -> list[Fact]:
    """The origin of a run, and which parts of it the workspace has.

    Args:
        workspace: The folder of dvc.yaml.
        tags: Tags of the run.

    Raises:
        LineageError: The run was not logged by this project, or the workspace is not one of DVC.
    """
    if "dvc.lock_digest" not in tags:
        raise LineageError("the run has no tag dvc.lock_digest: it was not logged by a DVC stage")
    stage = tags["dvc.stage"]
    holder = _commit(workspace, tags)
    head = git(workspace, "rev-parse", "HEAD")
    commit = tags.get("git.commit", "none")
    dirty = " with changes that were not committed" if tags.get("git.dirty") == "true" else ""
    exists = bool(git(workspace, "cat-file", "-t", commit))
    parts = [
        Fact("stage", stage, ""),
        Fact("experiment", tags.get("dvc.exp_name", ""), ""),
        Fact("trained at", commit + dirty, _commit_is(commit, head, exists=exists)),
        Fact(
            "lock entry",
            tags["dvc.lock_digest"],
            _entry_is(workspace, stage, tags, holder),
        ),
        *_data(workspace, stage, tags),
    ]
    restore = tags.get("checkout", "")
    if holder:
        restore = f"git checkout {holder} && dvc checkout"
    if restore:
        # DVC keeps no copy of a local source.
        again = "this trains again, on what the source holds then" if "repro" in restore else ""
        parts.append(Fact("get it back", restore, again))
    else:
        remedy = "commit dvc.lock, otherwise it can't be restored"
        parts.append(Fact("get it back", "no commit has it yet", remedy))
    return [fact for fact in parts if fact.value]


def _commit(workspace: Path, tags: Mapping[str, str]) -> str | None:
    md5s = [tags[f"dvc.{kind}_md5"] for kind in DATA if f"dvc.{kind}_md5" in tags]
    return committed(workspace, md5s) if md5s else None


def _commit_is(commit: str, head: str, *, exists: bool) -> str:
    if commit == head:
        return "checked out"
    return "in this repository" if exists else "not here: git fetch"


def _entry_is(workspace: Path, stage: str, tags: Mapping[str, str], commit: str | None) -> str:
    try:
        now = locked_stages(workspace, [stage])[stage].lock_digest
    except LineageError:
        now = ""
    if now == tags["dvc.lock_digest"]:
        return "in this dvc.lock"
    return f"in dvc.lock of {commit[:12]}" if commit else "in no dvc.lock of this git repository"


def _data(workspace: Path, stage: str, tags: Mapping[str, str]) -> Iterator[Fact]:
    try:
        with Repo(str(workspace)) as repo:
            name = stage.partition("@")[2]
            for kind, place in DATA.items():
                md5 = tags.get(f"dvc.{kind}_md5")
                if md5 is None:
                    continue
                outs = [out for out in dvc_private.outputs(repo) if out.path.startswith(place)]
                matching = [out for out in outs if kind != "heads" or out.path == f"{place}{name}"]
                states = [_state(out, md5) for out in matching] or [GONE]
                best = min(states, key=[HERE, CACHED, GONE].index)
                yield Fact(kind, md5, best)
    except DvcException as error:
        raise LineageError(f"{workspace}: DVC can't read it: {error}") from None


def _state(out: Output, md5: str) -> str:
    """Whether the workspace or the cache has the bytes of a run's output."""
    if out.in_workspace(md5):
        return HERE
    return CACHED if out.in_cache(md5) else GONE
