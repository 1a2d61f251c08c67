"""The command that checks a DVC remote."""

from __future__ import annotations

from typing import Annotated

import typer

from vgg16_transfer.cli.app import app, note, read


@app.command()
def verify(
    remote: Annotated[
        str | None,
        typer.Argument(
            metavar="REMOTE", help="name of a DVC remote; the default is DVC's default remote"
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="replace damaged objects by this clone's copies")
    ] = False,
) -> None:
    """Read every object that dvc.lock names from a DVC remote, and list the damaged ones."""
    _, workspace = read()

    from vgg16_transfer.versions import remotes

    count, damages = remotes.verify_remote(workspace.root, remote, repair=repair)
    for damage in damages:
        if damage.repaired:
            note(f"repaired: {damage.path}: {damage.place} {damage.problem}")
    unrepaired = [damage for damage in damages if not damage.repaired]
    if unrepaired:
        remedy = (
            "this clone has no undamaged copy of it"
            if repair
            else "run this with --repair in a clone that has a copy"
        )
        raise remotes.RemoteError(
            "\n".join(f"{one.path}: {one.place} {one.problem}; {remedy}" for one in unrepaired)
        )
    note(f"{count} objects are undamaged")
