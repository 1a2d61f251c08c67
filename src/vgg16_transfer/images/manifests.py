"""The record of a split: data/splits/<dataset>/<seed>.csv.

One row per picture: ``path`` in the archive, ``label``, ``class_name``, ``sha256`` of its bytes,
``role`` (train, validation or test) and ``rank`` among its class's pictures of that role. A head
with n samples per class sees the training pictures with rank < n, so its sets nest.

Beside the manifests, ``left_out.csv`` lists the pictures that could not be used, with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from vgg16_transfer.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ["path", "label", "class_name", "sha256", "role", "rank"]
LEFT_OUT = "left_out.csv"


class ManifestError(InputError):
    """A split that is not there."""


def read_manifest(path: Path) -> pd.DataFrame:
    """One split's manifest, with the columns above.

    Raises:
        ManifestError: There is no such file.
    """
    text = {"path": str, "class_name": str, "sha256": str, "role": str}
    try:
        # A class may well be called NA, null or none.
        return pd.read_csv(path, dtype=text, keep_default_na=False, lineterminator="\n")
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such split; run dvc repro") from None


def read_manifests(folder: Path) -> list[pd.DataFrame]:
    """The manifests of all seeds of a dataset.

    Raises:
        ManifestError: There is none.
    """
    paths = [path for path in sorted(folder.glob("*.csv")) if path.name != LEFT_OUT]
    if not paths:
        raise ManifestError(f"{folder}: holds no splits; run dvc repro")
    return [read_manifest(path) for path in paths]


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Writes a manifest, or the list of what was left out; the same rows give the same bytes."""
    frame.to_csv(path, index=False, lineterminator="\n")
