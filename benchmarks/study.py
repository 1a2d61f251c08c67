"""A study of twelve settings against the script that trains through the network every epoch.

    python benchmarks/study.py FOLDER [PICTURES]

Ours is everything that ``dvc repro`` does for it in a clone at FOLDER. The script trains one of the
settings for two epochs; the others, and their eleven epochs, are arithmetic at its pictures per
second. PICTURES is an archive, by default the clip art.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tables import print_table
from workspaces import CLIPART, cloned, photographs, repro

from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.manifests import read_manifest

LAYERS = ["block3_pool", "block4_pool", "block5_pool"]
SIZES = [2, 4, 8, 16]
EPOCHS = 11  # of the 2017 report's first approach
MEASURED = 4  # pictures of a class that the script trains on
SCRIPT = Path(__file__).parent / "peers" / "keras_script.py"


def unpack(pictures: Path, split: Path, folder: Path) -> int:
    """Writes a split's pictures as the script reads them. Returns how many an epoch sees."""
    manifest = read_manifest(split)
    manifest = manifest[(manifest["role"] == "test") | (manifest["rank"] < MEASURED)]
    with open_archive(pictures) as opened:
        for number, row in enumerate(manifest.itertuples()):
            place = folder / str(row.role) / f"{row.label:03}"
            place.mkdir(parents=True, exist_ok=True)
            name = f"{number}{Path(str(row.path)).suffix}"
            (place / name).write_bytes(opened.read(str(row.path)))
    return len(manifest)


def main() -> None:
    """Measures both, and prints a table."""
    folder = Path(sys.argv[1])
    pictures = Path(sys.argv[2]) if len(sys.argv) > 2 else CLIPART  # noqa: PLR2004
    dataset = photographs(pictures, seeds=[0], validation_per_class=0) | {"layers": LAYERS}
    study = {"dataset": "photographs", "layer": LAYERS, "samples_per_class": SIZES}
    params = {
        "backbone": {"weights": "imagenet-conv"},
        "datasets": {"photographs": dataset},
        "studies": {"twelve": study},
    }
    workspace = cloned(folder, params)
    ours = repro(workspace, "train@twelve")
    split = workspace / "data" / "splits" / "photographs" / "0.csv"
    an_epoch = unpack(pictures, split, folder / "unpacked")
    printed = subprocess.run(
        [sys.executable, SCRIPT, folder / "unpacked"], check=True, capture_output=True, text=True
    )
    rate = an_epoch / float(printed.stdout.split()[-1])
    manifest = read_manifest(split)
    classes = manifest["label"].nunique()
    test = int((manifest["role"] == "test").sum())
    passes = EPOCHS * len(LAYERS) * sum(classes * size + test for size in SIZES)
    theirs = passes / rate
    print_table(
        [f"twelve heads, {classes} classes, 224 pixels", "forward passes", "by the clock"],
        [
            (
                "this project: `dvc repro train@twelve`, from the archive to the runs in MLflow",
                f"{len(manifest):,}",
                f"{ours['total']:.0f} s, of which {ours['features']:.0f} s the forward pass",
            ),
            (
                f"Keras's `fit` on pictures, {EPOCHS} epochs each, at {rate:.1f} pictures/s",
                f"{passes:,}",
                f"{theirs / 60:.0f} min: {theirs / ours['total']:.0f} times ours (target: 40)",
            ),
        ],
    )


if __name__ == "__main__":
    main()
