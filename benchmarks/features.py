"""How fast pictures pass everything around the network: reading, decoding, narrowing, writing.

    python benchmarks/features.py ARCHIVE [--times 3]

A stub takes the place of the network. It gives activations of VGG16's shapes at once, narrowed as a
GPU gives them, so that what is measured is what would keep a GPU waiting. Each stage runs alone,
and then all of them together. Rates of one run can be compared. CPU time per picture says what a
machine without other load would reach.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from vgg16_transfer.backbones import features
from vgg16_transfer.backbones.features import PictureFile
from vgg16_transfer.backbones.narrowing import Narrow, narrowed
from vgg16_transfer.backbones.store import CHUNK, FeatureStore
from vgg16_transfer.images.source import Source
from vgg16_transfer.params import Backbone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    """A network that takes no time: a GPU that is never what is waited for."""

    shapes = SHAPES
    batch_size = BATCH

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._outputs = {}
        for layer, shape in SHAPES.items():
            rows = random.gamma(1.0, 20.0, (BATCH, int(np.prod(shape)))).astype(np.float16)
            rows[random.random(rows.shape) < ZEROS.get(layer, 0)] = 0
            self._outputs[layer] = rows

    def forward(self, pictures: np.ndarray) -> dict[str, Any]:
        """The same activations for any pictures, as :class:`CastOnDevice` gives them."""
        return {
            layer: Narrow(tf.constant(rows[: len(pictures)]), tf.constant(np.float32(1)))
            for layer, rows in self._outputs.items()
        }


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


def forward(stub: Stub, count: int) -> None:
    """Runs the stub on so many pictures."""
    empty = np.zeros((BATCH, 1), np.uint8)
    for start in range(0, count, BATCH):
        stub.forward(empty[: count - start])


def write(stub: Stub, ids: Sequence[str], folder: Path, settle: bool) -> None:
    """Narrows and writes the rows of all pictures, in this thread."""
    store = FeatureStore.create(folder, {"dtype": "float16"}, SHAPES)
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        outputs = stub.forward(np.zeros((len(chunk), 1), np.uint8))
        store.write(chunk, {layer: narrowed(layer, outputs[layer], "float16") for layer in SHAPES})
        if settle:
            store.settle()


def together(
    stub: Stub,
    opened: Pictures,
    pictures: Sequence[PictureFile],
    backbone: Backbone,
    folder: Path,
) -> None:
    """All that the stage does once its networks are loaded."""
    store = FeatureStore.create(folder, {"dtype": "float16"}, SHAPES)
    computed_of = partial(features._here, stub, opened, backbone)  # noqa: SLF001
    features._compute(store, pictures, computed_of, [None], folder)  # noqa: SLF001


def main() -> None:
    """Runs each stage alone, then all together, several times in turn, and prints the best."""
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    stub, backbone = Stub(), Backbone(weights="imagenet")
    with Source(asked.archive).open() as opened, tempfile.TemporaryDirectory() as folder:
        names = [n for n in opened.archive.names() if n.lower().endswith((".jpg", ".jpeg", ".png"))]
        pictures = [
            PictureFile(hashlib.sha256(opened.archive.read(name)).hexdigest(), name)
            for name in names
        ]
        ids, count = [picture.sha256 for picture in pictures], len(pictures)
        best: dict[str, Took] = {}
        for number in range(asked.times):
            place = Path(folder) / str(number)
            stages: dict[str, Callable[[], object]] = {
                "decode": lambda: decode(opened, pictures, backbone),
                "stub network": lambda: forward(stub, count),
                "write": lambda p=place: write(stub, ids, p / "write", settle=False),
                "write, settled at each chunk": lambda p=place: write(
                    stub, ids, p / "settled", settle=True
                ),
                "end to end": lambda p=place: together(stub, opened, pictures, backbone, p / "all"),
            }
            for stage, function in stages.items():
                taken = took(function)
                best[stage] = min(best.get(stage, taken), taken)
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    print(f"{count} pictures, {cores} cores, load average {load:.1f}; best of {asked.times}")
    for stage, taken in best.items():
        milliseconds = 1000 * taken.cpu / count
        print(
            f"{stage:30} {count / taken.wall:7.0f} pictures/s  {milliseconds:6.2f} ms of CPU each"
            f"  {cores * 1000 / milliseconds:7.0f} pictures/s if all cores were free"
        )
    ratio = best["decode"].wall / best["end to end"].wall
    print(f"end to end reaches {ratio:.2f} of decoding alone")


if __name__ == "__main__":
    main()
