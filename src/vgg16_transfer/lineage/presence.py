"""What of a run the workspace has: its lock entry, its split, its features, its heads."""

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
    """One thing that a run comes from.

    Attributes:
        what: Such as ``splits``.
        value: Its digest, commit or name.
        where: Whether the workspace has it, and if not, what to do; or nothing.
    """

    what: str
    value: str
    where: str


def facts(workspace: Path, tags: Mapping[str, str]) -> list[Fact]:
    """Where a run comes from, and what of it the workspace has.

    Args:
        workspace: The folder of dvc.yaml.
        tags: Of the run.

    Raises:
        LineageError: The run was not told of by this project, or the workspace is none of DVC's.
    """
    if "dvc.lock_digest" not in tags:
        raise LineageError("the run has no tag dvc.lock_digest: it is not one of a DVC stage")
    stage = tags["dvc.stage"]
    holding = _commit(workspace, tags)
    head = git(workspace, "rev-parse", "HEAD")
    commit = tags.get("git.commit", "none")
    dirty = " with changes that were not committed" if tags.get("git.dirty") == "true" else ""
    known = bool(git(workspace, "cat-file", "-t", commit))
    found = [
        Fact("stage", stage, ""),
        Fact("experiment", tags.get("dvc.exp_name", ""), ""),
        Fact("trained at", commit + dirty, _commit_is(commit, head, known=known)),
        Fact("lock entry", tags["dvc.lock_digest"], _entry_is(workspace, stage, tags, holding)),
        *_data(workspace, stage, tags),
    ]
    back = f"git checkout {holding} && dvc checkout" if holding else tags.get("checkout", "")
    wanted = "commit dvc.lock, or there is no way back to it"
    found.append(Fact("get it back", back or "no commit has it yet", "" if back else wanted))
    return [fact for fact in found if fact.value]


def _commit(workspace: Path, tags: Mapping[str, str]) -> str | None:
    md5s = [tags[f"dvc.{kind}_md5"] for kind in DATA if f"dvc.{kind}_md5" in tags]
    return committed(workspace, md5s) if md5s else None


def _commit_is(commit: str, head: str, *, known: bool) -> str:
    if commit == head:
        return "checked out"
    return "in this repository" if known else "not here: git fetch"


def _entry_is(workspace: Path, stage: str, tags: Mapping[str, str], holding: str | None) -> str:
    try:
        now = locked_stages(workspace, [stage])[stage].lock_digest
    except LineageError:
        now = ""
    if now == tags["dvc.lock_digest"]:
        return "in this dvc.lock"
    return f"in dvc.lock of {holding[:12]}" if holding else "in no dvc.lock that git knows here"


def _data(workspace: Path, stage: str, tags: Mapping[str, str]) -> Iterator[Fact]:
    try:
        with Repo(str(workspace)) as repo:
            name = stage.partition("@")[2]
            for kind, place in DATA.items():
                md5 = tags.get(f"dvc.{kind}_md5")
                if md5 is None:
                    continue
                outs = [out for out in dvc_private.outputs(repo) if out.path.startswith(place)]
                near = [out for out in outs if kind != "heads" or out.path == f"{place}{name}"]
                states = [_state(out, md5) for out in near] or [GONE]
                best = min(states, key=[HERE, CACHED, GONE].index)
                yield Fact(kind, md5, best)
    except DvcException as error:
        raise LineageError(f"{workspace}: DVC can't be asked: {error}") from None


def _state(out: Output, md5: str) -> str:
    """Whether an output of the workspace, or the cache, is what a run had."""
    if out.in_workspace(md5):
        return HERE
    return CACHED if out.in_cache(md5) else GONE
