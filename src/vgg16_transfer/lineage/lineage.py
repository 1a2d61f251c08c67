"""The lineage of results: split, features, code and lock entry, as DVC and git know them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dvc.exceptions import DvcException

from vgg16_transfer.lineage import dvc_private
from vgg16_transfer.lineage.locked import (
    LineageError,
    entry,
    input_digest,
    lock_digest,
    lock_entries,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

# dvc repro itself rewrites these, so that a change of them is no change of the code.
_OUTPUTS = ("dvc.lock", "results")


DATA = {
    "splits": "data/splits/",
    "features": "data/features/",
    "weights": "models/vgg16.weights.h5",
    "heads": "models/heads/",
}
"""Kinds of data that a run comes from, and their paths. The tag ``dvc.<kind>_md5`` has the md5."""


@dataclass(frozen=True)
class Lineage:
    """The origin of a stage's results.

    Attributes:
        stage: Stage name, like ``train@clipart-samples``.
        lock_digest: sha256 of the stage's entry in dvc.lock, as sorted JSON; empty while the stage
            runs.
        dependencies: md5 of each dependency, by path, as in dvc.lock.
        commit: git commit, or None outside a git repository.
        dirty: Whether tracked files differ from the commit, except for those that ``dvc repro``
            writes.
        experiment: Name of the DVC experiment, or None.
        outputs: md5 of each output, by path, as in dvc.lock.
        committed: HEAD, if its dvc.lock has all these md5s, otherwise None.
        started: Time when the stage began, in milliseconds since 1970, or None.
        ended: Time when the stage ended, in milliseconds since 1970, or None.
        replayed: Whether the results are logged later, from dvc.lock, and not by the stage itself.
        input_digest: sha256 of what goes into the stage: the same entry without its outputs.
        times: How long each trial took, by its name: the fields of
            :class:`~vgg16_transfer.heads.watching.Times`.
    """

    stage: str
    lock_digest: str
    dependencies: dict[str, str]
    commit: str | None
    dirty: bool
    experiment: str | None
    outputs: dict[str, str] = field(default_factory=dict)
    committed: str | None = None
    started: int | None = None
    ended: int | None = None
    replayed: bool = False
    input_digest: str = ""
    times: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def checkout(self) -> str | None:
        """The commands that restore code and data of the results, or None if no commit has them."""
        if self.committed:
            return f"git checkout {self.committed} && dvc checkout"
        if self.experiment:
            return f"dvc exp apply {self.experiment}"
        if self.commit and not self.dirty:
            return f"git checkout {self.commit} && dvc repro {self.stage}"
        return None

    def tags(self) -> dict[str, str]:
        """The tags of an MLflow run, by name."""
        tags = {
            "dvc.stage": self.stage,
            "dvc.input_digest": self.input_digest or None,
            "dvc.lock_digest": self.lock_digest or None,
            "dvc.exp_name": self.experiment,
            "git.commit": self.commit,
            "git.dirty": str(self.dirty).lower(),
            "checkout": self.checkout(),
            "replayed": "true" if self.replayed else None,
        }
        for path, md5 in (self.dependencies | self.outputs).items():
            for kind, place in DATA.items():
                if path.startswith(place):
                    tags[f"dvc.{kind}_md5"] = md5
        return {key: value for key, value in tags.items() if value is not None}


def starting_stage(workspace: Path, stage: str, experiment: str | None) -> Lineage:
    """The lineage of the stage that runs this process, before it has written its outputs.

    Args:
        workspace: The folder of dvc.yaml.
        stage: Stage name, as in DVC_STAGE.
        experiment: Name of the DVC experiment, or None.

    Returns:
        The lineage, without a lock digest.

    Raises:
        LineageError: dvc.yaml has no such stage, or a dependency is missing.
    """
    started = _by_dvc(workspace, stage, experiment, outputs=False)
    return replace(started, lock_digest="", committed=None)


def running_stage(workspace: Path, stage: str, experiment: str | None) -> Lineage:
    """The lineage of the stage that runs this process, after it has written its outputs.

    DVC writes the lock entry when the stage is over. This function computes the same entry now.

    Args:
        workspace: The folder of dvc.yaml.
        stage: Stage name, as in DVC_STAGE.
        experiment: Name of the DVC experiment, or None.

    Raises:
        LineageError: dvc.yaml has no such stage, or an output is missing.
    """
    return _by_dvc(workspace, stage, experiment, outputs=True)


def _by_dvc(workspace: Path, stage: str, experiment: str | None, *, outputs: bool) -> Lineage:
    """The lineage of a stage by the lock entry that DVC would make of it now."""
    name = stage.rpartition(":")[2]  # from another folder, it is like ../dvc.yaml:train@a
    try:
        entry = dvc_private.lock_entry(workspace, name, outputs=outputs)
    except DvcException as error:
        raise LineageError(f"dvc.yaml: the entry of '{name}' can't be made: {error}") from None
    return _lineage(workspace, name, entry, experiment)


def locked_stages(workspace: Path, stages: Iterable[str]) -> dict[str, Lineage]:
    """The lineages of stages that ran earlier, from dvc.lock, by stage name.

    Args:
        workspace: The folder of dvc.yaml.
        stages: Stage names, like ``train@clipart-samples``.

    Raises:
        LineageError: dvc.lock has no entry of a stage, or can't be read.
    """
    entries = lock_entries(workspace)
    return {stage: _lineage(workspace, stage, entry(entries, stage), None) for stage in stages}


def _lineage(workspace: Path, stage: str, entry: dict[str, Any], experiment: str | None) -> Lineage:
    excluded = [f":(exclude){path}" for path in _OUTPUTS]
    changes = git(workspace, "status", "--porcelain", "--untracked-files=no", "--", ".", *excluded)
    dependencies = {dep["path"]: dep["md5"] for dep in entry.get("deps", [])}
    outputs = {out["path"]: out["md5"] for out in entry.get("outs", [])}
    commit = git(workspace, "rev-parse", "HEAD") or None
    complete = commit and _holds(workspace, commit, [*dependencies.values(), *outputs.values()])
    return Lineage(
        stage=stage,
        lock_digest=lock_digest(entry),
        dependencies=dependencies,
        commit=commit,
        dirty=bool(changes),
        experiment=experiment,
        outputs=outputs,
        committed=commit if complete else None,
        input_digest=input_digest(entry),
    )


def committed(workspace: Path, md5s: Sequence[str]) -> str | None:
    """The oldest commit of any branch, tag or experiment whose dvc.lock has all given md5s.

    Args:
        workspace: The folder of dvc.yaml, in a git repository.
        md5s: md5s of files and folders. The last one should be in few commits, such as that of
            trained heads, because git searches for it.

    Returns:
        The commit, or None.
    """
    commits = git(
        workspace, "log", "--all", "--reverse", "--format=%H", f"-S{md5s[-1]}", "--", "dvc.lock"
    )
    return next((commit for commit in commits.split() if _holds(workspace, commit, md5s)), None)


def _holds(workspace: Path, commit: str, md5s: Sequence[str]) -> bool:
    """Whether a commit's dvc.lock has all md5s. It is searched as text: parsing takes a second."""
    lock = git(workspace, "show", f"{commit}:./dvc.lock")
    return bool(lock) and all(md5 in lock for md5 in md5s)


def git(workspace: Path, *arguments: str) -> str:
    """Runs git, and returns what it prints: nothing without git, or outside a repository."""
    try:
        process = subprocess.run(  # noqa: S603
            ["git", "-C", str(workspace), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return process.stdout.strip()
