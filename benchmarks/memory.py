"""How much memory a study takes, on made-up stores of several sizes.

    python benchmarks/memory.py FOLDER [--pictures 8224 30607] [--layer block5_pool] [--samples 8]

For each size, FOLDER gets a store of random activations with as many zeros as VGG16's have, and the
splits of 257 classes. Then a process of its own trains a study on it, as `dvc repro` does, and says
its peak memory. Stores are kept, and used again. `block3_pool` of 30,607 pictures takes 6.2 GB of
disk, and minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tables import print_table
from tqdm import tqdm

from vgg16_transfer.backbones import store as stores
from vgg16_transfer.backbones.store import CHUNK, FeatureStore

CLASSES, TEST = 257, 8
SHAPES = {"block3_pool": (28, 28, 256), "block4_pool": (14, 14, 512), "block5_pool": (7, 7, 512)}
ZEROS = {"block3_pool": 0.58, "block4_pool": 0.79, "block5_pool": 0.90}  # measured on photographs
GIGA = 1e9


def make_store(folder: Path, layer: str, pictures: int, samples: int) -> None:
    """A store of random numbers, and the manifest of a split. What is there already is kept."""
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(pictures)]
    labels = np.arange(pictures) * CLASSES // pictures  # the archive has one class after the other
    if not (folder / "features" / stores.INDEX).exists():
        fresh = folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        store = FeatureStore.create(fresh, {"dtype": "float16"}, {layer: SHAPES[layer]})
        width = int(np.prod(SHAPES[layer]))
        random = np.random.default_rng(0)
        pool = random.gamma(1.0, 20.0, 3 * width).astype(np.float16)
        pool[random.random(len(pool)) < ZEROS[layer]] = 0
        for start in tqdm(range(0, pictures, CHUNK), unit="chunk", disable=None):
            chunk = slice(start, min(start + CHUNK, pictures))
            rows = np.stack([row_of(pool, width, label, random) for label in labels[chunk]])
            store.write(ids[chunk], {layer: rows})
        store.settle()
        fresh.rename(folder / "features")
    rank = pd.Series(labels).groupby(labels).cumcount()
    frame = pd.DataFrame(
        {
            "path": [f"{number}.jpg" for number in range(pictures)],
            "label": labels,
            "class_name": [f"class {label:03}" for label in labels],
            "sha256": ids,
            "role": np.where(rank < samples, "train", "test"),
            "rank": np.where(rank < samples, rank, rank - samples),
        }
    )
    (folder / "splits").mkdir(exist_ok=True)
    frame[rank < samples + TEST].to_csv(folder / "splits" / "0.csv", index=False)


def row_of(pool: np.ndarray, width: int, label: int, random: np.random.Generator) -> np.ndarray:
    """A third of a row tells its class, the rest is its own."""
    own = int(random.integers(2 * width))
    row = pool[own : own + width].copy()
    common = label * 1999 % (2 * width)
    row[: width // 3] = pool[common : common + width // 3]
    return row


def train(folder: Path, layer: str, samples: int) -> None:
    """Trains a study of one trial, and prints what it took as JSON."""
    from vgg16_transfer.heads import records
    from vgg16_transfer.heads.studies import Streamed, train_study
    from vgg16_transfer.images.source import Source
    from vgg16_transfer.params import check_params

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decoded = 0
    decode = stores.decode

    def counted(content: bytes, dtype: str, count: int) -> np.ndarray:
        nonlocal decoded
        decoded += count
        return decode(content, dtype, count)

    stores.decode = counted
    split = {"seeds": [0], "train_per_class": samples, "test_per_class": TEST}
    study = {"dataset": "d", "layer": layer, "samples_per_class": samples, "epochs": 100}
    raw = {
        "backbone": {"weights": "imagenet"},
        "datasets": {"d": {"source": "d.tar", "layers": [layer], "split": split}},
        "studies": {"s": study},
    }
    start, processor = time.perf_counter(), time.process_time()
    train_study(
        check_params(raw).studies["s"],
        splits=folder / "splits",
        features={"vgg16": folder / "features"},
        streamed=Streamed(Source(folder), {}),
        heads=folder / "heads" / "s",
        results=folder / "results" / "s",
    )
    took = time.perf_counter() - start, time.process_time() - processor
    accuracy = records.read(folder / "results" / "s").trials["accuracy"].iloc[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asked = CLASSES * (samples + TEST) * int(np.prod(SHAPES[layer]))
    print(
        json.dumps(
            {
                "imports_gb": round(before * 1024 / GIGA, 2),
                "peak_gb": round(peak * 1024 / GIGA, 2),
                "passes": round(decoded / asked, 2),
                "seconds": round(took[0]),
                "cpu_seconds": round(took[1]),
                "test_accuracy": round(float(accuracy), 4),
            }
        )
    )


def row(folder: Path, pictures: int, layer: str, samples: int) -> tuple[str, ...]:
    """Makes a store, trains in a process of its own, and says what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    make_store(folder, layer, pictures, samples)
    size = sum(path.stat().st_size for path in (folder / "features").iterdir())
    for results in ("heads", "results"):
        shutil.rmtree(folder / results, ignore_errors=True)
    asked = ["--layer", layer, "--samples", str(samples)]
    done = subprocess.run(
        [sys.executable, __file__, folder, *asked, "--train"],
        check=True,
        capture_output=True,
        text=True,
    )
    took = json.loads(done.stdout.strip().splitlines()[-1])
    return (
        f"{pictures:,}",
        f"{size / GIGA:.1f} GB",
        f"{took['peak_gb']:.2f} GB",
        f"{took['imports_gb']:.2f} GB",
        f"{took['passes']:.1f}",
        f"{took['cpu_seconds']} s",
    )


def main() -> None:
    """Measures each size, and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, nargs="+", default=[8224, 30_607])
    parser.add_argument("--layer", choices=SHAPES, default="block5_pool")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--train", action="store_true", help="only train, in this process")
    asked = parser.parse_args()
    if asked.train:
        train(asked.folder, asked.layer, asked.samples)
        return
    rows = []
    for pictures in asked.pictures:
        folder = asked.folder / f"{asked.layer}-{pictures}-{asked.samples}"
        rows.append(row(folder, pictures, asked.layer, asked.samples))
    print_table(
        [
            f"`{asked.layer}`, {CLASSES} classes, {asked.samples} + {TEST} of each: pictures",
            "on the disk",
            "peak memory",
            "of that, imports",
            "pieces decoded, over pieces of the trial's pictures",
            "CPU time",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
