"""The commands that dvc.yaml runs: one per stage."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path  # noqa: TC003 (Typer reads it)
from typing import Annotated

import typer

from vgg16_transfer.cli.app import DatasetName, StudyName, app, read, tracking_store
from vgg16_transfer.cli.runs import or_later, tell_pages, tell_study


@app.command()
def fetch(dataset: DatasetName) -> None:
    """Bring a dataset's archive to data/raw/, checked."""
    from vgg16_transfer.images.fetch import fetch as fetch_archive

    params, layout = read()
    wanted = params.dataset(dataset)
    fetch_archive(dataset, wanted.source, wanted.md5, wanted.layout, layout.archive(dataset))


@app.command()
def splits(dataset: DatasetName) -> None:
    """Split a dataset's pictures into training and test, once per seed."""
    from vgg16_transfer.images.splits import write_splits

    params, layout = read()
    out = layout.splits(dataset)
    written = write_splits(dataset, params.dataset(dataset), layout.archive(dataset), out)
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

    computed = write_features(
        params.backbone,
        layers,
        layout.weights,
        layout.splits(dataset),
        layout.archive(dataset),
        layout.features(dataset),
    )
    typer.echo(f"{computed} pictures went through the network", err=True)


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
        layout.weights,
        layout.splits(dataset) / f"{seed}.csv",
        layout.archive(dataset),
        out or layout.filters(dataset),
        CONVOLUTIONS if every else REPORTED,
    )


@app.command()
def gradients(dataset: DatasetName) -> None:
    """Hold back-propagation against central differences, on a few of a dataset's pictures."""
    params, layout = read()
    seed = params.dataset(dataset).split.seeds[0]

    from vgg16_transfer.heads.gradients import write_gradients

    write_gradients(
        params.backbone,
        layout.weights,
        layout.splits(dataset) / f"{seed}.csv",
        layout.archive(dataset),
        layout.gradients(dataset),
    )


@app.command()
def train(study: StudyName) -> None:
    """Train a study's heads, write what they reach to results/, and tell MLflow."""
    started = time.time_ns() // 10**6
    params, layout = read()
    wanted = params.study(study)

    from vgg16_transfer.heads.train import Inputs, train_study

    inputs = Inputs(
        layout.splits(wanted.dataset),
        layout.features(wanted.dataset),
        layout.archive(wanted.dataset),
        layout.weights,
    )
    train_study(wanted, inputs, layout.heads(study), layout.record(study))

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


@app.command()
def explain(study: StudyName) -> None:
    """Draw what one head of a study confuses, what lies near, and where it looks."""
    params, layout = read()
    wanted = params.study(study)

    from vgg16_transfer.reporting.explain import Inputs, write_explained

    inputs = Inputs(
        layout.splits(wanted.dataset),
        layout.archive(wanted.dataset),
        layout.features(wanted.dataset),
        layout.heads(study),
        layout.record(study),
    )
    write_explained(wanted, inputs, layout.explained(study))


@app.command()
def report() -> None:
    """Write reports/report.html from what the studies measured."""
    params, layout = read()

    from vgg16_transfer.reporting.report import Inputs, write_report

    inputs = Inputs(
        layout.results,
        layout.root / "data" / "splits",
        layout.reports / "filters",
        layout.reports / "gradients",
        layout.reports / "explained",
    )
    write_report(params.datasets, params.studies, inputs, layout.reports)

    stage = os.environ.get("DVC_STAGE")
    if stage is not None:
        from vgg16_transfer.tracking import lineage

        origin = lineage.running_stage(layout.root, stage, os.environ.get("DVC_EXP_NAME"))
        with or_later(stage):
            tell_pages(tracking_store(layout), params, layout, origin)
