"""Starts the commands of tests in a process that has imported TensorFlow, MLflow and DVC before.

Each stage is a process, and imports took half of the time of a small pipeline. Here each command is
a fork of one process, with arguments, folder, environment and files of its own, and it ends as it
would by itself. This can't show how a command starts. Tests that kill a process group, that set
what libraries read while they are imported, or that look at what a command imports, start it in the
usual way.
"""

import atexit
import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_HERE = Path(__file__).parent
COMMANDS = ("dvc", "vgg16-transfer")
READ_EARLY = ("KERAS_", "LD_", "MLFLOW_HTTP_", "OMP_", "OPENBLAS_", "PYTHON", "RAY_", "TF_")
"""Variables that libraries read while they are imported begin like this."""


@functools.cache
def _folder() -> Path:
    """A folder with the commands. The process that they are forked from ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    client = (_HERE / "client.py").read_text(encoding="utf-8")
    for name in COMMANDS:
        command = folder / name
        command.write_text(f"#!{sys.executable} -IS\n{client}", encoding="utf-8")
        command.chmod(0o755)
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, _HERE / "server.py", folder / "socket"],
            stdin=subprocess.PIPE,  # it ends when this is closed, however this process ends
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n", (folder / "server.log").read_text()
    atexit.register(_end, server, folder)
    return folder


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.communicate()
    shutil.rmtree(folder)


def warmed(environment: dict[str, str]) -> dict[str, str]:
    """An environment in which the commands start warm.

    Args:
        environment: That of a usual start. Its ``PATH`` finds the commands.
    """
    folder = str(_folder())
    return environment | {"PATH": f"{folder}:{environment['PATH']}", "WARM_FOLDER": folder}
