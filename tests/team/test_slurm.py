"""The jobs of slurm/ on a real SLURM with two nodes."""

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run
from tests.edits import edited
from tests.pipeline.conftest import Workspace, clone, stages_run
from tests.team.cluster import Slurm, two_nodes, wait_for
from tests.team.served import MLFLOW, free_port, started

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]

LONG = 25  # epochs, so that training does not end before it is stopped

PARAMS = {
    "backbone": {"weights": "random-conv", "image_size": 32},
    "datasets": {
        "drawings": {
            "source": "drawings.tar",
            "split": {"seeds": [0], "train_per_class": 2, "test_per_class": 2},
            "layers": ["block4_pool", "block5_pool"],
        }
    },
    "studies": {
        "few": {"dataset": "drawings", "samples_per_class": [1, 2], "epochs": 3},
        "tuned": {
            "dataset": "drawings",
            "approach": "end_to_end",
            "fine_tune_from": "block5",
            "samples_per_class": 1,
            "epochs": LONG,
        },
    },
}

CLUSTER = """\
ALL=(--time=01:00:00)
NETWORK=()
RAY=()
HEADS=()
setup() {{ :; }}
SCRATCH={scratch}
export MLFLOW_TRACKING_URI={server}
"""


def write_drawings(path: Path) -> None:
    """Four pictures of each of three classes of the clip art."""
    with tarfile.open(ROOT / "data" / "clipart.tar") as source, tarfile.open(path, "w") as out:
        classes: dict[str, int] = {}
        for member in source:
            name = Path(member.name).parent.name
            if member.isfile() and (name in classes or len(classes) < 3):
                classes[name] = classes.get(name, 0) + 1
                if classes[name] <= 4:
                    content = source.extractfile(member)
                    assert content is not None
                    out.addfile(member, io.BytesIO(content.read()))


@dataclass
class Shared:
    """A repository on the login node, whose jobs run on both nodes and log to one server."""

    workspace: Workspace
    slurm: Slurm
    scratch: Path
    server: str

    def submit(self, *arguments: str) -> list[str]:
        """The ids of the jobs that slurm/submit names."""
        printed = self.workspace.run("slurm/submit", *arguments, **self.slurm.environment)
        return re.findall(r"(?:job|job array) (\d+)", printed)

    def log(self, *jobs: str) -> str:
        """What jobs printed, or all of them."""
        files = sorted(self.workspace.root.glob("slurm-*.out"))
        chosen = [file for file in files if not jobs or re.split("[-_.]", file.name)[2] in jobs]
        return "\n".join(file.read_text(encoding="utf-8") for file in chosen)

    def completed(self, *jobs: str) -> None:
        for job in jobs:
            self.slurm.completed(job, self.log)

    def runs(self, study: str) -> list[Run]:
        """The runs of a study and of its trials."""
        client = mlflow.MlflowClient(self.server)
        experiment = client.get_experiment_by_name("drawings").experiment_id
        every = client.search_runs([experiment], max_results=500)
        return [run for run in every if run.data.tags.get("dvc.stage") == f"train@{study}"]

    def copy(self, folder: Path) -> "Shared":
        """The same with a copy of the repository."""
        shutil.copytree(self.workspace.root, folder, symlinks=True)
        return replace(self, workspace=Workspace(folder))


@contextmanager
def changed(file: Path, more: str | None) -> Iterator[None]:
    """A file with more at its end, or none, within the block."""
    before = file.read_text(encoding="utf-8")
    try:
        if more is None:
            file.unlink()
        else:
            file.write_text(before + more, encoding="utf-8")
        yield
    finally:
        file.write_text(before, encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    options = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--port", str(port)]
    with started(None, [MLFLOW, "server", *options, "--workers", "1"], folder, port, "/health"):
        yield f"http://127.0.0.1:{port}"
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with two_nodes(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def shared(slurm, server, tmp_path_factory: pytest.TempPathFactory) -> Shared:
    folder = tmp_path_factory.mktemp("shared")
    (folder / "clone").mkdir()
    made, scratch = clone(folder / "clone", PARAMS), folder / "scratch"
    write_drawings(made.root / "drawings.tar")
    environment = CLUSTER.format(scratch=scratch, server=server)
    (made.root / "slurm" / "cluster.env").write_text(environment, encoding="utf-8")
    return Shared(made, slurm, scratch, server)


@dataclass
class Joined:
    """What a job array of both studies, whose second task was stopped twice, has left.

    Attributes:
        shared: The repository.
        network: The job before.
        array: The job array.
        join: The job behind it.
        kept: How many epochs were kept when the task was stopped, and one epoch after each start.
        lock: DVC's lock after the first stop.
        restarts: How often SLURM started the task again.
        nodes: The nodes on which the tasks began.
    """

    shared: Shared
    network: str
    array: str
    join: str
    kept: list[int]
    lock: str
    restarts: str
    nodes: set[str]


@pytest.fixture(scope="module")
def joined(shared: Shared) -> Joined:
    slurm = shared.slurm
    network, array, join = shared.submit("studies")
    shared.completed(network)
    place, task = shared.scratch / array / "tuned", f"{array}_1"

    def another_epoch(kept: int) -> int:
        """The number of epochs that are kept, as soon as it is another one."""
        over = {"COMPLETED", "FAILED"}
        wait_for(lambda: epochs_kept(place) != kept or slurm.states(task) <= over, "an epoch")
        assert not slurm.states(task) <= over, shared.log(array)
        return epochs_kept(place)

    kept = [another_epoch(0)]
    nodes = {facts["NodeList"] for facts in slurm.facts(array)}
    # As --signal=B:TERM does before the time limit: the script alone is signalled, and asks SLURM
    # to start the job again.
    slurm.run("scancel", "--batch", "--signal=TERM", task)
    in_the_queue(slurm, task)
    lock = (place / ".dvc/tmp/rwlock").read_text(encoding="utf-8")
    kept.append(epochs_kept(place))
    begin_again(slurm, task)
    kept.append(another_epoch(kept[-1]))

    # SLURM signals every process of the job. Afterwards, DVC's lock is as a killed node leaves it,
    # and the process that it names is another one, which is alive.
    slurm.run("scontrol", "requeue", task)
    in_the_queue(slurm, task)
    held = {"write": {str(place / "models/heads/tuned"): {"pid": 1, "cmd": "dvc repro"}}}
    (place / ".dvc/tmp/rwlock").write_text(json.dumps(held), encoding="utf-8")
    kept.append(epochs_kept(place))
    begin_again(slurm, task)
    kept.append(another_epoch(kept[-1]))
    restarts = slurm.facts(task)[0]["Restarts"]
    shared.completed(array, join)
    return Joined(shared, network, array, join, kept, lock, restarts, nodes)


def epochs_kept(workspace: Path) -> int:
    """How many epochs of the second study's trial a workspace keeps, to go on from."""
    files = list((workspace / "models" / "heads").glob(".tuned.*.partial/*.epochs.npz"))
    if not files:
        return 0
    with files[0].open("rb") as file, np.load(file) as stored:
        return len(json.loads(str(stored["about"]))["rows"])


def in_the_queue(slurm: Slurm, job: str) -> None:
    """Waits until a job that was stopped has ended, and waits in the queue."""
    wait_for(lambda: slurm.states(job) == {"PENDING"}, "a job in the queue")
    number, restarts = slurm.facts(job)[0]["JobId"], int(slurm.facts(job)[0]["Restarts"])
    wait_for(lambda: slurm.endings(number) >= restarts, "the end of a job that was stopped")


def begin_again(slurm: Slurm, job: str) -> None:
    """Lets a job that was queued again begin soon: SLURM would wait for two minutes.

    A node refuses a job that begins in the second in which it ended the same one.
    """
    time.sleep(2)
    slurm.run("scontrol", "update", f"jobid={job}", "StartTime=now")
    wait_for(lambda: slurm.states(job) == {"RUNNING"}, "a job that begins again")


def test_the_example_and_its_page_name_what_the_jobs_read() -> None:
    names = ["ALL", "NETWORK", "RAY", "HEADS", "SCRATCH"]
    script = f". slurm/cluster.env.example && declare -p {' '.join(names)} && declare -f setup"
    printed = subprocess.run(
        ["bash", "-uc", script],
        cwd=ROOT,
        env=os.environ | {"USER": "ann"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert re.findall(r"^declare -\S+ (\w+)=", printed, re.MULTILINE) == names
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert {*names, "setup", "MLFLOW_TRACKING_URI"} <= set(explained)


def test_each_study_trains_in_a_job_and_the_join_only_takes_its_results(joined) -> None:
    shared = joined.shared
    network, array, join = joined.network, joined.array, joined.join
    assert joined.nodes == {"n1", "n2"}
    assert "features@drawings" in stages_run(shared.log(network))
    assert sorted(stages_run(shared.log(array))) == ["train@few", *["train@tuned"] * 3]
    assert set(stages_run(shared.log(join))) == {"explain@few", "explain@tuned", "report"}


def test_a_task_that_was_stopped_goes_on_within_its_epochs(joined) -> None:
    assert joined.restarts == "2"
    assert json.loads(joined.lock) == {}
    at_first, stopped, again, stopped_again, at_last = joined.kept
    assert 0 < at_first <= stopped < again <= stopped_again < at_last < LONG
    for run in joined.shared.runs("tuned"):
        assert run.info.status == "FINISHED"  # each is there once, as the next test says


def test_the_join_commits_lock_file_and_results_and_clears_up(joined) -> None:
    shared, array = joined.shared, joined.array
    message = shared.workspace.run("git", "log", "-1", "--format=%s").strip()
    assert message == f"Results of SLURM job {array}: few tuned"
    changed = shared.workspace.run("git", "show", "--name-only", "--format=", "HEAD").split()
    assert {"dvc.lock", "results/few/metrics.json", "results/tuned.origin.json"} <= set(changed)
    assert shared.workspace.run("git", "status", "--porcelain").split() == ["??", "drawings.tar"]
    assert list(shared.scratch.iterdir()) == []


def test_all_jobs_log_to_one_server_and_each_run_is_there_once(joined) -> None:
    shared = joined.shared
    head, before = shared.workspace.run("git", "rev-parse", "HEAD", "HEAD^").split()
    for study, count in (("few", 3), ("tuned", 2)):
        runs = shared.runs(study)
        assert len({run.info.run_name for run in runs}) == len(runs) == count
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert {run.data.tags["git.commit"] for run in runs} == {before}
        checkouts = {run.data.tags["checkout"] for run in runs}
        assert checkouts == {f"git checkout {head} && dvc checkout"}
        assert {run.data.tags.get("replayed") for run in runs} == {None}
        assert f"{study}: {count} runs logged to MLflow at {shared.server}" in shared.log(
            joined.array
        )
        assert f"{study}: 0 runs logged to MLflow at {shared.server}" in shared.log(joined.join)


def test_what_can_not_be_submitted_is_one_sentence(joined) -> None:
    shared = joined.shared
    root = shared.workspace.root

    def refused(*arguments: str) -> str:
        process = shared.workspace.start("slurm/submit", *arguments)
        printed, _ = process.communicate(timeout=600)
        assert process.returncode == 2
        return printed.splitlines()[-1]

    assert refused("studies", "nought") == "error: params.yaml: has no study 'nought'"
    with changed(root / "params.yaml", "# a comment\n"):
        assert refused("studies").startswith("error: commit your changes first")
    assert refused("queue").startswith("error: DVC's queue is empty")
    with changed(root / "slurm" / "cluster.env", None):
        assert refused("repro").startswith("error: slurm/cluster.env: is missing")


def test_no_results_are_joined_if_a_study_fails(joined, tmp_path) -> None:
    shared = joined.shared
    (tmp_path / "full").touch()
    file = shared.workspace.root / "slurm" / "cluster.env"
    with changed(file, f"SCRATCH={tmp_path}/full\n"):
        network, array, join = shared.submit("studies", "few")
        shared.completed(network)
        wait_for(lambda: shared.slurm.states(join) == {"CANCELLED"}, "the end of the join")
    assert shared.slurm.states(array) == {"FAILED"}
    assert shared.log(join) == ""


def test_queued_experiments_are_jobs_that_log_to_one_server(joined) -> None:
    shared = joined.shared
    run = shared.workspace.run
    for name, epochs in (("five", 5), ("six", 6)):
        run("dvc", "exp", "run", "--queue", "-n", name, "-S", f"studies.few.epochs={epochs}")
    shared.completed(*shared.submit("queue"))
    assert "No experiment tasks in the queue" in run("dvc", "queue", "status")
    assert set(run("dvc", "exp", "list", "--name-only").split()) == {"five", "six"}
    for name, epochs in (("five", "5"), ("six", "6")):
        runs = [r for r in shared.runs("few") if r.data.tags.get("dvc.exp_name") == name]
        assert len(runs) == 3
        assert {r.data.params["epochs"] for r in runs} == {epochs}
        assert {r.info.status for r in runs} == {"FINISHED"}
        ref = run("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").strip()
        assert json.loads(run("git", "show", f"{ref}:results/few/metrics.json"))
    assert run("git", "for-each-ref", "refs/slurm") == ""
    assert list(shared.scratch.iterdir()) == []


def test_ray_over_two_nodes_gives_the_bytes_of_one(joined, tmp_path) -> None:
    # Ray is the extra [ray] of the project.
    if importlib.util.find_spec("ray") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs Ray: pip install '.[ray]'")
    shared = joined.shared
    other = shared.copy(tmp_path / "clone")
    root = other.workspace.root
    for made in ("data/features/drawings", "models/heads/few", "results/few", ".dvc/cache"):
        shutil.rmtree(root / made)
    (job,) = other.submit("ray", "train@few")
    other.completed(job)
    assert "Ray runs on 2 nodes" in other.log(job)
    run = ["splits@drawings", "weights", "features@drawings", "train@few"]
    assert stages_run(other.log(job)) == run
    assert other.workspace.read("dvc.lock") == shared.workspace.read("dvc.lock")


def test_a_cancelled_job_keeps_what_it_has_and_stays_away(joined) -> None:
    shared = joined.shared
    root, params = shared.workspace.root, edited(PARAMS, {"studies/tuned/epochs": LONG + 1})
    before = (root / "params.yaml").read_bytes()
    try:
        shared.workspace.write_params(params)
        (job,) = shared.submit("repro", "train@tuned")
        wait_for(lambda: epochs_kept(root) > 0, "an epoch")
        shared.slurm.run("scancel", job)
        wait_for(lambda: shared.slurm.states(job) == {"CANCELLED"}, "the end of a cancelled job")
    finally:
        (root / "params.yaml").write_bytes(before)
    assert epochs_kept(root) > 0
    assert json.loads((root / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8")) == {}
    assert shared.slurm.states(job) == {"CANCELLED"}
