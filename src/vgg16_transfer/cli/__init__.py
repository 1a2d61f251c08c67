"""``vgg16-transfer <stage> …``: reads params.yaml and the environment, and calls the stage.

All other modules of the package take what they need as arguments. Heavy imports happen inside the
command that needs them, after params.yaml is read. So ``--help`` and error messages appear at once.
"""

from __future__ import annotations

import gc
import signal
import sys
import traceback

import typer

from vgg16_transfer.artifacts import unwritable
from vgg16_transfer.cli import models, releases, remotes, runs, serving, stages, start
from vgg16_transfer.cli.app import VERBOSE, app, is_set
from vgg16_transfer.errors import TERMINATED, InputError, shown

__all__ = ["app", "main", "models", "releases", "remotes", "runs", "serving", "stages", "start"]

_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main() -> None:
    """The console script.

    Bad input prints one sentence per mistake, without a traceback, and exits with code 2.
    """
    # Importing it creates a million objects that live as long as the process. Collecting garbage
    # less often, and not at all at exit, halves the time of a short command.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    # Without it, SIGTERM would leave temporary files and runs that seem to go on.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        if is_set(VERBOSE):
            traceback.print_exc()
        for mistake in shown(sentence):
            typer.echo(f"error: {mistake}", err=True)
        sys.exit(2)
    finally:
        gc.freeze()


def _terminate(*_: object) -> None:
    """Ends this process once: a second SIGTERM, as SLURM sends, would break off the clearing up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(TERMINATED)


def _sentence(error: Exception) -> str | None:
    """What to print instead of a traceback; None if only a bug can be the cause."""
    if isinstance(error, InputError):
        return str(error)
    # TensorFlow's error is known by its name, so that it need not be imported.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return (
            "out of memory; what is complete is kept; free some memory, or make image_size, "
            "batch_size or the number of pictures in params.yaml smaller; run this again"
        )
    if isinstance(error, OSError) and error.filename and error.strerror:
        problem = unwritable(error)
        return f"{error.filename}: {f'{problem}; run this again' if problem else error.strerror}"
    return None
