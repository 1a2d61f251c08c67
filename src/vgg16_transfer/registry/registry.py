"""Registers a study's best head as a model that needs no workspace, and loads registered models.

The model has the name of the study. The version with the alias ``champion`` is the one to use. The
champion before it has the alias ``previous-champion``. A version is identified by the digest of the
study's lock entry and by the trial. Registering the same trial again adds no version, but restores
files that the store has lost.
"""

from __future__ import annotations

import atexit
import importlib.metadata
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mlflow
import pandas as pd
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import ColSpec, DataType, Schema

import vgg16_transfer
from vgg16_transfer.heads import classifier
from vgg16_transfer.images.pictures import PictureError
from vgg16_transfer.registry.card import write_card
from vgg16_transfer.tracking import mlflow_private
from vgg16_transfer.tracking.logged_runs import failure, finished, logged_runs
from vgg16_transfer.tracking.mlflow_store import TrackingError
from vgg16_transfer.tracking.stored import below, model_is_whole, noted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

    from vgg16_transfer.heads.selection import Chosen
    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Study
    from vgg16_transfer.registry.contents import Contents
    from vgg16_transfer.tracking.mlflow_store import Store

    Probabilities = Callable[[bytes], np.ndarray]

CHAMPION = "champion"
PREVIOUS = "previous-champion"
INPUT = "picture"
"""Name of the only column of a request: a picture's bytes, in JSON as base64."""

_ENCODED = re.compile("[%?#]")
"""What MLflow does not take for a part of a path."""

_MODEL = "classifier"
_LINEAGE = ("dvc.lock_digest", "dvc.splits_md5", "dvc.features_md5", "git.commit", "git.dirty")

# Packages that the code inside a model imports. TensorFlow's builds have different names.
_REQUIRED = ("mlflow", "keras", "numpy", "pandas", "pillow", "pillow-heif", "h5py", "filelock")
_TENSORFLOW = ("tensorflow", "tensorflow-cpu")


class Registered(NamedTuple):
    """The version that is now the champion.

    Attributes:
        version: Version number.
        added: Whether the version is new.
        previous: Number of the version that was champion before, or None.
        restored: Whether the version existed but had lost files, which were restored.
    """

    version: str
    added: bool
    previous: str | None
    restored: bool = False


def register(
    store: Store, study: Study, chosen: Chosen, trained: Lineage, contents: Callable[[], Contents]
) -> Registered:
    """Makes the classifier of a trial the champion of the model with the name of its study.

    Args:
        store: The MLflow store.
        study: The study.
        chosen: The trial whose head is registered.
        trained: Lineage of the study; its lock digest identifies the runs.
        contents: Collects the contents of the version. It is called only if the version is new, or
            if its files are missing.

    Raises:
        TrackingError: The store can't be used, has no run of the trial, or has another result.
    """
    client = _client(store)
    run = _run(store, client, study, chosen, trained)
    champion = _champion(client, study.name)
    existing = _existing(client, study.name, run)
    added = existing is None
    restored = False
    if existing is None:
        version = _add(client, study, chosen, run, champion, contents())
    else:
        version = str(existing.version)
        model = _model(client, existing)
        if model is not None and not model_is_whole(client, model):
            _fill(client, run, model, contents(), existing.description)
            restored = True
    if champion == version:
        aliases = client.get_registered_model(study.name).aliases
        return Registered(version, added, _text(aliases.get(PREVIOUS)), restored)
    if champion is not None:
        client.set_registered_model_alias(study.name, PREVIOUS, champion)
    client.set_registered_model_alias(study.name, CHAMPION, version)
    return Registered(version, added, champion, restored)


def newest(store: Store, names: Iterable[str]) -> str | None:
    """The champion that was registered last.

    Args:
        store: The MLflow store.
        names: Names of registered models. Some may not exist.

    Returns:
        An address like ``models:/NAME@champion``, or None if no model has a champion.

    Raises:
        TrackingError: The store does not exist, or can't be opened.
    """
    client = _client(store)
    champions = []
    for name in names:
        number = _champion(client, name)
        if number is not None:
            version = client.get_model_version(name, number)
            champions.append((version.creation_timestamp, name))
    return f"models:/{max(champions)[1]}@{CHAMPION}" if champions else None


def open_model(store: Store, uri: str) -> PyFuncModel:
    """Loads a registered classifier as MLflow's own kind of model.

    Args:
        store: The MLflow store.
        uri: Like ``models:/NAME@champion`` or ``models:/NAME/3``. The model's own code is run.

    Raises:
        TrackingError: The model does not exist, has lost its files, or does not take pictures.
    """
    client = _client(store)
    lost = _lost(client, uri)
    if lost:
        raise TrackingError(
            f"{uri}: {store} has lost its files; vgg16-transfer register {lost} restores them"
        )
    return _loaded(uri, f" from {store}", _folder(store))


def open_folder(folder: Path) -> PyFuncModel:
    """Loads a classifier that was registered from a folder; no store is needed.

    Args:
        folder: Files of a registered model, such as ``mlflow artifacts download`` gets them. The
            model's own code is run.

    Raises:
        TrackingError: The folder holds no model, or its model does not take pictures.
    """
    if not (folder / MLMODEL_FILE_NAME).is_file():
        raise TrackingError(
            f"{folder}: holds no {MLMODEL_FILE_NAME}; name models:/NAME@champion, or a folder that "
            "mlflow artifacts download made of it"
        )
    plain = folder.resolve()
    if _ENCODED.search(str(plain)):
        plain = Path(shutil.copytree(plain, _temporary() / _MODEL))
    return _loaded(str(plain), "", None, name=str(folder))


def load(store: Store, uri: str) -> tuple[tuple[str, ...], Probabilities]:
    """Loads a registered classifier.

    Args:
        store: The MLflow store.
        uri: Like ``models:/NAME@champion`` or ``models:/NAME/3``. The model's own code is run.

    Returns:
        The class names, and a function that takes a picture's bytes. It returns one probability per
        class, in the order of the names, or raises PictureError.

    Raises:
        TrackingError: The model does not exist, has lost its files, or does not take pictures.
    """
    model = open_model(store, uri)

    def probabilities(content: bytes) -> np.ndarray:
        try:
            answer = model.predict(pd.DataFrame({INPUT: [content]}))
        except MlflowException as error:
            raise PictureError(mlflow_private.reason(error)) from None
        values: np.ndarray = answer.to_numpy()[0]
        return values

    return tuple(model.metadata.signature.outputs.input_names()), probabilities


def _loaded(uri: str, source: str, folder: str | None, name: str | None = None) -> PyFuncModel:
    """Loads a model, and checks that it takes pictures. ``name`` stands for it in messages.

    Raises:
        TrackingError: It can't be loaded, or it does not take pictures.
    """
    name = name or uri
    try:
        model = mlflow.pyfunc.load_model(uri, dst_path=folder)
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise TrackingError(f"{name}: can't be loaded{source}: {reason}") from None
    signature = model.metadata.signature
    if signature is None or signature.inputs.input_names() != [INPUT]:
        raise TrackingError(
            f"{name}: takes no pictures; name a model that vgg16-transfer register made"
        )
    return model


def _client(store: Store) -> mlflow.MlflowClient:
    """A client of an existing store. A missing SQLite store is not created.

    Raises:
        TrackingError: The store does not exist, or can't be opened.
    """
    if store.database and not store.database.exists():
        raise TrackingError(f"{store}: no such store; run vgg16-transfer publish first")
    return store.client()


def _folder(store: Store) -> str | None:
    """A folder to copy a model to before it is loaded, or None if no copy is needed.

    MLflow decodes the path of a local model once too often. So it does not find a model in a folder
    whose name looks encoded, like ``my%20project``. The copy is kept until the process ends,
    because the model's code is loaded from it.
    """
    if store.artifacts is None or "%" not in str(store.artifacts):
        return None
    return str(_temporary())


def _temporary() -> Path:
    """A new folder that is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="vgg16-transfer-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _lost(client: mlflow.MlflowClient, uri: str) -> str | None:
    """The name of a registered model if its files are missing, otherwise None."""
    match = re.fullmatch(r"models:/([^/@]+)(@|/)([^/@]+)", uri)
    if not match:
        return None
    name, separator, alias_or_version = match.groups()
    try:
        by_alias = separator == "@"
        get = client.get_model_version_by_alias if by_alias else client.get_model_version
        model = _model(client, get(name, alias_or_version))
        return None if model is None or model_is_whole(client, model) else name
    except MlflowException:
        return None


def _run(
    store: Store, client: mlflow.MlflowClient, study: Study, chosen: Chosen, trained: Lineage
) -> Run:
    """The finished run of a trial.

    Raises:
        TrackingError: The store has no such run, or the run has another result than the workspace.
    """
    experiment = client.get_experiment_by_name(study.dataset)
    runs = logged_runs(client, experiment.experiment_id, trained) if experiment else {}
    run = runs.get(chosen.name)
    if run is None or not finished(run):
        raise TrackingError(
            f"{store}: has no run of study {study.name}, trial '{chosen.name}'; "
            "run vgg16-transfer publish first"
        )
    why = failure(run)
    if why is not None:
        raise TrackingError(
            f"results/{study.name}: trial '{chosen.name}' failed ({why}); change its settings in "
            "params.yaml and run dvc repro"
        )
    if run.data.metrics.get("validation_accuracy") != chosen.validation_accuracy:
        raise TrackingError(
            f"results/{study.name}: trial '{chosen.name}' reaches another validation accuracy than "
            f"run {run.info.run_id} of the same entry in dvc.lock; run dvc repro"
        )
    return run


def _champion(client: mlflow.MlflowClient, name: str) -> str | None:
    """Number of the version that is champion, or None."""
    try:
        return _text(client.get_registered_model(name).aliases.get(CHAMPION))
    except MlflowException as error:
        if not mlflow_private.is_missing(error):
            raise
        return None


def _existing(client: mlflow.MlflowClient, name: str, run: Run) -> ModelVersion | None:
    """The version of a run's lock entry and trial, or None."""
    identity = {key: run.data.tags[key] for key in ("dvc.lock_digest", "trial")}
    for version in client.search_model_versions(f"name = '{name}'"):
        if identity.items() <= version.tags.items():
            return version
    return None


def _model(client: mlflow.MlflowClient, version: ModelVersion) -> LoggedModel | None:
    """The logged model of a version, or None."""
    match = re.fullmatch(r"models:/(m-\w+)", version.source or "")
    return client.get_logged_model(match[1]) if match else None


def _add(
    client: mlflow.MlflowClient,
    study: Study,
    chosen: Chosen,
    run: Run,
    champion: str | None,
    contents: Contents,
) -> str:
    lineage = {key: run.data.tags[key] for key in _LINEAGE if key in run.data.tags}
    previous = (champion, PREVIOUS) if champion else None
    card = write_card(contents.subject, run.info.run_id, lineage, previous)
    model_id = _logged(client, run) or _log(client, run, contents, card)
    try:
        client.create_registered_model(
            study.name,
            description=f"Classifiers of study {study.name} on {study.dataset}: network and head",
        )
    except MlflowException:
        client.get_registered_model(study.name)  # it exists, or this raises the actual error
    tags = lineage | {
        "study": study.name,
        "trial": chosen.name,
        "validation_accuracy": f"{chosen.validation_accuracy:.6g}",
    }
    version: ModelVersion = client.create_model_version(
        study.name,
        f"models:/{model_id}",
        run.info.run_id,
        tags=tags,
        description=card,
        model_id=model_id,
    )
    return str(version.version)


def _logged(client: mlflow.MlflowClient, run: Run) -> str | None:
    """The complete model that an interrupted call has logged, or None. Deletes incomplete ones."""
    of_run = f"source_run_id = '{run.info.run_id}' AND name = '{_MODEL}'"
    for model in client.search_logged_models([run.info.experiment_id], filter_string=of_run):
        if model.status == LoggedModelStatus.READY:
            return str(model.model_id)
        client.delete_logged_model(model.model_id)
    return None


def _log(client: mlflow.MlflowClient, run: Run, contents: Contents, card: str) -> str:
    """Logs the classifier as a model of its trial's run, and returns the model's id."""
    model = client.create_logged_model(
        run.info.experiment_id,
        name=_MODEL,
        source_run_id=run.info.run_id,
        params=dict(run.data.params),
    )
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    _fill(client, run, model, contents, card)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def _fill(
    client: mlflow.MlflowClient, run: Run, model: LoggedModel, contents: Contents, card: str
) -> None:
    """Writes the files of a logged model."""
    class_names = contents.model.recipe.class_names
    with tempfile.TemporaryDirectory() as folder:
        parts, complete = Path(folder) / _MODEL, Path(folder) / "model"
        classifier.save(contents.model, parts)
        (parts / "card.md").write_text(card, encoding="utf-8")
        mlflow.pyfunc.save_model(
            complete,
            mlflow_model=Model(
                artifact_path=model.artifact_location,
                run_id=run.info.run_id,
                model_uuid=model.model_id,
                model_id=model.model_id,
                metadata={"labels": list(class_names)},
            ),
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={_MODEL: str(parts)},
            code_paths=[str(Path(vgg16_transfer.__file__).parent)],
            pip_requirements=_requirements(),
            signature=ModelSignature(
                inputs=Schema([ColSpec(DataType.binary, INPUT)]),
                outputs=Schema([ColSpec(DataType.double, name) for name in class_names]),
            ),
            input_example=pd.DataFrame({INPUT: [contents.example]}),
        )
        # MLflow runs the model on its example, which creates these files.
        for compiled in list(complete.rglob("__pycache__")):
            shutil.rmtree(compiled)
        client.log_model_artifacts(model.model_id, str(complete))
        client.set_logged_model_tags(model.model_id, noted(below(complete)))


def _requirements() -> list[str]:
    """The packages that a model needs, with the versions that are installed here."""
    installed = {name: importlib.metadata.version(name) for name in _REQUIRED}
    for name in _TENSORFLOW:
        try:
            installed[name] = importlib.metadata.version(name)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    return [f"{name}=={version}" for name, version in installed.items()]


def _text(version: object) -> str | None:
    return None if version is None else str(version)
