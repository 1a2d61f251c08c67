"""Where the time of ``dvc repro`` of the sample profile goes, from nothing to the page.

    python benchmarks/pipeline.py FOLDER

FOLDER becomes a clone of this repository. Seconds are by the clock, with what DVC does meanwhile.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tables import print_table
from workspaces import cloned, repro

from vgg16_transfer.params import read_params

PARTS = {
    "fetch, split and check pictures and weights": ("dvc", "fetch", "splits", "sources", "weights"),
    "the forward pass": ("features",),
    "train": ("train",),
    "filters and gradients": ("filters", "gradients"),
    "explain": ("explain",),
    "the page": ("report",),
}
"""Kinds of stages."""


def main() -> None:
    """Runs it twice, and prints a table."""
    workspace = cloned(Path(sys.argv[1]))
    seconds = repro(workspace)
    again = repro(workspace)
    params = read_params(workspace / "params.yaml")
    heads = sum(len(study.trials()) for study in params.studies.values())
    rows = [
        (
            f"{part} {heads} heads of {len(params.studies)} studies" if part == "train" else part,
            f"{sum(seconds.get(kind, 0) for kind in kinds):.0f} s",
        )
        for part, kinds in PARTS.items()
    ]
    rows.append(("**all**", f"**{seconds['total']:.0f} s**"))
    rest = seconds["total"] - seconds["features"]
    rows.append(("all but the forward pass (target: 45 s)", f"{rest:.0f} s"))
    rows.append(("`dvc repro` again, with nothing to do", f"{again['total']:.1f} s"))
    print_table(["`dvc repro` of the sample profile", "by the clock"], rows)


if __name__ == "__main__":
    main()
