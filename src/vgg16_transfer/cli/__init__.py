"""``vgg16-transfer <stage> …``: reads params.yaml and the environment, and calls the stage.

Everything else in the package takes what it needs as arguments. Heavy imports happen inside the
command that needs them, once params.yaml is read, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import gc
import os
import sys

import typer

from vgg16_transfer.cli import models, releases, remotes, runs, stages
from vgg16_transfer.cli.app import app
from vgg16_transfer.errors import InputError

__all__ = ["app", "main", "models", "releases", "remotes", "runs", "stages"]

_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main() -> None:
    """The console script: bad input is one sentence per mistake and exit code 2, no traceback."""
    # TensorFlow greets on stderr while it is imported; what it has to say of errors still comes.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Its import makes a million objects that live as long as the process: Python looks for garbage
    # among them less often on the way, and not at all at the end. That halves a short command.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        app()
    except InputError as error:
        for mistake in str(error).splitlines():
            typer.echo(f"error: {mistake}", err=True)
        sys.exit(2)
    finally:
        gc.freeze()
