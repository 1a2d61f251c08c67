"""The commands that dvc.yaml runs: one per stage."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgg16_transfer.cli.app import DatasetName, StudyName, app, read, source_of, tracking_store
from vgg16_transfer.cli.runs import made_beside, or_later, tell_pages, tell_study

if TYPE_CHECKING:
    from vgg16_transfer.layout import Layout
    from vgg16_transfer.tracking.lineage import Lineage


@app.command()
def fetch(dataset: DatasetName) -> None:
    """Bring a dataset to data/raw/: a link to a local source, or what an address gives."""
    from vgg16_transfer.images.fetch import fetch as fetch_source

    params, layout = read()
    wanted = params.dataset(dataset)
    # In `dvc exp run --temp`, what git does not track is only where the experiment was asked for.
    home = os.environ.get("DVC_ROOT")
    fetch_source(
        dataset,
        wanted.source,
        wanted.md5,
        wanted.layout,
        out=layout.source(dataset),
        home=Path(home) if home else None,
        encoding=wanted.encoding,
    )


@app.command()
def splits(dataset: DatasetName) -> None:
    """Split a dataset's pictures into training and test, once per seed."""
    from vgg16_transfer.images.splits import write_splits

    params, layout = read()
    out = layout.splits(dataset)
    written = write_splits(dataset, params.dataset(dataset), layout.source(dataset), out)
    for line in written.lines(out.relative_to(layout.root)):
        typer.echo(line, err=True)


@app.command()
def weights() -> None:
    """Write VGG16's weights to models/."""
    params, layout = read()

    from vgg16_transfer.backbone.weights import write_weights

    write_weights(params.backbone.weights, layout.weights)


@app.command()
def features(dataset: DatasetName) -> None:
    """Send every picture of a dataset's splits through VGG16, once."""
    params, layout = read()
    layers = params.dataset(dataset).layers

    from vgg16_transfer.backbone.features import write_features

    out = layout.features(dataset)
    written = write_features(
        params.backbone,
        layers,
        weights=layout.weights,
        splits=layout.splits(dataset),
        source=source_of(params, layout, dataset),
        out=out,
    )
    if written.damaged is None:
        typer.echo(f"{out}: its index was damaged; all was computed again", err=True)
    elif written.damaged:
        typer.echo(
            f"{out}: the rows of {written.damaged} pictures were missing or others than those that "
            "were written; they were computed again",
            err=True,
        )
    typer.echo(f"{written.computed} pictures went through the network", err=True)


@app.command()
def filters(
    dataset: DatasetName,
    every: Annotated[bool, typer.Option("--all", help="show all 13 convolutions")] = False,
    out: Annotated[Path | None, typer.Option(help="folder to write to")] = None,
) -> None:
    """Draw the first kernels, and what each set of convolutions sees in a probe picture."""
    params, layout = read()
    seed = params.dataset(dataset).split.seeds[0]

    from vgg16_transfer.backbone.filters import REPORTED, write_filters
    from vgg16_transfer.backbone.vgg16 import CONVOLUTIONS

    write_filters(
        params.backbone,
        weights=layout.weights,
        manifest=layout.splits(dataset) / f"{seed}.csv",
        source=source_of(params, layout, dataset),
        out=out or layout.filters(dataset),
        convolutions=CONVOLUTIONS if every else REPORTED,
    )


@app.command()
def gradients(dataset: DatasetName) -> None:
    """Hold back-propagation against central differences, on a few of a dataset's pictures."""
    params, layout = read()
    seed = params.dataset(dataset).split.seeds[0]

    from vgg16_transfer.heads.gradients import write_gradients

    write_gradients(
        params.backbone,
        weights=layout.weights,
        manifest=layout.splits(dataset) / f"{seed}.csv",
        source=source_of(params, layout, dataset),
        out=layout.gradients(dataset),
    )


@app.command()
def train(study: StudyName) -> None:
    """Train a study's heads, write what they reach to results/, and tell MLflow."""
    started = time.time_ns() // 10**6
    params, layout = read()
    wanted = params.study(study)

    from vgg16_transfer.heads.train import Streamed, train_study

    failures = train_study(
        wanted,
        splits=layout.splits(wanted.dataset),
        features=layout.features(wanted.dataset),
        streamed=Streamed(source_of(params, layout, wanted.dataset), layout.weights),
        heads=layout.heads(study),
        results=layout.record(study),
    )
    for failure in failures:
        typer.echo(f"warning: {study}: trial failed: {failure}", err=True)

    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        typer.echo("not run by dvc repro, so MLflow is not told: there is no lineage", err=True)
        return

    from vgg16_transfer.tracking import lineage, origins

    origin = replace(
        lineage.running_stage(layout.root, stage, os.environ.get("DVC_EXP_NAME")),
        started=started,
        ended=time.time_ns() // 10**6,
    )
    origins.remember(layout.record(study), origin)
    # Left in the environment, it would make MLflow log to the run of `mlflow run` itself.
    parent_run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    with or_later(stage):
        tell_study(tracking_store(layout), params, layout, study, origin, parent_run_id)
        _note(layout, origin)


@app.command()
def explain(study: StudyName) -> None:
    """Draw what one head of a study confuses, what lies near, and where it looks."""
    params, layout = read()
    wanted = params.study(study)

    from vgg16_transfer.reporting.explain import write_explained

    write_explained(
        wanted,
        splits=layout.splits(wanted.dataset),
        source=source_of(params, layout, wanted.dataset),
        features=layout.features(wanted.dataset),
        heads=layout.heads(study),
        results=layout.record(study),
        out=layout.explained(study),
    )


@app.command()
def report() -> None:
    """Write reports/report.html from what the studies measured."""
    params, layout = read()

    stage = os.environ.get("DVC_STAGE")
    if stage is None:  # otherwise DVC has looked
        from vgg16_transfer.tracking.locked import check_locked

        trained = [f"train@{study}" for study in params.studies]
        check_locked(layout.root, [*trained, *made_beside(params)])

    from vgg16_transfer.reporting.report import write_report

    write_report(
        params.datasets,
        params.studies,
        layout.reports,
        results=layout.results,
        splits=layout.root / "data" / "splits",
        filters=layout.reports / "filters",
        gradients=layout.reports / "gradients",
        explained=layout.reports / "explained",
    )
    if stage is not None:
        from vgg16_transfer.tracking import lineage

        origin = lineage.running_stage(layout.root, stage, os.environ.get("DVC_EXP_NAME"))
        with or_later(stage):
            tell_pages(tracking_store(layout), params, layout, origin, check=False)
            _note(layout, origin)


def _note(layout: Layout, origin: Lineage) -> None:
    from vgg16_transfer.tracking import logged

    store = os.environ.get("MLFLOW_TRACKING_URI")
    logged.note(layout.root, store, origin.stage, origin.lock_digest)
