"""A registered model behind `mlflow models serve`: the same numbers, and mistakes survived."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests
from PIL import Image

from vgg16_transfer import cli
from vgg16_transfer.images.archives import open_archive

pytestmark = pytest.mark.server

SCRIPT = Path(sys.executable).with_name("vgg16-transfer")
MLFLOW = Path(sys.executable).with_name("mlflow")
STUDY = "few"
URI = f"models:/{STUDY}@champion"
PICTURES = ["ant/0.jpg", "bee/5.jpg", "cat/3.jpg"]

_STARTED_WITHIN = 180  # seconds, on a machine that does other things as well

Bodies = Callable[[bytes], Any]


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
    return clean | more


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def served(trained, publish, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Registered by our command, served by MLflow's, in a folder that holds nothing."""
    if not MLFLOW.exists():
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"{MLFLOW}: no such program")
    workspace = trained.copy(tmp_path_factory.mktemp("served") / "workspace")
    publish(workspace, STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(workspace.root)
        cli.models.register(STUDY)
    port = free_port()
    folder = tmp_path_factory.mktemp("server")
    where = ["--host", "127.0.0.1", "--port", str(port), "--env-manager", "local"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [MLFLOW, "models", "serve", "--model-uri", URI, *where],
            cwd=folder,
            env=environment(MLFLOW_TRACKING_URI=f"sqlite:///{workspace.root / 'mlflow.db'}"),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            result = Served(workspace, f"http://127.0.0.1:{port}", server)
            wait_for(result, folder / "log")
            yield result
        finally:
            os.killpg(server.pid, 15)
            server.wait(60)


def wait_for(served: Served, log: Path) -> None:
    deadline = time.monotonic() + _STARTED_WITHIN
    while time.monotonic() < deadline:
        assert served.server.poll() is None, log.read_text()
        try:
            if requests.get(f"{served.address}/ping", timeout=5).ok:
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


def test_python_command_line_and_http_give_the_same_probabilities(
    served: Served, tmp_path: Path
) -> None:
    from vgg16_transfer.registry.registry import load
    from vgg16_transfer.tracking.mlflow_store import find_store

    paths = [tmp_path / name.replace("/", "-") for name in PICTURES]
    for path, name in zip(paths, PICTURES, strict=True):
        path.write_bytes(served.picture(name))
    contents = [path.read_bytes() for path in paths]

    names, probabilities = load(find_store(served.workspace.root, None), URI)
    by_python = np.array([probabilities(content) for content in contents])

    rows = served.ask(records(*map(text, contents))).json()["predictions"]
    assert [list(row) for row in rows] == [list(names)] * 3
    by_http = np.array([[row[name] for name in names] for row in rows])
    np.testing.assert_allclose(by_http, by_python, atol=1e-6)

    printed = command(served.workspace, "predict", "--json", "--model", URI, *map(str, paths))
    answers = [
        {one["class"]: one["probability"] for one in answer["classes"]}
        for answer in json.loads(printed)
    ]
    by_command = np.array([[answer[name] for name in names] for answer in answers])
    np.testing.assert_allclose(by_command, by_python, atol=1e-6)


def test_both_forms_of_a_table_give_the_same(served: Served) -> None:
    picture = text(served.picture())
    first, second = (served.ask(form(picture)) for form in (records, split))
    assert first.status_code == 200
    assert first.json() == second.json()
    assert sum(first.json()["predictions"][0].values()) == pytest.approx(1, abs=1e-6)


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (lambda _: records(""), "picture 1 is empty"),
        (lambda _: records(text(b"<html>")), "picture 1 is no picture: it begins with b'<html>'"),
        (lambda good: records(text(good), text(good[:99])), "picture 2 is "),
        (lambda _: records(text(bomb())), "picture 1 unfolds to more than 50 megapixels"),
        (lambda _: records("not base64!"), "picture"),
        (lambda _: records(5), "Failed to convert column picture"),
        (lambda _: records(None), "Failed to convert column picture"),
        (lambda _: records({"b64": "AAAA"}), "Failed to convert column picture"),
        (lambda good: {"dataframe_records": [{"image": text(good)}]}, "missing inputs ['picture']"),
        (lambda good: {"picture": text(good)}, "The input must be a JSON dictionary with exactly"),
        (lambda good: [text(good)], "Received a list"),
        (lambda _: "{", "valid JSON"),
        (lambda _: b"\xff\xd8\xff", "valid JSON"),
    ],
    ids=[
        "empty",
        "HTML",
        "cut off",
        "bomb",
        "not base64",
        "a number",
        "nothing",
        "an object",
        "another column",
        "no table",
        "a list",
        "no JSON",
        "a bare JPEG",
    ],
)
def test_a_malformed_request_is_refused_in_words_and_the_server_goes_on(
    served: Served, body: Bodies, sentence: str
) -> None:
    refused = served.ask(body(served.picture()))
    assert 400 <= refused.status_code < 500, refused.text
    message = refused.json()["message"]
    assert sentence in message
    assert "Traceback" not in refused.text
    assert served.ask(records(text(served.picture()))).status_code == 200
    assert served.server.poll() is None


def test_what_we_refuse_ourselves_is_one_sentence(served: Served) -> None:
    refused = served.ask(records(text(b"GIF"))).json()
    assert refused["message"] == "picture 1 is no picture: it begins with b'GIF'"
    assert refused["error_code"] == "INVALID_PARAMETER_VALUE"


def test_another_kind_of_content_is_refused(served: Served) -> None:
    refused = served.ask(served.picture(), kind="image/jpeg")
    assert refused.status_code == 415
    assert "only supports the following content types" in refused.text


def test_no_pictures_are_no_answers(served: Served) -> None:
    answer = served.ask({"dataframe_split": {"columns": ["picture"], "data": []}})
    assert (answer.status_code, answer.json()) == (200, {"predictions": []})
