"""What a profile needs on the disk, by arithmetic: features and heads of all its studies.

    python benchmarks/disk.py [profiles/paper.yaml]

Bytes of a picture's features were measured on photographs at 224 pixels; those of dense layers are
taken as if nothing were zero. Heads are float32. DVC's cache holds all of it a second time, unless
the file system shares blocks between copies (Btrfs, XFS, APFS), and MLflow's store has a copy of
the heads.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vgg16_transfer.params import read_params

if TYPE_CHECKING:
    from vgg16_transfer.params import Trial

GIGA = 1e9
PICTURES = {"caltech256": 30_607, "urban_tribes": 264}
CLASSES = {"caltech256": 257, "urban_tribes": 11}
FEATURES = {"block3_pool": 193_600, "block4_pool": 55_400, "block5_pool": 8_100}  # bytes of one
FEATURES |= {"fc1": 8192, "fc2": 8192, "predictions": 2000}
PIECES = {"block3_pool": 7, "block4_pool": 4}  # of a row; each has 43 bytes in the index
WIDTHS = {"block3_pool": 200_704, "block4_pool": 100_352, "block5_pool": 25_088}
WIDTHS |= {"fc1": 4096, "fc2": 4096, "predictions": 1000}
CHANNELS = {"block3_pool": 256, "block4_pool": 512, "block5_pool": 512}
BLOCK5 = 3 * (3 * 3 * 512 * 512 + 512)
DENSE = {"fc1": 25_088 * 4096 + 4096, "fc2": 4096 * 4096 + 4096}


def features(layers: tuple[str, ...], layout: str) -> float:
    """Bytes of a dataset's store."""
    of_picture = sum(FEATURES[layer] + 43 * PIECES.get(layer, 1) for layer in layers)
    return float(of_picture * PICTURES[layout])


def head(trial: Trial, layout: str) -> float:
    """Bytes of a head's file. It holds what was trained, and nothing else."""
    width = CHANNELS[trial.layer] if trial.pooling == "average" else WIDTHS[trial.layer]
    numbers = (width + 1) * CLASSES[layout]
    if trial.fine_tune_from == "block5":
        numbers += BLOCK5 + sum(DENSE.values())
    return 4.0 * numbers


def main() -> None:
    """Prints what each part needs, and the sums."""
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("profiles/paper.yaml")
    params = read_params(given)
    stores = heads = 0.0
    for name, dataset in params.datasets.items():
        size = features(tuple(dataset.layers), dataset.layout)
        stores += size
        print(f"features of {name:24} {size / GIGA:6.2f} GB")
    for name, study in params.studies.items():
        layout = params.datasets[study.dataset].layout
        size = sum(head(trial, layout) for trial in study.trials())
        heads += size
        print(f"heads of {name:27} {size / GIGA:6.2f} GB")
    print(f"features {stores / GIGA:.1f} GB, heads {heads / GIGA:.1f} GB")
    everything = 2 * (stores + heads) + heads
    print(f"with DVC's cache and MLflow's copy of the heads {everything / GIGA:.0f} GB")


if __name__ == "__main__":
    main()
