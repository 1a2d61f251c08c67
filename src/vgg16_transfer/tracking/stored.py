"""Which of the files that were logged a store still has: folders are cleaned, disks fill up.

What was logged stands in a tag, so that nothing need be drawn or loaded to know what is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from collections.abc import Iterable

    import mlflow
    from mlflow.entities import FileInfo, LoggedModel, Run

LOGGED = "artifacts"
"""The tag that names the files of a run, or of a logged model."""

_CODE = "code"  # travels with a classifier: many files, which come and go together with the others


def note_run(client: mlflow.MlflowClient, run_id: str) -> None:
    """Notes which files a run has."""
    client.set_tag(run_id, LOGGED, _joined(names(client.list_artifacts(run_id))))


def run_is_whole(client: mlflow.MlflowClient, run: Run) -> bool:
    """Whether a run has the files that were noted; one without a note has any."""
    there = names(client.list_artifacts(run.info.run_id))
    return _noted(run.data.tags) <= there if LOGGED in run.data.tags else bool(there)


def note_model(client: mlflow.MlflowClient, model: LoggedModel) -> None:
    """Notes which files a logged model has."""
    tags = {LOGGED: _joined(_below(client, model.model_id))}
    client.set_logged_model_tags(model.model_id, tags)


def model_is_whole(client: mlflow.MlflowClient, model: LoggedModel) -> bool:
    """Whether a logged model has the files that were noted; one without a note has any."""
    try:
        there = _below(client, model.model_id)
    except MlflowException:  # a server has no folder to list
        return False
    return _noted(model.tags) <= there if LOGGED in model.tags else bool(there)


def names(files: Iterable[FileInfo]) -> set[str]:
    """The paths of files and folders, without files that a full disk left empty."""
    return {file.path for file in files if file.is_dir or file.file_size != 0}


def _below(client: mlflow.MlflowClient, model_id: str) -> set[str]:
    """The files of a model, in all its folders but that of its code."""

    def files(folder: str | None) -> set[str]:
        listed = client.list_logged_model_artifacts(model_id, folder)
        found = names(file for file in listed if not file.is_dir)
        for file in listed:
            if file.is_dir and file.path != _CODE:
                found |= files(file.path)
        return found

    return files(None)


def _joined(paths: Iterable[str]) -> str:
    return ", ".join(sorted(paths))


def _noted(tags: dict[str, str]) -> set[str]:
    return set(filter(None, tags.get(LOGGED, "").split(", ")))
