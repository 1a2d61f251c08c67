"""The commands that show what changed in a dataset's splits, and release a version of them."""

from __future__ import annotations

import datetime as dt
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from vgg16_transfer.cli.app import DatasetName, app, note, read

if TYPE_CHECKING:
    from vgg16_transfer.workspace import Workspace

Since = Annotated[
    str | None,
    typer.Option(metavar="REVISION", help="git revision; the default is the last version"),
]


@app.command()
def changes(dataset: DatasetName, since: Since = None) -> None:
    """Print what changed in a dataset's splits since its last version."""
    params, workspace = read()
    params.dataset(dataset)

    from vgg16_transfer.versions import releases

    last = since or releases.released(workspace.root, dataset)
    entry = _entry(workspace, dataset, last, f"{dataset}, not released")
    typer.echo(entry or f"nothing changed since {last}\n", nl=False)


@app.command()
def release(dataset: DatasetName) -> None:
    """Add a dataset's changes to CHANGES.md, and print the commands to tag and share them."""
    params, workspace = read()
    params.dataset(dataset)

    from vgg16_transfer.versions import releases

    releases.check_locked(workspace.root, dataset)
    last = releases.released(workspace.root, dataset)
    version = releases.next_version(workspace.root, dataset)
    today = dt.datetime.now(tz=dt.UTC).date()
    entry = _entry(workspace, dataset, last, f"{version}, {today}")
    if entry is None:
        raise releases.ReleaseError(
            f"data/splits/{dataset}: nothing changed since {last}, so there is nothing to release"
        )
    releases.add_entry(workspace.changes, version, entry)
    note(f"data/splits/CHANGES.md: {version} is the first entry; check it, then run:")
    tag = shlex.quote(version)
    paths = ["params.yaml", "dvc.lock", "results", "data/splits/CHANGES.md"]
    existing = " ".join(path for path in paths if (workspace.root / path).exists())
    typer.echo(
        f"git add {existing}\n"
        f"git commit --message {shlex.quote(f'Release {version}')}\n"
        f"git tag --annotate {tag} --message {tag}\n"
        f"dvc push\n"
        f"git push --follow-tags"
    )


def _entry(workspace: Workspace, dataset: str, since: str | None, title: str) -> str | None:
    """The entry of CHANGES.md about the changes, or None if there are none."""
    from vgg16_transfer.versions.changes import entry, same
    from vgg16_transfer.versions.releases import manifests_at, manifests_here

    after = manifests_here(workspace.splits(dataset))
    before = manifests_at(workspace.root, dataset, since) if since else {}
    return None if same(before, after) else entry(title, since, before, after)
