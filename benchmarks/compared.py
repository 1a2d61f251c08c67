"""Test accuracy of all kinds of heads on ten splits of pictures at 224 pixels.

    python benchmarks/compared.py FOLDER [PICTURES]

FOLDER becomes a clone, or is one that :mod:`study` left, whose features are used again. Settings
that a head has are chosen on validation pictures, which are test pictures in no split.
"""

from __future__ import annotations

import sys
from pathlib import Path

from study import LAYERS, SIZES
from tables import print_table
from workspaces import CLIPART, cloned, photographs, repro, write_params

from vgg16_transfer.heads import records
from vgg16_transfer.images.manifests import read_manifest

SEEDS = list(range(10))
HEADS = ["softmax", "logistic", "linear_svm", "nearest_mean", "nearest_neighbours"]
"""The default first."""


def main() -> None:
    """Trains all heads, and prints a table."""
    folder = Path(sys.argv[1])
    pictures = Path(sys.argv[2]) if len(sys.argv) > 2 else CLIPART  # noqa: PLR2004
    dataset = photographs(pictures, seeds=SEEDS)
    study = {
        "dataset": "photographs",
        "layer": "block5_pool",
        "head": HEADS,
        "neighbours": 1,
        "samples_per_class": SIZES,
        "seed": SEEDS,
    }
    params = {
        "backbone": {"weights": "imagenet-conv"},
        "datasets": {"photographs": dataset | {"layers": LAYERS}},
        "studies": {"compared": study},
    }
    if folder.exists():
        write_params(folder, params)
    else:
        cloned(folder, params)
    repro(folder, "train@compared")
    trials = records.read(folder / "results" / "compared").trials
    split = read_manifest(folder / "data" / "splits" / "photographs" / "0.csv")
    tested = int((split["role"] == "test").sum())
    accuracy = 100 * trials.pivot_table(
        "accuracy", "head", "samples_per_class", ["mean", "std"], sort=False
    )
    mean, deviation = accuracy["mean"], accuracy["std"]
    about = f"{split['label'].nunique()} classes, {tested} test pictures, {len(SEEDS)} splits"
    rows = [
        (f"`{head}`", *(f"{mean[n][head]:.1f} ± {deviation[n][head]:.1f}" for n in SIZES))
        for head in HEADS
    ]
    print_table([f"accuracy in %, {about}", *SIZES], rows)
    behind = mean.max() - mean.loc[HEADS[0]]
    points = ", ".join(f"{behind[size]:.1f}" for size in SIZES)
    print(f"\nThe default is behind the best of them by {points} points (target: 0.3).")


if __name__ == "__main__":
    main()
