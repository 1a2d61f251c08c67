"""An entry of the section ``studies``, with its defaults. docs/params.md has the descriptions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from vgg16_transfer.head_kinds import DEFAULT_HEAD, HEAD_KINDS
from vgg16_transfer.networks import DEFAULT, layer_name
from vgg16_transfer.optimizers import OPTIMIZERS
from vgg16_transfer.params.section import Section

SMALLEST, LARGEST = 1e-12, 1e4
"""Bounds of step sizes and weight decay. Outside them, arithmetic in float32 does not work."""

COLDEST, HOTTEST = 1e-3, 1e6
"""Bounds of temperatures, for the same reason: the loss has the square of a temperature."""

MAX_TRIALS = 10_000
"""Trials of a study. Each has a head on disk and a run in MLflow."""

LAYER_KEYS = ("layer", "teacher_layer")
"""Keys of :class:`Trial` that name a layer of the network."""


class Trial(Section):
    """The setting that one head is trained with. In a study's YAML, each key may be a list."""

    approach: Literal["features", "end_to_end"] = Field(
        default="features",
        description="`features` trains on cached activations, `end_to_end` sends the training "
        "pictures through the network in every epoch",
    )
    backbone: str = Field(
        default=DEFAULT,
        description="name of the network, if the section `backbone` has several; left out, it "
        "is the one that `backbone.default` names",
    )
    layer: str = Field(
        default="block5_pool",
        description="the layer that feeds the head; `last` is the last convolutional layer of "
        "every network",
    )
    head: str = Field(
        default=DEFAULT_HEAD,
        description="kind of head: "
        + ", ".join(f"`{name}`" for name in HEAD_KINDS)
        + " ([heads.md](heads.md))",
    )
    neighbours: int = Field(
        default=5, ge=1, description="training pictures that vote in `nearest_neighbours`"
    )
    pooling: Literal["flatten", "average"] = Field(
        default="flatten",
        description="`flatten` keeps where in the picture a pool responds, `average` does not",
    )
    samples_per_class: int = Field(default=16, ge=1, description="training pictures of each class")
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="of the split and of the order of the batches"
    )
    epochs: int = Field(
        default=200, ge=1, le=100_000, description="passes over the training pictures"
    )
    batch_size: int = Field(default=256, ge=1, description="pictures per step")
    optimizer: str = Field(
        default="sgd",
        description="; ".join(f"`{name}`: {row.what}" for name, row in OPTIMIZERS.items()),
    )
    learning_rate: float = Field(
        default=1.0, ge=SMALLEST, le=LARGEST, description="the largest step size"
    )
    schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        description="step size after the warm-up: `constant`, or half a `cosine` down to 0",
    )
    warmup_epochs: int = Field(
        default=0, ge=0, description="epochs in which the step size rises from 0, in a line"
    )
    momentum: float = Field(
        default=0.9, ge=0, lt=1, description="of `sgd` and `nesterov`; the others ignore it"
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=LARGEST,
        description="λ of λ/2 times the squared length of the kernel, in the loss; `adamw` shrinks "
        "the kernel by λ times the step size instead",
    )
    normalise: Literal["l2", "none"] = Field(
        default="l2", description="`l2` scales each picture's features to length 1"
    )
    calibration: Literal["validation", "cross_validation", "none"] = Field(
        default="validation",
        description="what a trained head's temperature is fitted on, so that its probabilities "
        "mean what they say: `validation` pictures, if the split has any; `cross_validation` on "
        "the training pictures; or nothing ([training.md](training.md#calibration))",
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
    teacher_pictures: Literal["shared", "disjoint"] = Field(
        default="shared",
        description="labelled pictures of the teacher: `shared` begins with the student's own, "
        "labelled and unlabelled; `disjoint` has none of these",
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
    augment_copies: int = Field(
        default=0,
        ge=0,
        description="how many variations of a picture `end_to_end` makes; epochs take them in "
        "turn, so that each passes the frozen layers once; 0 is a new one in every epoch",
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
    early_stopping: int = Field(
        default=0,
        ge=0,
        description="epochs without a better loss on validation pictures after which `end_to_end` "
        "stops; 0 is never",
    )
    log_filters_every: int = Field(
        default=0,
        ge=0,
        description="epochs after which kernels of fine-tuned convolutions are logged, besides "
        "those before and after training; 0 is never",
    )


@dataclass(frozen=True)
class Study:
    """A grid of trials on one dataset that answers one question.

    Attributes:
        name: Study name in params.yaml.
        dataset: Dataset name. A study has one dataset, because a DVC stage has fixed dependencies.
        grid: The values of every field of :class:`Trial`, at least one for each.
        networks: Key of :data:`~vgg16_transfer.networks.NETWORKS` of each backbone, by its name in
            params.yaml.
    """

    name: str
    dataset: str
    grid: dict[str, tuple[Any, ...]]
    networks: dict[str, str]

    @property
    def axes(self) -> tuple[str, ...]:
        """The fields that have more than one value, in the order of :class:`Trial`."""
        return tuple(field for field, values in self.grid.items() if len(values) > 1)

    @property
    def compared(self) -> tuple[str, ...]:
        """The axes that results are compared along: all except the seed.

        Results are averaged over the seed. If no other axis has several values, this is
        ``samples_per_class``, so that there is always an axis.
        """
        return tuple(a for a in self.axes if a != "seed") or ("samples_per_class",)

    def trials(self) -> list[Trial]:
        """All points of the grid. The last axis varies fastest.

        Layers have the names that their network gives them: none is ``last``.
        """
        return [
            self._named(Trial(**dict(zip(self.grid, values, strict=True))))
            for values in itertools.product(*self.grid.values())
        ]

    def _named(self, trial: Trial) -> Trial:
        network = self.networks[trial.backbone]
        layers = {key: layer_name(network, getattr(trial, key)) for key in LAYER_KEYS}
        return trial.model_copy(update=layers)

    def trial_name(self, trial: Trial) -> str:
        """Name of a trial in this study, for files and messages: the values of all axes."""
        return ",".join(f"{axis}={getattr(trial, axis)}" for axis in self.axes) or "only"
