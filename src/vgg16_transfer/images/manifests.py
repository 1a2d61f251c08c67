"""Manifests: the record of a split, data/splits/<dataset>/<seed>.csv.

One row per picture: ``path`` in the archive, ``label``, ``class_name``, ``sha256`` of its bytes,
``role`` (train, validation or test) and ``rank`` among its class's pictures of that role. A head
with n samples per class is trained on the training pictures with rank < n, so a smaller training
set is part of every larger one.

In the same folder, ``left_out.csv`` lists the files that are not used, with the reason, and
``near_duplicates.csv`` lists pairs of almost equal pictures on different sides of a split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from vgg16_transfer.artifacts import reading
from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ["path", "label", "class_name", "sha256", "role", "rank"]
LEFT_OUT = "left_out.csv"
NEAR_DUPLICATES = "near_duplicates.csv"


class ManifestError(InputError):
    """A split that is missing or damaged."""


def read_manifest(path: Path) -> pd.DataFrame:
    """Reads the manifest of one split.

    Raises:
        ManifestError: The file is missing, or is not a manifest.
    """
    text = {"path": str, "class_name": str, "sha256": str, "role": str}
    with reading(path, ManifestError, what="split"):
        # A class may be called NA, null or none.
        frame = pd.read_csv(
            path,
            dtype=text | dict.fromkeys(("label", "rank"), "int64"),
            keep_default_na=False,
            lineterminator="\n",
        )
        if list(frame.columns) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(map(str, frame.columns))}")
    return frame


def manifest_paths(folder: Path) -> dict[int, Path]:
    """Paths of a dataset's manifests by seed, in the order of their names."""
    paths = sorted(folder.glob("*.csv"))
    return {int(path.stem): path for path in paths if path.stem.isdecimal()}


def read_manifests(folder: Path) -> list[pd.DataFrame]:
    """Reads the manifests of all seeds of a dataset.

    Raises:
        ManifestError: There is no manifest, or one is damaged.
    """
    paths = manifest_paths(folder)
    if not paths:
        raise ManifestError(f"{folder}: holds no splits; run dvc repro")
    return [read_manifest(path) for path in paths.values()]


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes a manifest, or a list next to it; the same rows give the same bytes."""
    frame.to_csv(path, index=False, lineterminator="\n")
