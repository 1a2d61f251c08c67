"""Versions of a dataset's splits: finds the released ones, and reads old ones.

A version is an annotated git tag ``<dataset>-v<number>``. DVC keeps its bytes.
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
    """A version of a dataset can't be read or released."""


def released(workspace: Path, dataset: str) -> str | None:
    """The tag of the newest version of a dataset among the ancestors of HEAD, or None."""
    numbers = _versions(workspace, dataset, "--merged", "HEAD")
    return f"{dataset}-v{max(numbers)}" if numbers else None


def next_version(workspace: Path, dataset: str) -> str:
    """The tag of the next version. No branch has a tag with this number yet."""
    return f"{dataset}-v{max(_versions(workspace, dataset), default=0) + 1}"


def manifests_here(folder: Path) -> dict[int, pd.DataFrame]:
    """The manifests in a folder, by seed.

    Raises:
        ManifestError: The folder has no manifests.
    """
    manifests = read_manifests(folder)
    return dict(zip(manifest_paths(folder), manifests, strict=True))


def manifests_at(workspace: Path, dataset: str, revision: str) -> dict[int, pd.DataFrame]:
    """The manifests of a git revision, by seed. The bytes come from DVC's cache or its remote.

    Raises:
        ReleaseError: git has no such revision, the revision has no such dataset, or its bytes are
            neither in the cache nor on the remote.
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
    """Checks that a dataset's splits are those that dvc.lock names.

    Raises:
        ReleaseError: They differ, or are missing.
    """
    stage = f"splits@{dataset}"
    try:
        up_to_date = dvc_private.stage_is_up_to_date(workspace, stage)
    except DvcException as error:
        raise ReleaseError(f"dvc.yaml: the state of '{stage}' can't be found: {error}") from None
    if not up_to_date:
        raise ReleaseError(
            f"dvc.lock: '{stage}' is not up to date; run dvc repro {stage} first, "
            f"or dvc pull {stage} if only its files are missing (see dvc status {stage})"
        )


def add_entry(path: Path, version: str, entry: str) -> None:
    """Adds an entry at the top of CHANGES.md, and removes an older entry of the same version.

    Args:
        path: The file.
        version: Tag of the version, like ``clipart-v2``.
        entry: The entry, as Markdown.
    """
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
        process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise ReleaseError("git: is not installed, and versions are its tags") from None
    if process.returncode:
        raise ReleaseError(f"{workspace}: git {arguments[0]} fails: {process.stderr.strip()}")
    return process.stdout.strip()
