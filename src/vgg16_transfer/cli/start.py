"""The command for somebody who has pictures and no params.yaml of them yet."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vgg16_transfer.cli.app import app, note, read
from vgg16_transfer.errors import InputError
from vgg16_transfer.networks import LAST, layer_name
from vgg16_transfer.params import Layout, Split, Trial

if TYPE_CHECKING:
    from vgg16_transfer.images.proposals import Proposal
    from vgg16_transfer.workspace import Workspace

_SHOWN = 12
"""Classes in the table that is printed; it counts the rest."""

_NAMED = 3
"""Pictures of each class that are named."""


@app.command()
def init(
    source: Annotated[
        Path, typer.Argument(metavar="PICTURES", help="a folder, .tar, .tar.gz or .zip of pictures")
    ],
    name: Annotated[
        str | None, typer.Option(help="dataset name; the default is the name of the source")
    ] = None,
    layout: Annotated[
        Layout | None, typer.Option(help="how classes are laid out, if it is not recognised")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="of the names in an old archive, such as cp932")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what would be added, and change nothing")
    ] = False,
) -> None:
    """Look at your pictures, and add a dataset and a study of them to params.yaml.

    What is in params.yaml stays as it is, comments too.
    """
    params, workspace = read()
    if not source.exists():
        raise InputError(f"{source}: no such file or folder")

    from vgg16_transfer.artifacts import replacing
    from vgg16_transfer.images.proposals import dataset_name, propose
    from vgg16_transfer.params.adding import add, in_lines

    name = name or dataset_name(source)
    if name in params.datasets:
        raise InputError(f"params.yaml: datasets.{name}: exists already; choose another --name")
    proposal = propose(
        source,
        _as_written(source, workspace),
        [layer_name(params.backbone.network, LAST)],
        name=name,
        layout=layout,
        encoding=encoding,
    )
    entries = _entries(proposal)
    text = add(workspace.params.read_bytes().decode("utf-8"), entries)
    for line in _seen(source, proposal):
        note(line)
    if dry_run:
        for section, named in entries.items():
            typer.echo("\n  ".join([f"{section}:", *in_lines(named)]))
        return
    with replacing(workspace.params) as fresh:
        fresh.write_bytes(text.encode("utf-8"))
    (study,) = entries["studies"]
    note(f"params.yaml: added datasets.{proposal.name} and studies.{study}")
    note(f"next: dvc repro train@{study}")
    note(f"then: vgg16-transfer predict --study {study} PICTURE")


def _as_written(source: Path, workspace: Workspace) -> str:
    """How params.yaml names a path, so that it holds for others too where that is possible."""
    path = Path(os.path.abspath(source))  # noqa: PTH100 - links stay
    home = Path.home()
    if path.is_relative_to(workspace.root):
        return path.relative_to(workspace.root).as_posix()
    if home != Path(path.anchor) and path.is_relative_to(home):
        return f"~/{path.relative_to(home).as_posix()}"
    return str(path)


def _entries(proposal: Proposal) -> dict[str, dict[str, Any]]:
    """What is added to each section of params.yaml; what is a default is left out."""
    dataset = proposal.dataset.model_dump(exclude_defaults=True)
    counts = proposal.dataset.split.model_dump()
    for key, default in Split().model_dump().items():
        if counts[key] == default and not key.endswith("_per_class"):
            del counts[key]
    dataset["split"] = counts
    sizes = list(proposal.samples_per_class)
    layer = proposal.dataset.layers[0]
    of_layer = {} if layer == Trial.model_fields["layer"].default else {"layer": layer}
    study = {
        "dataset": proposal.name,
        **of_layer,
        "samples_per_class": sizes,
        "seed": proposal.dataset.split.seeds,
    }
    return {
        "datasets": {proposal.name: dataset},
        "studies": {f"{proposal.name}-samples": study},
    }


def _seen(source: Path, proposal: Proposal) -> list[str]:
    """Lines about the pictures: the classes, with the names of a few pictures, and the rest."""
    from vgg16_transfer.images.survey import by_kind

    classes = proposal.by_class()
    width = max(len(name) for name in list(classes)[:_SHOWN])
    pictures = sum(map(len, classes.values()))
    lines = [f"{source}: {pictures} usable pictures of {len(classes)} classes"]
    for name, members in list(classes.items())[:_SHOWN]:
        paths = ", ".join(PurePosixPath(picture.path).name for picture in members[:_NAMED])
        more = ", …" if len(members) > _NAMED else ""
        lines.append(f"  {name:{width}} {len(members):5}  {paths}{more}")
    if len(classes) > _SHOWN:
        lines.append(f"  and {len(classes) - _SHOWN} more classes")
    split = proposal.dataset.split
    lines += [*by_kind(proposal.surveyed.left_out), *proposal.notes]
    if split.near_duplicates == "one_side":
        lines.append("some pictures are almost the same; they stay on one side of a split")
    counts = {
        "train": split.train_per_class,
        "choose settings": split.validation_per_class,
        "test": split.test_per_class,
    }
    listed = ", ".join(f"{count} {verb}" for verb, count in counts.items())
    return [*lines, f"of each class, up to {listed}; {len(split.seeds)} splits"]
