"""A network that was converted with the help of a few pictures: which ones, and where it lies.

Only pictures that no split tests on are used: those that train, and then those that validate. If
several splits cover a dataset evenly, every training picture is a test picture of another split.

The files lie in the store of the features that they computed, and their digest is in its recipe.
They are made again if the network, the pictures or the code changed, and else kept.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from vgg16_transfer.artifacts import remove, replacing
from vgg16_transfer.backbones.engines import base as engines
from vgg16_transfer.backbones.engines.base import EngineError
from vgg16_transfer.backbones.store import FeaturesError, FeatureStore
from vgg16_transfer.engines import ENGINES
from vgg16_transfer.images.manifests import read_manifests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import keras
    import numpy as np
    import numpy.typing as npt

    from vgg16_transfer.params import Backbone

PICTURES = 48
"""The most pictures that a network is calibrated on. Twice as many change no accuracy."""

FEWEST = 8
"""The fewest pictures that a network is calibrated on."""

_FOLDER = "calibrated.network"
"""The folder in a store. No network, whose store would lie there, has a name with a dot."""

_ROLES = ("train", "validation")


class Calibrated(NamedTuple):
    """A converted network.

    Attributes:
        folder: Where its files lie.
        recipe: What the recipe of features says of it: the number of pictures, a digest of what it
            was made of, and one of its bytes.
    """

    folder: Path
    recipe: dict[str, Any]


def is_needed(backbone: Backbone) -> bool:
    """Whether a network has to be calibrated."""
    return ENGINES[backbone.engine].precisions[backbone.precision].calibrated


def chosen(splits: Path) -> list[tuple[str, str]]:
    """The sha256 and the path of each picture to calibrate on, in the order of their sha256.

    So a picture that is added to the dataset changes at most one of them.

    Args:
        splits: Folder of manifests.

    Raises:
        EngineError: There are too few pictures that no split tests on.
        ManifestError: The folder has no manifest.
    """
    rows = pd.concat(read_manifests(splits))
    tested = set(rows.loc[rows["role"] == "test", "sha256"])
    found: dict[str, str] = {}
    for role in _ROLES:
        of_role = rows[(rows["role"] == role) & ~rows["sha256"].isin(tested)]
        pairs = sorted(zip(of_role["sha256"], of_role["path"], strict=True))
        for sha256, path in pairs:
            if len(found) < PICTURES:
                found.setdefault(sha256, path)
    if len(found) < FEWEST:
        raise EngineError(
            f"params.yaml: backbone.precision: a network is calibrated on at least {FEWEST} "
            f"pictures that no split tests on, and {splits} has {len(found)}; set "
            f"datasets.{splits.name}.split.validation_per_class, or precision: float32"
        )
    return sorted(found.items())


def provided(
    backbone: Backbone,
    model: keras.Model,
    made_from: dict[str, Any],
    sha256s: Sequence[str],
    read: Callable[[], npt.NDArray[np.uint8]],
    stores: Iterable[Path],
    beside: Path,
) -> Calibrated:
    """A converted network: one that is there already, or a new one.

    Args:
        backbone: The section ``backbone`` of params.yaml.
        model: Preprocessed pictures → activations by layer.
        made_from: Everything else that decides its bytes.
        sha256s: sha256 of the pictures to calibrate on.
        read: Reads these pictures: shape (n, image_size, image_size, 3), RGB, 0 to 255.
        stores: Stores of features that may have it.
        beside: The store to write. A new network is written to a folder beside it.

    Raises:
        EngineError: The network can't be converted.
    """
    digest = _made_of(made_from, model, sha256s)
    for store in stores:
        kept = _kept(store, digest)
        if kept is not None:
            return kept
    folder = beside.with_name(f".{beside.name}.{digest[:12]}.partial")
    if not folder.exists():  # a run that was killed has left it, whole
        with replacing(folder) as out:
            out.mkdir()
            engines.calibrate(backbone, model, read(), out)
    values = {"pictures": len(sha256s), "made_of": digest, "sha256": _digest(folder)}
    return Calibrated(folder, values)


def put_into(store: Path, calibrated: Calibrated) -> None:
    """Copies a converted network into the store of the features that it computes."""
    own = store / _FOLDER
    if not own.exists() or _digest(own) != calibrated.recipe["sha256"]:
        remove(own)
        shutil.copytree(calibrated.folder, own)


def _kept(store: Path, made_of: str) -> Calibrated | None:
    """The converted network of a store, if it was made of the same and is undamaged."""
    try:
        values = FeatureStore.open(store).recipe["engine"]["calibrated"]
    except (FeaturesError, LookupError, TypeError):
        return None
    folder = store / _FOLDER
    if values["made_of"] != made_of or _digest(folder) != values["sha256"]:
        return None
    return Calibrated(folder, dict(values))


def _made_of(made_from: dict[str, Any], model: keras.Model, sha256s: Sequence[str]) -> str:
    """sha256 over everything that decides the bytes of a converted network."""
    nncf = importlib.metadata.version("nncf")
    content = [made_from, list(model.output), list(sha256s), nncf]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(folder: Path) -> str:
    """sha256 over the names and the bytes of a folder's files."""
    sha256 = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        sha256.update(f"{path.name}:{path.stat().st_size}:".encode() + path.read_bytes())
    return sha256.hexdigest()
