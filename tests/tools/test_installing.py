"""What is installed on which system: extras, versions, and what make and uv are told."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from .loading import load

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS = PROJECT["dependency-groups"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
SYSTEMS = {
    "Linux, x86-64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Linux, ARM": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "macOS 14, ARM": {"sys_platform": "darwin", "platform_machine": "arm64"},
    "Windows, x86-64": {"sys_platform": "win32", "platform_machine": "AMD64"},
}
OTHERS = {
    "macOS, Intel": {"sys_platform": "darwin", "platform_machine": "x86_64"},
    "Windows, ARM": {"sys_platform": "win32", "platform_machine": "ARM64"},
}


def tool(name: str) -> ModuleType:
    return load(ROOT / "tools" / f"{name}.py")


def holds(marker: Marker | None, environment: dict[str, str]) -> bool:
    return marker is None or marker.evaluate(dict(environment))


def required(extra: str, environment: dict[str, str]) -> list[Requirement]:
    """What an extra of the project asks for on a system."""
    found = map(Requirement, PROJECT["project"]["optional-dependencies"][extra])
    return [each for each in found if holds(each.marker, environment)]


def pins() -> dict[str, list[Requirement]]:
    """The requirements in constraints.txt by the name of their package."""
    result: dict[str, list[Requirement]] = {}
    for line in CONSTRAINTS.splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            result.setdefault(canonicalize_name(pin.name), []).append(pin)
    return result


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("Linux, x86-64", "tensorflow-cpu"),
        ("Linux, ARM", "tensorflow"),
        ("macOS 14, ARM", "tensorflow"),
        ("Windows, x86-64", "tensorflow-cpu"),
        ("macOS, Intel", "tensorflow"),
        ("Windows, ARM", "tensorflow"),
    ],
)
def test_the_extra_cpu_is_one_tensorflow_on_every_system(system: str, name: str) -> None:
    environment = (SYSTEMS | OTHERS)[system]
    assert [each.name for each in required("cpu", environment)] == [name]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_extra_gpu_has_cuda_on_linux_only(system: str) -> None:
    (tensorflow,) = required("gpu", SYSTEMS[system])
    assert tensorflow.name == "tensorflow"
    assert tensorflow.extras == ({"and-cuda"} if system.startswith("Linux") else set())


def test_every_constraint_is_one_exact_version() -> None:
    for name, each in pins().items():
        assert len(each) == 1, name
        (clause,) = each[0].specifier
        assert clause.operator == "=="
        assert not clause.version.endswith("*")


def test_every_dependency_has_a_constraint_within_its_bounds() -> None:
    project = PROJECT["project"]
    asked = [project["dependencies"], *project["optional-dependencies"].values()]
    pinned = pins()
    for requirement in map(Requirement, [each for group in asked for each in group]):
        if requirement.name == project["name"]:
            continue
        (pin,) = pinned[canonicalize_name(requirement.name)]
        (clause,) = pin.specifier
        assert requirement.specifier.contains(clause.version, prereleases=False), requirement


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_every_constraint_is_for_the_oldest_release_of_each_python(python: str) -> None:
    refused, seen = [], 0
    for name, (pin,) in pins().items():
        try:
            metadata = importlib.metadata.metadata(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # what other systems install
        if metadata["Version"] in pin.specifier:
            seen += 1
            needed = SpecifierSet(metadata.get("Requires-Python", ""))
            refused += [] if needed.contains(python) else [f"{pin} needs Python {needed}"]
    assert seen > 150
    assert refused == []


def test_every_tensorflow_is_the_same_version() -> None:
    pinned = pins()
    assert pinned["tensorflow"][0].specifier == pinned["tensorflow-cpu"][0].specifier


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_python_is_that_which_tensorflow_has_wheels_for(python: str) -> None:
    allowed = SpecifierSet(PROJECT["project"]["requires-python"]).contains(python)
    assert allowed == (python in tool("platforms").PYTHONS)


def test_uv_knows_the_constraints_and_the_systems() -> None:
    uv = PROJECT["tool"]["uv"]
    assert uv["constraint-dependencies"] == tool("constraints").pins(CONSTRAINTS)
    for environment in SYSTEMS.values():
        fitting = [each for each in uv["environments"] if Marker(each).evaluate(environment)]
        assert len(fitting) == 1
    for environment in OTHERS.values():
        assert not any(Marker(each).evaluate(environment) for each in uv["environments"])


def test_the_systems_are_those_that_the_tool_asks_for_and_the_page_lists() -> None:
    assert list(tool("platforms").SYSTEMS) == list(SYSTEMS)
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    assert [
        row for row in re.findall(r"^\| ([^|]+?) \|", page, re.MULTILINE) if row in SYSTEMS
    ] == [*SYSTEMS]


def test_the_command_that_resolves_takes_wheels_and_constraints_only() -> None:
    words = tool("platforms").command("aarch64-apple-darwin", "3.13", ("cpu", "offline"))
    line = " ".join(words)
    assert "--constraint constraints.txt --python-platform aarch64-apple-darwin" in line
    assert "--python-version 3.13 --only-binary :all: --no-binary antlr4-python3-runtime" in line
    assert line.endswith("--extra cpu --extra offline")


def test_what_other_systems_install_stays_in_the_constraints(tmp_path: Path) -> None:
    constraints = tool("constraints")
    (tmp_path / "constraints.txt").write_text(CONSTRAINTS, encoding="utf-8")
    before = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(before, encoding="utf-8")
    constraints.write(tmp_path, "numpy==9.0\ntensorflow_cpu==9.1\n")
    first, *lines = (tmp_path / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert first == CONSTRAINTS.splitlines()[0]
    assert lines[:2] == ["numpy==9.0", "tensorflow_cpu==9.1"]
    assert {"tensorflow==9.1", "waitress==3.0.2"} <= set(lines)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["uv"]["constraint-dependencies"] == [
        line for line in lines if not line.startswith("#")
    ]
    assert project | {"tool": 0} == PROJECT | {"tool": 0}


def test_constraints_without_the_section_of_other_systems_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("constraint-dependencies = [\n]\n", encoding="utf-8")
    broken = CONSTRAINTS.replace("# What is installed on other systems only", "#")
    (tmp_path / "constraints.txt").write_text(broken, encoding="utf-8")
    with pytest.raises(ValueError, match="has no line"):
        tool("constraints").write(tmp_path, "numpy==9.0\n")
    assert (tmp_path / "constraints.txt").read_text(encoding="utf-8") == broken


PIP = """\
Looking in links: wheels
Collecting keras>=3.12 (from vgg16-transfer==0.2.0)
  Downloading keras-3.15.1-py3-none-any.whl (1.4 MB)
Processing ./wheels/flask-3.1.3-py3-none-any.whl (from mlflow)
Requirement already satisfied: pip in .venv (23.2)
Collecting tensorflow-cpu==2.21.0
  Downloading tensorflow_cpu-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl (277.6 MB)
Installing collected packages: keras, tensorflow-cpu
"""


def test_the_installation_says_what_pip_does() -> None:
    progress = tool("install").Progress()
    said = [progress.sentence()]
    for line in PIP.splitlines():
        progress = progress.after(line)
        said.append(progress.sentence())
    assert list(dict.fromkeys(said)) == [
        "installing: starting pip",
        "installing: 1 packages so far, looking up keras",
        "installing: 1 packages so far, downloading keras (1.4 MB)",
        "installing: 2 packages so far, looking up flask",
        "installing: 3 packages so far, looking up tensorflow-cpu",
        "installing: 3 packages so far, downloading tensorflow_cpu (277.6 MB)",
        "installing: 3 packages so far, writing 2 packages",
    ]


def test_the_installation_ends_as_pip_does() -> None:
    command = [sys.executable, ROOT / "tools" / "install.py", "--no-index", "no-such-package"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No matching distribution found for no-such-package" in done.stderr


def test_make_and_the_page_install_the_same() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
    arguments = re.findall(r"tools/install.py (.*)$", makefile, re.MULTILINE)
    assert len(arguments) == 2
    plain: list[Any] = [
        each.replace("$(TENSORFLOW)", "cpu").replace("'", '"') for each in arguments
    ]
    assert f"pip install {plain[0]}" in page
    (recipe,) = re.findall(r"^reproduce:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    for line in recipe.splitlines():
        assert line.strip() in page
    groups = {name: set(Requirement(each[0]).extras) for name, each in GROUPS.items()}
    assert groups["run"] == {"cpu", "offline"}
    assert groups["run"] | groups["dev"] == {"cpu", "offline", "team", "dev"}
