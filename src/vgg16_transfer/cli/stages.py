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
    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.workspace import Workspace


@app.command()
def fetch(dataset: DatasetName) -> None:
    """Bring a dataset to data/raw/: a link to a local source, or what an address gives."""
    from vgg16_transfer.images.fetch import fetch as fetch_source

    params, workspace = read()
    wanted = params.dataset(dataset)
    # In `dvc exp run --temp`, what git does not track is only where the experiment was asked for.
    home = os.environ.get("DVC_ROOT")
    fetch_source(
        dataset,
        wanted.source,
        wanted.md5,
        wanted.layout,
        out=workspace.source(dataset),
        home=Path(home) if home else None,
        encoding=wanted.encoding,
    )


@app.command()
def splits(dataset: DatasetName) -> None:
    """Split a dataset's pictures into training and test, once per seed."""
    from vgg16_transfer.images.splits import write_splits

    params, workspace = read()
    out = workspace.splits(dataset)
    written = write_splits(dataset, params.dataset(dataset), workspace.source(dataset), out)
    for line in written.lines(out.relative_to(workspace.root)):
        typer.echo(line, err=True)


@app.command()
def weights() -> None:
    """Write the network's weights to models/."""
    params, workspace = read()

    from vgg16_transfer.backbones.weights import write_weights

    write_weights(params.backbone.network, params.backbone.weights, workspace.weights)


@app.command()
def features(dataset: DatasetName) -> None:
    """Send every picture of a dataset's splits through the network, once."""
    params, workspace = read()
    layers = params.dataset(dataset).layers

    from vgg16_transfer.backbones.features import write_features

    out = workspace.features(dataset)
    written = write_features(
        params.backbone,
        layers,
        weights=workspace.weights,
        splits=workspace.splits(dataset),
        source=source_of(params, workspace, dataset),
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
    every: Annotated[bool, typer.Option("--all", help="show all convolutions")] = False,
    out: Annotated[Path | None, typer.Option(help="folder to write to")] = None,
) -> None:
    """Draw the first kernels, and what each set of convolutions sees in a probe picture."""
    params, workspace = read()
    seed = params.dataset(dataset).split.seeds[0]

    from vgg16_transfer.diagnostics.filters import write_filters

    write_filters(
        params.backbone,
        weights=workspace.weights,
        manifest=workspace.splits(dataset) / f"{seed}.csv",
        source=source_of(params, workspace, dataset),
        out=out or workspace.filters(dataset),
        every=every,
    )


@app.command()
def gradients(dataset: DatasetName) -> None:
    """Hold back-propagation against central differences, on a few of a dataset's pictures."""
    params, workspace = read()
    seed = params.dataset(dataset).split.seeds[0]

    from vgg16_transfer.diagnostics.gradients import write_gradients

    write_gradients(
        params.backbone,
        weights=workspace.weights,
        manifest=workspace.splits(dataset) / f"{seed}.csv",
        source=source_of(params, workspace, dataset),
        out=workspace.gradients(dataset),
    )


@app.command()
def train(study: StudyName) -> None:
    """Train a study's heads, write what they reach to results/, and tell MLflow."""
    started = time.time_ns() // 10**6
    params, workspace = read()
    wanted = params.study(study)

    from vgg16_transfer.heads.studies import Streamed, train_study

    failures = train_study(
        wanted,
        splits=workspace.splits(wanted.dataset),
        features=workspace.features(wanted.dataset),
        streamed=Streamed(source_of(params, workspace, wanted.dataset), workspace.weights),
        heads=workspace.heads(study),
        results=workspace.record(study),
    )
    for failure in failures:
        typer.echo(f"warning: {study}: trial failed: {failure}", err=True)

    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        typer.echo("not run by dvc repro, so MLflow is not told: there is no lineage", err=True)
        return

    from vgg16_transfer.lineage import lineage, origins

    origin = replace(
        lineage.running_stage(workspace.root, stage, os.environ.get("DVC_EXP_NAME")),
        started=started,
        ended=time.time_ns() // 10**6,
    )
    origins.remember(workspace.record(study), origin)
    # Left in the environment, it would make MLflow log to the run of `mlflow run` itself.
    parent_run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    with or_later(stage):
        tell_study(tracking_store(workspace), params, workspace, study, origin, parent_run_id)
        _note(workspace, origin)


@app.command()
def explain(study: StudyName) -> None:
    """Draw what one head of a study confuses, what lies near, and where it looks."""
    params, workspace = read()
    wanted = params.study(study)

    from vgg16_transfer.diagnostics.explain import write_explained

    write_explained(
        wanted,
        splits=workspace.splits(wanted.dataset),
        source=source_of(params, workspace, wanted.dataset),
        features=workspace.features(wanted.dataset),
        heads=workspace.heads(study),
        results=workspace.record(study),
        out=workspace.explained(study),
    )


@app.command()
def report() -> None:
    """Write reports/report.html from what the studies measured."""
    params, workspace = read()

    stage = os.environ.get("DVC_STAGE")
    if stage is None:  # otherwise DVC has looked
        from vgg16_transfer.lineage.locked import check_locked

        trained = [f"train@{study}" for study in params.studies]
        check_locked(workspace.root, [*trained, *made_beside(params)])

    from vgg16_transfer.reporting.report import write_report

    write_report(
        params.datasets,
        params.studies,
        workspace.reports,
        results=workspace.results,
        splits=workspace.root / "data" / "splits",
        filters=workspace.reports / "filters",
        gradients=workspace.reports / "gradients",
        explained=workspace.reports / "explained",
    )
    if stage is not None:
        from vgg16_transfer.lineage import lineage

        origin = lineage.running_stage(workspace.root, stage, os.environ.get("DVC_EXP_NAME"))
        with or_later(stage):
            tell_pages(tracking_store(workspace), params, workspace, origin, check=False)
            _note(workspace, origin)


def _note(workspace: Workspace, origin: Lineage) -> None:
    from vgg16_transfer.tracking import logged

    store = os.environ.get("MLFLOW_TRACKING_URI")
    logged.note(workspace.root, store, origin.stage, origin.lock_digest)
