"""Where a stage computes: the option, the variable, the key, and what is said if it can't."""

import importlib.util
from typing import Any

import pytest
from ruamel.yaml import YAML

from vgg16_transfer.cli.app import COMPUTE, pool_of
from vgg16_transfer.compute.ray import ComputeError
from vgg16_transfer.errors import InputError
from vgg16_transfer.params import Params

from .conftest import Run
from .test_main import PARAMS

MISSING = (
    "compute: ray comes from the extra 'ray'; run pip install -e '.[cpu,ray]' -c constraints.txt"
)


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch, tmp_path) -> None:
    """A machine without Ray, in an empty folder."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "ray" else find(name, *rest),
    )
    monkeypatch.delenv(COMPUTE, raising=False)
    monkeypatch.chdir(tmp_path)


def params(compute: str = "local") -> Params:
    return Params({}, {}, {}, compute=compute)


def test_a_stage_computes_in_its_own_process_unless_it_is_told_otherwise() -> None:
    with pool_of(params(), on_ray=False) as pool:
        assert pool is None


@pytest.mark.parametrize(
    ("compute", "variable", "on_ray"),
    [
        ("ray", None, False),
        ("local", "ray", False),
        ("local", None, True),
        ("local", "local", True),
    ],
)
def test_key_variable_and_option_ask_for_ray(monkeypatch, compute, variable, on_ray) -> None:
    if variable is not None:
        monkeypatch.setenv(COMPUTE, variable)
    with pytest.raises(ComputeError) as caught, pool_of(params(compute), on_ray=on_ray):
        pass
    assert str(caught.value) == MISSING


def test_the_variable_comes_before_the_key(monkeypatch) -> None:
    monkeypatch.setenv(COMPUTE, "local")
    with pool_of(params("ray"), on_ray=False) as pool:
        assert pool is None


def test_an_unknown_place_in_the_variable_is_one_sentence(monkeypatch) -> None:
    monkeypatch.setenv(COMPUTE, "rai")
    with pytest.raises(InputError) as caught, pool_of(params(), on_ray=False):
        pass
    assert str(caught.value) == f"{COMPUTE}: unknown value 'rai'; did you mean 'ray'?"


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["features", "animals", "--ray"], {}),
        (["train", "few", "--ray"], {}),
        (["train", "few"], {"compute": "ray"}),
    ],
)
def test_without_ray_a_command_says_what_installs_it(
    run: Run, arguments: list[str], changes: dict[str, Any], tmp_path
) -> None:
    YAML(typ="safe", pure=True).dump(PARAMS | changes, tmp_path / "params.yaml")
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == f"error: {MISSING}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
