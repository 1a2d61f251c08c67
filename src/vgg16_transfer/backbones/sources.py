"""[stage] What params.yaml names as weights → models/sources/, one entry per network.

An entry is a link to a file of your own, or a text file with the name of a source, such as
``imagenet``. DVC hashes the target of a link. So it sees when your file is replaced, and the stage
``weights`` runs again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMED = ("imagenet", "imagenet-conv", "random", "random-conv")
"""Sources that are not files."""


def write_sources(sources: Mapping[str, str], out: Path, home: Path | None = None) -> None:
    """Writes one entry per network. On errors, ``out`` is left unchanged.

    Args:
        sources: The key ``weights`` of each network: one of :data:`NAMED`, or the path of a file.
        out: The folder to write.
        home: Second folder in which a relative path is looked for, after the current folder.

    Raises:
        WeightsError: A file is missing, or is a folder.
    """
    files = {name: _file(name, s, home) for name, s in sources.items() if s not in NAMED}
    with replacing(out) as fresh:
        fresh.mkdir()
        for name, source in sources.items():
            if name in files:
                path = files[name]
                # A relative path stays relative, so that a workspace can be moved and copied.
                target = path if path.is_absolute() else Path(os.path.relpath(path, out))
                (fresh / name).symlink_to(target)
            else:
                (fresh / name).write_text(f"{source}\n", encoding="utf-8")


def _file(name: str, source: str, home: Path | None) -> Path:
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - pathlib's raises for unknown users
    if home is not None and not path.exists():
        path = home / path
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise WeightsError(
            f"params.yaml: backbone: weights of {name}: {source}: {problem}; set them to a "
            f"Keras weights file, or to one of {', '.join(NAMED)}"
        )
    return path
