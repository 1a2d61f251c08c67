"""[stage] Every picture once through each network → data/features/<dataset>/.

The folder is the store of the default network, with a folder for the store of each other network.
A new store is written beside the old store, and replaces it when it is complete. Rows are copied
from the old store and from unfinished stores, if these have the same *recipe* (everything that
decides the numbers of a row) and if the bytes of the rows are unchanged. Only the other pictures go
through the network. The content of a complete store depends on the pictures and the recipe only,
not on earlier stores.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from vgg16_transfer.artifacts import alone, put, remove, room
from vgg16_transfer.backbones import base, calibrated
from vgg16_transfer.backbones.decoding import decode
from vgg16_transfer.backbones.engines import base as engines
from vgg16_transfer.backbones.narrowing import cast_on_device, narrow, narrowed
from vgg16_transfer.backbones.store import CHUNK, FORMAT, FeaturesError, FeatureStore
from vgg16_transfer.backbones.writing import writing
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.images import pictures
from vgg16_transfer.images.archives import map_files
from vgg16_transfer.images.manifests import read_manifests
from vgg16_transfer.networks import stored_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import keras
    import numpy.typing as npt

    from vgg16_transfer.backbones.base import Tapped
    from vgg16_transfer.backbones.calibrated import Calibrated
    from vgg16_transfer.backbones.engines.base import Network
    from vgg16_transfer.compute.base import Pool
    from vgg16_transfer.images.source import Pictures, Source
    from vgg16_transfer.params import Backbone

    Outputs = dict[str, Any]  # activations by layer, as arrays or as what narrowed() takes
    Square = npt.NDArray[np.uint8]
    Blocks = dict[str, npt.NDArray[np.floating[Any]]]
    ComputedOf = Callable[
        [Sequence[Sequence["PictureFile"]], Callable[[int], Any]], Iterator[list[Outputs]]
    ]


class PictureFile(NamedTuple):
    """A picture of the manifests.

    Attributes:
        sha256: sha256 of the file.
        path: Path relative to the source.
    """

    sha256: str
    path: str


class Elsewhere(NamedTuple):
    """What a worker opens to compute features; see :class:`~vgg16_transfer.compute.base.Opener`.

    Engine and precision come along in the section of params.yaml.

    Attributes:
        backbone: The section ``backbone`` of params.yaml.
        weights: The weights file.
        layers: Layer names.
        calibrated: Folder of the calibrated network, if the precision needs one.
        source: The source that has the pictures.
    """

    backbone: Backbone
    weights: Path
    layers: tuple[str, ...]
    calibrated: Path | None
    source: Source

    @contextmanager
    def __call__(self) -> Iterator[Callable[[Sequence[PictureFile]], list[Outputs]]]:
        """Opens network and source: gives a function from pictures to their features by layer.

        They are narrowed, so that half as much is sent.
        """
        backbone = self.backbone
        model = base.load(backbone.network, self.weights, backbone.image_size)
        tapped = base.tap(backbone.network, model, self.layers)
        network = _opened_network(backbone, tapped, model, self.calibrated)
        with self.source.open() as opened:

            def compute(group: Sequence[PictureFile]) -> list[Outputs]:
                (outputs,) = _here(network, opened, backbone, [group], lambda _: None)
                return [
                    {layer: narrow(each, backbone.dtype) for layer, each in output.items()}
                    for output in outputs
                ]

            yield compute


class Written(NamedTuple):
    """What was done to update a store.

    Attributes:
        computed: Number of pictures that went through the network.
        damaged: Number of these whose row in an earlier store had changed bytes. None if the index
            of the old store could not be read.
    """

    computed: int
    damaged: int | None


def write_features(
    backbones: Mapping[str, Backbone],
    layers: Sequence[str],
    *,
    weights: Mapping[str, Path],
    splits: Path,
    source: Source,
    outs: Mapping[str, Path],
    pool: Pool | None = None,
) -> dict[str, Written]:
    """Updates a dataset's stores: they then have all pictures of all its manifests.

    Args:
        backbones: The section ``backbone`` of params.yaml. A network that has none of the layers
            gets no store.
        layers: Layers to store. Those of one network come from the same forward pass.
        weights: The weights file of each network.
        splits: Folder of manifests.
        source: The source that has the pictures.
        outs: The store of each network. All other stores are in that of the default network, so
            that they are replaced together.
        pool: Processes that read pictures and run the networks; None if this process does. The
            rows are the same.

    Returns:
        What was done, by network.

    Raises:
        WeightsError: The weights have no such layer.
        EngineError: The engine is not installed, can't run a network here, or computes other
            activations than TensorFlow.
        SourceError: The source does not have the pictures of the manifests.
        OverflowInFeaturesError: An activation is too large for the number format. The old stores
            are left unchanged.
        ArtifactError: The disk is full. Complete chunks are kept for the next run.
    """
    loaded = {}
    for name, backbone in backbones.items():
        stored = stored_layers(backbone.network, layers)
        if stored:
            model = base.load(backbone.network, weights[name], backbone.image_size)
            tapped = base.tap(backbone.network, model, stored)
            loaded[name] = recipe(backbone, weights[name]), model, tapped
    root = next(iter(outs.values()))
    complete: dict[str, Path] = {}
    written = {}
    with (
        source.open() as opened,
        room(root, "what is computed is kept: run this again"),
        alone(root),
    ):
        picture_files = distinct_pictures(splits, opened.archive.names())
        opened.check_names(picture.path for picture in picture_files)
        for name, (content, model, tapped) in loaded.items():
            backbone, out = backbones[name], outs[name]
            converted = _converted(backbone, content, model, tapped, splits, opened, root, out)
            if converted is not None:
                content["engine"]["calibrated"] = converted.recipe
            store, path = _begin(content, picture_files, tapped.shapes, root, out)
            if converted is not None:
                calibrated.put_into(path, converted)
            network = _opened_network(backbone, tapped, model, converted and converted.folder)
            others = _others(path, root, out)
            computed_of: ComputedOf = partial(_here, network, opened, backbone)
            if pool is not None:
                elsewhere = Elsewhere(
                    backbone,
                    weights[name].absolute(),
                    tuple(tapped.shapes),
                    converted and converted.folder.absolute(),
                    source._replace(path=source.path.absolute()),
                )
                computed_of = partial(_there, pool, elsewhere)
            written[name] = _compute(store, picture_files, computed_of, others, out)
            complete[name] = path
        _publish(complete, outs, root)
    return written


def distinct_pictures(splits: Path, archive_order: Sequence[str]) -> list[PictureFile]:
    """The pictures of all manifests, each once, in the order that is fastest to read.

    Args:
        splits: Folder of manifests.
        archive_order: Paths in the order of the archive.

    Raises:
        ManifestError: The folder has no manifest.
    """
    rows = pd.concat(read_manifests(splits))[["sha256", "path"]].drop_duplicates()
    position = {path: index for index, path in enumerate(archive_order)}
    picture_files = map(PictureFile, rows["sha256"], rows["path"])
    return sorted(picture_files, key=lambda picture: (position.get(picture.path, -1), picture))


def recipe(backbone: Backbone, weights: Path) -> dict[str, Any]:
    """Everything that decides the numbers of a row, except the picture and the layer.

    Raises:
        EngineError: The engine is not installed.
    """
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
    } | engines.recipe(backbone)


def _converted(
    backbone: Backbone,
    content: dict[str, Any],
    model: keras.Model,
    tapped: Tapped,
    splits: Path,
    opened: Pictures,
    root: Path,
    out: Path,
) -> Calibrated | None:
    """The network as its precision needs it, or None if it needs no conversion."""
    if not calibrated.is_needed(backbone):
        return None
    picture_files = [PictureFile(*each) for each in calibrated.chosen(splits)]
    return calibrated.provided(
        backbone,
        engines.tapped_model(model, list(tapped.shapes)),
        content,
        [picture.sha256 for picture in picture_files],
        lambda: np.stack(list(_squares(opened, picture_files, backbone))),
        [out, *_unfinished(root, out)],
        root,
    )


def _opened_network(
    backbone: Backbone, tapped: Tapped, model: keras.Model, calibrated: Path | None
) -> Network:
    """A network as its engine runs it. On a GPU, it narrows its activations itself."""
    return cast_on_device(engines.opened(backbone, tapped, model, calibrated), backbone.dtype)


def _begin(
    recipe: dict[str, Any],
    picture_files: Sequence[PictureFile],
    shapes: dict[str, tuple[int, ...]],
    root: Path,
    out: Path,
) -> tuple[FeatureStore, Path]:
    """Opens the unfinished store of the same recipe, layers and pictures, or creates it."""
    content = [FORMAT, recipe, shapes, [picture.sha256 for picture in picture_files]]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    name = root.name if out == root else f"{root.name}.{out.name}"
    path = root.with_name(f".{name}.{digest[:12]}.partial")
    store = _opened(path)
    if store is None or store.recipe != recipe or store.shapes != shapes:
        remove(path)
        store = FeatureStore.create(path, recipe, shapes)
    return store, path


def _compute(
    store: FeatureStore,
    picture_files: Sequence[PictureFile],
    computed_of: ComputedOf,
    others: Sequence[FeatureStore | None],
    out: Path,
) -> Written:
    done = store.keep([picture.sha256 for picture in picture_files])
    layers = store.shapes
    sources = [
        (other, other.intact(layers))
        for other in others
        if other and other.recipe == store.recipe and layers.items() <= other.shapes.items()
    ]
    intact = set().union(*(ids for _, ids in sources))
    missing = [picture for picture in picture_files[done:] if picture.sha256 not in intact]
    listed = {sha256 for other, _ in sources for sha256 in other.ids}
    damaged = sum(picture.sha256 in listed for picture in missing)
    chunks = [picture_files[i : i + CHUNK] for i in range(done, len(picture_files), CHUNK)]
    groups = [[each for each in chunk if each.sha256 not in intact] for chunk in chunks]
    with (
        tqdm(total=len(missing), desc=f"features {out.name}", unit="picture", disable=None) as bar,
        writing(store) as write,
    ):
        computed = computed_of([group for group in groups if group], bar.update)
        for chunk, group in zip(chunks, groups, strict=True):
            ids = [picture.sha256 for picture in chunk]
            new = [row for row, sha256 in enumerate(ids) if sha256 not in intact]
            outputs = next(computed) if group else []
            write(ids, partial(_together, store, ids, new, outputs, sources))
    unreadable = out.exists() and others[0] is None
    return Written(len(missing), None if unreadable else damaged)


def _squares(
    opened: Pictures, missing: Sequence[PictureFile], backbone: Backbone
) -> Iterator[Square]:
    """Reads pictures as input of the network, and checks the sha256 of each."""

    def read(content: bytes) -> tuple[str, Square]:
        return hashlib.sha256(content).hexdigest(), decode(content, backbone)

    names = [picture.path for picture in missing]
    for picture, (sha256, square) in zip(
        missing, map_files(opened.archive, names, read), strict=True
    ):
        opened.check(picture.path, picture.sha256, sha256)
        yield square


def _here(
    network: Network,
    opened: Pictures,
    backbone: Backbone,
    groups: Sequence[Sequence[PictureFile]],
    done: Callable[[int], Any],
) -> Iterator[list[Outputs]]:
    """What the network gives for each group of pictures, call by call. This process runs it.

    Args:
        network: The network.
        opened: The open source.
        backbone: The section ``backbone`` of params.yaml.
        groups: Pictures, in groups of at least one.
        done: Is told of the number of pictures after each call of the network.
    """
    stream = _squares(opened, [picture for group in groups for picture in group], backbone)
    for group in groups:
        outputs: list[Outputs] = []
        for start in range(0, len(group), network.batch_size):
            size = min(network.batch_size, len(group) - start)
            outputs.append(network.forward(np.stack([next(stream) for _ in range(size)])))
            done(size)
        yield outputs


def _there(
    pool: Pool,
    elsewhere: Elsewhere,
    groups: Sequence[Sequence[PictureFile]],
    done: Callable[[int], Any],
) -> Iterator[list[Outputs]]:
    """The same, run by workers."""
    # On a GPU if this process would, because the last bits of features depend on it.
    gpu = engines.uses_gpu(elsewhere.backbone.engine)
    return pool.map(elsewhere, groups, ended=lambda group: done(len(group)), gpu=gpu)


def _together(
    store: FeatureStore,
    ids: Sequence[str],
    new: Sequence[int],
    outputs: Sequence[Outputs],
    sources: Sequence[tuple[FeatureStore, set[str]]],
) -> Blocks:
    """The rows of a chunk: computed rows, and rows from stores that have them.

    Raises:
        OverflowInFeaturesError: An activation is too large for the number format.
    """
    dtype = store.recipe["dtype"]
    blocks: Blocks = {}
    for layer, shape in store.shapes.items():
        width = int(np.prod(shape))
        parts = [narrowed(layer, output[layer], dtype) for output in outputs]
        if len(parts) == 1 and len(new) == len(ids):  # as a GPU gives them: nothing to copy
            (blocks[layer],) = parts
            continue
        blocks[layer] = np.empty((len(ids), width), dtype)
        if parts:
            blocks[layer][list(new)] = np.concatenate(parts)
    remaining = set(range(len(ids))) - set(new)
    for other, intact in sources:
        rows = sorted(row for row in remaining if ids[row] in intact)
        for layer, block in blocks.items():
            if rows:
                block[rows] = other.rows(layer, [ids[row] for row in rows])
        remaining -= set(rows)
    return blocks


def _publish(complete: Mapping[str, Path], outs: Mapping[str, Path], root: Path) -> None:
    """Replaces the old stores by the complete ones, and removes unfinished stores."""
    first, *others = complete
    for name in others:
        put(complete[name], complete[first] / outs[name].name)
    put(complete[first], root)
    for leftover in root.parent.glob(f".{root.name}.*.partial"):
        remove(leftover)


def _others(path: Path, root: Path, out: Path) -> list[FeatureStore | None]:
    """Stores to copy rows from: the old store first. None stands for a store that can't be read.

    Stores of other networks among them have another recipe.
    """
    return [_opened(out), *(_opened(other) for other in _unfinished(root, out) if other != path)]


def _unfinished(root: Path, out: Path) -> list[Path]:
    """Folders that runs which were killed have left."""
    unfinished = sorted(root.parent.glob(f".{root.name}.*.partial"))
    if out != root:  # a run that was killed between the two renames of _publish
        unfinished += [folder / out.name for folder in unfinished]
    return unfinished


def _opened(path: Path) -> FeatureStore | None:
    try:
        return FeatureStore.open(path)
    except FeaturesError:
        return None
