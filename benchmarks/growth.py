"""How `dvc repro` grows with the number of pictures, up to Caltech-256's 30,607.

    python benchmarks/growth.py FOLDER [--pictures 300 3000 30607] [--plot docs/images/growth.svg]

Pictures are made up: noise of 32 x 32 pixels in 100 classes. VGG16 with random weights needs 2 % of
the arithmetic of 224 x 224 for one, so that what is measured is what surrounds it. For each number
of pictures, in a clone of its own below FOLDER: everything from nothing up to the features; the
rest, for one study; ``dvc repro`` with nothing to do; 1 % more pictures, up to the features.

Seconds are by the clock; memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tables import print_table
from tqdm import tqdm
from workspaces import cloned, write_params

CLASSES = 100
SIDE = 32
COLUMNS = ("up to the features", "one study", "nothing to do", "1 % more, up to the features")


class Took(NamedTuple):
    """Seconds by the clock, and the memory of the largest process, in GB."""

    seconds: float
    memory: float


def write_archive(path: Path, count: int) -> None:
    """A tar of so many pictures. The first ones of a longer archive are those of a shorter one."""
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            buffer = io.BytesIO()
            random = np.random.default_rng(number)
            pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
            member = tarfile.TarInfo(f"class{number % CLASSES:03}/{number}.png")
            member.size = buffer.tell()
            tar.addfile(member, io.BytesIO(buffer.getvalue()))


def params(archive: Path, count: int) -> dict[str, Any]:
    """All pictures but two of each class are training pictures, so that all pass the network."""
    split = {"seeds": [0], "train_per_class": count // CLASSES - 2, "test_per_class": 2}
    return {
        "backbone": {"weights": "random-conv", "image_size": SIDE},
        "datasets": {
            "made": {
                "source": str(archive),
                "layout": "class_folders",
                "split": split,
                "layers": ["block5_pool"],
            }
        },
        "studies": {"made-up": {"dataset": "made", "samples_per_class": 1, "epochs": 20}},
    }


def took(folder: Path, *targets: str) -> Took:
    """Runs ``dvc repro`` with some targets."""
    # GNU time is not everywhere; a process of its own knows the memory of what it has run.
    measured = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    command = [sys.executable, "-c", measured, "dvc", "repro", "--quiet", *targets]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    began = time.perf_counter()
    run = subprocess.run(
        command, cwd=folder, env=clean, check=True, stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - began
    return Took(seconds, int(run.stdout.split()[-1]) / 1e6)


def measure(folder: Path, count: int) -> dict[str, Took]:
    """All that is measured for a number of pictures."""
    workspace, archive = folder / str(count), folder / f"{count}.tar"
    write_archive(archive, count)
    cloned(workspace, params(archive, count))
    first = took(workspace, "features@made")
    rest = took(workspace)
    nothing = took(workspace)
    more = count + max(CLASSES, count // 100 // CLASSES * CLASSES)
    write_archive(archive, more)
    write_params(workspace, params(archive, more))
    return dict(zip(COLUMNS, (first, rest, nothing, took(workspace, "features@made")), strict=True))


def plot(measured: dict[int, dict[str, Took]], path: Path) -> None:
    """Draws seconds and memory against the number of pictures."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    for column in COLUMNS:
        values = [of[column] for of in measured.values()]
        seconds.plot(list(measured), [each.seconds for each in values], "o-", label=column)
        memory.plot(list(measured), [each.memory for each in values], "o-", label=column)
    for axes, title in ((seconds, "seconds"), (memory, "memory of the largest process, GB")):
        axes.set_xscale("log")
        axes.set_xlabel("pictures")
        axes.set_ylabel(title)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    seconds.set_yscale("log")
    memory.set_ylim(bottom=0)
    seconds.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measures each number of pictures and prints a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="an empty folder")
    parser.add_argument("--pictures", type=int, nargs="+", default=[300, 3000, 30607])
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    measured: dict[int, dict[str, Took]] = {}
    for count in tqdm(asked.pictures, unit="size", disable=None):
        measured[count] = measure(asked.folder.resolve(), count)
    rows = [
        (f"{count:,}", *(f"{took.seconds:.1f} s, {took.memory:.2f} GB" for took in of.values()))
        for count, of in measured.items()
    ]
    print_table(["pictures", *COLUMNS], rows)
    if asked.plot:
        plot(measured, asked.plot)


if __name__ == "__main__":
    main()
