"""What is drawn beside training → MLflow: filters, gradient checks, explained pictures, the page.

Each is known by the digest of its own stage's lock entry, in a tag: the same is told once, another
one replaces it.
"""

from __future__ import annotations

import math
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import Metric
from PIL import Image
from tqdm import tqdm

from vgg16_transfer.errors import InputError
from vgg16_transfer.heads import records
from vgg16_transfer.reporting.run_links import with_runs
from vgg16_transfer.tracking.known_runs import finished, known_runs, now, remove_twins
from vgg16_transfer.tracking.stored import names, run_is_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    import mlflow
    import pandas as pd
    from mlflow.entities import Run

    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Study
    from vgg16_transfer.tracking.mlflow_store import Store

REPORT = "report"
"""The experiment of the page, with one run per version of it."""

_EXPLAINED = "explained"
_FILTERS = "filters"
_GRADIENTS = "gradients"
_GRADIENT_TABLE = "gradient_check.csv"
_MEASURED = ("average", "max")
_IMAGES = "images"  # where MLflow's UI looks for the pictures of its grid
_SMALL = 256  # pixels of the longer side: what the grid shows first


class DamagedError(InputError):
    """A picture or a table that can't be read."""


def publish_filters(
    store: Store, study: Study, folder: Path, trained: Lineage, drawn: Lineage, *, check: bool
) -> int:
    """Adds filter pictures to the runs of all trials; their keys are the same in every run.

    Args:
        store: Where to.
        study: Which study.
        folder: The pictures that the stage ``filters`` drew of its dataset.
        trained: Where the study comes from: finds its runs.
        drawn: Where the pictures come from.
        check: Also ask runs that are known to have the pictures whether they do.

    Returns:
        To how many runs they were added.

    Raises:
        DamagedError: A picture is missing or can't be read.
        TrackingError: The store can't be used.
    """
    client = store.client()
    known = known_runs(client, store.experiment(client, study.dataset), trained)
    keys = [path.stem for path in sorted(folder.glob("*.png"))]
    lacking = [
        run
        for name, run in known.items()
        if name and not _has(client, run, _FILTERS, drawn, check=check, files=_grid(run, keys))
    ]
    if not lacking:
        return 0
    with tempfile.TemporaryDirectory() as small:
        pictures = [
            (path, _small(path, Path(small), drawn)) for path in sorted(folder.glob("*.png"))
        ]
        if not pictures:
            raise DamagedError(f"{folder}: holds no pictures; run dvc repro {drawn.stage}")
        for run in tqdm(lacking, desc=f"filters {study.name}", unit="run", disable=None):
            _tell_filters(client, run, pictures)
            client.set_tag(run.info.run_id, _FILTERS, drawn.lock_digest)
    return len(lacking)


def publish_gradients(
    store: Store, study: Study, table: Path, trained: Lineage, drawn: Lineage, *, check: bool
) -> bool:
    """Adds the gradient check of its dataset to the run of a study.

    Args:
        store: Where to.
        study: Which study.
        table: What the stage ``gradients`` wrote.
        trained: Where the study comes from: finds its run.
        drawn: Where the table comes from.
        check: Also ask a run that is known to have it whether it does.

    Returns:
        Whether there was anything to tell.

    Raises:
        DamagedError: The table is missing or can't be read.
        TrackingError: The store can't be used.
    """
    client = store.client()
    parent = known_runs(client, store.experiment(client, study.dataset), trained).get("")
    if parent is None or _has(
        client, parent, _GRADIENTS, drawn, check=check, files={_GRADIENT_TABLE}
    ):
        return False
    checked = _checked(table, drawn)
    timestamp = now()  # of two values at one step, the later one counts
    metrics = [
        Metric(f"gradient_check {row['layer']} {key}", row[key], timestamp, 0)
        for row in checked.to_dict("records")
        for key in _MEASURED
    ]
    client.log_batch(parent.info.run_id, metrics=metrics)
    client.log_text(parent.info.run_id, checked.to_csv(index=False), _GRADIENT_TABLE)
    client.set_tag(parent.info.run_id, _GRADIENTS, drawn.lock_digest)
    return True


def publish_explained(
    store: Store, study: Study, folder: Path, trained: Lineage, drawn: Lineage, *, check: bool
) -> bool:
    """Adds explained pictures to the run of the study that they explain.

    Args:
        store: Where to.
        study: Which study.
        folder: The pictures and their captions.
        trained: Where the study comes from: finds its run.
        drawn: Where the pictures come from.
        check: Also ask a run that is known to have them whether it does.

    Returns:
        Whether there was anything to tell: not if it is known, or if the study has no run.

    Raises:
        DamagedError: There are no pictures.
        TrackingError: The store can't be used.
    """
    client = store.client()
    parent = known_runs(client, store.experiment(client, study.dataset), trained).get("")
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
    """Logs the page as a run of its own, with the run ids and lock digests of all its numbers.

    Args:
        store: Where to.
        page: The page that the stage ``report`` made.
        studies: By name.
        trained: By study, where its numbers come from.
        made: Where the page comes from.
        check: Also ask a run that is known to have the page whether it does.

    Returns:
        Whether there was anything to tell: not if it is known, or if a number has no run yet.

    Raises:
        TrackingError: The store can't be used.
    """
    client = store.client()
    experiment = store.experiment(client, REPORT)
    known = known_runs(client, experiment, made)
    run = known.get("")
    if run is not None and finished(run) and not (check and not run_is_whole(client, run)):
        remove_twins(client, experiment, made, known)
        return False
    run_ids = {
        (name, trial): run.info.run_id
        for name, study in studies.items()
        for trial, run in known_runs(
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
        run = client.create_run(experiment, run_name=REPORT, tags=made.tags(), start_time=now())
    client.log_text(run.info.run_id, filled, page.name)
    if not finished(run):
        client.set_terminated(run.info.run_id)
    remove_twins(client, experiment, made, known)
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
    """Whether a run was told of what a stage wrote and, if that is to be checked, has its files."""
    if run.data.tags.get(tag) != drawn.lock_digest:
        return False
    if not check:
        return True
    folders = {path.rpartition("/")[0] for path in files}
    there = {
        name
        for folder in folders
        for name in names(client.list_artifacts(run.info.run_id, folder or None))
    }
    return files <= there


def _tell_filters(client: mlflow.MlflowClient, run: Run, pictures: list[tuple[Path, Path]]) -> None:
    """Logs pictures for the grid: as ``log_image`` does, but under names that stay the same.

    ``log_image`` draws a new name each time, so that a picture that is logged again would stand
    in the grid twice.
    """
    with tempfile.TemporaryDirectory() as folder:
        for path, small in pictures:
            whole, compressed = (Path(folder) / name for name in _grid_names(run, path.stem))
            whole.write_bytes(path.read_bytes())
            compressed.write_bytes(small.read_bytes())
        client.log_artifacts(run.info.run_id, folder, _IMAGES)
    client.set_tag(run.info.run_id, "mlflow.loggedImages", "True")  # the UI shows a grid


def _grid(run: Run, keys: list[str]) -> set[str]:
    return {f"{_IMAGES}/{name}" for key in keys for name in _grid_names(run, key)}


def _grid_names(run: Run, key: str) -> tuple[str, str]:
    """The files of a picture and of its small copy, as MLflow's UI takes them apart."""
    same = uuid.uuid5(uuid.UUID(run.info.run_id), key)
    name = f"{key}+step+0+timestamp+{run.info.start_time}+{same}"
    return f"{name}.png", f"{name}+compressed.webp"


def _small(path: Path, folder: Path, drawn: Lineage) -> Path:
    """A small copy of a picture, which finds out whether it can be read."""
    small = folder / f"{path.stem}.webp"
    try:
        with Image.open(path) as picture:
            picture.thumbnail((_SMALL, _SMALL))
            picture.save(small, "WEBP")
    except (OSError, SyntaxError, ValueError):  # what Pillow raises of damaged PNG files
        raise DamagedError(f"{path}: is damaged; run dvc repro {drawn.stage}") from None
    return small


def _checked(table: Path, drawn: Lineage) -> pd.DataFrame:
    """The gradient check, if it is whole."""
    try:
        checked = records.read_frame(table)
        right = len(checked) > 0 and all(
            math.isfinite(value) for key in _MEASURED for value in checked[key]
        )
    except (records.RecordError, KeyError, TypeError, UnicodeDecodeError):
        right = False
    if not right or "layer" not in checked:
        raise DamagedError(f"{table}: is missing or damaged; run dvc repro {drawn.stage}")
    return checked
