"""``vgg16-transfer <stage> …``: reads params.yaml and the environment, and calls the stage.

Everything else in the package takes what it needs as arguments. Heavy imports happen inside the
command that needs them, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

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
        typer.echo(f"error: {error}", err=True)
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
    from vgg16_transfer.backbone.weights import write_weights

    params, layout = _read()
    write_weights(params.backbone.weights, layout.weights)


@app.command()
def features(dataset: DatasetName) -> None:
    """Send every picture of a dataset's splits through VGG16, once."""
    from vgg16_transfer.backbone.features import write_features

    params, layout = _read()
    computed = write_features(
        params.backbone,
        params.dataset(dataset).layers,
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
    from vgg16_transfer.backbone.filters import REPORTED, write_filters
    from vgg16_transfer.backbone.vgg16 import CONVOLUTIONS

    params, layout = _read()
    seed = params.dataset(dataset).split.seeds[0]
    write_filters(
        params.backbone,
        layout.weights,
        layout.splits(dataset) / f"{seed}.csv",
        layout.archive(dataset),
        out or layout.filters(dataset),
        CONVOLUTIONS if every else REPORTED,
    )


@app.command()
def train(study: StudyName) -> None:
    """Train a study's heads, write what they reach to results/, and tell MLflow."""
    from vgg16_transfer.heads.train import Inputs, train_study

    params, layout = _read()
    wanted = params.study(study)
    inputs = Inputs(layout.splits(wanted.dataset), layout.features(wanted.dataset))
    train_study(wanted, inputs, layout.heads(study), layout.record(study))

    from vgg16_transfer.tracking import lineage

    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        typer.echo("not run by dvc repro, so MLflow is not told: there is no lineage", err=True)
        return
    origin = lineage.running_stage(layout.root, stage, os.environ.get("DVC_EXP_NAME"))
    _publish(_store(layout), params, layout, study, origin, os.environ.pop("MLFLOW_RUN_ID", None))


@app.command()
def report() -> None:
    """Write reports/report.html from what the studies measured."""
    from vgg16_transfer.reporting.report import write_report

    params, layout = _read()
    filters_folder = layout.reports / "filters"
    write_report(params.datasets, params.studies, layout.results, filters_folder, layout.reports)


@app.command()
def publish() -> None:
    """Tell MLflow what it does not know yet of the results in this workspace."""
    from vgg16_transfer.tracking import lineage

    params, layout = _read()
    store = _store(layout)
    for study in params.studies:
        origin = lineage.locked_stage(layout.root, f"train@{study}")
        _publish(store, params, layout, study, origin, None)


@app.command()
def results() -> None:
    """Print what the studies measured, and what to look at next."""
    from rich.console import Console
    from rich.table import Table

    from vgg16_transfer.heads import records
    from vgg16_transfer.reporting.report import table

    params, layout = _read()
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


def _publish(
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
        layout.record(study), layout.heads(study), layout.splits(dataset), layout.filters(dataset)
    )
    told = publish_study(store, params.study(study), outputs, lineage, parent_run_id)
    typer.echo(f"{study}: {told} runs told to MLflow at {store.uri}", err=True)
