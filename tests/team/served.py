"""What tests of a served model share: starting the server, and asking it."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from vgg16_transfer.images.archives import open_archive

SCRIPT = Path(sys.executable).with_name("vgg16-transfer")
MLFLOW = Path(sys.executable).with_name("mlflow")
STUDY = "few"
URI = f"models:/{STUDY}@champion"
PICTURES = ["ant/0.jpg", "bee/5.jpg", "cat/3.jpg"]

_STARTED_WITHIN = 180  # seconds, on a machine that does other things as well

# Under load
FULL = os.environ.get("TORTURE") == "1"
AT_ONCE = 200
MALFORMED = 1000 if FULL else 100
ROUNDS = 4 if FULL else 3
LEAK = 30  # MB


class Served(NamedTuple):
    """A workspace, the address of the server of its champion, and some pictures."""

    workspace: Any
    address: str
    server: "subprocess.Popen[bytes]"

    def ask(self, body: Any, kind: str = "application/json") -> requests.Response:
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        where = f"{self.address}/invocations"
        return requests.post(where, data=data, headers={"Content-Type": kind}, timeout=60)

    def picture(self, path: str = PICTURES[0]) -> bytes:
        with open_archive(self.workspace.layout.source("animals")) as archive:
            return archive.read(path)


def environment(**more: str) -> dict[str, str]:
    leaking = ("DVC_", "MLFLOW_", "GIT_")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(leaking)}
    # A server of MLflow would start seven processes for jobs that no test has.
    return clean | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | more


def command(workspace: Any, *arguments: str) -> str:
    """What the console script prints."""
    done = subprocess.run(
        [SCRIPT, *arguments],
        cwd=workspace.root,
        capture_output=True,
        check=True,
        text=True,
        env=environment(),
    )
    return done.stdout


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    workspace: Any,
    command: list[Any],
    folder: Path,
    port: int,
    page: str = "/ping",
    **variables: str,
) -> Iterator[Served]:
    """A server that runs within the block, once it answers.

    Args:
        workspace: The workspace of its model.
        command: Program and arguments.
        folder: Its current folder.
        port: The port that the arguments name.
        page: A page that answers.
        variables: More variables of its environment.
    """
    log = folder / f"{port}.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**variables),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            result = Served(workspace, f"http://127.0.0.1:{port}", server)
            wait_for(result, log, page)
            yield result
        finally:
            with suppress(ProcessLookupError):  # a test may have ended it
                os.killpg(server.pid, 15)
            server.wait(60)


def wait_for(served: Served, log: Path, page: str = "/ping") -> None:
    deadline = time.monotonic() + _STARTED_WITHIN
    while time.monotonic() < deadline:
        assert served.server.poll() is None, log.read_text()
        try:
            if requests.get(f"{served.address}{page}", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    pytest.fail(f"no answer within {_STARTED_WITHIN} s: {log.read_text()}")


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def records(*contents: Any) -> dict[str, Any]:
    return {"dataframe_records": [{"picture": content} for content in contents]}


def split(*contents: Any) -> dict[str, Any]:
    return {"dataframe_split": {"columns": ["picture"], "data": [[one] for one in contents]}}


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


def leaks(sizes: list[float]) -> bool:
    """Whether each round of the same load left more behind.

    The first rounds fill what a server keeps anyway: threads, connections, caches. The UI's four
    processes kept 220 MB more after one such round. A leak goes on.
    """
    return bool(min(np.diff(sizes)) > LEAK)


def megabytes(server: "subprocess.Popen[bytes]") -> float:
    """Memory of a server and of the processes that it started."""
    process = psutil.Process(server.pid)
    alive = [process, *process.children(recursive=True)]
    return sum(each.memory_info().rss for each in alive) / 1e6
