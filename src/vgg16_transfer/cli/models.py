"""The commands about a study's best head: registering it as a model, and asking it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (Typer reads it)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vgg16_transfer.cli.app import StudyName, app, read, source_of, tracking_store
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vgg16_transfer.heads.selection import Chosen
    from vgg16_transfer.params import Params
    from vgg16_transfer.registry.registry import Contents
    from vgg16_transfer.workspace import Workspace

    Answer = dict[str, Any]
    Probabilities = Callable[[bytes], Any]


class StaleError(InputError):
    """A head of another split than the one in the workspace."""


class UnreadableError(InputError):
    """Pictures that could not be asked about: one line for each."""


@app.command()
def register(study: StudyName) -> None:
    """Make a study's best head, by validation accuracy, the champion in the model registry."""
    params, workspace = read()
    wanted = params.study(study)

    from vgg16_transfer.heads import records
    from vgg16_transfer.heads.selection import choose
    from vgg16_transfer.lineage import lineage
    from vgg16_transfer.lineage.locked import check_locked
    from vgg16_transfer.registry import registry
    from vgg16_transfer.tracking.reach import reached

    stage = f"train@{study}"
    check_locked(workspace.root, [stage, "weights"])
    chosen = choose(wanted, records.read(workspace.record(study)))
    _check_split(workspace, wanted.dataset, study, chosen)
    trained = lineage.locked_stages(workspace.root, [stage])[stage]
    store = tracking_store(workspace)
    typer.echo(_told(study, chosen), err=True)
    with reached(store):
        done = registry.register(
            store, wanted, chosen, trained, lambda: _contents(params, workspace, study, chosen)
        )
    before = f"; {registry.PREVIOUS} is version {done.previous}" if done.previous else ""
    known = "" if done.added else ", which was known"
    known += "; its files were missing and are back" if done.restored else ""
    typer.echo(f"models:/{study}@{registry.CHAMPION} is version {done.version}{known}{before}")


@app.command()
def predict(
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURE...", help="pictures, or folders of pictures")
    ],
    study: Annotated[
        str | None, typer.Option(help="whose best head to ask; the first one, if left out")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="a registered model to ask, as models:/NAME@champion")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="classes to print of each picture")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV")] = False,
) -> None:
    """Print what pictures show: the likeliest classes, with their probabilities.

    A picture that can't be read is one line on stderr; the others are printed, and the exit code
    is 2.
    """
    if study is not None and model is not None:
        raise typer.BadParameter("--study and --model exclude each other")
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    if model is not None and not model.startswith("models:/"):
        raise typer.BadParameter(f"--model {model}: must be like models:/NAME@champion")
    params, workspace = read()
    if model is None:
        class_names, probabilities = _of_study(
            params, workspace, study or next(iter(params.studies))
        )
    else:
        from vgg16_transfer.registry import registry

        class_names, probabilities = registry.load(tracking_store(workspace), model)
    answers, mistakes = _ask(pictures, class_names, probabilities, top)
    if as_json:
        _print_json(answers)
    elif as_csv:
        _print_csv(answers)
    elif answers:
        _print_table(answers)
    if mistakes:
        raise UnreadableError("\n".join(mistakes))


def _told(study: str, chosen: Chosen) -> str:
    return (
        f"{study}: trial '{chosen.name}' has the highest validation accuracy, "
        f"{100 * chosen.validation_accuracy:.1f} %"
    )


def _of_study(
    params: Params, workspace: Workspace, study: str
) -> tuple[tuple[str, ...], Callable[[bytes], Any]]:
    wanted = params.study(study)

    from vgg16_transfer.heads import records
    from vgg16_transfer.heads.selection import assemble, choose
    from vgg16_transfer.lineage.locked import check_locked

    check_locked(workspace.root, [f"train@{study}"])
    chosen = choose(wanted, records.read(workspace.record(study)))
    typer.echo(_told(study, chosen), err=True)
    model = assemble(_head(workspace, study, chosen), workspace.weights)
    try:
        _check_split(workspace, wanted.dataset, study, chosen)
    except InputError as error:
        # The head knows its own classes, so what it says is right all the same.
        typer.echo(f"warning: {error}", err=True)
    return model.recipe.class_names, model.probabilities


def _head(workspace: Workspace, study: str, chosen: Chosen) -> Path:
    return workspace.heads(study) / f"{chosen.name}.keras"


def _check_split(workspace: Workspace, dataset: str, study: str, chosen: Chosen) -> None:
    """A head is to come from the split that lies in the workspace."""
    from vgg16_transfer.hashing import file_md5
    from vgg16_transfer.heads.saved import made_of

    split = workspace.splits(dataset) / f"{chosen.trial.seed}.csv"
    trained_on = made_of(_head(workspace, study, chosen)).split_md5
    if not split.exists() or file_md5(split) != trained_on:
        raise StaleError(
            f"models/heads/{study}: was trained on another split than {split} is now; "
            f"run dvc repro train@{study}"
        )


def _contents(params: Params, workspace: Workspace, study: str, chosen: Chosen) -> Contents:
    from vgg16_transfer.heads import records
    from vgg16_transfer.heads.selection import assemble
    from vgg16_transfer.images.manifests import read_manifest
    from vgg16_transfer.registry.card import Subject
    from vgg16_transfer.registry.registry import Contents

    wanted = params.study(study)
    manifest = read_manifest(workspace.splits(wanted.dataset) / f"{chosen.trial.seed}.csv")
    first = manifest[manifest["role"] == "validation"].iloc[0]
    with source_of(params, workspace, wanted.dataset).open() as opened:
        example = opened.read(first["path"], first["sha256"])
    model = assemble(_head(workspace, study, chosen), workspace.weights)
    record = records.read(workspace.record(study))
    subject = Subject(params, wanted, chosen, model.recipe, record, manifest)
    return Contents(model, subject, example)


def _ask(
    paths: list[Path], class_names: tuple[str, ...], probabilities: Probabilities, top: int
) -> tuple[list[Answer], list[str]]:
    """What a model says of each picture, and a sentence for each that can't be read."""
    from tqdm import tqdm

    from vgg16_transfer.images.pictures import PictureError

    answers, mistakes, others = [], [], []
    for path, content, asked in tqdm(
        list(_found(paths)), desc="predict", unit="picture", disable=None
    ):
        try:
            found = [float(one) for one in probabilities(content())]
        except (InputError, OSError) as error:
            if not asked and isinstance(error, PictureError) and error.kind == "is no picture":
                others.append(path)
                continue
            reason = error.strerror if isinstance(error, OSError) else error
            mistakes.append(f"{path}: {reason}")
            continue
        ranked = sorted(zip(class_names, found, strict=True), key=lambda one: -one[1])[:top]
        classes = [{"class": name, "probability": probability} for name, probability in ranked]
        answers.append({"picture": str(path), "classes": classes})
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        typer.echo(f"passed by, no pictures: {others[0]}{more}", err=True)
    return answers, mistakes


def _found(paths: list[Path]) -> Iterator[tuple[Path, Callable[[], bytes], bool]]:
    """The files, and those of folders in the order of their names; and which were named."""
    from vgg16_transfer.images.ignored import passed_by

    for path in paths:
        if not path.is_dir():
            yield path, path.read_bytes, True
            continue
        within = sorted(
            one
            for one in path.rglob("*")
            if one.is_file() and passed_by(one.relative_to(path).as_posix()) is None
        )
        if not within:
            yield path, lambda: _refuse("is a folder without pictures"), True
        for one in within:
            yield one, one.read_bytes, False


def _refuse(reason: str) -> bytes:
    raise UnreadableError(reason)


def _print_json(answers: list[Answer]) -> None:
    import json

    typer.echo(json.dumps(answers, indent=2, ensure_ascii=False))


def _print_csv(answers: list[Answer]) -> None:
    import csv
    import sys

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["picture", "rank", "class", "probability"])
    for answer in answers:
        for rank, one in enumerate(answer["classes"], start=1):
            writer.writerow([answer["picture"], rank, one["class"], one["probability"]])


def _print_table(answers: list[Answer]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    table.add_column("picture", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("%", justify="right")
    for answer in answers:
        for rank, one in enumerate(answer["classes"]):
            picture = "" if rank else answer["picture"]
            table.add_row(picture, one["class"], f"{100 * one['probability']:.1f}")
        table.add_section()
    Console().print(table)
