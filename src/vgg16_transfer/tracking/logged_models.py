"""Logs a trained head as a model of its trial's run. ``mlflow.keras.load_model`` loads it.

``mlflow.keras.log_model`` creates a new model in each call, and needs an active run. The single
steps of this module need none, and continue where an interrupted process stopped.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from vgg16_transfer.heads import saved
from vgg16_transfer.tracking import mlflow_private
from vgg16_transfer.tracking.stored import model_is_whole, note_model

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run

_HEAD = "head"  # the name that earlier versions gave to all heads
_IS_HEAD = "head"
_DATA = Path("data", "model.keras")
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


class Heads:
    """Logs heads as models. All but the first of a shape take a tenth of a second.

    Args:
        client: Client of the store.
    """

    def __init__(self, client: mlflow.MlflowClient) -> None:
        self._client = client
        self._saved: dict[bytes, dict[str, bytes]] = {}  # files beside a head, by its layers

    def log(self, run: Run, path: Path) -> None:
        """Logs a head as the model of a run, unless the run already has it with all its files.

        Args:
            run: Run of the trial.
            path: File of the head, as training saved it.
        """
        client, run_id = self._client, run.info.run_id
        model = head_of(client, run)
        if model is not None and _whole(client, model):
            return
        current = client.get_run(run_id)
        if model is None:
            tags = run.data.tags
            model = client.create_logged_model(
                run.info.experiment_id,
                name=_model_name(tags.get("study", ""), tags.get("trial", "")),
                source_run_id=run_id,
                params=current.data.params,
                tags={_IS_HEAD: "true"},
            )
        model_outputs = current.outputs.model_outputs if current.outputs else []
        if model.model_id not in {output.model_id for output in model_outputs}:
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        with TemporaryDirectory() as folder:
            self._save(path, model, Path(folder, "model"))
            client.log_model_artifacts(model.model_id, str(Path(folder, "model")))
        note_model(client, model)
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _save(self, path: Path, model: LoggedModel, folder: Path) -> None:
        """Writes the files of a model. Those of heads of the same shape differ in little."""
        layers = saved.config(path)
        if layers not in self._saved:
            _save(layers, model, folder)
            files = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
            self._saved[layers] = {name: file.read_bytes() for name, file in files.items()}
        for name, content in self._saved[layers].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        shutil.copyfile(path, folder / _DATA)
        described = Model.load(str(folder))
        described.artifact_path = model.artifact_location
        described.run_id = model.source_run_id
        described.model_uuid = described.model_id = model.model_id
        described.model_size_bytes = path.stat().st_size
        described.save(str(folder / "MLmodel"))


def _model_name(study: str, trial: str) -> str:
    """Name of a head's model: study and setting, without the characters that MLflow refuses."""
    return _REFUSED.sub("_", f"{study} {trial}".strip()) or "head"


def _whole(client: mlflow.MlflowClient, model: LoggedModel) -> bool:
    return model.status == LoggedModelStatus.READY and model_is_whole(client, model)


def _save(layers: bytes, model: LoggedModel, folder: Path) -> None:
    """Writes what ``mlflow.keras.save_model`` writes, but for the head itself.

    That function takes a Keras model, and importing Keras takes longer than logging all heads.
    """
    keras_version = importlib.metadata.version("keras")
    width, classes = saved.shapes(layers)
    described = Model(
        artifact_path=model.artifact_location,
        run_id=model.source_run_id,
        model_uuid=model.model_id,
        model_id=model.model_id,
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
    (folder / _DATA).parent.mkdir(parents=True)
    (folder / _DATA).with_name("keras_module.txt").write_text("keras", encoding="utf-8")
    files = mlflow_private.write_environment(folder, [f"keras=={keras_version}", "tensorflow"])
    mlflow.pyfunc.add_to_model(described, loader_module="mlflow.keras", **files)
    described.save(str(folder / "MLmodel"))
