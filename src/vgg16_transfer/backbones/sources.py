"""[stage] What params.yaml names as weights → models/sources/, one entry per network.

An entry is a link to a file of your own, or a text file with the name of a source, such as
``imagenet``. DVC hashes the target of a link. So it sees when your file is replaced, and the stage
``weights`` runs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vgg16_transfer.artifacts import link_target, located, replacing
from vgg16_transfer.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
                (fresh / name).symlink_to(link_target(files[name], out))
            else:
                (fresh / name).write_text(f"{source}\n", encoding="utf-8")


def _file(name: str, source: str, home: Path | None) -> Path:
    path = located(source, home)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise WeightsError(
            f"params.yaml: backbone: weights of {name}: {source}: {problem}; set them to a "
            f"Keras weights file, or to one of {', '.join(NAMED)}"
        )
    return path
