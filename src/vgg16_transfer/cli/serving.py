"""The commands that bring a model to where it is used: to a file of another format, or to HTTP."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vgg16_transfer.cli.app import StudyName, app, listener, note, read, tracking_store
from vgg16_transfer.cli.models import best_of, newest
from vgg16_transfer.errors import InputError
from vgg16_transfer.registry.formats import FORMATS, usable
from vgg16_transfer.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

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


@app.command()
def serve(
    study: Annotated[
        str | None,
        typer.Argument(
            metavar="[STUDY]",
            help="study whose champion answers; the default is the newest registered model",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="models:/NAME@champion, or a folder with a downloaded model"),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="port of the server")] = 5017,
    host: Annotated[
        str, typer.Option(help="address to listen on; every one but loopback lets others in")
    ] = "127.0.0.1",
    max_mb: Annotated[int, typer.Option(min=1, help="largest request, in megabytes")] = 20,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="a site whose pages may ask, as https://example.org; may be repeated"),
    ] = None,
) -> None:
    """Answer requests with pictures by the probabilities of a registered model."""
    if study is not None and model is not None:
        raise typer.BadParameter("STUDY and --model exclude each other")
    with listener(host, port, f"serve: {host}, port {port}") as taken:
        served = _registered(study, model)
        from vgg16_transfer.registry import serving

        answers = serving.application(served, max_mb, allow_origin or ())
        note(f"answers on http://{host}:{port}/invocations; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            serving.serve(answers, taken)


def _registered(study: str | None, model: str | None) -> PyFuncModel:
    """The model that is to be served."""
    if model is None:
        params, workspace = read()
        names = list(params.studies) if study is None else [params.study(study).name]
        model = newest(workspace, names)
        if model is None:
            raise InputError(
                f"serve: no model of {', '.join(names)} is registered; run vgg16-transfer register "
                f"{names[0]}"
            )

    from vgg16_transfer.registry import registry

    if not model.startswith("models:/"):
        return registry.open_folder(Path(model))
    return registry.open_model(tracking_store(Workspace(Path.cwd())), model)
