"""Which head of a study is used: the one that validation pictures favour, never test pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.backbone import vgg16
from vgg16_transfer.backbone.store import FeaturesError, FeatureStore
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads import classifier, softmax
from vgg16_transfer.heads.classifier import Classifier, Recipe
from vgg16_transfer.images.manifests import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Study, Trial


class SelectionError(InputError):
    """A study that no head can be chosen from."""


class Chosen(NamedTuple):
    """The trial whose head is used.

    Attributes:
        name: Of the trial.
        trial: Its setting.
        validation_accuracy: What it was chosen for; 0 to 1.
    """

    name: str
    trial: Trial
    validation_accuracy: float


class Inputs(NamedTuple):
    """Where the parts of a classifier lie.

    Attributes:
        splits: Folder of manifests.
        features: The store of features that the heads were trained on.
        weights: What the stage ``weights`` wrote.
        heads: Folder of the study's heads.
    """

    splits: Path
    features: Path
    weights: Path
    heads: Path


def choose(study: Study, record: Record) -> Chosen:
    """The trial of the highest validation accuracy after the last epoch.

    Of several, the one of the lowest validation loss; of several still, the first of the grid.

    Raises:
        SelectionError: The study measured nothing on validation pictures, or lacks a trial.
    """
    trials = {study.trial_name(trial): trial for trial in study.trials()}
    measured = record.trials.set_index("trial")
    missing = [name for name in trials if name not in measured.index]
    if missing:
        raise SelectionError(
            f"results/{study.name}: has no trial '{missing[0]}', which params.yaml asks for; "
            "run dvc repro"
        )
    if "validation_accuracy" not in measured or measured["validation_accuracy"].isna().any():
        raise SelectionError(
            f"results/{study.name}: a head is chosen by validation pictures, never by test "
            f"pictures, and there are none; set datasets.{study.dataset}.split."
            "validation_per_class in params.yaml, to 6 for example, and run dvc repro"
        )
    accuracies = measured["validation_accuracy"].to_dict()
    last = record.history.drop_duplicates("trial", keep="last").set_index("trial")
    losses = last["validation_loss"].fillna(math.inf).to_dict()
    name = min(trials, key=lambda name: (-accuracies[name], losses[name]))
    return Chosen(name, trials[name], float(accuracies[name]))


def assemble(chosen: Chosen, inputs: Inputs) -> Classifier:
    """Puts the head of a trial on the backbone that it was trained on.

    Raises:
        FeaturesError: There are no features, which tell how pictures entered the network.
        ManifestError: The split is missing.
        SelectionError: The head is missing, or the weights are others than those of the features.
        WeightsError: The weights are missing, or hold no such layer.
    """
    store = FeatureStore.open(inputs.features)
    if store is None:
        raise FeaturesError(f"{inputs.features}: no features; run dvc repro or dvc pull")
    head = inputs.heads / f"{chosen.name}.keras"
    if not head.exists():
        raise SelectionError(f"{head}: no such head; run dvc repro or dvc pull")
    network = vgg16.load(inputs.weights, store.recipe["image_size"])
    if file_md5(inputs.weights) != store.recipe["weights_md5"]:
        raise SelectionError(
            f"{inputs.weights}: are not the weights that {inputs.features} was computed with; "
            "run dvc repro"
        )
    labels = read_manifest(inputs.splits / f"{chosen.trial.seed}.csv")[["label", "class_name"]]
    names = labels.drop_duplicates().sort_values("label")["class_name"]
    recipe = Recipe(
        chosen.trial.cached_layer,
        store.recipe["image_size"],
        store.recipe["resize"],
        store.recipe["dtype"],
        tuple(names),
    )
    return classifier.make(recipe, network, softmax.load(head))
