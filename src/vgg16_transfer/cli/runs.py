"""The commands that log runs to MLflow, and show them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgg16_transfer.cli.app import app, listener, note, read, tracking_store
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
        note("these results are already logged to MLflow; vgg16-transfer publish checks the store")
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
        note(log_study(store, params, workspace, study, None, replayed))
    for sentence in log_pages(store, params, workspace, locked["report"], check=True):
        note(sentence)
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
def lineage(
    run_id: Annotated[
        str, typer.Argument(metavar="RUN", help="id of a run, or a name: see compare")
    ],
) -> None:
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
        list[str],
        typer.Argument(
            metavar="RUN RUN…",
            help="names of studies, of trials as in the UI, or of DVC experiments; or ids of runs",
        ),
    ],
    pictures: Annotated[int, typer.Option(help="how many of the pictures to name")] = 20,
) -> None:
    """Print how runs differ: settings, accuracies, and test pictures classified differently."""
    if len(run_ids) < _A_PAIR:
        raise InputError(
            "compare: takes two or more runs: names of studies, trials or DVC experiments, or ids"
        )
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
def ui(
    port: Annotated[int, typer.Option(help="port of the server")] = 5000,
    host: Annotated[
        str, typer.Option(help="address to listen on; every one but loopback lets others in")
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--open/--no-open", help="open a browser")] = True,
) -> None:
    """Serve the MLflow UI, and open the runs of this workspace in a browser."""
    params, workspace = read()
    store = tracking_store(workspace)
    with listener(host, port, f"ui: port {port}"):
        pass  # MLflow, which takes this process over, binds it again
    from vgg16_transfer.tracking.reach import reached
    from vgg16_transfer.tracking.views import address

    pages = {}
    with reached(store):
        for dataset in params.datasets:
            studies = [study for study in params.studies.values() if study.dataset == dataset]
            page = address(store, dataset, studies)
            if page is not None:
                pages[dataset] = f"http://{host}:{port}/{page}"
    note(f"MLflow UI of {store} on http://{host}:{port}")
    for dataset, page in pages.items():
        note(f"runs of {dataset}: {page}")
    if not pages:
        note("it has no runs yet; dvc repro makes some")
    if show and pages and _has_a_screen():
        _open_when_ready(f"http://{host}:{port}", next(iter(pages.values())))
    # Seven more processes, for language models' jobs, which no study has.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # Each of MLflow's own processes would say it, of MLflow's own code.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:starlette.middleware.wsgi is deprecated")
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    options = ["--backend-store-uri", store.uri, "--host", host, "--port", str(port)]
    os.execv(mlflow, [mlflow, "ui", *options])  # noqa: S606


@app.command()
def plots(
    revisions: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REVISION]...", help="commits, tags or experiments to compare"),
    ] = None,
    out: Annotated[Path, typer.Option(help="folder to write to")] = Path("dvc_plots"),
) -> None:
    """Draw what dvc plots draws, as one page that needs no network."""
    from vgg16_transfer.versions.plots import draw

    read()
    typer.echo(draw(out, revisions or []))


def _has_a_screen() -> bool:
    """Whether there is a desktop. Without one, Python would open a browser in the terminal."""
    return sys.platform in {"darwin", "win32"} or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def _open_when_ready(server: str, page: str) -> None:
    """Opens a page once the server answers. This process becomes the server, so another waits."""
    code = (
        "import sys, time, urllib.request, webbrowser\n"
        "for _ in range(120):\n"
        "    try:\n"
        "        urllib.request.urlopen(sys.argv[1] + '/health', timeout=5)\n"
        "        webbrowser.open(sys.argv[2])\n"
        "        break\n"
        "    except OSError:\n"
        "        time.sleep(0.5)\n"
    )
    subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code, server, page],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _table(title: str, frame: DataFrame) -> Table:
    from rich.table import Table

    printed = Table("", *map(str, frame.columns), title=title, title_justify="left")
    for name, row in frame.iterrows():
        printed.add_row(str(name), *(f"{v:.2f}" if isinstance(v, float) else str(v) for v in row))
    return printed
