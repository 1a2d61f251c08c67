"""The image of a model starts a command that exists; Docker itself can't be run where tests run."""

import json
import re
from pathlib import Path

import typer

from vgg16_transfer import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "model.Dockerfile").read_text(encoding="utf-8")
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if line and line[0] != "#"]


def given(instruction: str) -> list[str]:
    return [
        line.removeprefix(instruction).strip() for line in LINES if line.startswith(instruction)
    ]


def test_what_it_copies_is_there_and_is_sent_to_docker() -> None:
    copied = [path for line in given("COPY ") for path in line.split()[:-1]]
    assert {"constraints.txt", "pyproject.toml", "src"} <= set(copied)
    assert [path for path in copied if not (ROOT / path).exists()] == []
    ignore = ROOT / "deploy" / "model.Dockerfile.dockerignore"
    lines = ignore.read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    assert sorted(line[1:] for line in lines if line.startswith("!")) == sorted(copied)


def test_it_installs_the_versions_of_the_constraints() -> None:
    (install,) = [line for line in given("RUN ") if line.startswith("pip")]
    assert "--constraint /app/constraints.txt" in install


def test_it_starts_a_command_with_options_that_exist() -> None:
    (entry,) = given("ENTRYPOINT ")
    program, name, *options = json.loads(entry)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\n{program} = "vgg16_transfer.cli:main"\n' in project
    command = typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    values = command.make_context(name, list(options)).params
    assert (values["model"], values["host"]) == ("/model", "0.0.0.0")  # noqa: S104
    assert given("EXPOSE ") == [str(values["port"])]
    (health,) = given("HEALTHCHECK ")
    assert re.findall(r"http://127\.0\.0\.1:(\d+)/ping", health) == [str(values["port"])]


def test_it_does_not_run_as_root() -> None:
    (user,) = given("USER ")
    assert user not in {"root", "0"}
    assert f"useradd --system {user}" in given("RUN ")
    names = [line.split()[0] for line in LINES]
    assert names.index("USER") < names.index("ENTRYPOINT")
