"""A registered model behind `mlflow models serve`: the same numbers, and mistakes survived."""

import json
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from tests.team.served import (
    AT_ONCE,
    MALFORMED,
    MLFLOW,
    PICTURES,
    ROUNDS,
    SCRIPT,
    URI,
    Served,
    bomb,
    command,
    free_port,
    leaks,
    megabytes,
    records,
    split,
    started,
    text,
)

pytestmark = pytest.mark.server

Bodies = Callable[[bytes], Any]


@pytest.fixture(scope="module")
def served(registered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Registered by our command, served by MLflow's, in a folder that holds nothing."""
    if not MLFLOW.exists():
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing(f"{MLFLOW}: no such program")
    port = free_port()
    where = ["--host", "127.0.0.1", "--port", str(port), "--env-manager", "local"]
    command = [MLFLOW, "models", "serve", "--model-uri", URI, *where]
    store = f"sqlite:///{registered.root / 'mlflow.db'}"
    folder = tmp_path_factory.mktemp("server")
    with started(registered, command, folder, port, MLFLOW_TRACKING_URI=store) as server:
        yield server


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


# Under load


def malformed(choose: random.Random, good: bytes) -> bytes:
    """A body that is damaged, or a table with something else than a picture."""
    body = bytearray(json.dumps(records(text(good))), "ascii")
    kind = choose.randrange(5)
    if kind == 0:
        return bytes(body[: choose.randrange(len(body))])
    if kind == 1:
        return choose.randbytes(choose.randrange(2000))
    if kind == 2:
        body[choose.randrange(45)] = choose.randrange(256)  # the table, not the picture
        return bytes(body)
    if kind == 3:
        hostile: Any = choose.choice([None, 1e308, [], {}, "💥", "A" * 10**6, [[[]]], True, -1])
        return json.dumps(choose.choice([records, split])(hostile)).encode()
    return json.dumps(records(text(choose.randbytes(300)), text(good))).encode()


def test_200_at_once_and_malformed_bodies_in_between(served: Served) -> None:
    good = json.dumps(records(*(text(served.picture(name)) for name in PICTURES)))
    expected = served.ask(good).json()
    bad = [malformed(random.Random(n), served.picture()) for n in range(MALFORMED)]  # noqa: S311
    bodies = [*bad, *[good] * AT_ONCE]
    sizes = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(ROUNDS):
            random.Random(0).shuffle(bodies)  # noqa: S311
            answers = list(pool.map(served.ask, bodies))
            for body, answer in zip(bodies, answers, strict=True):
                if body is good:
                    assert (answer.status_code, answer.json()) == (200, expected)
                else:
                    assert answer.status_code in {200, 400}, (body[:200], answer.text)
                    assert "Traceback" not in answer.text
            sizes.append(megabytes(served.server))
    assert served.server.poll() is None
    assert not leaks(sizes), sizes


@pytest.fixture(scope="module")
def browsed(registered) -> Iterator[Served]:
    """The UI of the same workspace, as our command starts it."""
    port = free_port()
    command = [SCRIPT, "ui", "--port", str(port)]
    with started(registered, command, registered.root, port, "/health") as server:
        yield server


SEARCH = "/api/2.0/mlflow/runs/search"


def test_the_ui_answers_200_at_once_and_malformed_bodies_in_between(browsed: Served) -> None:
    def post(body: bytes) -> requests.Response:
        kind = {"Content-Type": "application/json"}
        return requests.post(browsed.address + SEARCH, data=body, headers=kind, timeout=120)

    good = json.dumps({"experiment_ids": ["1"], "max_results": 100}).encode()
    expected = post(good).json()
    assert len(expected["runs"]) == 5  # four trials and their study
    bodies = [good] * AT_ONCE
    for number in range(MALFORMED):
        choose = random.Random(number)  # noqa: S311
        body = bytearray(good)
        for _ in range(choose.choice([1, 2, 8])):
            body[choose.randrange(len(body))] = choose.randrange(256)
        bodies.append(bytes(body))
    sizes = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in range(ROUNDS):
            random.Random(0).shuffle(bodies)  # noqa: S311
            answers = list(pool.map(post, bodies))
            for body, answer in zip(bodies, answers, strict=True):
                if body == good:
                    assert (answer.status_code, answer.json()) == (200, expected)
            sizes.append(megabytes(browsed.server))
    assert browsed.server.poll() is None
    assert post(good).json() == expected
    assert not leaks(sizes), sizes


@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_the_ui_refuses_foreign_pages(browsed: Served, header: dict[str, str]) -> None:
    where = f"{browsed.address}/api/2.0/mlflow/experiments/create"
    refused = requests.post(where, json={"name": "theirs"}, headers=header, timeout=60)
    assert refused.status_code == 403
