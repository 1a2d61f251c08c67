"""Writes the model card of a registered model, as Markdown."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from vgg16_transfer.errors import redacted
from vgg16_transfer.head_kinds import HEAD_KINDS
from vgg16_transfer.heads.measures import MEASURES
from vgg16_transfer.markdown import plain
from vgg16_transfer.networks import NETWORKS
from vgg16_transfer.registry import licences
from vgg16_transfer.rounding import percent

if TYPE_CHECKING:
    import pandas as pd

    from vgg16_transfer.heads.classifier import Recipe
    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.heads.selection import Chosen
    from vgg16_transfer.params import Params, Study

_SHOWN = 1000  # characters for the names of classes; MLflow stores descriptions of up to 5000
_WEAKEST = 3
_ROWS = {"validation pictures": "validation_accuracy"} | {
    measure.card: measure.name for measure in MEASURES if measure.card
}


class Subject(NamedTuple):
    """The data of a model card.

    Attributes:
        params: Params of the workspace.
        study: The study.
        chosen: The trial whose head is registered.
        recipe: Preprocessing of pictures, and the class names.
        record: Results of the study.
        manifest: The split of the trial.
    """

    params: Params
    study: Study
    chosen: Chosen
    recipe: Recipe
    record: Record
    manifest: pd.DataFrame


def write_card(
    subject: Subject, run_id: str, lineage: dict[str, str], previous: tuple[str, str] | None
) -> str:
    """Writes the card of a model, as Markdown.

    Args:
        subject: The data of the card.
        run_id: MLflow run id of the trial.
        lineage: Tags of the run with digests and the commit, by tag name.
        previous: Version and alias of the previous champion, or None.
    """
    environment = Environment(
        loader=PackageLoader("vgg16_transfer.registry"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown; the filter plain escapes what users wrote
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    params, study, chosen, recipe, record, manifest = subject
    roles = manifest["role"].value_counts()
    dataset = params.dataset(study.dataset)
    version, alias = previous or ("", "")
    network = NETWORKS[recipe.network]
    weights = params.backbones[chosen.trial.backbone].weights
    origin = licences.of_weights(network, weights)
    return environment.get_template("model_card.md.j2").render(
        study=study,
        trial=chosen.trial,
        name=chosen.name,
        trials=len(study.trials()),
        source=redacted(dataset.source or dataset.layout),
        licence=licences.of_pictures(dataset),
        calibrated=_calibration(chosen, record),
        recipe=recipe,
        classes=recipe.class_names,
        shown=_within(recipe.class_names, _SHOWN),
        counts={role: int(roles.get(role, 0)) for role in ("validation", "test")},
        run_id=run_id,
        lineage=lineage,
        previous=version,
        previous_alias=alias,
        network=network,
        head=HEAD_KINDS[chosen.trial.head].what,
        weights=origin if weights.startswith("imagenet") else plain(origin),
        **_measured(study, chosen, record, int(roles["test"])),
    )


def _measured(study: Study, chosen: Chosen, record: Record, tested: int) -> dict[str, Any]:
    """The numbers of the card: of the head itself, and over all seeds with the same settings."""
    settings = chosen.trial.model_dump(exclude={"seed"})
    same = [t for t in study.trials() if t.model_dump(exclude={"seed"}) == settings]
    trials = record.trials.set_index("trial")
    over_seeds = trials.loc[[study.trial_name(trial) for trial in same]]
    own: dict[str, float] = {column: trials[column][chosen.name] for column in _ROWS.values()}
    accuracy = own["accuracy"]
    recalls = record.per_class[record.per_class["trial"] == chosen.name]
    weakest = recalls.sort_values(["accuracy", "class_name"]).head(_WEAKEST)
    return {
        "seeds": len(same),
        "metrics": [
            {
                "name": name,
                "own": percent(own[column]),
                "spread": _spread(over_seeds[column]),
            }
            for name, column in _ROWS.items()
        ],
        "error": percent(math.sqrt(accuracy * (1 - accuracy) / tested)),
        "weakest": [
            f"{row['class_name']} {percent(row['accuracy'], 0)} %"
            for row in weakest.to_dict("records")
        ],
    }


def _calibration(chosen: Chosen, record: Record) -> float:
    """The temperature that divides the logits of a head."""
    trials = record.trials.set_index("trial")
    return float(trials["calibration_temperature"][chosen.name])


def _spread(values: pd.Series[float]) -> str:
    mean = percent(values.mean())
    return mean if len(values) == 1 else f"{mean} ± {percent(values.std(ddof=1))}"


def _within(names: tuple[str, ...], longest: int) -> list[str]:
    """The first names whose total length, with separators, is at most ``longest`` characters."""
    ends = itertools.accumulate(len(name) + len(", ") for name in names)
    return [name for name, end in zip(names, ends, strict=True) if end <= longest]
