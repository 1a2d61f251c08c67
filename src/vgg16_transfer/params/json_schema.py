"""params.yaml as a JSON schema, with which an editor completes, explains and checks its keys.

The fields of the sections give keys, types, bounds, defaults and descriptions; the tables of
networks, heads and optimisers give the names that are known. ``tools/params_schema.py`` writes the
file. What the schema rejects, :func:`~vgg16_transfer.params.check_params` rejects too. Only the
latter sees settings that contradict each other.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from vgg16_transfer.engines import ENGINES
from vgg16_transfer.head_kinds import HEAD_KINDS
from vgg16_transfer.networks import DEFAULT, LAST, NETWORKS
from vgg16_transfer.optimizers import OPTIMIZERS
from vgg16_transfer.params.backbone import Backbone
from vgg16_transfer.params.compute import COMPUTE, DEFAULT_COMPUTE, DESCRIPTION
from vgg16_transfer.params.contradictions import PUBLISHED
from vgg16_transfer.params.dataset import Dataset, Split
from vgg16_transfer.params.section import MAX_NAME, NAME
from vgg16_transfer.params.study import Trial

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vgg16_transfer.params.section import Section

    Schema = dict[str, Any]

_LAYERS = (
    *dict.fromkeys(layer for row in NETWORKS.values() for layer in (*row.layers, *row.dense)),
    LAST,
)
_BLOCKS = tuple(dict.fromkeys(block for row in NETWORKS.values() for block in row.fine_tune))

_KNOWN: dict[type[Section], dict[str, Iterable[str]]] = {
    Backbone: {"network": NETWORKS, "engine": ENGINES},
    Dataset: {"layers": dict.fromkeys(_LAYERS), "published_as": PUBLISHED},
    Split: {},
    Trial: {
        "layer": dict.fromkeys(_LAYERS),
        "head": HEAD_KINDS,
        "optimizer": OPTIMIZERS,
        "teacher_layer": dict.fromkeys(("none", *_LAYERS)),
        "fine_tune_from": ("none", *_BLOCKS),
    },
}
"""Values of the keys that take one of a list which is no type of the field."""

_EXAMPLES = {
    "weights": ["imagenet", "imagenet-conv", "random", "random-conv"],
    "augment": ["none", "flip", "crop", "colour", "flip+crop+colour"],
}
"""What an editor proposes for keys that take more than a list can hold."""

_MAPS_NAMES = {
    "type": "object",
    "minProperties": 1,
    "properties": {"default": {}},
    "additionalProperties": {"type": "object"},
}
"""What tells several networks from one: each value, but for ``default``, is a mapping."""

_LINK = re.compile(r"\[[^]]*\]\(([^)]+)\)")


def json_schema() -> Schema:
    """The JSON schema, draft 7, of params.yaml."""
    network = _section(Backbone)
    study = _section(Trial)
    study["properties"] = {
        "dataset": {"type": "string", "description": "name of one of the datasets"},
        **{key: _axis(value) for key, value in study["properties"].items()},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "params.yaml of vgg16-transfer",
        "description": "Everything that decides a result. docs/params.md explains every key.",
        "type": "object",
        "additionalProperties": False,
        "required": ["backbone", "datasets", "studies"],
        "properties": {
            "backbone": {
                "description": "the frozen network, or several by name",
                "if": _MAPS_NAMES,
                "then": _several_networks(),
                "else": {"$ref": "#/definitions/network"},
            },
            "datasets": _by_name("datasets by name", {"$ref": "#/definitions/dataset"}),
            "studies": _by_name("studies by name", {"$ref": "#/definitions/study"}),
            "compute": {
                "type": "string",
                "enum": list(COMPUTE),
                "default": DEFAULT_COMPUTE,
                "description": DESCRIPTION,
            },
        },
        "definitions": {
            "network": network,
            # An entry with the name of a known network needs no key that says so again.
            "other_network": network | {"required": ["network", *network["required"]]},
            "dataset": _section(Dataset),
            "study": study | {"required": ["dataset"]},
        },
    }


def text() -> str:
    """The content of params.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _section(model: type[Section]) -> Schema:
    """The schema of a section: of its keys, and of the sections within it."""
    schema = model.model_json_schema()
    properties = {}
    for key, field in model.model_fields.items():
        value = schema["properties"][key]
        if field.annotation is Split:
            value = _section(Split)
        value.pop("title", None)
        value["description"] = _LINK.sub(r"docs/\1", str(field.description))
        if key in _KNOWN[model]:
            _close(value, list(_KNOWN[model][key]))
        if key in _EXAMPLES:
            value["examples"] = _EXAMPLES[key]
        properties[key] = value
    result: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return result | {"required": schema["required"]} if "required" in schema else result


def _close(schema: Schema, names: list[str]) -> None:
    """Lets every text in the schema of a key be one of these names only."""
    if schema.get("type") == "string":
        schema["enum"] = names
    for part in (*schema.get("anyOf", ()), schema.get("items")):
        if part is not None:
            _close(part, names)


def _axis(schema: Schema) -> Schema:
    """The schema of a study's key: a value, or a list of different values."""
    said = {key: schema.pop(key) for key in ("description", "default") if key in schema}
    values = {"type": "array", "items": schema, "minItems": 1, "uniqueItems": True}
    return said | {"anyOf": [schema, values]}


def _by_name(description: str, entry: Schema) -> Schema:
    return {
        "description": description,
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{NAME.pattern}$", "maxLength": MAX_NAME},
        "additionalProperties": entry,
    }


def _several_networks() -> Schema:
    """The section ``backbone`` as a mapping of names to networks."""
    described = "the network that studies use if they name none"
    return _by_name("several networks by name", {"$ref": "#/definitions/other_network"}) | {
        "properties": {
            "default": {"type": "string", "default": DEFAULT, "description": described},
            **{name: {"$ref": "#/definitions/network"} for name in NETWORKS},
        },
        "if": {"required": ["default"]},
        "then": {"minProperties": 2},
    }
