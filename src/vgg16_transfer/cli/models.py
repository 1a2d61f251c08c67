"""The commands that register a study's best head as a model, and classify pictures with it."""

from __future__ import annotations

import errno
import os
from pathlib import Path  # noqa: TC003 (Typer reads it)
from typing import TYPE_CHECKING, Annotated

import typer

from vgg16_transfer.cli.app import StudyName, app, note, read, tracking_store, warn
from vgg16_transfer.errors import InputError
from vgg16_transfer.rounding import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vgg16_transfer.api.predictions import Prediction, Probabilities
    from vgg16_transfer.heads.classifier import Classifier
    from vgg16_transfer.heads.selection import Chosen
    from vgg16_transfer.params import Params
    from vgg16_transfer.workspace import Workspace


@app.command()
def register(study_name: StudyName) -> None:
    """Make a study's best head, by validation accuracy, the champion in the model registry."""
    params, workspace = read()
    study = params.study(study_name)

    from vgg16_transfer.heads import records
    from vgg16_transfer.heads.selection import choose
    from vgg16_transfer.lineage import lineage
    from vgg16_transfer.lineage.locked import check_current, check_locked
    from vgg16_transfer.registry import registry
    from vgg16_transfer.registry.contents import collect
    from vgg16_transfer.registry.trained_head import check_split
    from vgg16_transfer.tracking.reach import reached

    stage = f"train@{study_name}"
    check_locked(workspace.root, [stage, "weights"])
    chosen = choose(study, records.read(workspace.record(study_name)))
    check_split(workspace, study.dataset, study_name, chosen)
    check_current(workspace.root, [stage])
    trained = lineage.locked_stages(workspace.root, [stage])[stage]
    store = tracking_store(workspace)
    note(_choice(study_name, chosen))
    with reached(store):
        champion = registry.register(
            store, study, chosen, trained, lambda: collect(params, workspace, study_name, chosen)
        )
    sentence = f"models:/{study_name}@{registry.CHAMPION} is version {champion.version}"
    if not champion.added:
        sentence += ", which was registered already"
    if champion.restored:
        sentence += "; its missing files were restored"
    if champion.previous:
        sentence += f"; {registry.PREVIOUS} is version {champion.previous}"
    typer.echo(sentence)


@app.command()
def predict(
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURE...", help="pictures, or folders of pictures")
    ],
    study: Annotated[
        str | None,
        typer.Option(
            help="use the best head of this study; the default is the newest registered model, or "
            "else the first study"
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="use a registered model, as models:/NAME@champion")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="number of classes to print per picture")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
) -> None:
    """Classify pictures, and print the most likely classes with their probabilities.

    For each picture that can't be read, one line is printed on stderr. The other pictures are
    classified all the same, and the exit code is 2.
    """
    if study is not None and model is not None:
        raise typer.BadParameter("--study and --model exclude each other")
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    if model is not None and not model.startswith("models:/"):
        raise typer.BadParameter(f"--model {model}: must be like models:/NAME@champion")
    if not any(picture.exists() for picture in pictures):  # said before seconds of loading
        gone = os.strerror(errno.ENOENT)
        raise InputError("\n".join(f"{picture}: {gone}" for picture in pictures))
    params, workspace = read()
    class_names, probabilities = _asked(params, workspace, study, model)

    from vgg16_transfer.api.predictions import ask, files_in

    predictions = ask(files_in(pictures), class_names, probabilities, top)
    skipped, answers = predictions.skipped, predictions.answers
    if skipped:
        more = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        note(f"skipped, no pictures: {skipped[0]}{more}")
    if as_json:
        _print_json(answers)
    elif as_csv:
        typer.echo(predictions.frame.to_csv(index=False, lineterminator="\n"), nl=False)
    elif answers:
        _print_table(answers)
    if predictions.mistakes:
        raise InputError("\n".join(predictions.mistakes))


def _choice(study: str, chosen: Chosen) -> str:
    return (
        f"{study}: trial '{chosen.name}' has the highest validation accuracy, "
        f"{percent(chosen.validation_accuracy)} %"
    )


def _asked(
    params: Params, workspace: Workspace, study: str | None, model: str | None
) -> tuple[tuple[str, ...], Probabilities]:
    """The class names of a study's best head or of a registered model, and what classifies."""
    if study is None and model is None and len(params.studies) > 1:
        model = newest(workspace, params.studies)
    if model is not None:
        from vgg16_transfer.registry import registry

        return registry.load(tracking_store(workspace), model)
    _, classifier = best_of(params, workspace, study or next(iter(params.studies)))
    return classifier.recipe.class_names, classifier.probabilities


def best_of(params: Params, workspace: Workspace, study_name: str) -> tuple[Chosen, Classifier]:
    """The best trial of a study in the workspace, and its classifier.

    One line about the choice is printed on stderr. If the split changed since the training, so is a
    warning.

    Args:
        params: Params of the workspace.
        workspace: Paths of the workspace.
        study_name: Study name.

    Raises:
        InputError: There is no such study or no head to choose, or something is missing, damaged
            or not what training made.
    """
    study = params.study(study_name)

    from vgg16_transfer.heads import records
    from vgg16_transfer.heads.selection import choose
    from vgg16_transfer.lineage.locked import check_locked
    from vgg16_transfer.registry.contents import classifier_of
    from vgg16_transfer.registry.trained_head import check_split

    check_locked(workspace.root, [f"train@{study_name}"])
    chosen = choose(study, records.read(workspace.record(study_name)))
    note(_choice(study_name, chosen))
    model = classifier_of(params, workspace, study_name, chosen)
    try:
        check_split(workspace, study.dataset, study_name, chosen)
    except InputError as error:
        # The head's file holds its own class names, so its answers are still correct.
        warn(f"warning: {error}")
    return chosen, model


def newest(workspace: Workspace, studies: Iterable[str]) -> str | None:
    """The model that was registered last of some studies, or None. Its name is printed on stderr.

    Args:
        workspace: Paths of the workspace.
        studies: Names of studies.
    """
    store = tracking_store(workspace)
    if store.database and not store.database.exists():
        return None

    from vgg16_transfer.registry import registry
    from vgg16_transfer.tracking.reach import reached

    with reached(store):
        model = registry.newest(store, studies)
    if model is not None:
        note(f"{model} is the newest registered model")
    return model


def _print_json(answers: Sequence[Prediction]) -> None:
    import json

    listed = [
        {
            "picture": answer.picture,
            "classes": [{"class": name, "probability": p} for name, p in answer.classes],
        }
        for answer in answers
    ]
    typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))


def _print_table(answers: Sequence[Prediction]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("%", justify="right")
    for answer in answers:
        for rank, (name, probability) in enumerate(answer.classes):
            table.add_row("" if rank else answer.picture, name, percent(probability))
        table.add_section()
    Console().print(table)
