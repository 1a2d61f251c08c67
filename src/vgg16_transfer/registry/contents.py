"""Collects from the workspace what a new version of a registered model consists of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.heads import records
from vgg16_transfer.heads.selection import assemble
from vgg16_transfer.images.manifests import read_manifest
from vgg16_transfer.images.source import Source
from vgg16_transfer.registry.card import Subject
from vgg16_transfer.registry.trained_head import head_path

if TYPE_CHECKING:
    from vgg16_transfer.heads.classifier import Classifier
    from vgg16_transfer.heads.selection import Chosen
    from vgg16_transfer.params import Params
    from vgg16_transfer.workspace import Workspace


class Contents(NamedTuple):
    """What a new version consists of.

    Attributes:
        model: The classifier: backbone and head.
        subject: The data of its model card.
        example: Bytes of a picture, used as MLflow's input example.
    """

    model: Classifier
    subject: Subject
    example: bytes


def classifier_of(
    params: Params, workspace: Workspace, study_name: str, chosen: Chosen
) -> Classifier:
    """The classifier of a trial: its head, and the network that it was trained on.

    Raises:
        InputError: The head or the weights are missing, damaged, or do not belong together.
    """
    weights = workspace.weights_of(params.backbones)[chosen.trial.backbone]
    return assemble(head_path(workspace, study_name, chosen), weights)


def collect(params: Params, workspace: Workspace, study_name: str, chosen: Chosen) -> Contents:
    """Collects the contents of a version. The example is the first validation picture.

    Args:
        params: Params of the workspace.
        workspace: Paths of the workspace.
        study_name: Study name.
        chosen: The trial whose head is registered.

    Raises:
        InputError: The head, the split, the weights, the record or the picture is missing or
            damaged.
    """
    study = params.study(study_name)
    manifest = read_manifest(workspace.splits(study.dataset) / f"{chosen.trial.seed}.csv")
    first = manifest[manifest["role"] == "validation"].iloc[0]
    source = Source(workspace.source(study.dataset), params.dataset(study.dataset).encoding)
    with source.open() as pictures:
        example = pictures.read(first["path"], first["sha256"])
    model = classifier_of(params, workspace, study_name, chosen)
    record = records.read(workspace.record(study_name))
    return Contents(model, Subject(params, study, chosen, model.recipe, record, manifest), example)
