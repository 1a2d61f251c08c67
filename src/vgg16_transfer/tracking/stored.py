"""Checks whether a store still has all files that were logged: people clean folders, disks fill up.

A tag holds the names of the logged files. So a missing file is found without drawing or loading it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from vgg16_transfer.tracking.grid import IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import mlflow
    from mlflow.entities import FileInfo, LoggedModel, Run

LOGGED = "artifacts"
"""The tag that names the files of a run, or of a logged model."""

_CODE = "code"  # the package's code in a classifier: many files, which are not checked one by one


def noted(paths: Iterable[str]) -> dict[str, str]:
    """The tag that names files.

    Args:
        paths: Their paths in the store.
    """
    return {LOGGED: ", ".join(sorted(paths))}


def below(folder: Path) -> set[str]:
    """The paths of the files that a folder has, which is logged as a model: all but its code."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in files if path.parts[0] != _CODE}


def files_of(client: mlflow.MlflowClient, run_id: str) -> set[str]:
    """The files that a run has in the store, and those in its folder of pictures."""
    files = names(client.list_artifacts(run_id))
    return files | names(client.list_artifacts(run_id, IMAGES)) if IMAGES in files else files


def run_is_whole(client: mlflow.MlflowClient, run: Run) -> bool:
    """Whether a run has all files that its tag names, or any file if it has no such tag."""
    existing = files_of(client, run.info.run_id)
    return _noted(run.data.tags) <= existing if LOGGED in run.data.tags else bool(existing)


def model_is_whole(client: mlflow.MlflowClient, model: LoggedModel) -> bool:
    """Whether a logged model has all files that its tag names, or any file without such a tag."""
    try:
        existing = _below(client, model.model_id)
    except MlflowException:  # a tracking server without the folder raises
        return False
    return _noted(model.tags) <= existing if LOGGED in model.tags else bool(existing)


def names(files: Iterable[FileInfo]) -> set[str]:
    """The paths of files and folders. Empty files are left out: a full disk leaves those behind."""
    return {file.path for file in files if file.is_dir or file.file_size != 0}


def _below(client: mlflow.MlflowClient, model_id: str) -> set[str]:
    """The files of a model in all folders, except for the folder of its code."""

    def files(folder: str | None) -> set[str]:
        listed = client.list_logged_model_artifacts(model_id, folder)
        paths = names(file for file in listed if not file.is_dir)
        for file in listed:
            if file.is_dir and file.path != _CODE:
                paths |= files(file.path)
        return paths

    return files(None)


def _noted(tags: dict[str, str]) -> set[str]:
    return set(filter(None, tags.get(LOGGED, "").split(", ")))
