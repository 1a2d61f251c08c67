"""[stage] What a head goes by → reports/explained/<study>/*.png and captions.json.

Pictures of one trial of a study: the classes it confuses most; the training pictures that lie
nearest to test pictures in the space of its features; and, for pools, class activation maps.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from vgg16_transfer.backbone.store import FeaturesError, FeatureStore
from vgg16_transfer.heads import records
from vgg16_transfer.images import pictures
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.manifests import read_manifest
from vgg16_transfer.reporting import evidence, figures, sheets
from vgg16_transfer.reporting.sheets import NO, YES, Row, Tile

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from matplotlib.figure import Figure

    from vgg16_transfer.images.archives import Archive
    from vgg16_transfer.params import Study, Trial
    from vgg16_transfer.reporting.evidence import Floats, Neighbour, Pair

CAPTIONS = "captions.json"
"""By file name, in the order of the page, what each picture shows, for those who can't see it."""

PAIRS = 4
PER_PAIR = 2
PROBES = 6
NEIGHBOURS = 5

_SIDE, _SMALL_SIDE = 1.3, 1.0  # of a tile, in inches


class Inputs(NamedTuple):
    """What a study is explained by.

    Attributes:
        splits: Folder of manifests.
        archive: Where the pictures are.
        features: The store of the dataset's features.
        heads: Folder of the study's heads.
        results: Folder of the study's record; see :mod:`~vgg16_transfer.heads.records`.
    """

    splits: Path
    archive: Path
    features: Path
    heads: Path
    results: Path


class Shown(NamedTuple):
    """The trial that is shown, and what it met.

    Attributes:
        head: What captions call it.
        trial: Its setting.
        predictions: Its rows of ``predictions.csv``, and the ``sha256`` of each picture.
        train: The rows of the manifest that it learned from.
        store: The features of both.
    """

    head: str
    trial: Trial
    predictions: pd.DataFrame
    train: pd.DataFrame
    store: FeatureStore


def write_explained(study: Study, inputs: Inputs, out: Path) -> None:
    """Writes the pictures and their captions; the folder is replaced as a whole.

    A picture that has nothing to show is left out: confusions of a head that makes none, and maps
    of a dense layer, which has no positions, or of a fine-tuned network, whose activations are not
    the ones that are stored.

    Args:
        study: Of which one trial is shown.
        inputs: What to read.
        out: Folder to write.

    Raises:
        RecordError: The study has no results, or none for the pictures of the split.
        FeaturesError: The store is missing, or lacks a picture.
        HeadError: The head is missing or damaged.
    """
    shown = read_shown(study, inputs)
    probes = evidence.chosen_probes(shown.predictions, PROBES)
    sha256s = probes["sha256"].tolist()
    pairs = evidence.confused_pairs(shown.predictions)[:PAIRS]
    near = evidence.nearest(shown.trial, shown.store, sha256s, shown.train, NEIGHBOURS)
    drawn: dict[str, Figure] = {}
    captions: dict[str, str] = {}
    with open_archive(inputs.archive) as archive:
        if pairs:
            drawn["confusions.png"] = draw_confusions(pairs, shown.train, archive)
            captions["confusions.png"] = describe_confusions(shown, pairs)
        drawn["nearest.png"] = draw_nearest(probes, near, archive)
        captions["nearest.png"] = describe_nearest(shown, probes, near)
        if evidence.has_maps(shown.trial):
            name = study.trial_name(shown.trial)
            kernel = evidence.read_kernel(inputs.heads / f"{name}.keras")
            maps = predicted_maps(shown, probes, kernel)
            drawn["activation_maps.png"] = draw_maps(probes, maps, archive, shown.store.recipe)
            captions["activation_maps.png"] = describe_maps(shown, probes, maps)
    _publish(drawn, captions, out)


def read_shown(study: Study, inputs: Inputs) -> Shown:
    """Reads what there is of the trial that is shown; see :func:`write_explained` for errors."""
    trial = evidence.chosen_trial(study)
    name = study.trial_name(trial)
    store = FeatureStore.open(inputs.features)
    if store is None:
        raise FeaturesError(f"{inputs.features}: no features; run dvc repro")
    split = inputs.splits / f"{trial.seed}.csv"
    if not split.exists():
        raise FeaturesError(f"{split}: no such split; run dvc repro")
    manifest = read_manifest(split)
    measured = records.read_frame(inputs.results / "predictions.csv")
    predictions = measured[measured["trial"] == name].merge(manifest[["path", "sha256"]], "left")
    if predictions.empty or predictions["sha256"].isna().any():
        raise records.RecordError(
            f"{inputs.results}: holds no trial {name} on the pictures of {split}; run dvc repro"
        )
    train = manifest[(manifest["role"] == "train") & (manifest["rank"] < trial.samples_per_class)]
    setting = "" if name == "only" else f" with {name.replace(',', ', ')}"
    return Shown(f"the head of {study.name}{setting}", trial, predictions, train, store)


def predicted_maps(shown: Shown, probes: pd.DataFrame, kernel: Floats) -> list[Floats]:
    """Each probe's activation map, for the class that it was taken for."""
    labels = shown.train.drop_duplicates("class_name").set_index("class_name")["label"]
    layer, trial = shown.trial.layer, shown.trial
    rows = shown.store.rows(layer, probes["sha256"].tolist())
    rows = rows.reshape(-1, *shown.store.shapes[layer])
    return [
        evidence.activation_map(trial, activations, kernel[:, label])
        for activations, label in zip(rows, labels[probes["predicted"]], strict=True)
    ]


def draw_confusions(pairs: Sequence[Pair], train: pd.DataFrame, archive: Archive) -> Figure:
    """A row for each pair: pictures that were confused, then training pictures of the other class.

    Args:
        pairs: At least one.
        train: Rows of a manifest.
        archive: Where the pictures are.
    """
    rows = []
    for pair in pairs:
        learned = train.loc[train["class_name"] == pair.predicted, "path"].tolist()
        rows.append(
            Row(
                f"{pair.true} → {pair.predicted}: {len(pair.paths)} of {pair.of} test pictures",
                [
                    *_tiles(archive, pair.paths, f"test: {pair.true}", NO),
                    *_tiles(archive, learned, f"training: {pair.predicted}"),
                ],
            )
        )
    return sheets.sheet(rows, _SIDE)


def draw_nearest(
    probes: pd.DataFrame, near: Sequence[Sequence[Neighbour]], archive: Archive
) -> Figure:
    """A row for each probe: itself, then its neighbours, marked by whether they share its class."""
    rows = []
    for probe, neighbours in zip(_of(probes), near, strict=True):
        tiles = [Tile(_read(archive, probe["path"]), "test picture")]
        for path, class_name, similarity in neighbours:
            mark = YES if class_name == probe["true"] else NO
            tiles.append(Tile(_read(archive, path), f"{class_name} {similarity:.2f}", mark))
        rows.append(Row(f"{probe['true']}: {_verdict(probe)}", tiles))
    return sheets.sheet(rows, _SMALL_SIDE)


def draw_maps(
    probes: pd.DataFrame, maps: Sequence[Floats], archive: Archive, recipe: Mapping[str, Any]
) -> Figure:
    """Each probe as the network saw it, beside itself under its map; two of them in a row.

    Args:
        probes: Rows of predictions.
        maps: Theirs.
        archive: Where the pictures are.
        recipe: Of the features: ``image_size``, in pixels, and ``resize``.
    """
    tiles = []
    for probe, shares in zip(_of(probes), maps, strict=True):
        picture = _read(archive, probe["path"])
        seen = pictures.to_square(picture, recipe["image_size"], recipe["resize"])
        mark = YES if probe["true"] == probe["predicted"] else NO
        tiles.append(Tile(Image.fromarray(seen), probe["true"]))
        # A frame's colour would be taken for the map's.
        tiles.append(Tile(sheets.overlay(seen, shares), f"{mark} {_verdict(probe)}"))
    legend = Row("orange speaks for the class that was predicted, blue against it")
    return sheets.sheet(
        [legend, *(Row("", tiles[i : i + 4]) for i in range(0, len(tiles), 4))], _SIDE
    )


def describe_confusions(shown: Shown, pairs: Sequence[Pair]) -> str:
    """What the figure says, in a sentence."""
    counts = [
        f"{len(pair.paths)} of {pair.of} test pictures of {pair.true} for {pair.predicted}"
        for pair in pairs
    ]
    return f"What {shown.head} confuses most often: it takes {_listed(counts)}."


def describe_nearest(
    shown: Shown, probes: pd.DataFrame, near: Sequence[Sequence[Neighbour]]
) -> str:
    """What the figure says, in a sentence."""
    parts: list[str] = []
    for verb, wanted in (("recognises", True), ("mistakes", False)):
        group = [
            (probe, neighbours)
            for probe, neighbours in zip(_of(probes), near, strict=True)
            if (probe["true"] == probe["predicted"]) == wanted
        ]
        alike = [one.class_name == probe["true"] for probe, them in group for one in them]
        if group:
            who = "it" if parts else shown.head
            tests = f"{len(group)} test pictures that {who} {verb}"
            parts.append(f"{sum(alike)} of {len(alike)} are of the class of {tests}")
    before = "" if shown.trial.fine_tune_from == "none" else " before it was fine-tuned"
    return f"Of the training pictures nearest in {shown.trial.layer}{before}, {_listed(parts)}."


def describe_maps(shown: Shown, probes: pd.DataFrame, maps: Sequence[Floats]) -> str:
    """What the figure says, in a sentence."""
    told = [f"{probe['true']} ({_verdict(probe)})" for probe in _of(probes)]
    part = np.mean([evidence.focus(shares) for shares in maps])
    return (
        f"Class activation maps of {shown.head} on {shown.trial.layer}, over {_listed(told)}: half "
        f"of what speaks for the predicted class comes from {part:.0%} of the positions on average."
    )


def _publish(drawn: Mapping[str, Figure], captions: Mapping[str, str], out: Path) -> None:
    unnamed = out.with_name(f".{out.name}.incoming")
    shutil.rmtree(unnamed, ignore_errors=True)
    for name, figure in drawn.items():
        figures.save(figure, unnamed / name)
    text = json.dumps(captions, indent=2, ensure_ascii=False)
    (unnamed / CAPTIONS).write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    unnamed.rename(out)


def _tiles(archive: Archive, paths: Sequence[str], title: str, mark: str = "") -> list[Tile | None]:
    tiles: list[Tile | None] = [
        Tile(_read(archive, path), title, mark) for path in paths[:PER_PAIR]
    ]
    return tiles + [None] * (PER_PAIR - len(tiles))


def _read(archive: Archive, path: str) -> Image.Image:
    return pictures.decode(archive.read(path))


def _of(probes: pd.DataFrame) -> list[dict[Hashable, str]]:
    return probes[["path", "true", "predicted"]].to_dict("records")


def _verdict(probe: Mapping[Hashable, str]) -> str:
    if probe["true"] == probe["predicted"]:
        return "recognised"
    return f"taken for {probe['predicted']}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
