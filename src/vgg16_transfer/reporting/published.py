"""Reads published.yaml: accuracies, times and gradient checks of other authors, with sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML

from vgg16_transfer.errors import InputError

PATH = Path(__file__).with_name("published.yaml")


class PublishedError(InputError):
    """published.yaml has an invalid value."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Source(_Entry):
    """Authors, year and title of a publication."""

    authors: str
    year: int
    title: str


class Known(_Entry):
    """A dataset with published accuracies; its key is a value of ``published_as``.

    Attributes:
        title: Name of the dataset.
        classes: Number of its classes.
        comparable_from: Smallest number of classes for which an accuracy can be compared.
    """

    title: str
    classes: int
    comparable_from: int


class Point(_Entry):
    """One accuracy, in %.

    Attributes:
        at: Position on the axis; None for a number without a position.
        accuracy: Accuracy on test pictures.
        spread: The published ±, if any.
    """

    at: float | None = None
    accuracy: float = Field(ge=0, le=100)
    spread: float | None = Field(default=None, ge=0)


class Curve(_Entry):
    """Accuracies of one method along one axis.

    Attributes:
        dataset: A key of ``datasets``.
        axis: The setting that differs between the points.
        method: Name for legends and tables.
        source: A key of ``sources``.
        place: Table, figure or section of the source.
        remark: What a reader must know before comparing.
        points: Points in rising order of ``at``.
    """

    dataset: str
    axis: Literal["samples_per_class", "layer", "temperature", "none"]
    method: str
    source: str
    place: str
    remark: str = ""
    points: list[Point] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Curve:
        positions = [point.at for point in self.points]
        if self.axis == "none":
            if positions != [None]:
                raise ValueError("a curve without an axis has one point, which has no 'at'")
        elif None in positions or positions != sorted({at for at in positions if at is not None}):
            raise ValueError("every point needs an 'at', and they must rise")
        return self


class WallTime(_Entry):
    """Minutes that a method took, by training pictures per class."""

    dataset: str
    method: str
    source: str
    place: str
    minutes: dict[int, float]


class GradientCheck(_Entry):
    """Absolute differences between numeric and back-propagated gradients of some weights."""

    weights: str
    average: float
    maximum: float
    source: str
    place: str


class Published(_Entry):
    """All of published.yaml."""

    sources: dict[str, Source]
    datasets: dict[str, Known]
    accuracies: list[Curve]
    wall_times: list[WallTime]
    gradient_checks: list[GradientCheck]

    @model_validator(mode="after")
    def _names_are_known(self) -> Published:
        measured = [(entry.source, entry.dataset) for entry in self.accuracies]
        measured += [(entry.source, entry.dataset) for entry in self.wall_times]
        sources = {source for source, _ in measured}
        sources |= {entry.source for entry in self.gradient_checks}
        for kind, used, known in (
            ("source", sources, self.sources.keys()),
            ("dataset", {dataset for _, dataset in measured}, self.datasets.keys()),
        ):
            if used - known:
                raise ValueError(f"no {kind} '{min(used - known)}'")
        return self

    def curves(self, dataset: str | None, *axes: str) -> list[Curve]:
        """Published curves along these axes, for a key of ``datasets``; none for None."""
        return [c for c in self.accuracies if c.dataset == dataset and c.axis in axes]

    def times(self, dataset: str | None) -> list[WallTime]:
        """Published times for a key of ``datasets``; none for None."""
        return [time for time in self.wall_times if time.dataset == dataset]


def read(path: Path = PATH) -> Published:
    """Reads and checks the file.

    Raises:
        PublishedError: The file has invalid values; the message lists all of them.
    """
    raw: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    try:
        return Published.model_validate(raw)
    except ValidationError as error:
        mistakes = [
            f"{path.name}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            for detail in error.errors()
        ]
        raise PublishedError("\n".join(mistakes)) from None
