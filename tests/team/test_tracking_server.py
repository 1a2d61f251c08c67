"""The team's server as deploy/serve.sh starts it: PostgreSQL, artifacts by proxy, passwords."""

import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psycopg
import pytest
import requests
from mlflow.entities import Run
from mlflow.server import app as flask_app
from PIL import Image
from tests.pipeline.conftest import Workspace, clone, stages_run
from tests.team.served import free_port
from tests.tracking.conftest import DATASET

pytestmark = pytest.mark.server

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ADMIN_PASSWORD = secrets.token_urlsafe()

PARAMS = {
    "backbone": {"weights": "random-conv", "image_size": 32},
    "datasets": {
        "insects": {
            "source": "insects.tar",
            "split": {"seeds": [0, 1], "train_per_class": 2, "test_per_class": 1},
            "layers": ["block5_pool"],
        }
    },
    "studies": {
        "few": {"dataset": "insects", "samples_per_class": [1, 2], "seed": [0, 1], "epochs": 2}
    },
}
TRIALS = 4

# Whether the server is up, what kind of server it is, and the program of its page.
PUBLIC = {
    "/health",
    "/api/3.0/mlflow/server-info",
    "/ajax-api/3.0/mlflow/server-info",
    "/static-files/path",
}


def postgresql() -> Path:
    """The folder of PostgreSQL's programs, which Debian keeps off the path."""
    result = shutil.which("initdb")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: float(f.parent.name))
    if result:
        folders.append(Path(result).resolve().parent)
    if not folders:
        missing = "PostgreSQL is not installed: apt-get install postgresql"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return folders[-1]


def wait_for(condition: Callable[[], bool], *processes: subprocess.Popen[str]) -> None:
    """Waits as long as it may take, and no longer than the processes that are to bring it run."""
    deadline = time.monotonic() + 600
    while not condition():
        ended = [process for process in processes if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            pytest.fail(f"what was waited for did not come: {ended and ended[0].communicate()}")
        time.sleep(0.02)


@dataclass
class Server:
    """A tracking server, running or not; started again, it has the same address."""

    environment: dict[str, str]
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [DEPLOY / "serve.sh", "--port", str(self.port), "--workers", "1"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self.answers)

    def answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail((self.folder / f"{self.port}.log").read_text())
        try:
            return requests.get(f"{self.uri}/health", timeout=5).ok
        except requests.ConnectionError:
            return False

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Asks PostgreSQL itself."""
        connection = psycopg.connect(
            host=self.environment["PGHOST"], user=self.environment["PGUSER"], dbname="mlflow"
        )
        with connection.cursor() as cursor:
            cursor.execute(query)
            rows = cursor.fetchall()
        connection.close()
        return rows

    def credentials(self, user: str, password: str) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": password,
        }

    def admin(self) -> dict[str, str]:
        return self.credentials("admin", ADMIN_PASSWORD)

    def add_user(self, name: str, *options: str) -> dict[str, str]:
        """The environment of a new user."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", DEPLOY / "add_user.py", name, *options],
            env=os.environ | self.admin(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return self.credentials(name, done.stdout.strip())


@contextmanager
def database(folder: Path) -> Iterator[dict[str, str]]:
    """A cluster of PostgreSQL's own, on a socket in a folder; what finds it in the environment."""
    programs = postgresql()
    user = []
    if os.getuid() == 0:  # PostgreSQL refuses root
        user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    data = folder / "data"

    def run(program: str, *arguments: object) -> None:
        command = [*user, programs / program, *map(str, arguments)]
        with (folder / "postgresql.log").open("ab") as log:
            subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=True)

    run("initdb", "-D", data, "-U", "mlflow", "--auth", "trust", "--no-sync")
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    run("pg_ctl", "-D", data, "-l", folder / "server.log", "-w", "-o", options, "start")
    try:
        run("createdb", "-h", folder, "-U", "mlflow", "mlflow")
        yield {"PGHOST": str(folder), "PGUSER": "mlflow"}
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def make_server(tmp_path_factory) -> Iterator[Callable[[], Server]]:
    """Makes servers on one PostgreSQL, all with the same users."""
    # A socket's path has room for 107 characters, and postgres must be able to enter its folder.
    with tempfile.TemporaryDirectory(prefix="pg") as folder, database(Path(folder)) as result:
        artifacts = tmp_path_factory.mktemp("artifacts")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment = kept | result
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        environment["MLFLOW_ARTIFACTS_DESTINATION"] = str(artifacts)
        environment["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secrets.token_urlsafe()
        environment["MLFLOW_AUTH_ADMIN_PASSWORD"] = ADMIN_PASSWORD
        made: list[Server] = []

        def make() -> Server:
            server = Server(environment, tmp_path_factory.mktemp("server"), free_port())
            made.append(server)
            server.start()
            return server

        yield make
        for server in made:
            server.kill()


@pytest.fixture(scope="module")
def server(make_server) -> Server:
    return make_server()


@pytest.fixture(scope="module")
def member(server) -> dict[str, str]:
    return server.add_user("tom", "--member")


@pytest.fixture
def client_of(server, monkeypatch) -> Iterator[Callable[[dict[str, str]], mlflow.MlflowClient]]:
    """A client as one of the users; the last one asked for is who asks."""

    def make(user: dict[str, str]) -> mlflow.MlflowClient:
        for name, value in user.items():
            monkeypatch.setenv(name, value)
        return mlflow.MlflowClient(server.uri)

    yield make
    mlflow.set_tracking_uri(None)


@pytest.fixture
def run(client_of, member) -> Run:
    """A member's run, with an artifact."""
    client = client_of(member)
    experiment = client.create_experiment(secrets.token_hex())
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "a secret", "note.txt")
    return run


def proxied(server: Server, run: Run, path: str) -> str:
    """The address of an artifact at the server."""
    folder = run.info.artifact_uri.removeprefix("mlflow-artifacts:/")
    return f"{server.uri}/api/2.0/mlflow-artifacts/artifacts/{folder}/{path}"


def test_artifacts_go_through_the_server_and_no_client_sees_the_folder(
    server, run, member, client_of
) -> None:
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    downloaded = client_of(member).download_artifacts(run.info.run_id, "note.txt")
    assert Path(downloaded).read_text() == "a secret"
    assert server.sql("select count(*) from users where username = 'tom'") == [(1,)]


def test_a_viewer_reads_and_changes_nothing(server, run, client_of) -> None:
    viewer = server.add_user("vera")
    client = client_of(viewer)
    run_id, experiment = run.info.run_id, run.info.experiment_id
    assert [r.info.run_id for r in client.search_runs([experiment])] == [run_id]
    assert Path(client.download_artifacts(run_id, "note.txt")).read_text() == "a secret"
    for change in (
        lambda: client.delete_run(run_id),
        lambda: client.delete_experiment(experiment),
        lambda: client.create_run(experiment),
        lambda: client.set_tag(run_id, "a", "b"),
        lambda: client.log_batch(run_id, params=[mlflow.entities.Param("a", "b")]),
    ):
        with pytest.raises(mlflow.MlflowException, match="Permission denied"):
            change()
    artifact = proxied(server, run, "note.txt")
    who = (viewer["MLFLOW_TRACKING_USERNAME"], viewer["MLFLOW_TRACKING_PASSWORD"])
    assert requests.get(artifact, auth=who, timeout=30).text == "a secret"
    assert requests.delete(artifact, auth=who, timeout=30).status_code == 403
    assert requests.put(artifact, data=b"x", auth=who, timeout=30).status_code == 403
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    assert Path(client.download_artifacts(run_id, "note.txt")).read_text() == "a secret"


def test_without_credentials_nothing_is_readable(server, run) -> None:
    routes = {
        (method, rule.rule.replace("<path:", "<").replace("<", "").replace(">", ""))
        for rule in flask_app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert len(routes) > 200
    routes |= {("GET", "/"), ("GET", "/signup"), ("POST", "/v1/traces")}
    routes.add(("GET", proxied(server, run, "note.txt").removeprefix(server.uri)))
    routes.add(("GET", f"/get-artifact?run_id={run.info.run_id}&path=note.txt"))
    answers = {}
    with requests.Session() as session:
        for method, path in routes:
            answer = session.request(method, server.uri + path, timeout=30)
            answers[method, path] = answer.status_code
    readable = {path for (method, path), status in answers.items() if status != 401}
    assert readable == PUBLIC
    wrong = requests.get(f"{server.uri}/", auth=("tom", "guessed"), timeout=30)
    assert wrong.status_code == 401


PUBLISHER = """
import sys
import time
from pathlib import Path

from tests.tracking import conftest
from vgg16_transfer.tracking.mlflow_store import find_store

root, own = Path(sys.argv[1]), sys.argv[2]
logged = []
for name, settings in (("shared", {"seed": [0, 1]}), (own, {"seed": 0})):
    study = conftest.make_study(name, samples_per_class=2, **settings)
    outputs = conftest.write_outputs(study, root / own / name)
    logged.append((study, outputs, conftest.make_lineage(study, name[0])))
(root / f"{own} is ready").touch()
while not (root / "go").exists():
    time.sleep(0.01)
store = find_store(root, sys.argv[3])
for study, outputs, lineage in logged:
    conftest.log(store, study, outputs, lineage)
"""


def test_two_processes_log_the_same_study_and_one_of_their_own_at_once(
    server, member, client_of, tmp_path
) -> None:
    """Each of them knows no more of the other than what the server says."""
    people = {"ann": member, "bob": server.add_user("bob", "--member")}
    processes = {
        own: subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(tmp_path), own, server.uri],
            cwd=ROOT,
            env=os.environ | user,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own, user in people.items()
    }
    ready = [tmp_path / f"{own} is ready" for own in people]
    wait_for(lambda: all(file.exists() for file in ready), *processes.values())
    (tmp_path / "go").touch()
    for process in processes.values():
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    client = client_of(member)
    experiment = client.get_experiment_by_name(DATASET).experiment_id
    runs = client.search_runs([experiment])
    assert {run.info.status for run in runs} == {"FINISHED"}
    logged = Counter((run.data.tags["study"], run.data.tags.get("trial", "")) for run in runs)
    assert set(logged.values()) == {1}
    assert Counter(study for study, _ in logged) == {"shared": 3, "ann": 2, "bob": 2}
    parents = {run.info.run_name: run.info.run_id for run in runs if "trial" not in run.data.tags}
    models = Counter(model.source_run_id for model in client.search_logged_models([experiment]))
    for run in runs:
        if "trial" in run.data.tags:
            assert run.data.tags["mlflow.parentRunId"] == parents[run.data.tags["study"]]
            history = client.get_metric_history(run.info.run_id, "train_loss")
            assert sorted(point.step for point in history) == [1, 2, 3]
            assert models.pop(run.info.run_id) == 1
            folders = (None, "images")
            files = {f.path for at in folders for f in client.list_artifacts(run.info.run_id, at)}
            assert files == set(run.data.tags["artifacts"].split(", "))
            assert len(files) == 6
    assert models == {}


def write_pictures(path: Path) -> None:
    """A tar of two classes with three pictures each, all of them noise."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for name in [f"{kind}/{index}.png" for kind in ("ant", "bee") for index in range(3)]:
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(buffer, "PNG")
            member = tarfile.TarInfo(name)
            member.size = len(buffer.getvalue())
            tar.addfile(member, io.BytesIO(buffer.getvalue()))


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    (tmp_path / "clone").mkdir()
    workspace = clone(tmp_path / "clone", PARAMS)
    write_pictures(workspace.root / "insects.tar")
    return workspace


def runs_of(server: Server) -> dict[str, tuple[str, str]]:
    """Status and lifecycle of every run of the study, by id."""
    query = """
        select run_uuid, status, lifecycle_stage from runs join tags using (run_uuid)
        where tags.key = 'study' and tags.value = 'few'
    """
    return {run_id: rest for run_id, *rest in server.sql(query)}


@pytest.mark.pipeline
def test_a_server_that_dies_in_the_middle_costs_no_result(make_server, workspace) -> None:
    server = make_server()
    user = server.add_user("dora", "--member")
    process = workspace.start("dvc", "repro", **user)
    wait_for(lambda: "FINISHED" in [status for status, _ in runs_of(server).values()], process)
    server.kill()
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed
    said = [line for line in printed.splitlines() if "MLflow" in line or "mlflow" in line]
    assert [line.split(": ")[:2] for line in said] == [
        ["warning", "train@few"],
        ["warning", "report"],
    ]
    for line in said:  # a connection that broke has another reason than one that was refused
        assert re.search(rf"{server.uri}: can't be reached: [^;]+; nothing is lost", line)
    assert "Traceback" not in printed
    assert "Retry" not in printed
    assert {"train@few", "report"} <= set(stages_run(printed))
    assert workspace.run("dvc", "status").strip() == "Data and pipelines are up to date."

    before = runs_of(server)
    assert 2 <= len(before) < 1 + TRIALS
    assert "RUNNING" in [status for status, _ in before.values()]
    code, printed = workspace.finish(
        "vgg16-transfer", "publish", **user, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"
    )
    assert code == 2
    assert printed == f"error: {server.uri}: can't be reached: Connection refused\n"

    server.start()
    workspace.run("vgg16-transfer", "publish", **user)
    after = runs_of(server)
    assert set(before) < set(after)
    assert list(after.values()) == [["FINISHED", "active"]] * (1 + TRIALS)
    assert "few: 0 runs logged" in workspace.run("vgg16-transfer", "publish", **user)
    assert runs_of(server) == after
