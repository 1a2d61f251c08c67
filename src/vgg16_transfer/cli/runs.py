"""The commands that log runs to MLflow, and show them."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgg16_transfer.cli.app import app, read, tracking_store
from vgg16_transfer.errors import InputError
from vgg16_transfer.tracking import logged
from vgg16_transfer.tracking.log import drawing_stages, log_pages, log_study

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

_A_PAIR = 2


@app.command()
def publish(
    if_new: Annotated[
        bool, typer.Option("--if-new", help="only if dvc.lock changed since the last time")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(metavar="URI", help="the store; the default is MLFLOW_TRACKING_URI"),
    ] = None,
) -> None:
    """Log the results in this workspace to MLflow, except those that it has already."""
    params, workspace = read()
    to = to or os.environ.get("MLFLOW_TRACKING_URI")
    stages = [*(f"train@{study}" for study in params.studies), "report"]

    store_exists = to or (workspace.root / "mlflow.db").exists()
    if if_new and store_exists and logged.is_noted(workspace.root, to, stages):
        typer.echo(
            "these results are already logged to MLflow; vgg16-transfer publish checks the store",
            err=True,
        )
        return

    from vgg16_transfer.lineage import lineage, origins
    from vgg16_transfer.lineage.locked import check_current, check_locked

    drawn = [*stages, *drawing_stages(params)]
    check_locked(workspace.root, drawn)
    check_current(workspace.root, drawn)
    store = tracking_store(workspace, to)
    locked = lineage.locked_stages(workspace.root, stages)
    for study in params.studies:
        origin = origins.recall(workspace.record(study), locked[f"train@{study}"])
        replayed = replace(origin, replayed=True)
        typer.echo(log_study(store, params, workspace, study, replayed, None), err=True)
    for sentence in log_pages(store, params, workspace, locked["report"], check=True):
        typer.echo(sentence, err=True)
    for origin in locked.values():
        logged.note(workspace.root, to, origin)


@app.command()
def results() -> None:
    """Print the accuracies of all studies, and what to look at next."""
    params, workspace = read()

    from rich.console import Console
    from rich.table import Table

    from vgg16_transfer.lineage.locked import check_locked
    from vgg16_transfer.reporting import failures, reading
    from vgg16_transfer.reporting.tables import table

    check_locked(workspace.root, [f"train@{study}" for study in params.studies], only="results/")
    console = Console()
    for name, study in params.studies.items():
        record = reading.record(workspace.record(name), study)
        rows = table(study, record)
        printed = Table(
            title=f"{name}: test pictures, mean ± std over splits", title_justify="left"
        )
        for column in rows[0]:
            printed.add_column(column, justify="right")
        for row in rows:
            printed.add_row(*map(str, row.values()))
        console.print(printed)
        for sentence in failures.sentences(record.trials):
            console.print(f"failed: {sentence}", markup=False, highlight=False)
    console.print(
        "compare the runs:  make ui", "read the report:   open reports/report.html", sep="\n"
    )


@app.command()
def lineage(run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="id of a run")]) -> None:
    """Print which code and data a run comes from, and which of them this workspace has."""
    _, workspace = read()

    from vgg16_transfer.lineage.presence import facts
    from vgg16_transfer.tracking.comparison import find_run
    from vgg16_transfer.tracking.reach import reached

    store = tracking_store(workspace)
    with reached(store):
        run = find_run(store.client(), run_id)
    typer.echo(f"{'run':<14}{run.info.run_name}")
    for what, value, where in facts(workspace.root, run.data.tags):
        typer.echo(f"{what:<14}{value}" + (f"  ({where})" if where else ""))


@app.command()
def compare(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN RUN…", help="ids of runs of trials or studies")
    ],
    pictures: Annotated[int, typer.Option(help="how many of the pictures to name")] = 20,
) -> None:
    """Print how runs differ: settings, accuracies, and test pictures classified differently."""
    if len(run_ids) < _A_PAIR:
        raise InputError("compare: takes two or more run ids; copy them from the MLflow UI")
    _, workspace = read()

    from rich.console import Console

    from vgg16_transfer.tracking import comparison
    from vgg16_transfer.tracking.reach import reached

    store = tracking_store(workspace)
    with reached(store):
        compared = comparison.compare(store.client(), run_ids)
    console = Console()
    console.print(_table("settings that differ", compared.settings))
    console.print(_table("test accuracy, % (mean ± std)", compared.accuracies))
    count = len(compared.changed)
    title = f"{count} of {compared.common} test pictures are classified differently"
    if count > pictures:
        title += f"; the first {pictures} (--pictures {count} names all)"
    title += ": share of trials that classified it correctly"
    console.print(_table(title, compared.changed[:pictures]))


@app.command()
def ui(port: Annotated[int, typer.Option(help="port of the server")] = 5000) -> None:
    """Serve the MLflow UI on loopback."""
    store = tracking_store(read()[1])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"ui: port {port} is not available ({error.strerror}); choose another one, like "
                f"--port {port + 1}"
            ) from None
    from vgg16_transfer.tracking.reach import reached

    with reached(store):
        store.client()
    typer.echo(f"MLflow UI of {store} on http://127.0.0.1:{port}", err=True)
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    options = ["--backend-store-uri", store.uri, "--host", "127.0.0.1", "--port", str(port)]
    os.execv(mlflow, [mlflow, "ui", *options])  # noqa: S606


def _table(title: str, frame: DataFrame) -> Table:
    from rich.table import Table

    printed = Table("", *map(str, frame.columns), title=title, title_justify="left")
    for name, row in frame.iterrows():
        printed.add_row(str(name), *(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row))
    return printed
