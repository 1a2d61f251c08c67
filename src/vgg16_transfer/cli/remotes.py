"""The command about the places that data is pushed to."""

from __future__ import annotations

from typing import Annotated

import typer

from vgg16_transfer.cli.app import app, read


@app.command()
def verify(
    remote: Annotated[
        str | None, typer.Argument(metavar="REMOTE", help="of DVC; otherwise the default one")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="put the whole copies of this clone in their place")
    ] = False,
) -> None:
    """Read back all that dvc.lock names from a DVC remote, and name what is damaged."""
    _, workspace = read()

    from vgg16_transfer.versions import remotes

    count, found = remotes.verify_remote(workspace.root, remote, repair=repair)
    for damage in found:
        if damage.repaired:
            typer.echo(f"repaired: {damage.path}: {damage.place} {damage.problem}", err=True)
    left = [damage for damage in found if not damage.repaired]
    if left:
        remedy = (
            "this clone has no whole copy of it"
            if repair
            else "run this with --repair in a clone that has it"
        )
        raise remotes.RemoteError(
            "\n".join(f"{one.path}: {one.place} {one.problem}; {remedy}" for one in left)
        )
    typer.echo(f"{count} objects are whole", err=True)
