"""Chooses the head of a study that is used, by validation pictures and never by test pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.backbones import base
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import classifier, model_files, records, saved
from vgg16_transfer.heads.classifier import Classifier, Recipe
from vgg16_transfer.networks import DEFAULT

if TYPE_CHECKING:
    from pathlib import Path

    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Study, Trial


class SelectionError(InputError):
    """A study that no head can be chosen from."""


class Chosen(NamedTuple):
    """The trial whose head is used.

    Attributes:
        name: Trial name.
        trial: The trial's setting.
        validation_accuracy: Accuracy on validation pictures after the last epoch, 0 to 1.
    """

    name: str
    trial: Trial
    validation_accuracy: float


def choose(study: Study, record: Record) -> Chosen:
    """Chooses the trial with the highest validation accuracy after the last epoch.

    Ties are broken by validation loss, then by grid order. A failed trial is never chosen.

    Args:
        study: The study.
        record: Record of the study.

    Raises:
        SelectionError: The study has no validation pictures, a trial is missing from the record,
            or all trials failed.
    """
    trials = {study.trial_name(trial): trial for trial in study.trials()}
    measured = record.trials.set_index("trial")
    missing = [name for name in trials if name not in measured.index]
    if missing:
        raise SelectionError(
            f"results/{study.name}: has no trial '{missing[0]}', which params.yaml asks for; "
            "run dvc repro"
        )
    finished = measured[measured["status"] == records.FINISHED]
    if finished.empty:
        raise SelectionError(
            f"results/{study.name}: all trials failed, so there is no head to choose; "
            f"{measured['failure'].iloc[0]}"
        )
    if "validation_accuracy" not in finished or finished["validation_accuracy"].isna().any():
        raise SelectionError(
            f"results/{study.name}: a head is chosen by validation pictures, never by test "
            f"pictures, and there are none; set datasets.{study.dataset}.split."
            "validation_per_class in params.yaml, to 6 for example, and run dvc repro"
        )
    accuracies = finished["validation_accuracy"].to_dict()
    last = record.history.drop_duplicates("trial", keep="last").set_index("trial")
    losses = last["validation_loss"].fillna(math.inf).to_dict()
    candidates = [name for name in trials if name in accuracies]
    name = min(candidates, key=lambda name: (-accuracies[name], losses[name]))
    return Chosen(name, trials[name], float(accuracies[name]))


def assemble(head: Path, weights: Path) -> Classifier:
    """Makes a classifier from a trained head and the backbone that it was trained on.

    Args:
        head: File of the head. It has the preprocessing of pictures and the class names.
        weights: Output of the stage ``weights``.

    Raises:
        HeadError: The head is missing or damaged.
        SelectionError: The head was trained with other weights.
        WeightsError: The weights are missing, or have no such layer.
    """
    made_of, model = saved.made_of(head), model_files.load(head)
    features = made_of.features
    name = features.get("network", DEFAULT)  # versions before 0.2 had one network
    network = base.load(name, weights, features["image_size"])
    if file_md5(weights) != features["weights_md5"]:
        raise SelectionError(
            f"{weights}: are not the weights that {head} was trained with (md5 "
            f"{features['weights_md5']}); run dvc repro, which trains with these, or dvc checkout"
        )
    recipe = Recipe(
        name,
        made_of.layer,
        features["image_size"],
        features["resize"],
        features["dtype"],
        made_of.class_names,
    )
    return classifier.make(recipe, network, model)
