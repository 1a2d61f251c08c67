"""The commands that bring a model to where it is used: to a file of another format, or to HTTP."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (Typer reads it)
from typing import Annotated

import typer

from vgg16_transfer.cli.app import StudyName, app, read
from vgg16_transfer.cli.models import best_of
from vgg16_transfer.registry.formats import FORMATS, usable

_FORMATS = "; ".join(f"{name}: {form.what}" for name, form in FORMATS.items())


@app.command()
def export(
    study_name: StudyName,
    form: Annotated[
        str, typer.Option("--format", metavar="|".join(FORMATS), help=_FORMATS)
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="what to write; the default is exports/STUDY.<format>")
    ] = None,
) -> None:
    """Write a study's best head and its network as one model that needs no Python."""
    suffix = usable(form).suffix
    params, workspace = read()
    study = params.study(study_name)
    default = workspace.exports / f"{study_name}{suffix}"
    out = out or default.relative_to(workspace.root)

    from vgg16_transfer.hashing import file_md5
    from vgg16_transfer.networks import NETWORKS
    from vgg16_transfer.registry import exports, licences
    from vgg16_transfer.registry.trained_head import head_path

    exports.check_place(out, FORMATS[form])
    chosen, classifier = best_of(params, workspace, study_name)
    network = classifier.recipe.network
    head = head_path(workspace, study_name, chosen)
    about = {
        "study": study_name,
        "trial": chosen.name,
        "validation_accuracy": chosen.validation_accuracy,
        "head_md5": file_md5(head),
        "licence": {
            "weights": licences.of_weights(
                NETWORKS[network], params.backbones[chosen.trial.backbone].weights
            ),
            "pictures": licences.of_pictures(params.dataset(study.dataset)),
        },
    }
    exports.export(classifier, form, out, about)
    typer.echo(f"{out}: {form}; {exports.json_path(out)} says what goes in and what comes out")
