"""params.schema.json: what an editor says of params.yaml is what the code says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7
from ruamel.yaml import YAML

from vgg16_transfer.head_kinds import HEAD_KINDS
from vgg16_transfer.optimizers import OPTIMIZERS
from vgg16_transfer.params import Backbone, Dataset, ParamsError, Split, Trial, check_params
from vgg16_transfer.params.json_schema import json_schema

from .edits import GONE, edited
from .tools.loading import load as load_script

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]
SCHEMA = json_schema()
RIGHT = {
    "backbone": {"weights": "random-conv"},
    "datasets": {"d": {"source": "d.tar", "layers": ["block4_pool", "block5_pool"]}},
    "studies": {"s": {"dataset": "d", "samples_per_class": [2, 4]}},
}
SEVERAL = {"default": "vgg19", "vgg19": {"weights": "random"}}
VALUES = [
    *(None, True, -1, 0, 1, 1.5, 1e9, "", "vgg16", "none", "block5_pool", "softmax", "A b"),
    *([], [1, 1], [0, 1], ["flip"], ["sgd", "adam"], {}, {"weights": "random"}, {"default": "x"}),
]


def load(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


def from_file(uri: str) -> Resource[Any]:
    content = json.loads(Path(uri.removeprefix("file://")).read_text(encoding="utf-8"))
    return DRAFT7.create_resource(content)


def paths(raw: Any, above: str = "") -> list[str]:
    """The paths of all keys."""
    if not isinstance(raw, dict):
        return []
    below = [path for key, value in raw.items() for path in paths(value, f"{above}{key}/")]
    return [*(f"{above}{key}" for key in raw), *below]


def test_the_files_are_what_make_schema_writes(tmp_path: Path) -> None:
    tool = load_script(ROOT / "tools" / "params_schema.py")
    (tmp_path / "profiles").mkdir()
    tool.write(tmp_path)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 2
    for path in written:
        assert path.read_bytes() == (ROOT / path.relative_to(tmp_path)).read_bytes(), "make schema"


def test_the_schema_is_one_of_draft_7() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft7Validator.META_SCHEMA["$schema"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_first_line_names_a_schema_that_accepts_the_file(path: Path) -> None:
    first, _, _ = path.read_text(encoding="utf-8").partition("\n")
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    uri = (path.parent / named[1]).as_uri()
    registry = Registry(retrieve=from_file)
    validator = Draft7Validator({"$ref": uri}, registry=registry)  # as an editor: by its address
    assert [error.message for error in validator.iter_errors(load(path))] == []
    assert not validator.is_valid(load(path) | {"study": {}})


@pytest.mark.parametrize(
    ("section", "model"),
    [("network", Backbone), ("dataset", Dataset), ("study", Trial)],
    ids=str,
)
def test_every_key_has_the_description_of_its_field(section: str, model: Any) -> None:
    properties = SCHEMA["definitions"][section]["properties"]
    assert [key for key in properties if key != "dataset"] == list(model.model_fields)
    for key, value in properties.items():
        assert value["description"]
        if key in model.model_fields and key != "split":
            words = re.findall(r"[a-z_]+", model.model_fields[key].description)
            assert set(words) <= set(re.findall(r"[a-z_]+", value["description"])), key
            assert "](" not in value["description"]


def test_the_keys_of_a_split_are_explained_too() -> None:
    split = SCHEMA["definitions"]["dataset"]["properties"]["split"]
    assert list(split["properties"]) == list(Split.model_fields)
    assert all(value["description"] for value in split["properties"].values())


def test_heads_and_optimisers_are_those_of_the_tables() -> None:
    study = SCHEMA["definitions"]["study"]["properties"]
    for key, table in (("head", HEAD_KINDS), ("optimizer", OPTIMIZERS)):
        one, several = study[key]["anyOf"]
        assert one["enum"] == several["items"]["enum"] == list(table)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "backbone": {
                "vgg16": {"weights": "random"},
                "mine": SEVERAL["vgg19"] | {"network": "vgg19"},
            }
        },
        {"backbone": SEVERAL},
        {"studies/s/head": ["softmax", "linear_svm"], "studies/s/samples_per_class": 1},
        {"datasets/d/split": {"seeds": [3], "group": None}, "studies/s/seed": 3},
        {"studies/s/learning_rate": 1},
    ],
    ids=str,
)
def test_what_is_right_is_accepted(changes: dict[str, Any]) -> None:
    raw = edited(RIGHT, changes)
    assert check_params(raw).studies
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(raw)] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"study": {}},
        {"studies": GONE},
        {"studies": {}},
        {"studies/s/sample_per_class": 2},
        {"studies/s/samples_per_class": []},
        {"studies/s/samples_per_class": [2, 2]},
        {"studies/s/samples_per_class": "2"},
        {"studies/s/dataset": ["d"]},
        {"studies/s/dataset": GONE},
        {"studies/s/head": "softmaxx"},
        {"studies/s/optimizer": ["sgd", "adm"]},
        {"studies/s/layer": "block6_pool"},
        {"studies/s/fine_tune_from": "block9"},
        {"studies/s/augment": "flip+flop"},
        {"studies/s/momentum": 1},
        {"studies/S": {"dataset": "d"}},
        {"backbone/weight": "random"},
        {"backbone/weights": GONE},
        {"backbone/network": "vgg17"},
        {"backbone": {"default": "vgg16"}},
        {"backbone": {"mine": {"weights": "random"}}},
        {"backbone": {"vgg16": {"weights": "random", "size": 3}}},
        {"datasets/d/layers": GONE},
        {"datasets/d/layers": ["block5"]},
        {"datasets/d/md5": "abc"},
        {"datasets/d/split/test_per_clas": 8},
        {"datasets/d/published_as": "caltech"},
    ],
    ids=str,
)
def test_what_is_misspelt_is_rejected(changes: dict[str, Any]) -> None:
    raw = edited(RIGHT, changes)
    with pytest.raises(ParamsError):
        check_params(raw)
    assert not Draft7Validator(SCHEMA).is_valid(raw)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_the_schema_rejects_the_code_rejects(data: st.DataObject) -> None:
    raw = load(data.draw(st.sampled_from(FILES)))
    *above, key = data.draw(st.sampled_from(paths(raw))).split("/")
    section = raw
    for name in above:
        section = section[name]
    section[key] = data.draw(st.sampled_from(VALUES))
    if Draft7Validator(SCHEMA).is_valid(raw):
        return
    with pytest.raises(ParamsError):
        check_params(raw)
