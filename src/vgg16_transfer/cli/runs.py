"""The commands about runs: telling MLflow of them, and looking at them."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgg16_transfer.cli.app import app, read, tracking_store
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas import DataFrame
    from rich.table import Table

    from vgg16_transfer.lineage.lineage import Lineage
    from vgg16_transfer.params import Params
    from vgg16_transfer.tracking.mlflow_store import Store
    from vgg16_transfer.workspace import Workspace

_A_PAIR = 2


@app.command()
def publish(
    if_new: Annotated[
        bool, typer.Option("--if-new", help="only if dvc.lock is another one than last time")
    ] = False,
    to: Annotated[
        str | None, typer.Option(metavar="URI", help="a store; otherwise MLFLOW_TRACKING_URI's")
    ] = None,
) -> None:
    """Tell MLflow what it does not know yet of the results in this workspace."""
    params, workspace = read()
    to = to or os.environ.get("MLFLOW_TRACKING_URI")
    stages = [*(f"train@{study}" for study in params.studies), "report"]

    from vgg16_transfer.tracking import logged

    there = to or (workspace.root / "mlflow.db").exists()
    if if_new and there and logged.is_noted(workspace.root, to, stages):
        typer.echo("MLflow knows of these results; vgg16-transfer publish asks it anyway", err=True)
        return

    from vgg16_transfer.lineage import lineage, origins
    from vgg16_transfer.lineage.locked import check_locked

    check_locked(workspace.root, [*stages, *made_beside(params)])
    store = tracking_store(workspace, to)
    locked = lineage.locked_stages(workspace.root, stages)
    for study in params.studies:
        origin = origins.recall(workspace.record(study), locked[f"train@{study}"])
        tell_study(store, params, workspace, study, replace(origin, replayed=True), None)
    tell_pages(store, params, workspace, locked["report"], check=True)
    for stage, origin in locked.items():
        logged.note(workspace.root, to, stage, origin.lock_digest)


@app.command()
def results() -> None:
    """Print what the studies measured, and what to look at next."""
    params, workspace = read()

    from rich.console import Console
    from rich.table import Table

    from vgg16_transfer.lineage.locked import check_locked
    from vgg16_transfer.reporting import failures, reading
    from vgg16_transfer.reporting.tables import table

    check_locked(workspace.root, [f"train@{study}" for study in params.studies], only="results/")
    console = Console()
    for name, study in params.studies.items():
        trials = reading.record(workspace.record(name), study).trials
        rows = table(study, trials)
        printed = Table(title=f"{name}: test pictures, mean ± std", title_justify="left")
        for column in rows[0]:
            printed.add_column(column, justify="right")
        for row in rows:
            printed.add_row(*map(str, row.values()))
        console.print(printed)
        for sentence in failures.sentences(trials):
            console.print(f"failed: {sentence}", markup=False, highlight=False)
    console.print(
        "compare the runs:  make ui", "read the report:   open reports/report.html", sep="\n"
    )


@app.command()
def lineage(run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="of a run")]) -> None:
    """Print where a run comes from, and what of it this workspace has."""
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
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="of trials or studies")],
    pictures: Annotated[int, typer.Option(help="how many changed pictures to name")] = 20,
) -> None:
    """Print in what runs differ: settings, accuracies, and which test pictures changed sides."""
    if len(run_ids) < _A_PAIR:
        raise InputError("compare: takes two or more run ids; copy them from the MLflow UI")
    _, workspace = read()

    from rich.console import Console

    from vgg16_transfer.tracking import comparison
    from vgg16_transfer.tracking.reach import reached

    store = tracking_store(workspace)
    with reached(store):
        found = comparison.compare(store.client(), run_ids)
    console = Console()
    console.print(_table("settings that differ", found.settings))
    console.print(_table("test accuracy, % (mean ± std)", found.accuracies))
    told = f"{len(found.changed)} of {found.common} test pictures changed sides"
    if len(found.changed) > pictures:
        told += f"; the first {pictures} (--pictures {len(found.changed)} names all)"
    console.print(_table(f"{told}: share of trials that took it rightly", found.changed[:pictures]))


@app.command()
def ui(port: Annotated[int, typer.Option(help="of the server")] = 5000) -> None:
    """Serve the MLflow UI on loopback."""
    store = tracking_store(read()[1])
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"ui: port {port} can't be had ({error.strerror}); name another one, as --port "
                f"{port + 1}"
            ) from None
    from vgg16_transfer.tracking.reach import reached

    with reached(store):
        store.client()
    typer.echo(f"MLflow UI of {store} on http://127.0.0.1:{port}", err=True)
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    where = ["--backend-store-uri", store.uri, "--host", "127.0.0.1", "--port", str(port)]
    os.execv(mlflow, [mlflow, "ui", *where])  # noqa: S606


def made_beside(params: Params) -> list[str]:
    """The stages, other than training and the report, whose outputs are shown and logged."""
    of_datasets = [
        f"{stage}@{dataset}"
        for stage in ("splits", "filters", "gradients")
        for dataset in params.datasets
    ]
    return [*of_datasets, *(f"explain@{study}" for study in params.studies)]


def _table(title: str, frame: DataFrame) -> Table:
    from rich.table import Table

    printed = Table("", *map(str, frame.columns), title=title, title_justify="left")
    for name, row in frame.iterrows():
        printed.add_row(str(name), *(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row))
    return printed


@contextmanager
def or_later(stage: str) -> Iterator[None]:
    """In a stage: whatever is wrong with the store, it costs no result, for these are written."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - no failure of logging costs a training
        problem = str(error)
        if not isinstance(error, InputError):
            reason = " ".join(str(error).partition("\n")[0].split())
            problem = (
                f"unexpected {type(error).__name__} ({reason}), whose traceback vgg16-transfer "
                "publish shows"
            )
        typer.echo(
            f"warning: {stage}: {problem}; nothing is lost: the results are in results/, models/ "
            "and reports/, and vgg16-transfer publish tells MLflow of them once this is mended",
            err=True,
        )


def tell_study(
    store: Store,
    params: Params,
    workspace: Workspace,
    study: str,
    lineage: Lineage,
    parent_run_id: str | None,
) -> None:
    """Tells MLflow of a study in the workspace, unless it knows."""
    from vgg16_transfer.tracking.publish import publish_study
    from vgg16_transfer.tracking.reach import reached

    with reached(store):
        told = publish_study(
            store,
            params.study(study),
            lineage,
            results=workspace.record(study),
            heads=workspace.heads(study),
            splits=workspace.splits(params.study(study).dataset),
            parent_run_id=parent_run_id,
        )
    typer.echo(f"{study}: {told} runs told to MLflow at {store}", err=True)


def tell_pages(
    store: Store, params: Params, workspace: Workspace, origin: Lineage, *, check: bool
) -> None:
    """Tells MLflow of what was drawn of the studies, unless it knows.

    Args:
        store: Where to.
        params: Of the workspace.
        workspace: Of the workspace.
        origin: Where the page comes from.
        check: Also ask whether files that are known are still there, which takes a while.
    """
    from vgg16_transfer.lineage.lineage import locked_stages
    from vgg16_transfer.tracking import pages
    from vgg16_transfer.tracking.reach import reached

    datasets = {study.dataset for study in params.studies.values()}
    locked = locked_stages(
        workspace.root,
        [
            *(f"{stage}@{study}" for stage in ("train", "explain") for study in params.studies),
            *(f"{stage}@{dataset}" for stage in ("filters", "gradients") for dataset in datasets),
        ],
    )
    trained = {name: locked[f"train@{name}"] for name in params.studies}
    with reached(store):
        for name, study in params.studies.items():
            dataset = study.dataset
            drawn = (
                (pages.publish_filters, workspace.filters(dataset), f"filters@{dataset}"),
                (pages.publish_gradients, workspace.gradients(dataset), f"gradients@{dataset}"),
                (pages.publish_explained, workspace.explained(name), f"explain@{name}"),
            )
            runs = sum(
                log(store, study, path, trained[name], locked[stage], check=check)
                for log, path, stage in drawn
            )
            if runs:
                typer.echo(f"{name}: pictures added to its runs at {store}, {runs} times", err=True)
        page = workspace.reports / "report.html"
        told = pages.publish_report(store, page, params.studies, trained, origin, check=check)
    if told:
        typer.echo(f"report: told to MLflow at {store}", err=True)
