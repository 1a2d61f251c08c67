"""A study's best head → a registered model that needs nothing of the workspace, and back.

The model is named like the study. The version with the alias ``champion`` is the one to use; the
one that was champion before it has the alias ``previous-champion``. A version is known by the
digest of the study's lock entry and by the trial: registering the same again adds none, but puts
back files that the store has lost.
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
from mlflow.types import ColSpec, DataType, Schema

import vgg16_transfer
from vgg16_transfer.heads import classifier
from vgg16_transfer.images.pictures import PictureError
from vgg16_transfer.registry.card import write_card
from vgg16_transfer.tracking import mlflow_private
from vgg16_transfer.tracking.known_runs import failure, finished, known_runs
from vgg16_transfer.tracking.mlflow_store import TrackingError
from vgg16_transfer.tracking.stored import model_is_whole, note_model

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

    from vgg16_transfer.heads.classifier import Classifier
    from vgg16_transfer.heads.selection import Chosen
    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Study
    from vgg16_transfer.registry.card import Subject
    from vgg16_transfer.tracking.mlflow_store import Store

    Probabilities = Callable[[bytes], np.ndarray]

CHAMPION = "champion"
PREVIOUS = "previous-champion"
INPUT = "picture"
"""The one column of a request: a picture's bytes, in JSON as base64."""

_MODEL = "classifier"
_LINEAGE = ("dvc.lock_digest", "dvc.splits_md5", "dvc.features_md5", "git.commit", "git.dirty")

# What the code that travels with a model imports; TensorFlow has a name for each of its builds.
_REQUIRED = ("mlflow", "keras", "numpy", "pandas", "pillow", "pillow-heif", "h5py")
_TENSORFLOW = ("tensorflow", "tensorflow-cpu")


class Contents(NamedTuple):
    """What a new version is made of.

    Attributes:
        model: The classifier.
        subject: What its card is about.
        example: A picture's bytes.
    """

    model: Classifier
    subject: Subject
    example: bytes


class Registered(NamedTuple):
    """A version that is champion.

    Attributes:
        version: Its number.
        added: Whether it was not there before.
        previous: The number of the version that was champion before it, if there was one.
        restored: Whether it was there, but without its files, which were put back.
    """

    version: str
    added: bool
    previous: str | None
    restored: bool = False


def register(
    store: Store, study: Study, chosen: Chosen, trained: Lineage, contents: Callable[[], Contents]
) -> Registered:
    """Makes the classifier of a trial the champion of the model that is named like its study.

    Args:
        store: Where to.
        study: Whose head it is.
        chosen: Which trial's.
        trained: Where the study comes from: finds its runs.
        contents: Assembles the version; only called if there is no such version yet, or if its
            files are gone.

    Raises:
        TrackingError: The store can't be used, does not know the trial, or knows another result.
    """
    client = _client(store)
    run = _run(store, client, study, chosen, trained)
    champion = _champion(client, study.name)
    known = _known(client, study.name, run)
    added = known is None
    restored = False
    if known is None:
        version = _add(client, study, chosen, run, champion, contents())
    else:
        version = str(known.version)
        model = _model(client, known)
        if model is not None and not model_is_whole(client, model):
            _fill(client, run, model, contents(), known.description)
            restored = True
    if champion == version:
        aliases = client.get_registered_model(study.name).aliases
        return Registered(version, added, _text(aliases.get(PREVIOUS)), restored)
    if champion is not None:
        client.set_registered_model_alias(study.name, PREVIOUS, champion)
    client.set_registered_model_alias(study.name, CHAMPION, version)
    return Registered(version, added, champion, restored)


def load(store: Store, uri: str) -> tuple[tuple[str, ...], Probabilities]:
    """A registered classifier.

    Args:
        store: Where it is registered.
        uri: Like ``models:/NAME@champion`` or ``models:/NAME/3``. Its code is run.

    Returns:
        The names of its classes, and what gives a picture's probabilities for them: a function of
        its bytes, which raises PictureError.

    Raises:
        TrackingError: There is no such model, its files are gone, or it takes no pictures.
    """
    client = _client(store)
    lost = _lost(client, uri)
    if lost:
        raise TrackingError(
            f"{uri}: {store} has lost its files; vgg16-transfer register {lost} puts them back"
        )
    try:
        model = mlflow.pyfunc.load_model(uri, dst_path=_folder(store))
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise TrackingError(f"{uri}: can't be loaded from {store}: {reason}") from None
    signature = model.metadata.signature
    if signature is None or signature.inputs.input_names() != [INPUT]:
        raise TrackingError(
            f"{uri}: takes no pictures; name a model that vgg16-transfer register made"
        )

    def probabilities(content: bytes) -> np.ndarray:
        try:
            answer = model.predict(pd.DataFrame({INPUT: [content]}))
        except MlflowException as error:
            raise PictureError(mlflow_private.reason(error)) from None
        found: np.ndarray = answer.to_numpy()[0]
        return found

    return tuple(signature.outputs.input_names()), probabilities


def _client(store: Store) -> mlflow.MlflowClient:
    """A client of a store that is there: to ask an empty one, none need be made."""
    if store.database and not store.database.exists():
        raise TrackingError(f"{store}: no such store; run vgg16-transfer publish first")
    return store.client()


def _folder(store: Store) -> str | None:
    """Where a model is copied to before it is loaded, or None if it can be loaded where it lies.

    MLflow decodes the path of a local model once too often, so it does not find one below a folder
    whose name looks encoded, like ``my%20project``. The copy stays as long as the process, since
    the model's code is loaded from there.
    """
    if store.artifacts is None or "%" not in str(store.artifacts):
        return None
    folder = tempfile.mkdtemp(prefix="vgg16-transfer-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _lost(client: mlflow.MlflowClient, uri: str) -> str | None:
    """The name of a registered model whose files are gone, or None if something else is wrong."""
    found = re.fullmatch(r"models:/([^/@]+)(@|/)([^/@]+)", uri)
    if not found:
        return None
    name, by, which = found.groups()
    try:
        ask = client.get_model_version_by_alias if by == "@" else client.get_model_version
        model = _model(client, ask(name, which))
        return None if model is None or model_is_whole(client, model) else name
    except MlflowException:
        return None


def _run(
    store: Store, client: mlflow.MlflowClient, study: Study, chosen: Chosen, trained: Lineage
) -> Run:
    """The finished run of a trial, which is to have reached what the workspace says it did."""
    experiment = client.get_experiment_by_name(study.dataset)
    known = known_runs(client, experiment.experiment_id, trained) if experiment else {}
    run = known.get(chosen.name)
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
    """The version that is champion, if there is one."""
    try:
        return _text(client.get_registered_model(name).aliases.get(CHAMPION))
    except MlflowException as error:
        if not mlflow_private.is_missing(error):
            raise
        return None


def _known(client: mlflow.MlflowClient, name: str, run: Run) -> ModelVersion | None:
    """The version that holds the head of a run's lock entry and trial."""
    ours = {key: run.data.tags[key] for key in ("dvc.lock_digest", "trial")}
    for version in client.search_model_versions(f"name = '{name}'"):
        if ours.items() <= version.tags.items():
            return version
    return None


def _model(client: mlflow.MlflowClient, version: ModelVersion) -> LoggedModel | None:
    """The logged model behind a version."""
    found = re.fullmatch(r"models:/(m-\w+)", version.source or "")
    return client.get_logged_model(found[1]) if found else None


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
            description=f"Classifiers of study {study.name} on {study.dataset}: VGG16 and a head",
        )
    except MlflowException:
        client.get_registered_model(study.name)  # it is there already, or this says what is wrong
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
    """The model that was logged whole when registering broke off; what is not whole is deleted."""
    mine = f"source_run_id = '{run.info.run_id}' AND name = '{_MODEL}'"
    for model in client.search_logged_models([run.info.experiment_id], filter_string=mine):
        if model.status == LoggedModelStatus.READY:
            return str(model.model_id)
        client.delete_logged_model(model.model_id)
    return None


def _log(client: mlflow.MlflowClient, run: Run, contents: Contents, card: str) -> str:
    """Logs the classifier under the run of its trial, which stays as it is."""
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
    """Gives a logged model its files."""
    class_names = contents.model.recipe.class_names
    with tempfile.TemporaryDirectory() as folder:
        parts, whole = Path(folder) / _MODEL, Path(folder) / "model"
        classifier.save(contents.model, parts)
        (parts / "card.md").write_text(card, encoding="utf-8")
        mlflow.pyfunc.save_model(
            whole,
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
        # MLflow runs the model to see that it answers its example, which leaves these behind.
        for compiled in list(whole.rglob("__pycache__")):
            shutil.rmtree(compiled)
        client.log_model_artifacts(model.model_id, str(whole))
    note_model(client, model)


def _requirements() -> list[str]:
    """The packages that a model needs, as they are installed here."""
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
