"""Logs what other stages than training make: filters, gradient checks, explained pictures, report.

Each has the digest of its own stage's lock entry in a tag. With the same digest, it is logged only
once. With another digest, it replaces the earlier one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlflow.entities import Metric
from PIL import Image

from vgg16_transfer.errors import InputError
from vgg16_transfer.heads import records
from vgg16_transfer.heads.watching import milliseconds
from vgg16_transfer.reporting.run_links import with_runs
from vgg16_transfer.tracking.grid import grid_files, log_pictures
from vgg16_transfer.tracking.logged_runs import (
    finished,
    logged_runs,
    remove_duplicates,
    study_run,
)
from vgg16_transfer.tracking.stored import names, run_is_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import mlflow
    import pandas as pd
    from mlflow.entities import Run

    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Study
    from vgg16_transfer.tracking.mlflow_store import Store

REPORT = "report"
"""The experiment of the report, with one run per version of it."""

_ABOUT = "The page of all results: one run for each version, with the run ids of its numbers."

_EXPLAINED = "explained"
_FILTERS = "filters"
_GRADIENTS = "gradients"
_GRADIENT_TABLE = "gradient_check.csv"
_MEASURED = ("average", "max")


class DamagedError(InputError):
    """A picture, a table or the report is missing or can't be read."""


def publish_filters(
    store: Store, study: Study, folder: Path, trained: Lineage, drawn: Lineage, *, check: bool
) -> bool:
    """Adds filter pictures to the run of a study. All its trials see through the same filters.

    Args:
        store: The MLflow store.
        study: The study.
        folder: Folder of the pictures that the stage ``filters`` drew for the study's dataset.
        trained: Lineage of the study; its lock digest identifies the run.
        drawn: Lineage of the pictures.
        check: Whether to check that a run which has the pictures by its tag still has the files.

    Returns:
        Whether they were added: not if the run has them already, or if the study has no run.

    Raises:
        DamagedError: A picture is missing or can't be read.
        TrackingError: The store can't be used.
    """
    client = store.client()
    parent = study_run(client, store.experiment(client, study.dataset), study.name, trained)
    keys = [path.stem for path in sorted(folder.glob("*.png"))]
    if parent is None or _has(
        client, parent, _FILTERS, drawn, check=check, files=grid_files(parent, keys)
    ):
        return False
    if not keys:
        raise DamagedError(f"{folder}: holds no pictures; run dvc repro {drawn.stage}")
    pictures = {key: _opened(folder / f"{key}.png", drawn) for key in keys}
    log_pictures(client, parent, pictures)
    client.set_tag(parent.info.run_id, _FILTERS, drawn.lock_digest)
    return True


def publish_gradients(
    store: Store, study: Study, table: Path, trained: Lineage, drawn: Lineage, *, check: bool
) -> bool:
    """Adds the gradient check of the dataset to the run of a study.

    Its metrics are the largest deviations of all layers; the table has each layer's.

    Args:
        store: The MLflow store.
        study: The study.
        table: File that the stage ``gradients`` wrote.
        trained: Lineage of the study; its lock digest identifies the run.
        drawn: Lineage of the table.
        check: Whether to check that a run which has the table by its tag still has the file.

    Returns:
        Whether it was added: not if the run has it already, or if the study has no run.

    Raises:
        DamagedError: The table is missing or can't be read.
        TrackingError: The store can't be used.
    """
    client = store.client()
    parent = study_run(client, store.experiment(client, study.dataset), study.name, trained)
    if parent is None or _has(
        client, parent, _GRADIENTS, drawn, check=check, files={_GRADIENT_TABLE}
    ):
        return False
    checked = _checked(table, drawn)
    timestamp = milliseconds()  # of two values at one step, the later one counts
    metrics = [
        Metric(f"gradient_check_{key}", float(checked[key].max()), timestamp, 0)
        for key in _MEASURED
    ]
    client.log_batch(parent.info.run_id, metrics=metrics)
    client.log_text(parent.info.run_id, checked.to_csv(index=False), _GRADIENT_TABLE)
    client.set_tag(parent.info.run_id, _GRADIENTS, drawn.lock_digest)
    return True


def publish_explained(
    store: Store, study: Study, folder: Path, trained: Lineage, drawn: Lineage, *, check: bool
) -> bool:
    """Adds explained pictures to the run of their study.

    Args:
        store: The MLflow store.
        study: The study.
        folder: Folder of the pictures and their captions.
        trained: Lineage of the study; its lock digest identifies the run.
        drawn: Lineage of the pictures.
        check: Whether to check that a run which has the pictures by its tag still has the files.

    Returns:
        Whether they were added: not if the run has them already, or if the study has no run.

    Raises:
        DamagedError: There are no pictures.
        TrackingError: The store can't be used.
    """
    client = store.client()
    parent = study_run(client, store.experiment(client, study.dataset), study.name, trained)
    files = {f"{_EXPLAINED}/{path.name}" for path in folder.glob("*")}
    if parent is None or _has(client, parent, _EXPLAINED, drawn, check=check, files=files):
        return False
    if not files:
        raise DamagedError(f"{folder}: holds no pictures; run dvc repro {drawn.stage}")
    client.log_artifacts(parent.info.run_id, str(folder), _EXPLAINED)
    client.set_tag(parent.info.run_id, _EXPLAINED, drawn.lock_digest)
    return True


def publish_report(
    store: Store,
    page: Path,
    studies: Mapping[str, Study],
    trained: Mapping[str, Lineage],
    made: Lineage,
    *,
    check: bool,
) -> bool:
    """Logs the report as a run of its own, with the run ids and lock digests of all its numbers.

    Args:
        store: The MLflow store.
        page: File of the report.
        studies: Studies by name.
        trained: Lineages of the studies' results, by study name.
        made: Lineage of the report.
        check: Whether to check that a run which has the report by its tag still has the file.

    Returns:
        Whether it was logged: not if the store has it already, or if a number has no run yet.

    Raises:
        DamagedError: The report is missing or can't be read.
        TrackingError: The store can't be used.
    """
    client = store.client()
    experiment = store.experiment(client, REPORT, _ABOUT)
    existing = logged_runs(client, experiment, made)
    run = existing.get("")
    if run is not None and finished(run) and not (check and not run_is_whole(client, run)):
        remove_duplicates(client, experiment, made, existing)
        return False
    run_ids = {
        (name, trial): run.info.run_id
        for name, study in studies.items()
        for trial, run in logged_runs(
            client, store.experiment(client, study.dataset), trained[name]
        ).items()
    }
    trials = {
        (name, study.trial_name(t)) for name, study in studies.items() for t in study.trials()
    }
    if trials - run_ids.keys():
        return False
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise DamagedError(f"{page}: is missing or damaged; run dvc repro {made.stage}") from None
    filled = with_runs(
        text,
        run_ids,
        {name: lineage.lock_digest for name, lineage in trained.items()},
    )
    if run is None:
        run = client.create_run(
            experiment, run_name=REPORT, tags=made.tags(), start_time=milliseconds()
        )
    client.log_text(run.info.run_id, filled, page.name)
    if not finished(run):
        client.set_terminated(run.info.run_id)
    remove_duplicates(client, experiment, made, existing)
    return True


def _has(
    client: mlflow.MlflowClient,
    run: Run,
    tag: str,
    drawn: Lineage,
    *,
    check: bool,
    files: set[str],
) -> bool:
    """Whether a run has the outputs of a stage by its tag and, with ``check``, also the files."""
    if run.data.tags.get(tag) != drawn.lock_digest:
        return False
    if not check:
        return True
    folders = {path.rpartition("/")[0] for path in files}
    existing = {
        name
        for folder in folders
        for name in names(client.list_artifacts(run.info.run_id, folder or None))
    }
    return files <= existing


def _opened(path: Path, drawn: Lineage) -> Image.Image:
    """Reads a picture.

    Raises:
        DamagedError: The picture can't be read.
    """
    try:
        picture = Image.open(path, formats=["PNG"])
        picture.load()
    except (OSError, SyntaxError, ValueError):  # Pillow raises these for damaged PNG files
        raise DamagedError(f"{path}: is damaged; run dvc repro {drawn.stage}") from None
    return picture


def _checked(table: Path, drawn: Lineage) -> pd.DataFrame:
    """Reads the gradient check.

    Raises:
        DamagedError: It is missing or damaged.
    """
    try:
        checked = records.read_frame(table)
        complete = len(checked) > 0 and all(
            math.isfinite(value) for key in _MEASURED for value in checked[key]
        )
    except (records.RecordError, KeyError, TypeError, UnicodeDecodeError):
        complete = False
    if not complete or "layer" not in checked:
        raise DamagedError(f"{table}: is missing or damaged; run dvc repro {drawn.stage}")
    return checked
