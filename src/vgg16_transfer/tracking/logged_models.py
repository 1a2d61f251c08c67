"""Logs a trained head as a model of its trial's run. ``mlflow.keras.load_model`` loads it.

``mlflow.keras.log_model`` creates a new model in each call, and needs an active run. The single
steps of this module need none, and continue where an interrupted process stopped.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import mlflow
import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from vgg16_transfer.heads import saved
from vgg16_transfer.tracking import mlflow_private
from vgg16_transfer.tracking.stored import LOGGED, model_is_whole, noted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.entities import LoggedModel, Run

_HEAD = "head"  # the name that earlier versions gave to all heads
_IS_HEAD = "head"
_DATA = Path("data", "model.keras")
_DESCRIBED = "MLmodel"
_REFUSED = re.compile(r"[/:.%\"']")


def models_of(client: mlflow.MlflowClient, run: Run) -> list[LoggedModel]:
    """All logged models of a run, including incomplete ones."""
    of_run = f"source_run_id = '{run.info.run_id}'"
    return list(client.search_logged_models([run.info.experiment_id], filter_string=of_run))


def head_of(client: mlflow.MlflowClient, run: Run) -> LoggedModel | None:
    """The logged model of a trial's head, or None. It may be incomplete.

    A run can have another model as well: registering adds a classifier.
    """
    models = models_of(client, run)
    return next((m for m in models if m.name == _HEAD or _IS_HEAD in m.tags), None)


def head_is_whole(client: mlflow.MlflowClient, run: Run) -> bool:
    """Whether the store has the head of a trial, with all its files."""
    model = head_of(client, run)
    return model is not None and _whole(client, model)


class _Kind(NamedTuple):
    """What all logged heads of the same layers share.

    Attributes:
        described: MLflow's description, which is completed for each of them.
        files: Content of the files beside the head, by path.
    """

    described: Model
    files: dict[str, bytes]


class Heads:
    """Logs heads as models. All but the first of a shape take a tenth of a second.

    Args:
        client: Client of the store.
    """

    def __init__(self, client: mlflow.MlflowClient) -> None:
        self._client = client
        self._kinds: dict[bytes, _Kind] = {}  # by the layers of a head

    def log(self, run: Run, path: Path, params: Mapping[str, str] | None = None) -> None:
        """Logs a head as the model of a run, unless the run already has it with all its files.

        Args:
            run: Run of the trial.
            path: File of the head, as training saved it.
            params: The parameters of a run that can't have a model yet, because it is new. None if
                the store is to be asked for both.
        """
        client, run_id = self._client, run.info.run_id
        model = head_of(client, run) if params is None else None
        if model is not None and _whole(client, model):
            return
        layers = saved.config(path)
        if layers not in self._kinds:
            self._kinds[layers] = _kind(layers)
        kind = self._kinds[layers]
        files = noted([*kind.files, _DATA.as_posix(), _DESCRIBED])
        current = client.get_run(run_id) if params is None else run
        if model is None:
            tags = run.data.tags
            model = client.create_logged_model(
                run.info.experiment_id,
                name=_model_name(tags.get("study", ""), tags.get("trial", "")),
                source_run_id=run_id,
                params=dict(current.data.params if params is None else params),
                tags={_IS_HEAD: "true"} | files,
            )
        elif LOGGED not in model.tags:
            client.set_logged_model_tags(model.model_id, files)
        model_outputs = current.outputs.model_outputs if current.outputs else []
        if model.model_id not in {output.model_id for output in model_outputs}:
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        with TemporaryDirectory() as folder:
            _save(kind, path, model, Path(folder))
            client.log_model_artifacts(model.model_id, folder)
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _model_name(study: str, trial: str) -> str:
    """Name of a head's model: study and setting, without the characters that MLflow refuses."""
    return _REFUSED.sub("_", f"{study} {trial}".strip()) or "head"


def _whole(client: mlflow.MlflowClient, model: LoggedModel) -> bool:
    return model.status == LoggedModelStatus.READY and model_is_whole(client, model)


def _kind(layers: bytes) -> _Kind:
    """What ``mlflow.keras.save_model`` writes, but for the head itself.

    That function takes a Keras model, and importing Keras takes longer than logging all heads.
    """
    keras_version = importlib.metadata.version("keras")
    width, classes = saved.shapes(layers)
    described = Model(
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, width))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, classes))]),
        ),
    )
    described.add_flavor(
        "keras",
        data=_DATA.parent.name,
        keras_version=keras_version,
        keras_backend="tensorflow",
        save_exported_model=False,
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        environment = mlflow_private.write_environment(
            folder, [f"keras=={keras_version}", "tensorflow"]
        )
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
    files[_DATA.with_name("keras_module.txt").as_posix()] = b"keras"
    mlflow.pyfunc.add_to_model(described, loader_module="mlflow.keras", **environment)
    return _Kind(described, files)


def _save(kind: _Kind, path: Path, model: LoggedModel, folder: Path) -> None:
    """Writes the files of a logged head."""
    (folder / _DATA).parent.mkdir()
    shutil.copyfile(path, folder / _DATA)
    for name, content in kind.files.items():
        (folder / name).write_bytes(content)
    described = kind.described
    described.artifact_path = model.artifact_location
    described.run_id = model.source_run_id
    described.model_uuid = described.model_id = model.model_id
    described.model_size_bytes = path.stat().st_size
    described.utc_time_created = str(datetime.now(UTC).replace(tzinfo=None))
    described.save(str(folder / _DESCRIBED))
