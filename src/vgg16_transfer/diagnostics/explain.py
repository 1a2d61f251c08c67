"""[stage] Explains one head of a study → reports/explained/<study>/*.png, *.svg and captions.json.

The pictures show the classes that the head confuses most, the training pictures whose features are
nearest to those of test pictures and, for pooling layers, class activation maps.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.backbones.store import FeatureStore
from vgg16_transfer.diagnostics import evidence, sheets
from vgg16_transfer.diagnostics.sheets import NO, YES, Row, Tile
from vgg16_transfer.heads import records, saved
from vgg16_transfer.images import pictures
from vgg16_transfer.images.manifests import read_manifest
from vgg16_transfer.reporting import figures

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from vgg16_transfer.diagnostics.evidence import Floats, Neighbour, Pair
    from vgg16_transfer.images.source import Source
    from vgg16_transfer.params import Study, Trial

    Read = Callable[[str], Image.Image]

CAPTIONS = "captions.json"
"""Alternative texts by file name of the picture, in the order of the page."""

PAIRS = 4
PER_PAIR = 2
PROBES = 6
NEIGHBOURS = 5

_SIDE, _SMALL_SIDE = 1.3, 1.0  # inches; sides of a tile


class Explained(NamedTuple):
    """The trial that is explained, with its data.

    Attributes:
        head: Name of the head in captions.
        trial: The trial with its settings.
        predictions: Rows of ``predictions.csv`` of the trial, with the ``sha256`` of each picture.
        train: Rows of the manifest that the head was trained on.
        sha256s: Hashes of all pictures of the split, by path.
        store: Store of the features.
    """

    head: str
    trial: Trial
    predictions: pd.DataFrame
    train: pd.DataFrame
    sha256s: Mapping[str, str]
    store: FeatureStore


def write_explained(
    study: Study,
    *,
    splits: Path,
    source: Source,
    features: Mapping[str, Path],
    heads: Path,
    results: Path,
    out: Path,
) -> None:
    """Writes the pictures and their captions. The whole folder is replaced.

    Confusions are left out if the head makes none. Maps are left out for a dense layer, which has
    no positions, and for a fine-tuned network, whose activations are not stored. The folder is
    empty but for the captions if all trials of the study failed.

    Args:
        study: The study; one of its trials is explained.
        splits: Folder of the dataset's manifests.
        source: Source of the dataset's pictures.
        features: Store of the dataset's features, by backbone.
        heads: Folder of the study's heads.
        results: Folder of the study's record; see :mod:`~vgg16_transfer.heads.records`.
        out: Folder to write.

    Raises:
        RecordError: The study has no results for the pictures of the split.
        FeaturesError: The store is missing or damaged, or lacks a picture.
        HeadError: The head is missing or damaged.
        SourceError: The source lacks a picture, or the picture has changed.
    """
    trials = records.read_frame(results / "trials.csv", ["trial", "status"])
    finished = set(trials.loc[trials["status"] == records.FINISHED, "trial"])
    trial = evidence.chosen_trial(study, finished)
    if trial is None:
        _publish({}, {}, out)
        return
    explained = read_explained(study, trial, splits=splits, features=features, results=results)
    probes = evidence.chosen_probes(explained.predictions, PROBES)
    sha256s = probes["sha256"].tolist()
    pairs = evidence.confused_pairs(explained.predictions)[:PAIRS]
    near = evidence.nearest(explained.trial, explained.store, sha256s, explained.train, NEIGHBOURS)
    drawn: dict[str, Figure] = {}
    captions: dict[str, str] = {}
    with source.open() as opened:

        def read(path: str) -> Image.Image:
            return pictures.decode(opened.read(path, explained.sha256s[path]))

        if pairs:
            drawn["confusions.png"] = draw_confusions(pairs, explained.train, read)
            captions["confusions.png"] = describe_confusions(explained, pairs)
        drawn["nearest.png"] = draw_nearest(probes, near, read)
        captions["nearest.png"] = describe_nearest(explained, probes, near)
        if evidence.has_maps(explained.trial):
            name = study.trial_name(explained.trial)
            maps = predicted_maps(explained, probes, heads / f"{name}.keras")
            drawn["activation_maps.png"] = draw_maps(probes, maps, read, explained.store.recipe)
            captions["activation_maps.png"] = describe_maps(explained, probes, maps)
    _publish(drawn, captions, out)


def read_explained(
    study: Study, trial: Trial, *, splits: Path, features: Mapping[str, Path], results: Path
) -> Explained:
    """Reads the data of the trial that is explained; see :func:`write_explained` for errors."""
    name = study.trial_name(trial)
    store = FeatureStore.open(features[trial.backbone])
    split = splits / f"{trial.seed}.csv"
    manifest = read_manifest(split)
    sha256s = dict(zip(manifest["path"], manifest["sha256"], strict=True))
    path = results / "predictions.csv"
    measured = records.read_frame(path, ["trial", *records.PREDICTED])
    predictions = measured[measured["trial"] == name].assign(
        sha256=lambda frame: frame["path"].map(sha256s)
    )
    if predictions.empty or predictions["sha256"].isna().any():
        raise records.RecordError(
            f"{results}: holds no trial {name} on the pictures of {split}; run dvc repro"
        )
    train = manifest[(manifest["role"] == "train") & (manifest["rank"] < trial.samples_per_class)]
    setting = "" if name == "only" else f" with {name.replace(',', ', ')}"
    head = f"the head of {study.name}{setting}"
    return Explained(head, trial, predictions, train, sha256s, store)


def predicted_maps(explained: Explained, probes: pd.DataFrame, head: Path) -> list[Floats]:
    """Activation map of each probe for its predicted class."""
    kernel = saved.kernel(head)
    labels = {name: label for label, name in enumerate(saved.made_of(head).class_names)}
    rows = explained.store.rows(explained.trial.layer, probes["sha256"].tolist())
    rows = rows.reshape(-1, *explained.store.shapes[explained.trial.layer])
    return [
        evidence.activation_map(explained.trial, activations, kernel[:, labels[predicted]])
        for activations, predicted in zip(rows, probes["predicted"], strict=True)
    ]


def draw_confusions(pairs: Sequence[Pair], train: pd.DataFrame, read: Read) -> Figure:
    """Draws a row per pair: confused test pictures, then training pictures of the predicted class.

    Args:
        pairs: At least one pair.
        train: Rows of a manifest: the training pictures.
        read: Function that returns a picture by its path.
    """
    rows = []
    for pair in pairs:
        train_paths = train.loc[train["class_name"] == pair.predicted, "path"].tolist()
        rows.append(
            Row(
                f"{pair.true} → {pair.predicted}: {len(pair.paths)} of {pair.of} test pictures",
                [
                    *_tiles(read, pair.paths, f"test: {pair.true}", NO),
                    *_tiles(read, train_paths, f"training: {pair.predicted}"),
                ],
            )
        )
    return sheets.sheet(rows, _SIDE)


def draw_nearest(probes: pd.DataFrame, near: Sequence[Sequence[Neighbour]], read: Read) -> Figure:
    """Draws a row per probe: the probe, then its neighbours with a mark for the same class."""
    rows = []
    for probe, neighbours in zip(_of(probes), near, strict=True):
        tiles = [Tile(read(probe["path"]), "test picture")]
        for path, class_name, similarity in neighbours:
            mark = YES if class_name == probe["true"] else NO
            tiles.append(Tile(read(path), f"{class_name} {similarity:.2f}", mark))
        rows.append(Row(f"{probe['true']}: {_verdict(probe)}", tiles))
    return sheets.sheet(rows, _SMALL_SIDE)


def draw_maps(
    probes: pd.DataFrame, maps: Sequence[Floats], read: Read, recipe: Mapping[str, Any]
) -> Figure:
    """Draws each probe as the network sees it, then with its map on top; two probes per row.

    Args:
        probes: Rows of predictions.
        maps: Activation maps of the probes.
        read: Function that returns a picture by its path.
        recipe: Settings of the features: ``image_size``, in pixels, and ``resize``.
    """
    tiles = []
    for probe, shares in zip(_of(probes), maps, strict=True):
        picture = read(probe["path"])
        pixels = pictures.to_square(picture, recipe["image_size"], recipe["resize"])
        mark = YES if probe["true"] == probe["predicted"] else NO
        tiles.append(Tile(Image.fromarray(pixels), probe["true"]))
        # No coloured frame: it could be confused with the colours of the map.
        tiles.append(Tile(sheets.overlay(pixels, shares), f"{mark} {_verdict(probe)}"))
    legend = Row("orange speaks for the class that was predicted, blue against it")
    return sheets.sheet(
        [legend, *(Row("", tiles[i : i + 4]) for i in range(0, len(tiles), 4))], _SIDE
    )


def describe_confusions(explained: Explained, pairs: Sequence[Pair]) -> str:
    """Describes the figure in a sentence."""
    counts = [
        f"{len(pair.paths)} of {pair.of} test pictures of {pair.true} for {pair.predicted}"
        for pair in pairs
    ]
    return f"What {explained.head} confuses most often: it takes {_listed(counts)}."


def describe_nearest(
    explained: Explained, probes: pd.DataFrame, near: Sequence[Sequence[Neighbour]]
) -> str:
    """Describes the figure in a sentence."""
    parts: list[str] = []
    for verb, is_right in (("recognises", True), ("mistakes", False)):
        group = [
            (probe, neighbours)
            for probe, neighbours in zip(_of(probes), near, strict=True)
            if (probe["true"] == probe["predicted"]) == is_right
        ]
        same_class = [
            one.class_name == probe["true"] for probe, neighbours in group for one in neighbours
        ]
        if group:
            who = "it" if parts else explained.head
            tests = f"{len(group)} test pictures that {who} {verb}"
            parts.append(f"{sum(same_class)} of {len(same_class)} are of the class of {tests}")
    before = "" if explained.trial.fine_tune_from == "none" else " before it was fine-tuned"
    return f"Of the training pictures nearest in {explained.trial.layer}{before}, {_listed(parts)}."


def describe_maps(explained: Explained, probes: pd.DataFrame, maps: Sequence[Floats]) -> str:
    """Describes the figure in a sentence."""
    probe_texts = [f"{probe['true']} ({_verdict(probe)})" for probe in _of(probes)]
    part = np.mean([evidence.focus(shares) for shares in maps])
    return (
        f"Class activation maps of {explained.head} on {explained.trial.layer}, over "
        f"{_listed(probe_texts)}: half of what speaks for the predicted class comes from "
        f"{part:.0%} of the positions on average."
    )


def _publish(drawn: Mapping[str, Figure], captions: Mapping[str, str], out: Path) -> None:
    with replacing(out) as fresh:
        fresh.mkdir()
        for name, figure in drawn.items():
            figures.save(figure, fresh / name)
            figures.save(figure, (fresh / name).with_suffix(".svg"))
        text = json.dumps(captions, indent=2, ensure_ascii=False)
        (fresh / CAPTIONS).write_text(text + "\n", encoding="utf-8")


def _tiles(read: Read, paths: Sequence[str], title: str, mark: str = "") -> list[Tile | None]:
    tiles: list[Tile | None] = [Tile(read(path), title, mark) for path in paths[:PER_PAIR]]
    return tiles + [None] * (PER_PAIR - len(tiles))


def _of(probes: pd.DataFrame) -> list[dict[Hashable, str]]:
    return probes[["path", "true", "predicted"]].to_dict("records")


def _verdict(probe: Mapping[Hashable, str]) -> str:
    if probe["true"] == probe["predicted"]:
        return "recognised"
    return f"taken for {probe['predicted']}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
