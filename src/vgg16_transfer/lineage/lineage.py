"""Which split, features, code and lock entry a study's results come from: asked of DVC and git."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dvc.exceptions import DvcException

from vgg16_transfer.lineage import dvc_private
from vgg16_transfer.lineage.locked import LineageError, entry, lock_digest, lock_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

# What dvc repro itself rewrites does not make the code another one.
_OUTPUTS = ("dvc.lock", "results")


DATA = {
    "splits": "data/splits/",
    "features": "data/features/",
    "weights": "models/vgg16.weights.h5",
    "heads": "models/heads/",
}
"""What a run is made of and where that lies: the tag ``dvc.<kind>_md5`` holds its md5."""


@dataclass(frozen=True)
class Lineage:
    """Where a stage's results come from.

    Attributes:
        stage: Name of the stage, like ``train@clipart-samples``.
        lock_digest: sha256 of the stage's entry in dvc.lock, as sorted JSON.
        dependencies: md5 of what the stage read, by path, as in dvc.lock.
        commit: Of git, or None outside a git repository.
        dirty: Whether tracked files, other than what ``dvc repro`` writes, differ from the commit.
        experiment: Name of the DVC experiment, if it is one.
        outputs: md5 of what the stage wrote, by path, as in dvc.lock.
        committed: A commit whose dvc.lock has all this, if HEAD is one.
        started: When the stage began, in milliseconds, if that is known.
        ended: When it was over.
        replayed: Whether it is told from a lock file instead of by the stage itself.
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

    def checkout(self) -> str | None:
        """The commands that bring code and data back as they were, if there are any yet."""
        if self.committed:
            return f"git checkout {self.committed} && dvc checkout"
        if self.experiment:
            return f"dvc exp apply {self.experiment}"
        if self.commit and not self.dirty:
            return f"git checkout {self.commit} && dvc repro {self.stage}"
        return None

    def tags(self) -> dict[str, str]:
        """As tags of an MLflow run."""
        tags = {
            "dvc.stage": self.stage,
            "dvc.lock_digest": self.lock_digest,
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


def running_stage(workspace: Path, stage: str, experiment: str | None) -> Lineage:
    """The lineage of the stage that this process runs as, once its outputs are written.

    DVC writes the entry to dvc.lock when the stage is over; this asks it for the same entry now.

    Raises:
        LineageError: DVC does not know the stage, or an output is not there.
    """
    name = stage.rpartition(":")[2]  # seen from another folder, it is called ../dvc.yaml:train@a
    try:
        entry = dvc_private.lock_entry(workspace, name)
    except DvcException as error:
        raise LineageError(f"dvc.yaml: the entry of '{name}' can't be made: {error}") from None
    return _lineage(workspace, name, entry, experiment)


def locked_stages(workspace: Path, stages: Iterable[str]) -> dict[str, Lineage]:
    """The lineages of stages that ran before, by name, from dvc.lock.

    Raises:
        LineageError: dvc.lock has no such entry, or can't be read.
    """
    entries = lock_entries(workspace)
    return {stage: _lineage(workspace, stage, entry(entries, stage), None) for stage in stages}


def _lineage(workspace: Path, stage: str, held: dict[str, Any], experiment: str | None) -> Lineage:
    not_ours = [f":(exclude){path}" for path in _OUTPUTS]
    changes = git(workspace, "status", "--porcelain", "--untracked-files=no", "--", ".", *not_ours)
    dependencies = {dep["path"]: dep["md5"] for dep in held.get("deps", [])}
    outputs = {out["path"]: out["md5"] for out in held.get("outs", [])}
    commit = git(workspace, "rev-parse", "HEAD") or None
    there = commit and _holds(workspace, commit, [*dependencies.values(), *outputs.values()])
    return Lineage(
        stage=stage,
        lock_digest=lock_digest(held),
        dependencies=dependencies,
        commit=commit,
        dirty=bool(changes),
        experiment=experiment,
        outputs=outputs,
        committed=commit if there else None,
    )


def committed(workspace: Path, md5s: Sequence[str]) -> str | None:
    """The oldest commit of any branch, tag or experiment whose dvc.lock has all of some md5s.

    Args:
        workspace: A clone.
        md5s: Of files and folders; the last one is the rarest, such as that of trained heads.
    """
    found = git(
        workspace, "log", "--all", "--reverse", "--format=%H", f"-S{md5s[-1]}", "--", "dvc.lock"
    )
    return next((commit for commit in found.split() if _holds(workspace, commit, md5s)), None)


def _holds(workspace: Path, commit: str, md5s: Sequence[str]) -> bool:
    """Whether a commit's dvc.lock has md5s: as text, since parsing it takes most of a second."""
    lock = git(workspace, "show", f"{commit}:./dvc.lock")
    return bool(lock) and all(md5 in lock for md5 in md5s)


def git(workspace: Path, *arguments: str) -> str:
    """What git prints, or nothing where there is no git or no repository."""
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(workspace), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
