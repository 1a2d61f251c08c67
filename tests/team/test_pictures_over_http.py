"""A registered model behind ``vgg16-transfer serve``: pictures as they are, forms, and tables."""

import io
import json
import os
import random
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
from PIL import Image
from tests.team import served as helpers
from tests.team.served import PICTURES, SCRIPT, URI, Served, records, split, text

from vgg16_transfer.registry.serving import MAX_PICTURES

pytestmark = pytest.mark.server

SITE = "https://pictures.example"
JPEG = "image/jpeg"


@pytest.fixture(scope="module")
def folder(registered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A downloaded model, as a container has it: without a workspace."""
    store = f"sqlite:///{registered.root / 'mlflow.db'}"
    downloaded = mlflow.artifacts.download_artifacts(
        URI, dst_path=str(tmp_path_factory.mktemp("downloaded")), tracking_uri=store
    )
    return Path(downloaded)


@pytest.fixture(scope="module")
def server(registered, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = helpers.free_port()
    options = ["--port", str(port), "--max-mb", "1", "--allow-origin", SITE]
    command = [SCRIPT, "serve", "--model", folder, *options]
    with helpers.started(registered, command, tmp_path_factory.mktemp("empty"), port) as running:
        yield running


@pytest.fixture(scope="module")
def rows(server: Served) -> list[dict[str, float]]:
    """The answers for the pictures as a table, as ``mlflow models serve`` takes them."""
    answer = server.ask(records(*(text(server.picture(name)) for name in PICTURES)))
    assert answer.status_code == 200
    return list(answer.json()["predictions"])


def form(server: Served, *parts: Any) -> requests.Response:
    return requests.post(f"{server.address}/invocations", files=list(parts), timeout=60)


def test_json_gives_what_predict_gives(
    server: Served, rows: list[dict[str, float]], tmp_path: Path
) -> None:
    (tmp_path / "picture.jpg").write_bytes(server.picture())
    arguments = ["predict", "--json", "--model", URI, str(tmp_path / "picture.jpg")]
    (answer,) = json.loads(helpers.command(server.workspace, *arguments))
    expected = {one["class"]: one["probability"] for one in answer["classes"]}
    assert rows[0] == pytest.approx(expected, abs=1e-6)
    table = server.ask(split(*(text(server.picture(name)) for name in PICTURES)))
    assert table.json()["predictions"] == rows


@pytest.mark.parametrize("number", range(len(PICTURES)))
def test_a_jpeg_as_the_body_gives_the_same(
    server: Served, rows: list[dict[str, float]], number: int
) -> None:
    answer = server.ask(server.picture(PICTURES[number]), JPEG)
    assert (answer.status_code, answer.json()) == (200, {"predictions": [rows[number]]})


def test_other_types_of_pictures_are_taken(server: Served, rows: list[dict[str, float]]) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(server.picture())).save(buffer, "PNG")
    answer = server.ask(buffer.getvalue(), "Image/PNG; name=a.png")
    assert answer.status_code == 200
    assert answer.json()["predictions"] == [pytest.approx(rows[0], abs=1e-6)]


def test_a_form_with_files_gives_an_answer_for_each(
    server: Served, rows: list[dict[str, float]]
) -> None:
    parts = [("picture", (name, server.picture(name), JPEG)) for name in PICTURES]
    answer = form(server, *parts)
    assert (answer.status_code, answer.json()) == (200, {"predictions": rows})


def test_ping_says_that_it_works(server: Served) -> None:
    assert requests.get(f"{server.address}/ping", timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("body", "kind", "status", "sentence"),
    [
        (b"", JPEG, 400, "the request has no body; send a picture"),
        (b"", "application/json", 400, "the request has no body"),
        (b"", "", 400, "the request has no body"),
        (b"GIF", JPEG, 400, "picture 1 is no picture: it begins with b'GIF'"),
        (b"<html>", "image/svg+xml", 400, "picture 1 is no picture: it begins with b'<html>'"),
        (b"a", "text/plain", 415, "Content-Type 'text/plain' is not taken; send image/jpeg or"),
        (b"a", "application/x-www-form-urlencoded", 415, "is not taken; send image/jpeg or"),
        (b"a", "", 415, "there is no Content-Type; send image/jpeg or another image type"),
        (b"a", "multipart/form-data", 400, "the form can't be read: Missing boundary"),
        (b"a", "multipart/form-data; boundary=x", 400, "the form can't be read"),
        (b"--x--", "multipart/form-data; boundary=x", 400, "the form has no file named 'picture'"),
        (b"{", "application/json", 400, "the body is no valid JSON"),
        (b"\xff\xd8", "application/json", 400, "the body is no valid JSON"),
        (b"[" * 100_000, "application/json", 400, "no valid JSON: it is nested too deeply"),
        (b"[1]", "application/json", 400, "Received a list"),
        (bytes(1_000_001), JPEG, 413, "the request is larger than 1 MB; send fewer or smaller"),
    ],
    ids=lambda one: repr(one[:20]) if isinstance(one, bytes) else None,
)
def test_what_is_no_picture_is_refused_in_one_sentence_and_the_server_goes_on(
    server: Served, body: bytes, kind: str, status: int, sentence: str
) -> None:
    refused = server.ask(body, kind)
    assert (refused.status_code, refused.headers["Content-Type"]) == (status, "application/json")
    assert sentence in refused.json()["message"]
    assert "Traceback" not in refused.text
    assert len(refused.text) < 1000
    assert server.ask(server.picture(), JPEG).status_code == 200


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (("image", ("a.jpg", b"a")), "the form has a part 'image' that is no file named 'picture'"),
        (("picture", (None, b"a")), "a part 'picture' that is no file named 'picture'"),
        (("picture", ("a.jpg", b"")), "picture 2 is empty"),
        (("picture", ("a.jpg", b"GIF")), "picture 2 is no picture"),
    ],
    ids=["another name", "a text", "empty", "no picture"],
)
def test_a_part_of_a_form_that_is_no_picture_refuses_all_of_it(
    server: Served, part: Any, sentence: str
) -> None:
    refused = form(server, ("picture", ("good.jpg", server.picture(), JPEG)), part)
    assert refused.status_code == 400
    assert sentence in refused.json()["message"]


def test_more_pictures_than_can_be_answered_in_time_are_refused(server: Served) -> None:
    many = [text(b"a")] * (MAX_PICTURES + 1)
    for table in (records(*many), split(*many), {"inputs": {"picture": many}}):
        refused = server.ask(table)
        assert refused.status_code == 413
        assert (
            "the request has 65 pictures, more than 64; send several" in refused.json()["message"]
        )
    refused = form(server, *[("picture", ("a.jpg", b"a"))] * (MAX_PICTURES + 1))
    assert refused.status_code == 400
    assert "the form can't be read: Too many files" in refused.json()["message"]


def test_a_body_of_unknown_length_is_measured_as_it_comes(server: Served) -> None:
    address, kind = f"{server.address}/invocations", {"Content-Type": JPEG}
    refused = requests.post(address, data=iter([bytes(99_999)] * 11), headers=kind, timeout=60)
    assert refused.status_code == 413
    answer = requests.post(address, data=iter([server.picture()]), headers=kind, timeout=60)
    assert answer.status_code == 200


def test_clients_that_hang_up_keep_no_place(server: Served) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    lines = ["POST /invocations HTTP/1.1", "Host: a", f"Content-Type: {JPEG}", "Content-Length: 99"]
    half = "\r\n".join([*lines, "", "half"]).encode()
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(half)
    assert server.ask(server.picture(), JPEG).status_code == 200


def test_pages_of_a_site_that_is_allowed_may_read_the_answers(server: Served) -> None:
    address = f"{server.address}/invocations"
    asks = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for site, allowed in ((SITE, SITE), ("https://evil.example", None)):
        kind = {"Origin": site, "Content-Type": JPEG}
        answer = requests.post(address, data=server.picture(), headers=kind, timeout=60)
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed
        preflight = requests.options(address, headers={"Origin": site} | asks, timeout=60)
        assert preflight.ok is (allowed is not None)


def test_200_at_once_and_malformed_bodies_in_between(
    server: Served, rows: list[dict[str, float]]
) -> None:
    name = PICTURES[0]
    parts = [("picture", (name, server.picture(name), JPEG))]
    prepared = requests.Request("POST", "http://a", files=parts).prepare()
    table = json.dumps(records(text(server.picture(name)))).encode()
    good = [
        (server.picture(name), JPEG),
        (prepared.body, prepared.headers["Content-Type"]),
        (table, "application/json"),
    ]
    bad = []
    for number in range(helpers.MALFORMED):
        choose = random.Random(number)  # noqa: S311
        body, kind = choose.choice(good)
        body = body[: choose.randrange(len(body))] if number % 2 else choose.randbytes(2000)
        bad.append((body, kind))
    bodies = [*good * (helpers.AT_ONCE // len(good)), *bad]
    sizes = []
    with ThreadPoolExecutor(helpers.AT_ONCE) as pool:
        for _ in range(helpers.ROUNDS):
            random.Random(0).shuffle(bodies)  # noqa: S311
            answers = list(pool.map(lambda one: server.ask(*one), bodies))
            for one, answer in zip(bodies, answers, strict=True):
                if one in good:
                    assert (answer.status_code, answer.json()) == (200, {"predictions": rows[:1]})
                else:
                    assert answer.status_code == 400, (one[0][:200], answer.text)
                    assert "Traceback" not in answer.text
            sizes.append(helpers.megabytes(server.server))
    assert server.server.poll() is None
    assert not helpers.leaks(sizes), sizes


def test_without_a_name_the_newest_registered_model_answers_until_it_is_told_to_end(
    registered, rows: list[dict[str, float]], server: Served
) -> None:
    port = helpers.free_port()
    command = [SCRIPT, "serve", "--port", str(port)]
    with helpers.started(registered, command, registered.root, port) as running:
        answer = running.ask(server.picture(), JPEG)
        assert answer.json() == {"predictions": rows[:1]}
        os.kill(running.server.pid, signal.SIGINT)
        running.server.wait(60)
        with pytest.raises(requests.ConnectionError):
            running.ask(b"", JPEG)
    log = (registered.root / f"{port}.log").read_text(encoding="utf-8")
    assert f"{URI} is the newest registered model\n" in log
    assert f"answers on http://127.0.0.1:{port}/invocations; Ctrl-C ends it\n" in log
    assert "Traceback" not in log
