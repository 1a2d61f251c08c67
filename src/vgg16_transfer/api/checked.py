"""Checks settings as params.yaml is checked, so that each mistake is the same sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vgg16_transfer.networks import DEFAULT
from vgg16_transfer.params import ParamsError, check_params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vgg16_transfer.params import Dataset, Params

STUDY = "study"
"""Name of the study."""

_ANY = {"network": DEFAULT, "weights": "random-conv"}


def check(
    name: str,
    dataset: Dataset,
    *,
    split: Mapping[str, Any] | None = None,
    backbone: Mapping[str, Any] | None = None,
    study: Mapping[str, Any] | None = None,
) -> Params:
    """Checks a dataset, a network and a study together.

    Args:
        name: Dataset name.
        dataset: The dataset.
        split: Keys of the dataset's split, in place of its own.
        backbone: Keys of ``backbone``; any network by default.
        study: Keys of a study; by default, a study that uses the dataset.

    Returns:
        Params with this dataset, this network, and the study :data:`STUDY`.

    Raises:
        ParamsError: There are mistakes. The error has all of them.
    """
    of_dataset = dataset.model_dump(exclude_none=True)
    of_dataset["split"] |= dict(split or {})
    most = dataset.split.train_per_class
    whole = {"dataset": name, "samples_per_class": most, "layer": dataset.layers[-1]}
    whole |= {"seed": dataset.split.seeds[0]} | dict(study or {})
    raw = {
        "backbone": dict(backbone or _ANY),
        "datasets": {name: of_dataset},
        "studies": {STUDY: whole},
    }
    try:
        return check_params(raw)
    except ParamsError as error:
        sections = (f"datasets.{name}.", f"studies.{STUDY}.")
        mistakes = list(dict.fromkeys(_without(sections, each) for each in error.mistakes))
        raise ParamsError("settings", mistakes) from None


def _without(sections: tuple[str, ...], mistake: str) -> str:
    """A mistake with names of keys only: here, a dataset and a study need no sections."""
    for section in sections:
        mistake = mistake.replace(section, "")
    return mistake
