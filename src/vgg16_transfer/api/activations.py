"""The activations of a frozen network for pictures."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgg16_transfer.api import html
from vgg16_transfer.api.checked import check
from vgg16_transfer.api.data import cache
from vgg16_transfer.artifacts import located, replacing
from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.features import write_features
from vgg16_transfer.backbones.sources import NAMED
from vgg16_transfer.backbones.store import FeaturesError, FeatureStore
from vgg16_transfer.backbones.weights import write_weights
from vgg16_transfer.errors import WeightsError
from vgg16_transfer.hashing import file_md5
from vgg16_transfer.heads.rows import held
from vgg16_transfer.heads.studies import load_material
from vgg16_transfer.images.manifests import write_frame
from vgg16_transfer.networks import DEFAULT, LAST, stored_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras
    import numpy as np
    import numpy.typing as npt

    from vgg16_transfer.api.data import Data
    from vgg16_transfer.heads.studies import Material
    from vgg16_transfer.params import Backbone


@dataclass(frozen=True, repr=False)
class Features:
    """Activations of some layers of a frozen network, for every usable picture of a dataset.

    Attributes:
        data: The pictures.
        backbone: What the section ``backbone`` of params.yaml would hold.
        layers: Layers whose activations are stored.
        weights: The network's weights file.
        path: The store; see :mod:`~vgg16_transfer.backbones.store`.
        computed: How many pictures went through the network this time.
    """

    data: Data
    backbone: Backbone
    layers: tuple[str, ...]
    weights: Path
    path: Path
    computed: int = 0

    @functools.cached_property
    def store(self) -> FeatureStore:
        """The open store."""
        return FeatureStore.open(self.path)

    @functools.cached_property
    def network(self) -> keras.Model:
        """The network, as Keras has it."""
        return base.load(self.backbone.network, self.weights, self.backbone.image_size)

    def arrays(
        self,
        role: str,
        *,
        seed: int = 0,
        samples_per_class: int | None = None,
        layer: str | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Features and labels, for any library that trains on arrays.

        Args:
            role: ``train``, ``validation`` or ``test``.
            seed: Seed of the split.
            samples_per_class: Training pictures of each class; all of the split by default. Smaller
                training sets are parts of larger ones.
            layer: One of ``layers``; the deepest by default.

        Returns:
            Features, shape (n, height * width * channels), and labels, shape (n,), which number the
            sorted classes.
        """
        most = self.data.settings.split.train_per_class
        ranks = range(samples_per_class or most) if role == "train" else None
        pictures = self.material(layer or self.layers[-1], seed, most).role(role, ranks)
        return held(pictures.features), pictures.labels

    def material(self, layer: str, seed: int, ranks: int) -> Material:
        """A split with the features of one layer, as training takes it."""
        return load_material(self.store, self.data.splits, layer, seed, ranks)

    def __repr__(self) -> str:
        listed, count = ", ".join(self.layers), len(self.store.ids)
        return f"<Features of {count} pictures: {listed} of {self.backbone.network}>"

    def _repr_html_(self) -> str:
        """Layers, with the shapes of their activations."""
        shapes = self.store.shapes
        rows = [[html.text(name), " × ".join(map(str, shapes[name]))] for name in self.layers]
        network, size = html.text(self.backbone.network), self.backbone.image_size
        count = f"{len(self.store.ids)} pictures of {size} × {size} pixels through {network}"
        return f"<p>{count}; {self.computed} of them now</p>" + html.table(["layer", "shape"], rows)


def features(
    data: Data,
    *,
    layers: Sequence[str] = (LAST,),
    network: str = DEFAULT,
    weights: str = "imagenet-conv",
    **settings: Any,
) -> Features:
    """Sends every usable picture through a frozen network once, and keeps the activations.

    The next call with the same network computes only pictures that are new.

    Args:
        data: The pictures.
        layers: Layers to store; ``last`` is the last convolutional layer. docs/networks.md lists
            the layers of each network.
        network: Name of the network.
        weights: ``imagenet-conv`` is VGG16 without its dense layers, from the extra ``offline``;
            ``imagenet`` downloads a network; or the path of a Keras weights file.
        settings: Further keys of ``backbone`` in params.yaml, such as ``image_size`` and
            ``resize``.

    Raises:
        InputError: A setting is wrong, or weights or pictures can't be read.
    """
    settings = {"network": network, "weights": weights, **settings}
    dataset = data.settings.model_copy(update={"layers": list(layers)})
    backbone = check(data.name, dataset, backbone=settings).backbone
    stored = stored_layers(network, layers)
    file = _weights_file(backbone)
    digest = hashlib.sha256(backbone.model_dump_json().encode()).hexdigest()[:12]
    out = data.folder / "features" / f"{network}-{digest}"
    listed = data.folder / "pictures"
    with replacing(listed) as fresh:
        fresh.mkdir()
        write_frame(data.manifest(), fresh / "0.csv")
    (written,) = write_features(
        {network: backbone},
        _with_those_of(out, stored),
        weights={network: file},
        splits=listed,
        source=data.source,
        outs={network: out},
    ).values()
    return Features(data, backbone, tuple(stored), file, out, written.computed)


def _with_those_of(out: Path, layers: Sequence[str]) -> list[str]:
    """Layers to store. A store is replaced by the next one, so earlier layers are asked for too."""
    try:
        earlier = FeatureStore.open(out).shapes
    except FeaturesError:
        return list(layers)
    return list(dict.fromkeys([*earlier, *layers]))


def _weights_file(backbone: Backbone) -> Path:
    """The weights of a network, from the user's cache if they are there and undamaged."""
    source = backbone.weights if backbone.weights in NAMED else _located(backbone.weights)
    named = source if source in NAMED else file_md5(Path(source))
    file = cache() / "weights" / f"{backbone.network}-{named}.weights.h5"
    checksum = file.with_suffix(".md5")
    if not file.exists() or not checksum.exists() or checksum.read_text() != file_md5(file):
        write_weights(backbone.network, source, file)
        with replacing(checksum) as fresh:
            fresh.write_text(file_md5(file))
    return file


def _located(source: str) -> str:
    path = located(source, None)
    if not path.is_file():
        raise WeightsError(f"weights: {source}: no such file; known are: {', '.join(NAMED)}")
    return str(path)
