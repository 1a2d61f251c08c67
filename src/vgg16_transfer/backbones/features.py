"""[stage] Every picture once through the network → data/features/<dataset>/.

A new store grows beside the old one and replaces it when it is whole. It takes the rows it can from
the old one, and from stores that were never finished, as long as their *recipe* (all that decides a
row's numbers) is the same and their bytes are as they were written; only the rest goes through the
network. What a store ends up as depends on the pictures and the recipe alone, not on how it came
about.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from vgg16_transfer.artifacts import put, remove, room
from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.store import CHUNK, FeaturesError, FeatureStore
from vgg16_transfer.errors import InputError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images import pictures
from vgg16_transfer.images.archives import map_files
from vgg16_transfer.images.manifests import read_manifests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from vgg16_transfer.backbones.base import Tapped
    from vgg16_transfer.images.source import Pictures, Source
    from vgg16_transfer.params import Backbone

    Square = npt.NDArray[np.uint8]
    Blocks = dict[str, npt.NDArray[np.floating[Any]]]


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


class Written(NamedTuple):
    """What it took to bring a store up to date.

    Attributes:
        computed: How many pictures went through the network.
        damaged: How many of these had a row in the old store whose bytes were others than those
            that were written, or None if its index could not be read at all.
    """

    computed: int
    damaged: int | None


def write_features(
    backbone: Backbone,
    layers: Sequence[str],
    *,
    weights: Path,
    splits: Path,
    source: Source,
    out: Path,
) -> Written:
    """Brings a store up to date with all the pictures that any manifest of a dataset names.

    Args:
        backbone: How pictures enter the network, and the number format of the store.
        layers: Layers to store, all from the same forward pass.
        weights: What the stage ``weights`` wrote.
        splits: Folder of manifests.
        source: Where the pictures are.
        out: The store.

    Raises:
        WeightsError: The weights hold no such layer.
        SourceError: The source does not hold the pictures that the manifests name.
        OverflowInFeaturesError: The number format is too narrow; nothing is published.
        ArtifactError: The disk is full; whole chunks are kept for the next run.
    """
    name = backbone.network
    network = base.tap(name, base.load(name, weights, backbone.image_size), layers)
    with source.open() as opened, room(out, "what is computed is kept: run this again"):
        wanted = distinct_pictures(splits, opened.archive.names())
        opened.check_names(picture.path for picture in wanted)
        store, path = _begin(recipe(backbone, weights), wanted, network.shapes, out)
        written = _compute(store, wanted, network, backbone, opened, _others(path, out), out)
        _publish(path, out)
    return written


def decode(content: bytes, backbone: Backbone) -> Square:
    """A picture as the network takes it: shape (image_size, image_size, 3), RGB, 0 to 255."""
    return pictures.to_square(pictures.decode(content), backbone.image_size, backbone.resize)


def distinct_pictures(splits: Path, archive_order: Sequence[str]) -> list[Wanted]:
    """The pictures of all manifests, each once, in the order in which the archive reads fastest.

    Raises:
        ManifestError: There is no manifest.
    """
    rows = pd.concat(read_manifests(splits))[["sha256", "path"]].drop_duplicates()
    position = {path: index for index, path in enumerate(archive_order)}
    wanted = map(Wanted, rows["sha256"], rows["path"])
    return sorted(wanted, key=lambda picture: (position.get(picture.path, -1), picture))


def recipe(backbone: Backbone, weights: Path) -> dict[str, Any]:
    """All that decides the numbers of a row, other than the picture and the layer."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (pictures, base))
    versions = {name: importlib.metadata.version(name) for name in ("keras", "pillow")}
    return {
        "network": backbone.network,
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
    """The unfinished store for exactly this work: where a killed run left it, or new."""
    content = [recipe, shapes, [picture.sha256 for picture in wanted]]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = out.with_name(f".{out.name}.{digest[:12]}.partial")
    store = _opened(path)
    if store is None or store.recipe != recipe or store.shapes != shapes:
        remove(path)
        store = FeatureStore.create(path, recipe, shapes)
    return store, path


def _compute(
    store: FeatureStore,
    wanted: Sequence[Wanted],
    network: Tapped,
    backbone: Backbone,
    opened: Pictures,
    others: Sequence[FeatureStore | None],
    out: Path,
) -> Written:
    done = store.keep([picture.sha256 for picture in wanted])
    layers = store.shapes
    sources = [
        (other, other.intact(layers))
        for other in others
        if other and other.recipe == store.recipe and layers.items() <= other.shapes.items()
    ]
    intact = set().union(*(ids for _, ids in sources))
    missing = [picture for picture in wanted[done:] if picture.sha256 not in intact]
    listed = {sha256 for other, _ in sources for sha256 in other.ids}
    damaged = sum(picture.sha256 in listed for picture in missing)
    stream = _squares(opened, missing, backbone)
    with tqdm(total=len(missing), desc=f"features {out.name}", unit="picture", disable=None) as bar:
        for start in range(done, len(wanted), CHUNK):
            ids = [picture.sha256 for picture in wanted[start : start + CHUNK]]
            new = [row for row, sha256 in enumerate(ids) if sha256 not in intact]
            blocks = _forward(network, stream, len(new), backbone.dtype, bar)
            store.append(ids, _together(ids, new, blocks, sources))
    unreadable = out.exists() and others[0] is None
    return Written(len(missing), None if unreadable else damaged)


def _squares(opened: Pictures, missing: Sequence[Wanted], backbone: Backbone) -> Iterator[Square]:
    """Pictures as the network takes them, each held against its sha256."""

    def read(content: bytes) -> tuple[str, Square]:
        return hashlib.sha256(content).hexdigest(), decode(content, backbone)

    names = [picture.path for picture in missing]
    for picture, (sha256, square) in zip(
        missing, map_files(opened.archive, names, read), strict=True
    ):
        opened.check(picture.path, picture.sha256, sha256)
        yield square


def _forward(network: Tapped, stream: Iterator[Square], count: int, dtype: str, bar: Any) -> Blocks:
    """The features of the next ``count`` pictures of a stream, by layer, flattened."""
    parts: dict[str, list[npt.NDArray[np.floating[Any]]]] = {
        layer: [np.empty((0, int(np.prod(shape))), dtype)]
        for layer, shape in network.shapes.items()
    }
    for start in range(0, count, network.batch_size):
        size = min(network.batch_size, count - start)
        outputs = network.forward(np.stack([next(stream) for _ in range(size)]))
        for layer, output in outputs.items():
            parts[layer].append(_narrowed(layer, output, dtype))
        bar.update(size)
    return {layer: np.concatenate(blocks) for layer, blocks in parts.items()}


def _together(
    ids: Sequence[str],
    new: Sequence[int],
    computed: Blocks,
    sources: Sequence[tuple[FeatureStore, set[str]]],
) -> Blocks:
    """A chunk's rows: those that were computed, and the others from stores that have them."""
    blocks = {
        layer: np.empty((len(ids), block.shape[1]), block.dtype)
        for layer, block in computed.items()
    }
    left = set(range(len(ids))) - set(new)
    for layer, block in blocks.items():
        block[list(new)] = computed[layer]
    for store, intact in sources:
        rows = sorted(row for row in left if ids[row] in intact)
        for layer, block in blocks.items():
            if rows:
                block[rows] = store.rows(layer, [ids[row] for row in rows])
        left -= set(rows)
    return blocks


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
    put(path, out)
    for leftover in _partials(out):
        remove(leftover)


def _others(path: Path, out: Path) -> list[FeatureStore | None]:
    """The stores that rows may be taken from: the old one first, None where one can't be read."""
    return [_opened(out), *(_opened(other) for other in _partials(out) if other != path)]


def _opened(path: Path) -> FeatureStore | None:
    try:
        return FeatureStore.open(path)
    except FeaturesError:
        return None


def _partials(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f".{out.name}.*.partial"))
