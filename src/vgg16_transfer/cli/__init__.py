"""``vgg16-transfer <stage> …``: reads params.yaml and the environment, and calls the stage.

All other modules of the package take what they need as arguments. Heavy imports happen inside the
command that needs them, after params.yaml is read. So ``--help`` and error messages appear at once.
"""

from __future__ import annotations

import gc
import os
import sys

import typer

from vgg16_transfer.cli import models, releases, remotes, runs, stages
from vgg16_transfer.cli.app import app
from vgg16_transfer.cli.quiet import silence
from vgg16_transfer.errors import InputError, shown

__all__ = ["app", "main", "models", "releases", "remotes", "runs", "stages"]

_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main() -> None:
    """The console script.

    Bad input prints one sentence per mistake, without a traceback, and exits with code 2.
    """
    # TensorFlow logs lines on stderr while it is imported; its errors are still printed.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    silence("tensorflow")
    # Importing it creates a million objects that live as long as the process. Collecting garbage
    # less often, and not at all at exit, halves the time of a short command.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        app()
    except InputError as error:
        for mistake in shown(str(error)):
            typer.echo(f"error: {mistake}", err=True)
        sys.exit(2)
    finally:
        gc.freeze()
