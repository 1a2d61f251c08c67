"""SLURM with two nodes on this machine: munged, slurmctld and two slurmd with their own files.

It has no cgroups, no GPUs and no accounting, and both nodes are one core of the same machine.
"""

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "scontrol"]
PACKAGES = "slurm-wlm slurmctld slurmd munge"

NODES = ("n1", "n2")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1
ReturnToService=2
SlurmdParameters=config_overrides
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""

NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=4000\n"


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Waits as long as it may take."""
    deadline = time.monotonic() + 300
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"did not come: {what}")
        time.sleep(0.1)


class Slurm:
    """The two nodes, running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(
            command,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def facts(self, job: str) -> list[dict[str, str]]:
        """What SLURM knows of a job, or of each task of an array that has begun."""
        lines = self.run("scontrol", "--oneliner", "show", "job", job).splitlines()
        return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]

    def states(self, job: str) -> set[str]:
        return {facts["JobState"] for facts in self.facts(job)}

    def endings(self, job: str) -> int:
        """How often the nodes have ended a job."""
        logs = (file.read_text(encoding="utf-8") for file in self.folder.glob("slurmd.*.log"))
        return sum(log.count(f"[{job}.batch] done with job") for log in logs)

    def completed(self, job: str, log: Callable[[], str]) -> None:
        """Waits for a job; one that fails fails the test."""
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "DEADLINE"}
        wait_for(lambda: self.states(job) <= over, f"the end of job {job}")
        assert self.states(job) == {"COMPLETED"}, log()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def two_nodes(folder: Path) -> Iterator[Slurm]:
    """Starts the four daemons in a folder, and stops them by their pid files."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        sentence = f"no {', '.join(missing)}: apt-get install {PACKAGES}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(sentence)
    slurm, host = Slurm(folder), socket.gethostname().split(".")[0]
    controller, *ports = _free_ports(1 + len(NODES))
    text = CONFIGURATION.format(host=host, port=controller, folder=folder, user=getpass.getuser())
    nodes = [NODE.format(name=n, host=host, port=p) for n, p in zip(NODES, ports, strict=True)]
    (folder / "slurm.conf").write_text(text + "".join(nodes))
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)

    def start(*command: str) -> None:
        environment = os.environ | slurm.environment | {"PATH": path}
        subprocess.run(command, env=environment, check=True, capture_output=True)

    try:
        files = (
            "socket=munge.sock",
            "log-file=munge.log",
            "pid-file=munge.pid",
            "seed-file=munge.seed",
        )
        options = [f"--{name}={folder / file}" for name, file in (f.split("=") for f in files)]
        start("munged", "--force", f"--key-file={key}", *options)
        start("slurmctld", "-f", f"{folder}/slurm.conf")
        for node in NODES:
            start("slurmd", "-N", node, "-f", f"{folder}/slurm.conf")
        wait_for(lambda: slurm.run("sinfo", "-h", "-o", "%D %t").split() == ["2", "idle"], "nodes")
        yield slurm
    finally:
        for name in ("slurmd.n1", "slurmd.n2", "slurmctld", "munge"):
            _stop(folder / f"{name}.pid")


def _stop(pid_file: Path) -> None:
    with suppress(FileNotFoundError, psutil.NoSuchProcess):
        daemon = psutil.Process(int(pid_file.read_text()))
        daemon.terminate()
        # Where nothing collects orphans, as in some containers, it stays a zombie.
        wait_for(lambda: daemon.status() == psutil.STATUS_ZOMBIE, f"the end of {pid_file.stem}")
