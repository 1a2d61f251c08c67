"""params.yaml → typed values, or one sentence per mistake with the path of the key."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml.error import YAMLError

from vgg16_transfer.networks import DEFAULT, LAST, NETWORKS
from vgg16_transfer.params import compute as place
from vgg16_transfer.params import yaml_text
from vgg16_transfer.params.backbone import Backbone
from vgg16_transfer.params.contradictions import contradictions
from vgg16_transfer.params.dataset import Dataset, Split
from vgg16_transfer.params.schema import Params
from vgg16_transfer.params.section import MAX_NAME, NAME, ParamsError, Section, nearest
from vgg16_transfer.params.study import LAYER_KEYS, MAX_TRIALS, Study, Trial

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pydantic.fields import FieldInfo

S = TypeVar("S", bound=Section)

_DEFAULT_KEY = "default"
"""The key of the section ``backbone`` that names one of several networks."""

_PLAIN = {
    "missing": "is missing",
    "model_type": "must map keys to values",
    "too_short": "is an empty list; give at least one value",
    "string_too_short": "is empty",
}
"""Messages that replace those messages of pydantic that are hard to understand, by error type."""


def read_params(path: Path) -> Params:
    """Reads and checks a params file.

    Raises:
        ParamsError: The file is missing, is not YAML, or has mistakes. The error has all mistakes.
    """
    try:
        raw = yaml_text.read(path)
    except FileNotFoundError:
        raise ParamsError(str(path), ["no such file; run this in the repository's root"]) from None
    except (ValueError, OSError, YAMLError) as error:  # a date like 2026-13-01 is a ValueError
        raise ParamsError(str(path), [f"is not readable as YAML: {_reason(error)}"]) from None
    return check_params(raw, source=path.name)


def check_params(raw: object, *, source: str = "params.yaml") -> Params:
    """Converts parsed YAML to :class:`Params`.

    Args:
        raw: The parsed YAML.
        source: File name, used in error messages.

    Raises:
        ParamsError: There are mistakes. The error has all of them.
    """
    if not isinstance(raw, dict):
        raise ParamsError(source, ["must hold the keys backbone, datasets and studies"])
    mistakes = _unknown_keys("", raw, ["backbone", "datasets", "studies", "compute"])
    backbones = _backbones(raw.get("backbone", {}), mistakes)
    datasets = {}
    for name, value in _mapping(raw, "datasets", mistakes).items():
        dataset = _section(Dataset, value, f"datasets.{name}", mistakes)
        if dataset is not None:
            datasets[name] = dataset
    studies = {}
    for name, value in _mapping(raw, "studies", mistakes).items():
        study = _study(name, value, backbones, mistakes)
        if study is not None:
            studies[name] = study
    named = _is_named(raw.get("backbone"))
    compute = raw.get("compute", place.DEFAULT_COMPUTE)
    mistake = place.mistake(compute)
    if mistake is not None:
        mistakes.append(f"compute: {mistake}")
    params = Params(backbones, datasets, studies, named=named, compute=str(compute))
    mistakes = mistakes or contradictions(params)
    if mistakes:
        raise ParamsError(source, mistakes)
    return params


def _reason(error: Exception) -> str:
    """The line and problem of a YAML error, without the excerpt and the advice of the parser."""
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) if mark else str(error)
    return (f"line {mark.line + 1}: " if mark else "") + " ".join(str(reason).split())


def _mapping(raw: dict[str, Any], key: str, mistakes: list[str]) -> dict[str, Any]:
    value = raw.get(key)
    if not isinstance(value, dict) or not value:
        mistakes.append(f"{key}: must map at least one name to its settings")
        return {}
    mistakes += [
        f"{key}.{name}: a name is lower-case letters and digits, with '-' or one '_' between"
        for name in value
        if not isinstance(name, str) or not NAME.fullmatch(name)
    ]
    mistakes += [
        f"{key}.{name}: a name has at most {MAX_NAME} characters, not {len(name)}"
        for name in value
        if isinstance(name, str) and len(name) > MAX_NAME
    ]
    return value


def _unknown_keys(path: str, raw: dict[Any, Any], known: list[str]) -> list[str]:
    return [
        f"{path}{'.' if path else ''}{key}: unknown key; {nearest(str(key), known)}"
        for key in raw
        if key not in known
    ]


def _section(model: type[S], raw: object, path: str, mistakes: list[str]) -> S | None:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        mistakes += _sentences(error, path, model.model_fields)
        return None


def _backbones(raw: object, mistakes: list[str]) -> dict[str, Backbone]:
    """The networks of the section ``backbone``, by name: the default, then the others by name.

    The section is one network, or maps names to networks. One network has the name of its row.
    The order in the file has no meaning, because DVC does not compare it.
    """
    if not _is_named(raw):
        backbone = _section(Backbone, raw, "backbone", mistakes)
        return {} if backbone is None else {backbone.network: backbone}
    entries = dict(cast("dict[str, Any]", raw))
    default = entries.pop(_DEFAULT_KEY, DEFAULT)
    backbones = {}
    for name, value in _mapping({"backbone": entries}, "backbone", mistakes).items():
        path = f"backbone.{name}"
        named = {"network": name} | value if name in NETWORKS else value
        if "network" not in named:
            mistakes.append(f"{path}.network: is missing; no network has the name '{name}'")
        backbone = _section(Backbone, named, path, mistakes)
        if backbone is not None:
            backbones[name] = backbone
    if not isinstance(default, str) or default not in entries:  # a list is no key of a mapping
        known = nearest(str(default), [str(name) for name in entries])
        mistakes.append(f"backbone.{_DEFAULT_KEY}: there is no '{default}' in backbone; {known}")
    return dict(sorted(backbones.items(), key=lambda item: (item[0] != default, item[0])))


def _is_named(raw: object) -> bool:
    """Whether the section ``backbone`` maps names to networks."""
    if not isinstance(raw, dict):
        return False
    values = [value for key, value in raw.items() if key != _DEFAULT_KEY]
    return bool(values) and all(isinstance(value, dict) for value in values)


def _study(
    name: str, raw: object, backbones: Mapping[str, Backbone], mistakes: list[str]
) -> Study | None:
    path = f"studies.{name}"
    if not isinstance(raw, dict):
        mistakes.append(f"{path}: must map keys to values, like 'samples_per_class: [2, 4]'")
        return None
    before = len(mistakes)
    mistakes += _unknown_keys(path, raw, ["dataset", *Trial.model_fields])
    dataset = raw.get("dataset")
    if isinstance(dataset, list):
        mistakes.append(f"{path}.dataset: must be one name; a second dataset is a second study")
    elif not isinstance(dataset, str):
        mistakes.append(f"{path}.dataset: must name one of the datasets")
    defaults = {key: field.default for key, field in Trial.model_fields.items()}
    defaults["backbone"] = next(iter(backbones), DEFAULT)
    grid = {
        key: _axis(field, raw[key], f"{path}.{key}", mistakes) if key in raw else (defaults[key],)
        for key, field in Trial.model_fields.items()
    }
    trials = math.prod(map(len, grid.values()))
    if trials > MAX_TRIALS:
        mistakes.append(f"{path}: is a grid of {trials:,} trials, more than {MAX_TRIALS:,}")
    networks = {name: backbone.network for name, backbone in backbones.items()}
    _name_last_layers(path, grid, networks, mistakes)
    return Study(name, str(dataset), grid, networks) if len(mistakes) == before else None


def _name_last_layers(
    path: str, grid: dict[str, tuple[Any, ...]], networks: Mapping[str, str], mistakes: list[str]
) -> None:
    """Replaces ``last`` in a grid by the layer's name, if it is the same for all networks of it.

    Otherwise, ``last`` must be the only value, so that a layer on an axis has one name in the grid
    and in the results.
    """
    names = {networks[backbone] for backbone in grid["backbone"] if backbone in networks}
    last = {NETWORKS[name].layers[-1] for name in names if name in NETWORKS}
    for key in LAYER_KEYS:
        if LAST not in grid[key] or not last:
            continue
        if len(last) == 1:
            (layer,) = last
            if layer != LAST and layer in grid[key]:
                mistakes.append(f"{path}.{key}: holds {layer} and last, which are the same")
            grid[key] = tuple(layer if value == LAST else value for value in grid[key])
        elif len(grid[key]) > 1:
            mistakes.append(
                f"{path}.{key}: last must be the only value, because it is another layer for each "
                "of these networks"
            )


def _axis(field: FieldInfo, value: object, path: str, mistakes: list[str]) -> tuple[Any, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        mistakes.append(f"{path}: is an empty list; give at least one value")
    adapter = TypeAdapter[Any](
        cast("Any", Annotated[field.annotation, field]), config=ConfigDict(allow_inf_nan=False)
    )
    checked = []
    for item in values:
        try:
            checked.append(adapter.validate_python(item, strict=True))
        except ValidationError as error:
            mistakes += _sentences(error, path, {})
    if len(set(checked)) < len(checked):
        mistakes.append(f"{path}: holds a value twice")
    return tuple(checked)


def _sentences(error: ValidationError, path: str, fields: dict[str, FieldInfo]) -> list[str]:
    """Converts errors of pydantic to sentences: the path, what is wrong, and the current value."""
    sentences = []
    for detail in error.errors():
        location = ".".join([path, *map(str, detail["loc"])])
        if detail["type"] in {"extra_forbidden", "invalid_key"}:
            known = list(fields)
            if len(detail["loc"]) > 1 and detail["loc"][0] == "split":
                known = list(Split.model_fields)
            sentences.append(f"{location}: unknown key; {nearest(str(detail['loc'][-1]), known)}")
        elif detail["type"] == "literal_error":
            known = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            sentences.append(
                f"{location}: unknown value {detail['input']!r}; "
                f"{nearest(str(detail['input']), known)}"
            )
        elif detail["type"] in _PLAIN:
            sentences.append(f"{location}: {_PLAIN[detail['type']]}")
        else:
            message = detail["msg"][0].lower() + detail["msg"][1:]
            sentences.append(f"{location}: {message}, but it is {detail['input']!r}")
    return sentences
