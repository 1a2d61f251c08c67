"""The Typer application, and what its commands read from the workspace."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sys
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from vgg16_transfer.errors import InputError, redacted
from vgg16_transfer.params import Params, read_params
from vgg16_transfer.params.compute import DEFAULT_COMPUTE, mistake
from vgg16_transfer.quiet import keep_float32, silence_tensorflow
from vgg16_transfer.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vgg16_transfer.compute.base import Pool
    from vgg16_transfer.images.source import Source
    from vgg16_transfer.tracking.mlflow_store import Store

QUIET, VERBOSE = "VGG16_TRANSFER_QUIET", "VGG16_TRANSFER_VERBOSE"
"""Environment variables: 1 is the option of the same name, also for what a command starts."""

COMPUTE = "VGG16_TRANSFER_COMPUTE"
"""Environment variable that comes before the key compute: jobs of a cluster edit no file."""

_ORDER = (
    # as one works
    *("init", "check", "results", "ui", "plots", "compare", "lineage", "publish"),
    *("register", "predict", "export", "serve"),
    *("release", "changes", "verify"),
    # as DVC does
    *("fetch", "splits", "sources", "weights", "features", "filters", "gradients"),
    *("train", "explain", "report"),
)


class _Ordered(TyperGroup):
    """Lists commands in the order in which they are used, not in that of their modules."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=_ORDER.index)


app = typer.Typer(
    cls=_Ordered,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vgg16-transfer {metadata.version('vgg16-transfer')}")
        raise typer.Exit


@app.callback()
def _of_all_commands(
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", envvar=QUIET, help="print results, warnings and errors only"),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", envvar=VERBOSE, help="print what libraries log, and tracebacks"
        ),
    ] = False,
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Transfer learning with a frozen VGG16: dvc repro runs the stages, these commands the rest."""
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other")
    os.environ[QUIET], os.environ[VERBOSE] = str(int(quiet)), str(int(verbose))
    if quiet:
        # A progress bar is drawn on terminals only.
        sys.stderr.isatty = lambda: False  # type: ignore[method-assign]
    keep_float32()
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    else:
        silence_tensorflow(fast=True)


@contextmanager
def listener(host: str, port: int, what: str) -> Iterator[socket.socket]:
    """A socket at an address, taken before a server spends seconds on loading.

    Args:
        host: Address to listen on.
        port: Its port.
        what: Names the command and the address in the error message.

    Raises:
        InputError: The address can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((host, port))
        except OSError as error:
            raise InputError(
                f"{what} is not available ({error.strerror}); choose another one, like "
                f"--port {port + 1}"
            ) from None
        yield taken


def is_set(switch: str) -> bool:
    """Whether :data:`QUIET` or :data:`VERBOSE` is set."""
    return os.environ.get(switch) == "1"


def note(sentence: str) -> None:
    """Prints what happens on stderr, unless ``--quiet`` is set."""
    if not is_set(QUIET):
        typer.echo(sentence, err=True)


def warn(sentence: str) -> None:
    """Prints a warning on stderr, without passwords."""
    typer.echo(redacted(sentence), err=True)


def _name(argument: str) -> str:
    """The name in an argument, or in the name of a stage, such as ``train@clipart-samples``."""
    return argument.rpartition("@")[2]


# dvc.yaml names no dataset and no study in a command, because a shell would run what else is in a
# name. DVC sets DVC_STAGE to the name of the stage.
_named = partial(typer.Argument, parser=_name, envvar="DVC_STAGE", show_envvar=False)
DatasetName = Annotated[
    str, _named(metavar="DATASET", help="dataset name: a key of datasets in params.yaml")
]
StudyName = Annotated[
    str, _named(metavar="STUDY", help="study name: a key of studies in params.yaml")
]
OnRay = Annotated[
    bool, typer.Option("--ray", help="compute on Ray, whatever params.yaml says of compute")
]


@contextmanager
def pool_of(params: Params, *, on_ray: bool) -> Iterator[Pool | None]:
    """The processes that compute; None if it is this one alone.

    Args:
        params: Has the key ``compute``, which the option and :data:`COMPUTE` come before.
        on_ray: Whether the option ``--ray`` is given.

    Raises:
        InputError: There is no such place, or what it needs is not installed.
    """
    asked = os.environ.get(COMPUTE)
    if asked and (wrong := mistake(asked)):
        raise InputError(f"{COMPUTE}: {wrong}")
    place = "ray" if on_ray else asked or params.compute
    if place == DEFAULT_COMPUTE:
        yield None
        return
    module = importlib.import_module(f"vgg16_transfer.compute.{place}")
    with module.opened(verbose=is_set(VERBOSE)) as pool:
        yield pool


def read() -> tuple[Params, Workspace]:
    """Reads params.yaml in the current folder. Returns the params, and the workspace's paths."""
    workspace = Workspace(Path.cwd())
    return read_params(workspace.params), workspace


def source_of(params: Params, workspace: Workspace, dataset: str) -> Source:
    """The source of a dataset's pictures."""
    from vgg16_transfer.images.source import Source

    return Source(workspace.source(dataset), params.dataset(dataset).encoding)


def tracking_store(workspace: Workspace, uri: str | None = None) -> Store:
    """The MLflow store to use.

    Args:
        workspace: Paths of the workspace.
        uri: Address of the store. The default is MLFLOW_TRACKING_URI, or else ``mlflow.db`` in the
            workspace.
    """
    from vgg16_transfer.tracking.mlflow_store import find_store

    # In `dvc exp run --temp` the stage runs in a folder that is thrown away; DVC_ROOT is not.
    root = Path(os.environ.get("DVC_ROOT", workspace.root))
    return find_store(root, uri or os.environ.get("MLFLOW_TRACKING_URI"))
