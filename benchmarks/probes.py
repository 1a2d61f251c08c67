"""A head on stored features, by this project and by what others would use, in turn.

    python benchmarks/probes.py [WORKSPACE] [--dataset photographs]

For each split and each number of pictures of a class, every peer fits a head for each of its
settings, of which validation pictures choose one. The time is that of one fit. Prints a table with
the medians of its ratios to ours, and the accuracies on test pictures.
"""

from __future__ import annotations

import argparse
import os
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from tables import print_table
from tqdm import tqdm

from vgg16_transfer.backbones.store import FeatureStore
from vgg16_transfer.images.manifests import read_manifest

if TYPE_CHECKING:
    import pandas as pd

SIZES = (2, 4, 8, 16)
LAYER = "block5_pool"
PEERS = ("ours", "scikit_learn", "torch_probe")
"""Modules of peers/, each with ``NAME``, ``SETTINGS`` and ``fit``."""


def roles_of(manifest: pd.DataFrame, samples: int) -> dict[str, np.ndarray]:
    """Rows by role, with so many training pictures of each class."""
    kept = (manifest["role"] != "train") | (manifest["rank"] < samples)
    return {
        role: np.flatnonzero(kept & (manifest["role"] == role))
        for role in ("train", "validation", "test")
    }


def fitted(
    peer: Any, features: np.ndarray, labels: np.ndarray, roles: dict[str, np.ndarray]
) -> tuple[float, float]:
    """Seconds of one fit, and the accuracy on test pictures of the setting that is best."""
    training = features[roles["train"]], labels[roles["train"]]
    began = time.perf_counter()
    heads = [peer.fit(*training, setting) for setting in peer.SETTINGS]
    seconds = (time.perf_counter() - began) / len(heads)

    def accuracy(predict: Any, role: str) -> float:
        rows = roles[role]
        return float((predict(features[rows]) == labels[rows]).mean())

    best = max(heads, key=lambda predict: accuracy(predict, "validation"))
    return seconds, accuracy(best, "test")


def main() -> None:
    """Runs all peers on all splits, and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path, nargs="?", default=Path())
    parser.add_argument("--dataset", default="photographs")
    asked = parser.parse_args()
    store = FeatureStore.open(asked.workspace / "data" / "features" / asked.dataset)
    splits = sorted((asked.workspace / "data" / "splits" / asked.dataset).glob("[0-9]*.csv"))
    peers = [import_module(f"peers.{name}") for name in PEERS]
    seconds = np.empty((len(peers), len(SIZES), len(splits)))
    accuracies = np.empty_like(seconds)
    for column, path in enumerate(tqdm(splits, unit="split", disable=None)):
        manifest = read_manifest(path)
        features = store.rows(LAYER, manifest["sha256"].tolist()).astype(np.float32)
        features = features.reshape(len(features), -1)
        labels = manifest["label"].to_numpy()
        for row, samples in enumerate(SIZES):
            roles = roles_of(manifest, samples)
            for number, peer in enumerate(peers):
                place = number, row, column
                seconds[place], accuracies[place] = fitted(peer, features, labels, roles)
    ratios = np.median(seconds / seconds[0], axis=2)
    head = [f"`{LAYER}`, {len(splits)} splits", "seconds of one fit, times ours"]
    print_table(
        [*head, "test accuracy, %"],
        [
            [peer.NAME, each(ratios[number], ".1f"), each(100 * accuracies[number].mean(1), ".1f")]
            for number, peer in enumerate(peers)
        ],
    )
    ours = each(np.median(seconds[0], axis=1), ".3f")
    print(f"\nAt {', '.join(map(str, SIZES))} pictures of a class. Ours takes {ours} s.")


def each(values: np.ndarray, form: str) -> str:
    """Numbers of all sizes."""
    return ", ".join(format(value, form) for value in values)


if __name__ == "__main__":
    main()
