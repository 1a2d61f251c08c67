"""How fast pictures pass everything around the network: reading, decoding, narrowing, writing.

    python benchmarks/features.py ARCHIVE [--times 3] [--copies 1]
    python benchmarks/features.py ARCHIVE --engine jax [--precision bfloat16] [--layers block5_pool]

A stub takes the place of the network. It gives activations of VGG16's shapes at once, narrowed as a
GPU gives them, so that what is measured is what would keep a GPU waiting. Each stage runs alone,
and then all of them together. Rates of one run can be compared. CPU time per picture says what a
machine without other load would reach.

With ``--engine`` it is the network itself, run by that engine on what it finds, such as a GPU. The
time that it takes alone, as a share of the time of all together, says how busy that is.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import tarfile
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from tables import print_table

from vgg16_transfer.backbones import base, features
from vgg16_transfer.backbones.engines import base as engines
from vgg16_transfer.backbones.features import PictureFile
from vgg16_transfer.backbones.narrowing import Narrow, cast_on_device, narrow, narrowed
from vgg16_transfer.backbones.store import CHUNK, FeatureStore
from vgg16_transfer.backbones.weights import write_weights
from vgg16_transfer.engines import DEFAULT_ENGINE, ENGINES
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.source import Source
from vgg16_transfer.params import Backbone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vgg16_transfer.backbones.engines.base import Network
    from vgg16_transfer.images.source import Pictures

BATCH = 32
SHAPES = {
    "block3_pool": (28, 28, 256),
    "block4_pool": (14, 14, 512),
    "block5_pool": (7, 7, 512),
    "fc1": (4096,),
    "fc2": (4096,),
    "predictions": (1000,),
}
ZEROS = {"block3_pool": 0.58, "block4_pool": 0.79, "block5_pool": 0.90, "fc1": 0.8, "fc2": 0.8}


class Stub:
    """A network that takes no time: a GPU that is never what is waited for.

    Args:
        outputs: What it gives for a batch, by layer.
    """

    batch_size = BATCH

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], outputs: dict[str, Any]) -> None:
        self.shapes = dict(shapes)
        self._outputs = outputs

    def forward(self, pictures: np.ndarray) -> dict[str, Any]:
        """The same activations for any pictures, as :class:`CastOnDevice` gives them."""
        return {
            layer: Narrow(tf.constant(rows[: len(pictures)]), tf.constant(np.float32(1)))
            for layer, rows in self._outputs.items()
        }


def made_up() -> Stub:
    """A stub with as many zeros as the activations of VGG16 have."""
    random = np.random.default_rng(0)
    outputs = {}
    for layer, shape in SHAPES.items():
        rows = random.gamma(1.0, 20.0, (BATCH, int(np.prod(shape)))).astype(np.float16)
        rows[random.random(rows.shape) < ZEROS.get(layer, 0)] = 0
        outputs[layer] = rows
    return Stub(SHAPES, outputs)


def opened_network(backbone: Backbone, layers: Sequence[str], folder: Path) -> Network:
    """VGG16's convolutions, as the stage ``features`` runs them."""
    weights = folder / "network.weights.h5"
    write_weights(backbone.network, backbone.weights, weights)
    model = base.load(backbone.network, weights, backbone.image_size)
    tapped = base.tap(backbone.network, model, layers)
    return cast_on_device(engines.opened(backbone, tapped, model), backbone.dtype)


class Took(NamedTuple):
    """Seconds, and seconds of all cores together."""

    wall: float
    cpu: float


def took(function: Callable[[], object]) -> Took:
    """How long a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


def decode(opened: Pictures, pictures: Sequence[PictureFile], backbone: Backbone) -> None:
    """Reads and decodes all pictures, as the stage does."""
    for _ in features._squares(opened, pictures, backbone):  # noqa: SLF001
        pass


def forward(network: Network | Stub, some: np.ndarray, count: int) -> None:
    """Runs the network on so many pictures, and waits until it is done."""
    outputs: dict[str, Any] = {}
    for start in range(0, count, BATCH):
        parts = range(0, min(BATCH, count - start), network.batch_size)
        for part in parts:
            outputs = network.forward(some[part : part + network.batch_size])
    for output in outputs.values():  # a GPU computes in order: the last one is the last one
        narrow(output, "float16")


def write(stub: Stub, ids: Sequence[str], folder: Path, *, settle: bool) -> None:
    """Narrows and writes the rows of all pictures, in this thread."""
    store = FeatureStore.create(folder, {"dtype": "float16"}, stub.shapes)
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        outputs = stub.forward(np.zeros((len(chunk), 1), np.uint8))
        blocks = {layer: narrowed(layer, outputs[layer], "float16") for layer in stub.shapes}
        store.write(chunk, blocks)
        if settle:
            store.settle()


def together(
    network: Network | Stub,
    opened: Pictures,
    pictures: Sequence[PictureFile],
    backbone: Backbone,
    folder: Path,
) -> None:
    """All that the stage does once its networks are loaded."""
    store = FeatureStore.create(folder, {"dtype": "float16"}, network.shapes)
    computed_of = partial(features._here, network, opened, backbone)  # noqa: SLF001
    features._compute(store, pictures, computed_of, [None], folder)  # noqa: SLF001


def copied(archive: Path, copies: int, folder: Path) -> Path:
    """An archive with copies of all pictures. Bytes behind the picture tell them apart."""
    if copies == 1:
        return archive
    path = folder / "copies.tar"
    with open_archive(archive) as opened, tarfile.open(path, "w") as tar:
        for name in opened.names():
            for number in range(copies):
                content = opened.read(name) + bytes([number])
                info = tarfile.TarInfo(f"{number}/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def main() -> None:
    """Runs each stage alone, then all together, several times in turn, and prints the best."""
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--copies", type=int, default=1, help="of each picture")
    parser.add_argument("--engine", choices=tuple(ENGINES))
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--weights", default="imagenet-conv", help="as in params.yaml")
    parser.add_argument(
        "--layers", nargs="+", default=["block3_pool", "block4_pool", "block5_pool"]
    )
    asked = parser.parse_args()
    backbone = Backbone(
        weights=asked.weights, engine=asked.engine or DEFAULT_ENGINE, precision=asked.precision
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        archive = copied(asked.archive, asked.copies, Path(folder))
        opened = stack.enter_context(Source(archive).open())
        names = [n for n in opened.archive.names() if n.lower().endswith((".jpg", ".jpeg", ".png"))]
        pictures = [
            PictureFile(hashlib.sha256(opened.archive.read(name)).hexdigest(), name)
            for name in names
        ]
        ids, count = [picture.sha256 for picture in pictures], len(pictures)
        first = features._squares(opened, pictures[:BATCH], backbone)  # noqa: SLF001
        some = np.stack(list(first))
        network: Network | Stub
        stub = network = made_up()
        if asked.engine:
            network = opened_network(backbone, asked.layers, Path(folder))
            size = network.batch_size
            parts = [network.forward(some[start : start + size]) for start in range(0, BATCH, size)]
            rows = {
                layer: np.concatenate([narrowed(layer, part[layer], "float16") for part in parts])
                for layer in network.shapes
            }
            stub = Stub(network.shapes, rows)
        best: dict[str, Took] = {}
        for number in range(asked.times):
            place = Path(folder) / str(number)
            stages: dict[str, Callable[[], object]] = {
                "decode": lambda: decode(opened, pictures, backbone),
                "network": lambda: forward(network, some, count),
                "write": lambda p=place: write(stub, ids, p / "write", settle=False),
                "write, settled at each chunk": lambda p=place: write(
                    stub, ids, p / "settled", settle=True
                ),
                "end to end": lambda p=place: together(
                    network, opened, pictures, backbone, p / "all"
                ),
            }
            for stage, function in stages.items():
                taken = took(function)
                best[stage] = min(best.get(stage, taken), taken)
    cores = len(os.sched_getaffinity(0))
    whole = best["end to end"]
    rows = []
    for stage, taken in best.items():
        milliseconds = 1000 * taken.cpu / count
        rows.append(
            (
                stage,
                f"{count / taken.wall:.0f}",
                f"{milliseconds:.2f} ms",
                f"{cores * 1000 / milliseconds:.0f}",
                f"{taken.wall / whole.wall:.2f}",
            )
        )
    print_table(
        [
            f"{count} pictures, best of {asked.times}",
            "pictures/s",
            "CPU time of one",
            f"pictures/s, if {cores} cores were free",
            "of the time of end to end",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
