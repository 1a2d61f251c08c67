"""The data card of a dataset, data/splits/<dataset>.card.md: a Markdown table of facts.

Every fact follows from the source and from the dataset's section of params.yaml. The card lies
beside the folder of the manifests, not in it. Later stages depend on that folder, so an edited
licence does not train heads again.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter
from typing import TYPE_CHECKING

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.markdown import from_plain, plain
from vgg16_transfer.rounding import percent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    import pandas as pd

    from vgg16_transfer.images.survey import Picture, Survey
    from vgg16_transfer.params import Dataset

TITLE = "# Data card: "
"""The beginning of every card; the dataset's name follows."""

EXAMPLES = "examples (training pictures)"
"""The fact that lists the pictures of :func:`examples`."""

THUMBNAIL, GAP = 80, 4
"""Side of a picture in a sheet of :func:`samples`, and the space between two, in pixels."""

NAMED = 20
"""Largest number of classes or of reasons that a card names; it counts the rest."""

_ROW = re.compile(r"^\| (.+?) \| (.+) \|$", re.MULTILINE)
_ROLES = {"train": "training", "validation": "validation", "test": "test"}


def card_path(splits: Path) -> Path:
    """Path of the card of the dataset whose manifests are in a folder."""
    return splits.with_name(f"{splits.name}.card.md")


def examples(manifest: pd.DataFrame, count: int = 4) -> pd.DataFrame:
    """Training pictures to show: the first of each of some classes, which lie evenly apart."""
    first = manifest[(manifest["role"] == "train") & (manifest["rank"] == 0)]
    return first.sort_values("label").iloc[:: max(1, len(first) // count)].head(count)


def samples(manifest: pd.DataFrame, classes: int = 32, count: int = 4) -> pd.DataFrame:
    """Training pictures of each class to show: the first of each.

    Args:
        manifest: Rows of a manifest.
        classes: Largest number of classes. Of more classes, as many that lie evenly apart.
        count: Largest number of pictures of a class.
    """
    first = manifest[(manifest["role"] == "train") & (manifest["rank"] < count)]
    labels = sorted(first["label"].unique())
    shown = labels[:: -(-len(labels) // classes)] if labels else []
    return first[first["label"].isin(shown)].sort_values(["label", "rank"])


def write_card(path: Path, name: str, facts: Mapping[str, str]) -> None:
    """Writes a data card; the same facts give the same bytes.

    Args:
        path: File to write.
        name: Dataset name.
        facts: Facts of the dataset; see :func:`facts_of`.
    """
    rows = [f"| {plain(fact)} | {plain(text)} |\n" for fact, text in facts.items()]
    with replacing(path) as fresh:
        card = f"{TITLE}{plain(name)}\n\n| | |\n|---|---|\n{''.join(rows)}"
        fresh.write_text(card, encoding="utf-8", newline="\n")


def read_facts(card: str) -> dict[str, str]:
    """The facts of a card that :func:`write_card` wrote.

    Args:
        card: Text of the card.

    Raises:
        ValueError: The text is another one, or a part of a card.
    """
    facts = {from_plain(fact): from_plain(text) for fact, text in _ROW.findall(card)}
    if not card.startswith(TITLE) or EXAMPLES not in facts:
        raise ValueError("is no data card, or a part of one")
    return facts


def facts_of(
    dataset: Dataset,
    surveyed: Survey,
    manifests: Mapping[int, pd.DataFrame],
    near_duplicates: pd.DataFrame,
) -> dict[str, str]:
    """What a person should know about a dataset, one text per fact.

    Args:
        dataset: The dataset's section of params.yaml.
        surveyed: The pictures and other files of its source.
        manifests: Manifests by seed; the examples are those of the first.
        near_duplicates: Pairs on different sides of a split; see
            :mod:`~vgg16_transfer.images.duplicates`.
    """
    of_class = Counter(picture.class_name for picture in surveyed.pictures)
    median = statistics.median(of_class.values())
    pairs = Counter(near_duplicates["seed"])
    first = next(iter(manifests.values()))
    shown = examples(first)[["path", "class_name"]].itertuples(index=False, name=None)
    return {
        "origin": dataset.origin or "not stated",
        "licence": dataset.licence or "not stated",
        "remarks": " ".join(dataset.remarks) or "none",
        "usable pictures": f"{len(surveyed.pictures)}",
        "classes": f"{len(of_class)}: {_listed(sorted(of_class), 'more')}",
        "pictures of a class": f"{_range(of_class.values())}, median {median:g}",
        "width × height, pixels": _sizes(surveyed.pictures),
        "files left out": _left_out(surveyed.left_out["kind"]),
        "splits": f"{len(manifests)}, of the seeds {', '.join(map(str, manifests))}",
        **{
            f"{title} pictures of a split": _of_role(manifests.values(), role)
            for role, title in _ROLES.items()
        },
        "different test pictures of all splits": _different_tests(manifests.values()),
        "pairs of near-duplicates across a split": ", ".join(
            f"split {seed}: {pairs[seed]}" for seed in manifests
        ),
        EXAMPLES: ", ".join(f"{path} ({class_name})" for path, class_name in shown),
    }


def _sizes(pictures: Iterable[Picture]) -> str:
    """Smallest, median and largest size by number of pixels; of two medians, the smaller."""
    ordered = sorted(
        (width * height, width, height) for width, height in (p.size for p in pictures)
    )
    chosen = {"smallest": 0, "median": (len(ordered) - 1) // 2, "largest": -1}
    return ", ".join(
        f"{title} {ordered[index][1]} × {ordered[index][2]}" for title, index in chosen.items()
    )


def _left_out(kinds: pd.Series[str]) -> str:
    """How many files were left out, and how many for each kind of reason."""
    by_count = sorted(Counter(kinds).items(), key=lambda item: (-item[1], item[0]))
    listed = _listed([f"{kind} ({count})" for kind, count in by_count], "more reasons")
    return f"{len(kinds)}: {listed}" if by_count else "none"


def _of_role(manifests: Iterable[pd.DataFrame], role: str) -> str:
    """How many pictures of a role the splits have: in all, and of each class."""
    totals, of_class = set(), set()
    for manifest in manifests:
        counts = Counter(manifest.loc[manifest["role"] == role, "class_name"])
        totals.add(counts.total())
        of_class |= {counts[class_name] for class_name in manifest["class_name"].unique()}
    return f"{_range(totals)}, {_range(of_class)} of each class" if any(totals) else "none"


def overlap(sets: Iterable[AbstractSet[str]]) -> float | None:
    """How much two of several sets have in common on average; None for fewer than two sets.

    The overlap of two sets is the Sørensen-Dice coefficient (Dice 1945), 2 |A ∩ B| / (|A| + |B|).
    For sets of the same size, it is the part of each that the other one has too.
    """
    overlaps = [
        2 * len(one & other) / (len(one) + len(other))
        for one, other in itertools.combinations(sets, 2)
    ]
    return statistics.fmean(overlaps) if overlaps else None


def _different_tests(manifests: Iterable[pd.DataFrame]) -> str:
    """How many pictures are a test picture of any split, and how much two test sets overlap."""
    tests = [set(manifest.loc[manifest["role"] == "test", "path"]) for manifest in manifests]
    different, share = f"{len(set().union(*tests))}", overlap(tests)
    if share is None:
        return different
    return f"{different}; two splits share {percent(share)} % of their test pictures, on average"


def _range(values: Collection[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _listed(names: Sequence[str], more: str) -> str:
    rest = f" and {len(names) - NAMED} {more}" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest
