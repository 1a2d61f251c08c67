"""compose.yaml starts what the other tests start; Docker itself can't be run where they run."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = YAML(typ="safe", pure=True).load(DEPLOY / "compose.yaml")


def service(name: str) -> dict[str, Any]:
    return dict(COMPOSE["services"][name])


def example() -> dict[str, str]:
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_the_image_starts_the_script_that_the_tests_start() -> None:
    build = service("mlflow")["build"]
    dockerfile = (DEPLOY / build["context"] / build["dockerfile"]).read_text(encoding="utf-8")
    assert re.findall(r'^ENTRYPOINT \["(.*)"\]$', dockerfile, re.MULTILINE) == ["/deploy/serve.sh"]
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY")]
    paths = [path for paths in copied for path in paths]
    assert {"constraints.txt", "deploy/serve.sh", "deploy/basic_auth.ini"} <= set(paths)
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    assert "--constraint constraints.txt" in dockerfile


def test_the_server_is_given_all_that_the_script_asks_for() -> None:
    asked = re.findall(r"\$\{(\w+):\?", (DEPLOY / "serve.sh").read_text(encoding="utf-8"))
    given = set(service("mlflow")["environment"]) | set(example())
    assert len(asked) == 4
    assert set(asked) <= given


def test_no_secret_stands_in_the_repository() -> None:
    assert set(example().values()) == {""}
    assert service("mlflow")["env_file"] == ".env"
    assert "deploy/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    text = (DEPLOY / "basic_auth.ini").read_text(encoding="utf-8")
    assert not re.search(r"^admin_password|://[^/]", text, re.MULTILINE)


@pytest.mark.parametrize("name", list(COMPOSE["services"]))
def test_a_service_is_looked_after_and_keeps_its_data(name: str) -> None:
    assert service(name)["healthcheck"]["test"]
    named = {volume.split(":")[0] for volume in service(name)["volumes"]}
    assert named <= set(COMPOSE["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in service(name).get("ports", []))
