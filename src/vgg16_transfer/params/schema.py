"""params.yaml as typed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from vgg16_transfer.params.compute import DEFAULT_COMPUTE
from vgg16_transfer.params.section import ParamsError, nearest

if TYPE_CHECKING:
    from vgg16_transfer.params.backbone import Backbone
    from vgg16_transfer.params.dataset import Dataset
    from vgg16_transfer.params.study import Study

T = TypeVar("T")


@dataclass(frozen=True)
class Params:
    """All sections of params.yaml.

    Attributes:
        backbones: Networks by name, at least one. The first is the default.
        datasets: Datasets by name.
        studies: Studies by name.
        named: Whether the section ``backbone`` maps names to networks. Otherwise, it is one
            network.
        compute: Where the work is done: a name of ``COMPUTE``.
    """

    backbones: dict[str, Backbone]
    datasets: dict[str, Dataset]
    studies: dict[str, Study]
    named: bool = False
    compute: str = DEFAULT_COMPUTE

    @property
    def backbone(self) -> Backbone:
        """The default network: studies use it, and filters and gradients are drawn of it."""
        return next(iter(self.backbones.values()))

    def key(self, backbone: str) -> str:
        """The key of a network in params.yaml, used in error messages."""
        return f"backbone.{backbone}" if self.named else "backbone"

    def dataset(self, name: str) -> Dataset:
        """The dataset with this name.

        Raises:
            ParamsError: params.yaml has no such dataset.
        """
        return _named("dataset", name, self.datasets)

    def study(self, name: str) -> Study:
        """The study with this name.

        Raises:
            ParamsError: params.yaml has no such study.
        """
        return _named("study", name, self.studies)


def _named(kind: str, name: str, known: dict[str, T]) -> T:
    if name not in known:
        raise ParamsError("params.yaml", [f"no {kind} '{name}'; {nearest(name, list(known))}"])
    return known[name]
