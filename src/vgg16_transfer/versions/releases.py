"""Versions of a dataset's splits: which were released, and what an old one held.

A version is an annotated tag ``<dataset>-v<number>`` of git; its bytes are DVC's.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dvc.exceptions import DvcException

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.errors import InputError
from vgg16_transfer.images.manifests import manifest_paths, read_manifests
from vgg16_transfer.lineage import dvc_private

if TYPE_CHECKING:
    import pandas as pd

_TITLE = """# Changes

Every released version of the splits, the newest first; made by `vgg16-transfer release`.
"""


class ReleaseError(InputError):
    """A version of a dataset that can't be told of."""


def released(workspace: Path, dataset: str) -> str | None:
    """The tag of the newest version of a dataset that HEAD has behind it, or None."""
    numbers = _versions(workspace, dataset, "--merged", "HEAD")
    return f"{dataset}-v{max(numbers)}" if numbers else None


def next_version(workspace: Path, dataset: str) -> str:
    """The tag of the version to come: no branch has it yet."""
    return f"{dataset}-v{max(_versions(workspace, dataset), default=0) + 1}"


def manifests_here(folder: Path) -> dict[int, pd.DataFrame]:
    """The manifests in a folder, by seed.

    Raises:
        ManifestError: There is none.
    """
    manifests = read_manifests(folder)
    return dict(zip(manifest_paths(folder), manifests, strict=True))


def manifests_at(workspace: Path, dataset: str, revision: str) -> dict[int, pd.DataFrame]:
    """The manifests of a revision of git, by seed, from DVC's cache or else its remote.

    Raises:
        ReleaseError: There is no such revision, no such dataset in it, or its bytes are nowhere.
    """
    try:
        with tempfile.TemporaryDirectory() as copy:
            folder = f"data/splits/{dataset}"
            if not dvc_private.copy_folder(workspace, revision, folder, Path(copy)):
                raise ReleaseError(f"{revision}: dvc.lock has no splits of '{dataset}' there")
            return manifests_here(Path(copy))
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise ReleaseError(f"{revision}: can't be read: {reason}") from None
    except OSError:
        raise ReleaseError(
            f"{revision}: its splits of '{dataset}' are neither in DVC's cache nor on its remote; "
            f"whoever released them can dvc push --all-tags"
        ) from None


def check_locked(workspace: Path, dataset: str) -> None:
    """Makes sure that a dataset's splits are what dvc.lock says.

    Raises:
        ReleaseError: They are not.
    """
    stage = f"splits@{dataset}"
    try:
        up_to_date = dvc_private.stage_is_up_to_date(workspace, stage)
    except DvcException as error:
        raise ReleaseError(f"dvc.yaml: the state of '{stage}' can't be told: {error}") from None
    if not up_to_date:
        raise ReleaseError(
            f"dvc.lock: '{stage}' is not up to date; run dvc repro {stage} first, "
            f"or dvc pull {stage} if it is only not here (dvc status {stage} says what differs)"
        )


def add_entry(path: Path, version: str, entry: str) -> None:
    """Puts an entry on top of CHANGES.md; one of the same version, not yet tagged, is replaced."""
    text = path.read_text(encoding="utf-8") if path.exists() else _TITLE
    title, *entries = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    kept = [one for one in entries if one.split(maxsplit=2)[1].rstrip(",") != version]
    text = "\n\n".join(part.strip() for part in (title, entry, *kept)) + "\n"
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def _versions(workspace: Path, dataset: str, *options: str) -> list[int]:
    pattern = re.compile(rf"{re.escape(dataset)}-v([0-9]+)")
    tags = _git(workspace, "tag", "--list", *options).split("\n")
    return [int(match[1]) for match in map(pattern.fullmatch, tags) if match]


def _git(workspace: Path, *arguments: str) -> str:
    command = ["git", "-C", str(workspace), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise ReleaseError("git: is not installed, and versions are its tags") from None
    if done.returncode:
        raise ReleaseError(f"{workspace}: git {arguments[0]} fails: {done.stderr.strip()}")
    return done.stdout.strip()
