"""What is said in two places is the same in both: commands, versions, workflows."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def load(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in load(workflow)["jobs"].values() for step in job["steps"]]


def test_the_hooks_run_what_make_check_runs() -> None:
    (recipe,) = re.findall(r"^check:.*\n((?:\t.*\n)+)", text("Makefile"), re.MULTILINE)
    (repository,) = load(ROOT / ".pre-commit-config.yaml")["repos"]
    commands = [line.strip() for line in recipe.splitlines()]
    assert [hook["entry"] for hook in repository["hooks"]] == commands


def test_package_changelog_and_citation_name_one_version() -> None:
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    citation = load(ROOT / "CITATION.cff")
    released = re.findall(r"^## \[(\d.*)\] - (\S+)$", text("CHANGELOG.md"), re.MULTILINE)
    assert released[0] == (version, citation["date-released"])
    assert citation["version"] == version


def test_the_workflow_runs_what_ci_runs() -> None:
    (ci,) = [path for path in WORKFLOWS if path.name == "ci.yml"]
    assert ".ci/run" in [step.get("run") for step in steps(ci)]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_an_action_is_named_by_its_commit(workflow: Path) -> None:
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_nothing_of_a_pull_request_becomes_part_of_a_command(workflow: Path) -> None:
    assert [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")] == []
