"""``vgg16-transfer <stage> …``: reads params.yaml and the environment, and calls the stage.

Everything else in the package takes what it needs as arguments. Heavy imports happen inside the
command that needs them, once params.yaml is read, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgg16_transfer.errors import InputError
from vgg16_transfer.layout import Layout
from vgg16_transfer.params import Params, read_params

if TYPE_CHECKING:
    from vgg16_transfer.tracking.lineage import Lineage
    from vgg16_transfer.tracking.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="a key of datasets")]
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="a key of studies")]


def main() -> None:
    """The console script: bad input is one sentence per mistake and exit code 2, no traceback."""
    # TensorFlow greets on stderr while it is imported; what it has to say of errors still comes.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        app()
    except InputError as error:
        for mistake in str(error).splitlines():
            typer.echo(f"error: {mistake}", err=True)
        sys.exit(2)


@app.command()
def fetch(dataset: DatasetName) -> None:
    """Bring a dataset's archive to data/raw/, checked."""
    from vgg16_transfer.images.fetch import fetch as fetch_archive

    params, layout = _read()
    wanted = params.dataset(dataset)
    fetch_archive(dataset, wanted.source, wanted.md5, wanted.layout, layout.archive(dataset))


@app.command()
def splits(dataset: DatasetName) -> None:
    """Deal a dataset's pictures out to training and test, once per seed."""
    from vgg16_transfer.images.splits import write_splits

    params, layout = _read()
    left_out = write_splits(
        dataset, params.dataset(dataset), layout.archive(dataset), layout.splits(dataset)
    )
    for picture in left_out.itertuples():
        typer.echo(f"left out: {picture.path}: {picture.reason}", err=True)


@app.command()
def weights() -> None:
    """Write VGG16's weights to models/."""
    params, layout = _read()

    from vgg16_transfer.backbone.weights import write_weights

    write_weights(params.backbone.weights, layout.weights)


@app.command()
def features(dataset: DatasetName) -> None:
    """Send every picture of a dataset's splits through VGG16, once."""
    params, layout = _read()
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
    params, layout = _read()
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
    params, layout = _read()
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
    params, layout = _read()
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

    from vgg16_transfer.tracking import lineage

    origin = lineage.running_stage(layout.root, stage, os.environ.get("DVC_EXP_NAME"))
    # Left in the environment, it would make MLflow log to the run of `mlflow run` itself.
    parent_run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    _publish_study(_store(layout), params, layout, study, origin, parent_run_id)


@app.command()
def explain(study: StudyName) -> None:
    """Draw what one head of a study confuses, what lies near, and where it looks."""
    params, layout = _read()
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
    params, layout = _read()

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
        _publish_pages(_store(layout), params, layout, origin)


@app.command()
def publish(
    if_new: Annotated[
        bool, typer.Option("--if-new", help="only if dvc.lock is another one than last time")
    ] = False,
) -> None:
    """Tell MLflow what it does not know yet of the results in this workspace."""
    params, layout = _read()
    stamp, state = _stamp(layout)
    there = "MLFLOW_TRACKING_URI" in os.environ or (layout.root / "mlflow.db").exists()
    if if_new and there and stamp.exists() and stamp.read_text(encoding="utf-8") == state:
        typer.echo("MLflow knows of these results; vgg16-transfer publish asks it anyway", err=True)
        return

    from vgg16_transfer.tracking import lineage

    store = _store(layout)
    stages = [*(f"train@{study}" for study in params.studies), "report"]
    origins = lineage.locked_stages(layout.root, stages)
    for study in params.studies:
        _publish_study(store, params, layout, study, origins[f"train@{study}"], None)
    _publish_pages(store, params, layout, origins["report"])
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(state, encoding="utf-8")


@app.command()
def results() -> None:
    """Print what the studies measured, and what to look at next."""
    params, layout = _read()

    from rich.console import Console
    from rich.table import Table

    from vgg16_transfer.heads import records
    from vgg16_transfer.reporting.report import table

    console = Console()
    for name, study in params.studies.items():
        rows = table(study, records.read(layout.record(name)).trials)
        printed = Table(title=f"{name}: test pictures, mean ± std", title_justify="left")
        for column in rows[0]:
            printed.add_column(column, justify="right")
        for row in rows:
            printed.add_row(*map(str, row.values()))
        console.print(printed)
    console.print(
        "compare the runs:  make ui", "read the report:   open reports/report.html", sep="\n"
    )


@app.command()
def ui(port: Annotated[int, typer.Option(help="of the server")] = 5000) -> None:
    """Serve the MLflow UI on loopback."""
    store = _store(_read()[1])
    typer.echo(f"MLflow UI of {store.uri} on http://127.0.0.1:{port}", err=True)
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    where = ["--backend-store-uri", store.uri, "--host", "127.0.0.1", "--port", str(port)]
    os.execv(mlflow, [mlflow, "ui", *where])  # noqa: S606


def _read() -> tuple[Params, Layout]:
    layout = Layout(Path.cwd())
    return read_params(layout.params), layout


def _store(layout: Layout) -> Store:
    from vgg16_transfer.tracking.store import find_store

    # In `dvc exp run --temp` the stage runs in a folder that is thrown away; DVC_ROOT is not.
    root = Path(os.environ.get("DVC_ROOT", layout.root))
    return find_store(root, os.environ.get("MLFLOW_TRACKING_URI"))


def _stamp(layout: Layout) -> tuple[Path, str]:
    """Where it is noted what was published last, and what that is now; asking MLflow takes seconds.

    The note lies with the artifacts, so that it is thrown away with them.
    """
    lock = layout.root / "dvc.lock"
    digest = hashlib.sha256(lock.read_bytes() if lock.exists() else b"").hexdigest()
    where = os.environ.get("MLFLOW_TRACKING_URI", "")
    return layout.root / "mlartifacts" / ".published", f"{digest} {where}\n"


def _publish_study(
    store: Store,
    params: Params,
    layout: Layout,
    study: str,
    lineage: Lineage,
    parent_run_id: str | None,
) -> None:
    from vgg16_transfer.tracking.publish import Outputs, publish_study

    dataset = params.study(study).dataset
    outputs = Outputs(
        layout.record(study),
        layout.heads(study),
        layout.splits(dataset),
        layout.filters(dataset),
        layout.gradients(dataset),
    )
    told = publish_study(store, params.study(study), outputs, lineage, parent_run_id)
    typer.echo(f"{study}: {told} runs told to MLflow at {store.uri}", err=True)


def _publish_pages(store: Store, params: Params, layout: Layout, origin: Lineage) -> None:
    from vgg16_transfer.tracking.lineage import locked_stages
    from vgg16_transfer.tracking.pages import publish_explained, publish_report

    trained = {study: f"train@{study}" for study in params.studies}
    drawn = {study: f"explain@{study}" for study in params.studies}
    origins = locked_stages(layout.root, [*trained.values(), *drawn.values()])
    for name, study in params.studies.items():
        folder = layout.explained(name)
        publish_explained(store, study, folder, origins[trained[name]], origins[drawn[name]])
    by_study = {name: origins[stage] for name, stage in trained.items()}
    page = layout.reports / "report.html"
    if publish_report(store, page, params.studies, by_study, origin):
        typer.echo(f"report: told to MLflow at {store.uri}", err=True)
