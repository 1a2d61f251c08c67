"""Checks whether a store still has all files that were logged: people clean folders, disks fill up.

A tag holds the names of the logged files. So a missing file is found without drawing or loading it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from vgg16_transfer.tracking.grid import IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import mlflow
    from mlflow.entities import FileInfo, LoggedModel, Run

LOGGED = "artifacts"
"""The tag that names the files of a run, or of a logged model."""

_CODE = "code"  # the package's code in a classifier: many files, which are not checked one by one


def note_run(client: mlflow.MlflowClient, run_id: str) -> None:
    """Writes the names of a run's files to its tag."""
    client.set_tag(run_id, LOGGED, _joined(_files(client, run_id)))


def run_is_whole(client: mlflow.MlflowClient, run: Run) -> bool:
    """Whether a run has all files that its tag names, or any file if it has no such tag."""
    existing = _files(client, run.info.run_id)
    return _noted(run.data.tags) <= existing if LOGGED in run.data.tags else bool(existing)


def _files(client: mlflow.MlflowClient, run_id: str) -> set[str]:
    """The files of a run, and of its folder of pictures."""
    files = names(client.list_artifacts(run_id))
    return files | names(client.list_artifacts(run_id, IMAGES)) if IMAGES in files else files


def note_model(client: mlflow.MlflowClient, model: LoggedModel) -> None:
    """Writes the names of a logged model's files to its tag."""
    tags = {LOGGED: _joined(_below(client, model.model_id))}
    client.set_logged_model_tags(model.model_id, tags)


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


def _joined(paths: Iterable[str]) -> str:
    return ", ".join(sorted(paths))


def _noted(tags: dict[str, str]) -> set[str]:
    return set(filter(None, tags.get(LOGGED, "").split(", ")))
