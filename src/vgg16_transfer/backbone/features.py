"""[stage] Every picture once through the network → data/features/<dataset>/.

A new store grows beside the old one and replaces it by rename when it is whole. It takes the rows
it can from the old one, and from stores that were never finished, as long as their *recipe* (all
that decides a row's numbers) is the same; only what is new goes through the network. What a store
ends up as depends on the pictures and the recipe alone, not on how it came about.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from vgg16_transfer.backbone import vgg16
from vgg16_transfer.backbone.store import CHUNK, FeaturesError, FeatureStore
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images import pictures
from vgg16_transfer.images.archives import map_files, open_archive
from vgg16_transfer.images.manifests import read_manifests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from vgg16_transfer.backbone.vgg16 import Tapped
    from vgg16_transfer.params import Backbone


class OverflowInFeaturesError(InputError):
    """An activation that the number format of the store can't hold.

    Attributes:
        layer: Where it arose.
        value: The largest activation.
    """

    def __init__(self, layer: str, value: float, dtype: str) -> None:
        self.layer = layer
        self.value = value
        super().__init__(
            f"params.yaml: backbone.dtype: {dtype} ends at {np.finfo(dtype).max:,.0f}, but {layer} "
            f"reaches {value:,.0f}; set backbone.dtype: float32"
        )


class Wanted(NamedTuple):
    """A picture whose features are asked for."""

    sha256: str
    path: str


def write_features(
    backbone: Backbone,
    layers: Sequence[str],
    weights: Path,
    splits: Path,
    archive_path: Path,
    out: Path,
) -> int:
    """Brings a store up to date with all the pictures that any manifest of a dataset names.

    Args:
        backbone: How pictures enter the network, and the number format of the store.
        layers: Layers to store, all from the same forward pass.
        weights: What the stage ``weights`` wrote.
        splits: Folder of manifests.
        archive_path: Where the pictures are.
        out: The store.

    Returns:
        How many pictures went through the network.

    Raises:
        WeightsError: The weights hold no such layer.
        OverflowInFeaturesError: The number format is too narrow; nothing is published.
        FeaturesError: The disk is full; whole chunks are kept for the next run.
    """
    network = vgg16.tap(vgg16.load(weights, backbone.image_size), layers)
    with open_archive(archive_path) as archive:

        def squares(paths: Sequence[str]) -> Iterator[npt.NDArray[np.uint8]]:
            return map_files(archive, paths, lambda content: decode(content, backbone))

        wanted = distinct_pictures(splits, archive.names())
        try:
            store, path = _begin(recipe(backbone, weights), wanted, network.shapes, out)
            computed = _compute(store, path, wanted, network, squares, out)
            _publish(path, out)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            raise FeaturesError(
                f"{out}: no room to write features ({error.strerror}); make room and run this "
                "again: what is computed is kept"
            ) from None
    return computed


def decode(content: bytes, backbone: Backbone) -> npt.NDArray[np.uint8]:
    """A picture as the network takes it: shape (image_size, image_size, 3), RGB, 0 to 255."""
    return pictures.to_square(pictures.decode(content), backbone.image_size, backbone.resize)


def distinct_pictures(splits: Path, archive_order: Sequence[str]) -> list[Wanted]:
    """The pictures of all manifests, each once, in the order in which the archive reads fastest.

    Raises:
        ManifestError: There is no manifest.
        FeaturesError: A manifest names a picture that the archive has not got.
    """
    rows = pd.concat(read_manifests(splits))[["sha256", "path"]].drop_duplicates()
    position = {path: index for index, path in enumerate(archive_order)}
    for path in rows["path"]:
        if path not in position:
            raise FeaturesError(
                f"{splits}: names {path}, which the archive has not got; run dvc repro"
            )
    wanted = map(Wanted, rows["sha256"], rows["path"])
    return sorted(wanted, key=lambda picture: position[picture.path])


def recipe(backbone: Backbone, weights: Path) -> dict[str, Any]:
    """All that decides the numbers of a row, other than the picture and the layer."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (pictures, vgg16))
    versions = {name: importlib.metadata.version(name) for name in ("keras", "pillow")}
    return {
        "weights_md5": file_md5(weights),
        "image_size": backbone.image_size,
        "resize": backbone.resize,
        "dtype": backbone.dtype,
        "code_sha256": hashlib.sha256(code).hexdigest(),
        "versions": versions | {"tensorflow": tf.__version__},
    }


def _begin(
    recipe: dict[str, Any],
    wanted: Sequence[Wanted],
    shapes: dict[str, tuple[int, ...]],
    out: Path,
) -> tuple[FeatureStore, Path]:
    """The unfinished store for exactly this work: found where a killed run left it, or new."""
    content = [recipe, shapes, [picture.sha256 for picture in wanted]]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = out.with_name(f".{out.name}.{digest[:12]}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    store = FeatureStore.open(path) or FeatureStore.create(path, recipe, shapes, len(wanted))
    return store, path


def _compute(
    store: FeatureStore,
    path: Path,
    wanted: Sequence[Wanted],
    network: Tapped,
    squares: Any,
    out: Path,
) -> int:
    others = [FeatureStore.open(other) for other in (out, *_partials(out)) if other != path]
    sources = [other for other in others if other and other.recipe == store.recipe]
    ids = [picture.sha256 for picture in wanted]
    pending = {}
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        if store.ids[start : start + CHUNK] != chunk:
            missing = store.copy(start, chunk, sources)
            if missing:
                pending[start] = missing
    paths = [wanted[start + row].path for start, rows in pending.items() for row in rows]
    stream = squares(paths)
    with tqdm(total=len(paths), desc=f"features {out.name}", unit="picture", disable=None) as bar:
        for start, rows in pending.items():
            values = _forward(network, stream, len(rows), store.recipe["dtype"], bar)
            store.fill(start, ids[start : start + CHUNK], rows, values)
    return len(paths)


def _forward(
    network: Tapped, stream: Iterator[npt.NDArray[np.uint8]], count: int, dtype: str, bar: Any
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """The features of the next ``count`` pictures of a stream, by layer, flattened."""
    parts: dict[str, list[npt.NDArray[np.floating[Any]]]] = {layer: [] for layer in network.shapes}
    for start in range(0, count, network.batch_size):
        size = min(network.batch_size, count - start)
        outputs = network.forward(np.stack([next(stream) for _ in range(size)]))
        for layer, output in outputs.items():
            parts[layer].append(_narrowed(layer, output, dtype))
        bar.update(size)
    return {layer: np.concatenate(blocks) for layer, blocks in parts.items()}


def _narrowed(
    layer: str, output: npt.NDArray[np.float32], dtype: str
) -> npt.NDArray[np.floating[Any]]:
    """Activations as a store keeps them: one flat row per picture, none of them overflown."""
    largest = float(np.abs(output).max())
    if not largest <= float(np.finfo(dtype).max):
        raise OverflowInFeaturesError(layer, largest, dtype)
    narrowed: npt.NDArray[np.floating[Any]] = output.reshape(len(output), -1).astype(dtype)
    return narrowed


def _publish(path: Path, out: Path) -> None:
    """Puts a whole store in the place of the old one, and clears away what is of no more use."""
    retired = out.with_name(f".{out.name}.retired")
    shutil.rmtree(retired, ignore_errors=True)
    if out.exists():
        out.rename(retired)
    path.rename(out)
    for leftover in (retired, *_partials(out)):
        shutil.rmtree(leftover, ignore_errors=True)


def _partials(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f".{out.name}.*.partial"))
