"""Logs a trained head as a model of its trial's run. ``mlflow.keras.load_model`` loads it.

``mlflow.keras.log_model`` creates a new model in each call, and needs an active run. The single
steps of this module need none, and continue where an interrupted process stopped.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
import numpy as np
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from vgg16_transfer.tracking.stored import model_is_whole, note_model

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.entities import LoggedModel, Run

_HEAD = "head"


def models_of(client: mlflow.MlflowClient, run: Run) -> list[LoggedModel]:
    """All logged models of a run, including incomplete ones."""
    of_run = f"source_run_id = '{run.info.run_id}'"
    return list(client.search_logged_models([run.info.experiment_id], filter_string=of_run))


def head_of(client: mlflow.MlflowClient, run: Run) -> LoggedModel | None:
    """The logged model of a trial's head, or None. It may be incomplete.

    A run can have another model as well: registering adds a classifier.
    """
    return next((model for model in models_of(client, run) if model.name == _HEAD), None)


def head_is_whole(client: mlflow.MlflowClient, run: Run) -> bool:
    """Whether the store has the head of a trial, with all its files."""
    model = head_of(client, run)
    return model is not None and _whole(client, model)


def log_head(client: mlflow.MlflowClient, run: Run, path: Path) -> None:
    """Logs a head as the model of a run, unless the run already has it with all its files.

    Args:
        client: Client of the store.
        run: Run of the trial.
        path: File of the head, as training saved it.
    """
    run_id = run.info.run_id
    model = head_of(client, run)
    if model is None:
        params = client.get_run(run_id).data.params
        model = client.create_logged_model(
            run.info.experiment_id, name=_HEAD, source_run_id=run_id, params=params
        )
    elif _whole(client, model):
        return
    outputs = client.get_run(run_id).outputs
    model_outputs = outputs.model_outputs if outputs else []
    if model.model_id not in {output.model_id for output in model_outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    with TemporaryDirectory() as folder:
        _save(path, model, folder)
        client.log_model_artifacts(model.model_id, folder)
    note_model(client, model)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _whole(client: mlflow.MlflowClient, model: LoggedModel) -> bool:
    return model.status == LoggedModelStatus.READY and model_is_whole(client, model)


def _save(path: Path, model: LoggedModel, folder: str) -> None:
    # Keras takes seconds to import, and most often all heads are logged already.
    import keras  # noqa: PLC0415

    from vgg16_transfer.heads import model_files  # noqa: PLC0415

    head = model_files.load(path)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *head.input_shape[1:]))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *head.output_shape[1:]))]),
    )
    mlflow.keras.save_model(
        head,
        folder,
        mlflow_model=Model(
            artifact_path=model.artifact_location,
            run_id=model.source_run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        ),
        signature=signature,
        # Without them, MLflow would load the model in a second process to find its requirements.
        pip_requirements=[f"keras=={keras.__version__}", "tensorflow"],
    )
