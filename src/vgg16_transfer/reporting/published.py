"""published.yaml as typed values: what others measured, and where it is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML

from vgg16_transfer.errors import InputError

PATH = Path(__file__).with_name("published.yaml")


class PublishedError(InputError):
    """published.yaml says something that can't be used."""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Source(_Entry):
    """Who published it, when, and under what title."""

    authors: str
    year: int
    title: str


class Known(_Entry):
    """A dataset that others measured on; its key is the layout of params.yaml.

    Attributes:
        title: What people call it.
        classes: How many it has.
        comparable_from: The fewest classes for which an accuracy can be put beside the others.
    """

    title: str
    classes: int
    comparable_from: int


class Point(_Entry):
    """One accuracy, in %.

    Attributes:
        at: Where on the axis; None for a number that belongs nowhere on it.
        accuracy: On test pictures.
        spread: The ± that is printed, if one is.
    """

    at: float | None = None
    accuracy: float = Field(ge=0, le=100)
    spread: float | None = Field(default=None, ge=0)


class Curve(_Entry):
    """Accuracies of one method along one axis.

    Attributes:
        dataset: A key of ``datasets``.
        axis: The setting that the points differ in.
        method: As it is called in legends and tables.
        source: A key of ``sources``.
        place: The table, figure or section there.
        remark: What a reader must know before comparing.
        points: In rising order of ``at``.
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
        places = [point.at for point in self.points]
        if self.axis == "none":
            if places != [None]:
                raise ValueError("a curve without an axis has one point, which has no 'at'")
        elif None in places or places != sorted({at for at in places if at is not None}):
            raise ValueError("every point needs an 'at', and they must rise")
        return self


class WallTime(_Entry):
    """How many minutes a method took, by training pictures per class."""

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
    """The whole of published.yaml."""

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
        for kind, named, known in (
            ("source", sources, self.sources.keys()),
            ("dataset", {dataset for _, dataset in measured}, self.datasets.keys()),
        ):
            if named - known:
                raise ValueError(f"no {kind} '{min(named - known)}'")
        return self

    def curves(self, layout: str, *axes: str) -> list[Curve]:
        """What was measured along these axes on the dataset of a layout."""
        return [c for c in self.accuracies if c.dataset == layout and c.axis in axes]

    def times(self, layout: str) -> list[WallTime]:
        """How long it took on the dataset of a layout."""
        return [time for time in self.wall_times if time.dataset == layout]


def read(path: Path = PATH) -> Published:
    """Reads and checks the file.

    Raises:
        PublishedError: Everything that is wrong with it.
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
