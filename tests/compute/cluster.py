"""A Ray cluster of separate processes on loopback: a head without cores, and nodes of one each."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from tests.team.served import free_port

_STARTED = "Ray runtime started"
_TRIES = 3


class Cluster:
    """What was started, and how."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.address = f"127.0.0.2:{port}"
        # The token would be kept in the user's own folder; nothing but this machine gets here.
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # tests of other files would leave no time to a nice worker
            "RAY_ADDRESS": self.address,
        }
        self._nodes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> None:
        """Starts a node. Ray gives up on one that takes 30 seconds, as on a busy machine."""
        for _ in range(_TRIES):
            log = self.folder / f"{len(self._nodes)}.log"
            node = self._launch(arguments, log)
            while node.poll() is None and _STARTED not in log.read_text():
                time.sleep(0.1)
            if node.poll() is None:
                return
        raise AssertionError(log.read_text())

    def _launch(self, arguments: tuple[str, ...], log: Path) -> "subprocess.Popen[bytes]":
        """A process that starts a node, and watches over it."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments]
        # Ray replaces 127.0.0.1 by the machine's address, and takes other loopback addresses.
        command += [f"--node-ip-address=127.0.0.{len(self._nodes) + 2}"]
        command += ["--object-store-memory=80000000", "--disable-usage-stats"]
        environment = self.environment | {"RAY_ADDRESS": "", "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as file:
            node = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        self._nodes.append(node)
        return node

    def start_worker(self) -> None:
        self.start(f"--address={self.address}", "--num-cpus=1")

    def raylets(self) -> list[psutil.Process]:
        """The process of each node that lives, in the order in which the nodes were started."""
        return [
            child
            for node in self._nodes
            if node.poll() is None
            for child in psutil.Process(node.pid).children(recursive=True)
            if child.name() == "raylet"
        ]

    def kill_last(self) -> None:
        """Kills the node that was started last, as a power cut would."""
        self.raylets()[-1].send_signal(signal.SIGKILL)

    def stop(self) -> None:
        for node in self._nodes:
            with psutil_gone():
                for child in psutil.Process(node.pid).children(recursive=True):
                    with psutil_gone():
                        child.kill()
            node.kill()
            node.wait()


@contextmanager
def psutil_gone() -> Iterator[None]:
    try:
        yield
    except psutil.NoSuchProcess:
        return


@contextmanager
def running() -> Iterator[Cluster]:
    """A head and two workers, until the end."""
    # The path of a socket has at most 107 characters, and Ray makes long names.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    port = free_port("127.0.0.2")
    cluster = Cluster(folder, port)
    try:
        head = ("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false")
        cluster.start(*head, f"--temp-dir={folder}")
        cluster.start_worker()
        cluster.start_worker()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
