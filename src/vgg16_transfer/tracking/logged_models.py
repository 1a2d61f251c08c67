"""A trained head → MLflow: a model that ``mlflow.keras.load_model`` loads, below its trial's run.

``mlflow.keras.log_model`` makes a new model whenever it is called, and wants the run to be the
process's active one. Step by step, telling goes on where it broke off.
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
    """The models that a run has logged, whole or not."""
    of_run = f"source_run_id = '{run.info.run_id}'"
    return list(client.search_logged_models([run.info.experiment_id], filter_string=of_run))


def head_of(client: mlflow.MlflowClient, run: Run) -> LoggedModel | None:
    """The model that is a trial's head, whole or not; registering adds a classifier to the run."""
    return next((model for model in models_of(client, run) if model.name == _HEAD), None)


def head_is_whole(client: mlflow.MlflowClient, run: Run) -> bool:
    """Whether the store has a trial's head with all its files."""
    model = head_of(client, run)
    return model is not None and _whole(client, model)


def tell_head(client: mlflow.MlflowClient, run: Run, path: Path) -> None:
    """Logs a head as the model of a run, unless the run has it already with all its files.

    Args:
        client: Of the store.
        run: The trial's.
        path: The head as training saved it.
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
    known = outputs.model_outputs if outputs else []
    if model.model_id not in {output.model_id for output in known}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    with TemporaryDirectory() as folder:
        _save(path, model, folder)
        client.log_model_artifacts(model.model_id, folder)
    note_model(client, model)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _whole(client: mlflow.MlflowClient, model: LoggedModel) -> bool:
    return model.status == LoggedModelStatus.READY and model_is_whole(client, model)


def _save(path: Path, model: LoggedModel, folder: str) -> None:
    # Keras takes seconds to import, and most often there is nothing left to tell.
    import keras  # noqa: PLC0415

    from vgg16_transfer.heads import softmax  # noqa: PLC0415

    head = softmax.load(path)
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
        # Named here, since MLflow would load the model in a second process to find out.
        pip_requirements=[f"keras=={keras.__version__}", "tensorflow"],
    )
