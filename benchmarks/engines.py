"""Speed and accuracy of the engines, as ratios within one run.

    python benchmarks/engines.py PROFILE DATASET ARCHIVE

For example ``profiles/photographs.yaml photographs 256_ObjectCategories.tar``, or ``params.yaml
clipart data/clipart.tar``. The picture size is that of the profile, the layer is its last one.

Every batch of pictures goes through all engines in turn, so that what else the machine does slows
all of them down. Then a head is trained on the features of each engine, for each split and size. It
is tested on features of the same engine, and on TensorFlow's, as ``predict`` and a server use it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from vgg16_transfer.backbones import base, calibrated
from vgg16_transfer.backbones.decoding import decode
from vgg16_transfer.backbones.engines import base as engines
from vgg16_transfer.backbones.features import distinct_pictures
from vgg16_transfer.backbones.weights import write_weights
from vgg16_transfer.engines import DEFAULT_ENGINE, ENGINES
from vgg16_transfer.errors import InputError
from vgg16_transfer.heads.base import Data, Pictures
from vgg16_transfer.heads.kinds import softmax
from vgg16_transfer.images.archives import map_files, open_archive
from vgg16_transfer.images.manifests import read_manifests
from vgg16_transfer.images.splits import write_splits
from vgg16_transfer.params import Trial, read_params

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import pandas as pd

    from vgg16_transfer.backbones.engines.base import Network
    from vgg16_transfer.params import Backbone

SIZES = (2, 4, 8, 16)
BATCH = 32
WEIGHTS = "network.weights.h5"


class Measured(NamedTuple):
    """What an engine did.

    Attributes:
        seconds: Of each batch, per picture.
        processor: Seconds of all cores together, of each batch, per picture. What else the machine
            does hardly changes them.
        features: The last layer's, in the order of the pictures, as they are stored.
    """

    seconds: list[float]
    processor: list[float]
    features: npt.NDArray[np.float16]


def networks(backbone: Backbone, folder: Path, layers: list[str]) -> Iterator[tuple[str, Network]]:
    """The network, as each engine runs it."""
    network = base.load(backbone.network, folder / WEIGHTS, backbone.image_size)
    reference = base.tap(backbone.network, network, layers)
    yield DEFAULT_ENGINE, reference
    for engine, row in ENGINES.items():
        for precision, format_ in row.precisions.items():
            if engine == DEFAULT_ENGINE:
                continue
            used = backbone.model_copy(update={"engine": engine, "precision": precision})
            converted = folder / precision if format_.calibrated else None
            if converted is not None:
                converted.mkdir()
                start = time.perf_counter()
                model = engines.tapped_model(network, layers)
                engines.calibrate(used, model, np.load(folder / "chosen.npy"), converted)
                print(f"{engine} {precision}: calibrated in {time.perf_counter() - start:.0f} s")
            opened = engines.opened(used, reference, network, converted)
            start = time.perf_counter()
            try:
                opened.forward(np.load(folder / "chosen.npy")[:2])
            except InputError as error:
                print(f"left out: {error}")
                continue
            print(
                f"{engine} {precision}: opened and compared in {time.perf_counter() - start:.1f} s"
            )
            yield f"{engine} {precision}", opened


def measure(
    opened: dict[str, Network], pictures: npt.NDArray[np.uint8], layer: str
) -> dict[str, Measured]:
    """Sends all pictures through all engines, a batch at a time."""
    width = int(np.prod(opened[DEFAULT_ENGINE].shapes[layer]))
    measured = {
        name: Measured([], [], np.empty((len(pictures), width), np.float16)) for name in opened
    }
    worst = dict.fromkeys(opened, 0.0)
    for start in range(0, len(pictures), BATCH):
        batch = pictures[start : start + BATCH]
        expected: Any = None
        for name, network in opened.items():
            began, used = time.perf_counter(), time.process_time()
            size = network.batch_size
            parts = [network.forward(batch[row : row + size]) for row in range(0, len(batch), size)]
            measured[name].seconds.append((time.perf_counter() - began) / len(batch))
            measured[name].processor.append((time.process_time() - used) / len(batch))
            output = {each: np.concatenate([part[each] for part in parts]) for each in parts[0]}
            measured[name].features[start : start + BATCH] = output[layer].reshape(len(batch), -1)
            expected = output if expected is None else expected
            worst[name] = max(
                worst[name],
                *(
                    engines.distance(ours, theirs)
                    for each in output
                    for ours, theirs in zip(output[each], expected[each], strict=True)
                ),
            )
    for name, one in measured.items():
        reference = measured[DEFAULT_ENGINE]
        ratios = np.divide(reference.seconds, one.seconds)
        processor = np.median(np.divide(reference.processor, one.processor))
        print(
            f"{name}: {1 / np.median(one.seconds):.1f} pictures/s, {np.median(ratios):.2f} times "
            f"{DEFAULT_ENGINE} ({np.quantile(ratios, 0.25):.2f} to "
            f"{np.quantile(ratios, 0.75):.2f}), by processor time {processor:.2f}; largest "
            f"difference {worst[name]:.2g}"
        )
    return measured


def accuracies(
    manifests: list[pd.DataFrame],
    place: dict[str, int],
    features: npt.NDArray[np.float16],
    shown: npt.NDArray[np.float16],
    shape: tuple[int, ...],
) -> npt.NDArray[np.float64]:
    """Test accuracy of a head for each split and size: trained on features, tested on others."""
    result = np.empty((len(manifests), len(SIZES)))
    for row, manifest in enumerate(manifests):
        rows = np.array([place[sha256] for sha256 in manifest["sha256"]])
        labels = manifest["label"].to_numpy()
        for column, samples in enumerate(SIZES):
            chosen = (manifest["role"] == "train") & (manifest["rank"] < samples)
            train, test = chosen.to_numpy(), (manifest["role"] == "test").to_numpy()
            roles = {
                "train": Pictures(features[rows[train]].astype(np.float32), labels[train]),
                "test": Pictures(shown[rows[test]].astype(np.float32), labels[test]),
            }
            trial = Trial(samples_per_class=samples, seed=row)
            data = Data(roles["train"], roles, shape, int(labels.max()) + 1)
            fitted = softmax.fit(trial, data)
            result[row, column] = fitted.history["test_accuracy"].iloc[-1]
    return result


def line(values: npt.NDArray[np.float64], form: str) -> str:
    """Numbers of each size, in per cent."""
    return " ".join(format(100 * value, form) for value in values)


def main() -> None:
    """Runs all engines and prints what each costs and gives."""
    profile, name, archive = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    params = read_params(profile)
    backbone, dataset = params.backbone, params.dataset(name)
    layers = dataset.layers
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        splits = folder / name
        write_splits(name, dataset, archive, splits)
        write_weights(backbone.network, backbone.weights, folder / WEIGHTS)
        with open_archive(archive) as opened:
            files = distinct_pictures(splits, opened.names())
            names = [picture.path for picture in files]
            squares = map_files(opened, names, lambda content: decode(content, backbone))
            pictures = np.stack(list(squares))
        place = {picture.sha256: row for row, picture in enumerate(files)}
        order = [place[sha256] for sha256, _ in calibrated.chosen(splits)]
        np.save(folder / "chosen.npy", pictures[order])
        digest = hashlib.sha256(pictures.tobytes()).hexdigest()[:8]
        print(f"{name}: {len(files)} pictures ({digest}) at {backbone.image_size} pixels")
        running = dict(networks(backbone, folder, layers))
        measured = measure(running, pictures, layers[-1])
        shape = running[DEFAULT_ENGINE].shapes[layers[-1]]
        manifests = read_manifests(splits)
    reference = measured[DEFAULT_ENGINE].features
    expected = accuracies(manifests, place, reference, reference, shape)
    print(f"accuracy of {DEFAULT_ENGINE}: {line(expected.mean(0), '.1f')} at {SIZES}")
    for engine, one in measured.items():
        if engine == DEFAULT_ENGINE:
            continue
        own = accuracies(manifests, place, one.features, one.features, shape)
        served = accuracies(manifests, place, one.features, reference, shape)
        differences = [line((each - expected).mean(0), "+.2f") for each in (own, served)]
        print(
            f"{engine}: {line(own.mean(0), '.1f')}, difference {differences[0]}; "
            f"tested on TensorFlow's features {differences[1]}"
        )


if __name__ == "__main__":
    main()
