"""Where everything lies in the workspace: the paths that dvc.yaml names, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """Paths of a workspace.

    Attributes:
        root: The folder of dvc.yaml and params.yaml.
    """

    root: Path

    @property
    def params(self) -> Path:
        """What everything is decided by."""
        return self.root / "params.yaml"

    @property
    def weights(self) -> Path:
        """Weights of the default network."""
        return self.root / "models" / "vgg16.weights.h5"

    @property
    def other_weights(self) -> Path:
        """Weights of all other networks, one file each."""
        return self.root / "models" / "backbones"

    @property
    def weights_sources(self) -> Path:
        """What params.yaml names as weights: links to files, or names."""
        return self.root / "models" / "sources"

    def weights_of(self, backbones: Iterable[str]) -> dict[str, Path]:
        """The weights of each network.

        Args:
            backbones: All networks, the default first.
        """
        first, *others = backbones
        files = {name: self.other_weights / f"{name}.weights.h5" for name in others}
        return {first: self.weights} | files

    @property
    def results(self) -> Path:
        """One folder of a study's record each."""
        return self.root / "results"

    @property
    def reports(self) -> Path:
        """The page and the figures."""
        return self.root / "reports"

    def source(self, dataset: str) -> Path:
        """A dataset's pictures: a link to a local source, or what was downloaded."""
        return self.root / "data" / "raw" / dataset

    def splits(self, dataset: str) -> Path:
        """A dataset's manifests, one per seed."""
        return self.root / "data" / "splits" / dataset

    @property
    def changes(self) -> Path:
        """What every released version of the splits changed."""
        return self.root / "data" / "splits" / "CHANGES.md"

    def features(self, dataset: str) -> Path:
        """A dataset's features: those of the default network, and one folder per other network."""
        return self.root / "data" / "features" / dataset

    def features_of(self, dataset: str, backbones: Iterable[str]) -> dict[str, Path]:
        """A dataset's features of each network.

        Args:
            dataset: Dataset name.
            backbones: All networks, the default first.
        """
        first, *others = backbones
        folder = self.features(dataset)
        return {first: folder} | {name: folder / name for name in others}

    def filters(self, dataset: str) -> Path:
        """Pictures of what the filters see in a dataset."""
        return self.reports / "filters" / dataset

    def gradients(self, dataset: str) -> Path:
        """How far back-propagation lies from central differences."""
        return self.reports / "gradients" / f"{dataset}.csv"

    def explained(self, study: str) -> Path:
        """Pictures of what one head of a study goes by."""
        return self.reports / "explained" / study

    def heads(self, study: str) -> Path:
        """A study's trained heads."""
        return self.root / "models" / "heads" / study

    @property
    def exports(self) -> Path:
        """Models in other formats, which git and DVC ignore."""
        return self.root / "exports"

    def record(self, study: str) -> Path:
        """What a study measured."""
        return self.results / study
