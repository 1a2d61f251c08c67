"""The commands that dvc.yaml runs: one per stage."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vgg16_transfer.cli.app import (
    DatasetName,
    OnRay,
    StudyName,
    app,
    note,
    pool_of,
    read,
    source_of,
    tracking_store,
    warn,
)
from vgg16_transfer.errors import InputError, redacted
from vgg16_transfer.heads.watching import milliseconds
from vgg16_transfer.tracking import logged
from vgg16_transfer.tracking.background import Background
from vgg16_transfer.tracking.features_run import FeaturesRun
from vgg16_transfer.tracking.live import StudyLogger, live_runs
from vgg16_transfer.tracking.log import (
    PagesLogger,
    drawing_stages,
    log_study,
    open_runs,
    or_later,
)

if TYPE_CHECKING:
    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Params
    from vgg16_transfer.workspace import Workspace


def _home() -> Path | None:
    """The workspace itself if a stage runs in a copy, which lacks files that git does not track."""
    home = os.environ.get("DVC_ROOT")  # set by `dvc exp run --temp`
    return Path(home) if home else None


@app.command()
def check() -> None:
    """Check params.yaml, and print what it asks for. DVC reads it first, in words of its own."""
    params, workspace = read()
    if not any((folder / ".git").exists() for folder in [workspace.root, *workspace.root.parents]):
        raise InputError(
            f"{workspace.root}: is not a git repository, which DVC needs; clone it with git, or "
            "run git init, git add --all and git commit"
        )
    trials = sum(len(study.trials()) for study in params.studies.values())
    counts = {
        "network": len(params.backbones),
        "dataset": len(params.datasets),
        "trial": trials,
    }
    listed = ", ".join(f"{count} {word}{'s' * (count > 1)}" for word, count in counts.items())
    studies = ", ".join(params.studies)
    note(f"params.yaml is valid: {listed} in {studies}")


@app.command()
def fetch(dataset: DatasetName) -> None:
    """Link a local dataset in data/raw/, or download one to it."""
    from vgg16_transfer.images.fetch import fetch as fetch_source

    params, workspace = read()
    settings = params.dataset(dataset)
    fetch_source(
        dataset,
        settings.source,
        settings.md5,
        settings.layout,
        out=workspace.source(dataset),
        home=_home(),
        encoding=settings.encoding,
    )


@app.command()
def splits(dataset: DatasetName) -> None:
    """Split a dataset's pictures into training and test, once per seed."""
    from vgg16_transfer.images.splits import write_splits

    params, workspace = read()
    out = workspace.splits(dataset)
    written = write_splits(dataset, params.dataset(dataset), workspace.source(dataset), out)
    for line in written.lines(out.relative_to(workspace.root)):
        note(line)


@app.command()
def sources() -> None:
    """Link the weights files that params.yaml names in models/sources/."""
    from vgg16_transfer.backbones.sources import write_sources

    params, workspace = read()
    named = {name: backbone.weights for name, backbone in params.backbones.items()}
    write_sources(named, workspace.weights_sources, _home())


@app.command()
def weights() -> None:
    """Write the weights of all networks to models/."""
    params, workspace = read()

    from vgg16_transfer.backbones.weights import write_all

    write_all(
        params.backbones,
        sources=workspace.weights_sources,
        files=workspace.weights_of(params.backbones),
        others=workspace.other_weights,
    )


@app.command()
def features(dataset: DatasetName, on_ray: OnRay = False) -> None:
    """Compute the features of every picture in a dataset's splits, once."""
    params, workspace = read()
    layers = params.dataset(dataset).layers
    stage = os.environ.get("DVC_STAGE")
    outs = workspace.features_of(dataset, params.backbones)
    with (
        _features_run(params, workspace, dataset, stage) if stage else nullcontext() as run,
        pool_of(params, on_ray=on_ray) as pool,
    ):
        from vgg16_transfer.backbones.features import write_features

        began = time.perf_counter()
        written = write_features(
            params.backbones,
            layers,
            weights=workspace.weights_of(params.backbones),
            splits=workspace.splits(dataset),
            source=source_of(params, workspace, dataset),
            outs=outs,
            pool=pool,
        )
        seconds = time.perf_counter() - began
        for name, (computed, damaged) in written.items():
            if damaged is None:
                sentence = "its index was damaged; all features were computed again"
                note(f"{outs[name]}: {sentence}")
            elif damaged:
                sentence = "pictures were missing or damaged; they were computed again"
                note(f"{outs[name]}: the rows of {damaged} {sentence}")
            which = name if params.named else "the network"
            note(f"{computed} pictures went through {which}")
        if run is None or stage is None:
            return

        from vgg16_transfer.backbones.store import FeatureStore

        with or_later(stage, warn):
            computed = sum(each.computed for each in written.values())
            held = sum(len(FeatureStore.open(outs[name]).ids) for name in written)
            root = next(iter(outs.values()))  # the stores of other networks are in it
            size = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
            measured = {
                "pictures_computed": computed,
                "pictures_reused": held - computed,
                "pictures_per_second": computed / seconds,
                "seconds": seconds,
                "store_megabytes": size / 1e6,
            }
            run.ask(FeaturesRun.end, measured)


@app.command()
def filters(
    dataset: DatasetName,
    every: Annotated[bool, typer.Option("--all", help="show all convolutions")] = False,
    out: Annotated[Path | None, typer.Option(help="folder to write to")] = None,
) -> None:
    """Draw the first kernels, and the feature maps of each convolution for a probe picture."""
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
    """Compare back-propagation with central differences, on a few of a dataset's pictures."""
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
def train(study_name: StudyName, on_ray: OnRay = False) -> None:
    """Train a study's heads, write their accuracies to results/, and log them to MLflow."""
    started = milliseconds()
    params, workspace = read()
    study = params.study(study_name)
    stage = os.environ.get("DVC_STAGE")
    # Left in the environment, it would make MLflow log to the run of `mlflow run` itself.
    parent_run_id = os.environ.pop("MLFLOW_RUN_ID", None)

    logger = partial(_logger, params, workspace, study_name, stage or "", parent_run_id, started)
    with (
        live_runs(logger) if stage else nullcontext() as live,
        pool_of(params, on_ray=on_ray) as pool,
    ):
        from vgg16_transfer.heads.studies import Streamed, train_study

        done = train_study(
            study,
            splits=workspace.splits(study.dataset),
            features=workspace.features_of(study.dataset, params.backbones),
            streamed=Streamed(
                source_of(params, workspace, study.dataset), workspace.weights_of(params.backbones)
            ),
            heads=workspace.heads(study_name),
            results=workspace.record(study_name),
            watch=live,
            pool=pool,
        )
        for failure in done.failures:
            warn(f"warning: {study_name}: trial failed: {failure}")
        if live is None or stage is None:
            note("not run by dvc repro, so nothing is logged to MLflow: there is no lineage")
            return

        from vgg16_transfer.lineage import lineage, origins

        origin = replace(
            lineage.running_stage(workspace.root, stage, os.environ.get("DVC_EXP_NAME")),
            started=started,
            ended=milliseconds(),
            times={name: origins.rounded(times._asdict()) for name, times in done.times.items()},
        )
        origins.remember(workspace.record(study_name), origin)
        with or_later(stage, warn):
            note(live.publish(origin))
            logged.note(workspace.root, os.environ.get("MLFLOW_TRACKING_URI"), origin)


def _features_run(
    params: Params, workspace: Workspace, dataset: str, stage: str
) -> Background[FeaturesRun]:
    """Logs a stage ``features`` while it runs."""
    settings: dict[str, Any] = {
        "dataset": dataset,
        "layers": ", ".join(params.dataset(dataset).layers),
    }
    for name, backbone in params.backbones.items():
        prefix = f"{name}." if params.named else ""
        values = backbone.model_dump() | {"weights": redacted(backbone.weights)}
        settings |= {f"{prefix}{key}": value for key, value in values.items()}
    opened = partial(tracking_store, workspace), partial(_starting, workspace, stage)
    return Background(partial(FeaturesRun, dataset, settings, *opened))


def _starting(workspace: Workspace, stage: str) -> Lineage:
    from vgg16_transfer.lineage import lineage

    return lineage.starting_stage(workspace.root, stage, os.environ.get("DVC_EXP_NAME"))


def _logger(
    params: Params,
    workspace: Workspace,
    study: str,
    stage: str,
    parent_run_id: str | None,
    started: int,
) -> StudyLogger:
    """Makes what logs a study, in the process that does."""
    store = tracking_store(workspace)

    from vgg16_transfer.tracking import publish  # noqa: F401 - now, as the stage takes its time

    def starting() -> Lineage:
        return replace(_starting(workspace, stage), started=started)

    return StudyLogger(
        params.study(study),
        partial(open_runs, store, params, workspace, study, starting, parent_run_id),
        partial(log_study, store, params, workspace, study, parent_run_id),
    )


@app.command()
def explain(study_name: StudyName) -> None:
    """Draw the mistakes of one head of a study, nearest neighbours, and class activation maps."""
    params, workspace = read()
    study = params.study(study_name)

    from vgg16_transfer.diagnostics.explain import write_explained

    write_explained(
        study,
        splits=workspace.splits(study.dataset),
        source=source_of(params, workspace, study.dataset),
        features=workspace.features_of(study.dataset, params.backbones),
        heads=workspace.heads(study_name),
        results=workspace.record(study_name),
        out=workspace.explained(study_name),
    )


@app.command()
def report() -> None:
    """Write reports/report.html from the results of all studies."""
    params, workspace = read()

    stage = os.environ.get("DVC_STAGE")
    if stage is None:  # in a stage, DVC has checked this already
        from vgg16_transfer.lineage.locked import check_current, check_locked

        shown = [*(f"train@{study}" for study in params.studies), *drawing_stages(params)]
        check_locked(workspace.root, shown)
        check_current(workspace.root, shown)

    logger = partial(_pages_logger, params, workspace)
    with Background(logger) if stage is not None else nullcontext() as pages:
        from vgg16_transfer.reporting.report import write_report

        write_report(
            params,
            workspace.reports,
            results=workspace.results,
            splits=workspace.root / "data" / "splits",
            filters=workspace.reports / "filters",
            gradients=workspace.reports / "gradients",
            explained=workspace.reports / "explained",
        )
        if pages is None or stage is None:
            return

        from vgg16_transfer.lineage import lineage

        origin = lineage.running_stage(workspace.root, stage, os.environ.get("DVC_EXP_NAME"))
        with or_later(stage, warn):
            for sentence in pages.ask(PagesLogger.log, origin):
                note(sentence)
            logged.note(workspace.root, os.environ.get("MLFLOW_TRACKING_URI"), origin)


def _pages_logger(params: Params, workspace: Workspace) -> PagesLogger:
    """Makes what logs the report, in the process that does."""
    return PagesLogger(tracking_store(workspace), params, workspace)
