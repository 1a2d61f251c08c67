"""[stage] What a head goes by → reports/explained/<study>/*.png and captions.json.

Pictures of one trial of a study: the classes it confuses most; the training pictures that lie
nearest to test pictures in the space of its features; and, for pools, class activation maps.
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
"""By file name, in the order of the page, what each picture shows, for those who can't see it."""

PAIRS = 4
PER_PAIR = 2
PROBES = 6
NEIGHBOURS = 5

_SIDE, _SMALL_SIDE = 1.3, 1.0  # of a tile, in inches


class Shown(NamedTuple):
    """The trial that is shown, and what it met.

    Attributes:
        head: What captions call it.
        trial: Its setting.
        predictions: Its rows of ``predictions.csv``, and the ``sha256`` of each picture.
        train: The rows of the manifest that it learned from.
        sha256s: Of all pictures of the split, by path.
        store: Their features.
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
    features: Path,
    heads: Path,
    results: Path,
    out: Path,
) -> None:
    """Writes the pictures and their captions; the folder is replaced as a whole.

    A picture that has nothing to show is left out: confusions of a head that makes none, and maps
    of a dense layer, which has no positions, or of a fine-tuned network, whose activations are not
    the ones that are stored. Of a study whose trials all failed there is nothing to show.

    Args:
        study: Of which one trial is shown.
        splits: Folder of manifests.
        source: Where the pictures are.
        features: The store of the dataset's features.
        heads: Folder of the study's heads.
        results: Folder of the study's record; see :mod:`~vgg16_transfer.heads.records`.
        out: Folder to write.

    Raises:
        RecordError: The study has no results, or none for the pictures of the split.
        FeaturesError: The store is missing or damaged, or lacks a picture.
        HeadError: The head is missing or damaged.
        SourceError: The source does not hold a picture.
    """
    trials = records.read_frame(results / "trials.csv", ["trial", "status"])
    finished = set(trials.loc[trials["status"] == records.FINISHED, "trial"])
    trial = evidence.chosen_trial(study, finished)
    if trial is None:
        _publish({}, {}, out)
        return
    shown = read_shown(study, trial, splits=splits, features=features, results=results)
    probes = evidence.chosen_probes(shown.predictions, PROBES)
    sha256s = probes["sha256"].tolist()
    pairs = evidence.confused_pairs(shown.predictions)[:PAIRS]
    near = evidence.nearest(shown.trial, shown.store, sha256s, shown.train, NEIGHBOURS)
    drawn: dict[str, Figure] = {}
    captions: dict[str, str] = {}
    with source.open() as opened:

        def read(path: str) -> Image.Image:
            return pictures.decode(opened.read(path, shown.sha256s[path]))

        if pairs:
            drawn["confusions.png"] = draw_confusions(pairs, shown.train, read)
            captions["confusions.png"] = describe_confusions(shown, pairs)
        drawn["nearest.png"] = draw_nearest(probes, near, read)
        captions["nearest.png"] = describe_nearest(shown, probes, near)
        if evidence.has_maps(shown.trial):
            name = study.trial_name(shown.trial)
            maps = predicted_maps(shown, probes, heads / f"{name}.keras")
            drawn["activation_maps.png"] = draw_maps(probes, maps, read, shown.store.recipe)
            captions["activation_maps.png"] = describe_maps(shown, probes, maps)
    _publish(drawn, captions, out)


def read_shown(study: Study, trial: Trial, *, splits: Path, features: Path, results: Path) -> Shown:
    """Reads what there is of the trial that is shown; see :func:`write_explained` for errors."""
    name = study.trial_name(trial)
    store = FeatureStore.open(features)
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
    return Shown(head, trial, predictions, train, sha256s, store)


def predicted_maps(shown: Shown, probes: pd.DataFrame, head: Path) -> list[Floats]:
    """Each probe's activation map, for the class that it was taken for."""
    kernel = saved.kernel(head)
    labels = {name: label for label, name in enumerate(saved.made_of(head).class_names)}
    rows = shown.store.rows(shown.trial.layer, probes["sha256"].tolist())
    rows = rows.reshape(-1, *shown.store.shapes[shown.trial.layer])
    return [
        evidence.activation_map(shown.trial, activations, kernel[:, labels[predicted]])
        for activations, predicted in zip(rows, probes["predicted"], strict=True)
    ]


def draw_confusions(pairs: Sequence[Pair], train: pd.DataFrame, read: Read) -> Figure:
    """A row for each pair: pictures that were confused, then training pictures of the other class.

    Args:
        pairs: At least one.
        train: Rows of a manifest.
        read: Gives a picture by its path.
    """
    rows = []
    for pair in pairs:
        learned = train.loc[train["class_name"] == pair.predicted, "path"].tolist()
        rows.append(
            Row(
                f"{pair.true} → {pair.predicted}: {len(pair.paths)} of {pair.of} test pictures",
                [
                    *_tiles(read, pair.paths, f"test: {pair.true}", NO),
                    *_tiles(read, learned, f"training: {pair.predicted}"),
                ],
            )
        )
    return sheets.sheet(rows, _SIDE)


def draw_nearest(probes: pd.DataFrame, near: Sequence[Sequence[Neighbour]], read: Read) -> Figure:
    """A row for each probe: itself, then its neighbours, marked by whether they share its class."""
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
    """Each probe as the network saw it, beside itself under its map; two of them in a row.

    Args:
        probes: Rows of predictions.
        maps: Theirs.
        read: Gives a picture by its path.
        recipe: Of the features: ``image_size``, in pixels, and ``resize``.
    """
    tiles = []
    for probe, shares in zip(_of(probes), maps, strict=True):
        picture = read(probe["path"])
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
    with replacing(out) as fresh:
        fresh.mkdir()
        for name, figure in drawn.items():
            figures.save(figure, fresh / name)
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
