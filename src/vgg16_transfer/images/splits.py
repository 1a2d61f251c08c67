"""[stage] Archive → data/splits/<dataset>/<seed>.csv: which pictures train and which test."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from tqdm import tqdm

from vgg16_transfer.errors import InputError
from vgg16_transfer.images.archives import map_files, open_archive
from vgg16_transfer.images.datasets import class_names
from vgg16_transfer.images.manifests import COLUMNS, LEFT_OUT, write_frame
from vgg16_transfer.images.pictures import PictureError, decode
from vgg16_transfer.params import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vgg16_transfer.images.archives import Archive
    from vgg16_transfer.params import Dataset, Split


class SplitError(InputError):
    """Pictures that can't be split as params.yaml asks."""


class Picture(NamedTuple):
    """A usable picture of a dataset."""

    path: str
    class_name: str
    sha256: str


def write_splits(name: str, dataset: Dataset, archive_path: Path, out: Path) -> pd.DataFrame:
    """Writes one manifest per seed, and ``left_out.csv``: the unusable pictures with the reason.

    The folder is replaced as a whole, or left as it is when anything goes wrong.

    Args:
        name: Of the dataset, for error messages and progress.
        dataset: Its section of params.yaml.
        archive_path: What ``fetch`` made.
        out: Folder to write; what it held before is gone afterwards.

    Returns:
        The pictures that were left out: path, class_name, reason.

    Raises:
        ArchiveError: The archive can't be read.
        SplitError: There are no classes, an unknown one is to be left out, or one is too small.
    """
    with open_archive(archive_path) as archive:
        classes = class_names(dataset.layout, archive.names())
        _check_left_out_classes(name, dataset, set(classes.values()))
        wanted = {path: c for path, c in classes.items() if c not in dataset.leave_out}
        pictures, left_out = survey(archive, wanted, progress=f"splits {name}")
    unusable = sorted(set(wanted.values()) - {picture.class_name for picture in pictures})
    if unusable:
        raise SplitError(_too_few(name, unusable[0], [], [], dataset.split))
    manifests = {seed: deal(name, pictures, dataset.split, seed) for seed in dataset.split.seeds}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=out.parent, prefix=f".{out.name}.", suffix=".partial"
    ) as folder:
        fresh = Path(folder) / "fresh"
        fresh.mkdir()
        for seed, manifest in manifests.items():
            write_frame(manifest, fresh / f"{seed}.csv")
        write_frame(left_out, fresh / LEFT_OUT)
        if out.exists():
            out.rename(Path(folder) / "retired")
        fresh.rename(out)
    return left_out


def survey(
    archive: Archive, classes: dict[str, str], progress: str = "survey"
) -> tuple[list[Picture], pd.DataFrame]:
    """Reads every picture once and sorts out what can't be used.

    A picture whose bytes came before under another path is left out as well, so that no two
    pictures of a dataset are the same and train and test are disjoint by content.

    Args:
        archive: Where the pictures are.
        classes: Class name by path in the archive.
        progress: What to call this beside the progress bar.

    Returns:
        The usable pictures, sorted by path, and a frame of the others: path, class_name, reason.
    """
    in_archive_order = [path for path in archive.names() if path in classes]
    inspected = tqdm(
        map_files(archive, in_archive_order, _inspect, on_damage=lambda error: ("", error.problem)),
        total=len(in_archive_order),
        desc=progress,
        unit="picture",
        disable=None,
    )
    results = dict(zip(in_archive_order, inspected, strict=True))
    pictures, left_out = [], []
    first_path: dict[str, str] = {}
    for path in sorted(results):
        sha256, reason = results[path]
        if reason is None and sha256 in first_path:
            reason = f"has the same bytes as {first_path[sha256]}"
        if reason is None:
            first_path[sha256] = path
            pictures.append(Picture(path, classes[path], sha256))
        else:
            left_out.append((path, classes[path], reason))
    return pictures, pd.DataFrame(left_out, columns=["path", "class_name", "reason"])


def deal(name: str, pictures: Sequence[Picture], split: Split, seed: int) -> pd.DataFrame:
    """Deals the pictures of each class out to test, train and validation.

    The order is a shuffle keyed by hashes of (seed, class, group): the same on every machine and
    under every version of every library, and a picture that is added moves few of the others. Test
    takes from the front, train goes on from there, validation takes from the back, so that asking
    for more training or validation pictures leaves the test pictures as they are.

    Args:
        name: Of the dataset, for error messages.
        pictures: The usable ones, in any order.
        split: How many of each role, and what keeps pictures together.
        seed: Of the shuffle.

    Returns:
        The manifest; see :mod:`~vgg16_transfer.images.manifests`. Labels number the sorted classes.

    Raises:
        SplitError: A class has too few pictures, or there are fewer than two classes.
    """
    by_class: dict[str, list[Picture]] = defaultdict(list)
    for picture in sorted(pictures):
        by_class[picture.class_name].append(picture)
    if len(by_class) < 2:  # noqa: PLR2004
        raise SplitError(
            f"params.yaml: datasets.{name}: found {len(by_class)} classes "
            f"({', '.join(by_class) or 'no pictures'}), and a head tells at least 2 apart; "
            f"check datasets.{name}.layout against the paths in the archive"
        )
    rows = []
    for label, (class_name, members) in enumerate(sorted(by_class.items())):
        groups = _shuffled_groups(members, split.group, f"{seed}:{class_name}")
        test, rest = _take(groups, split.test_per_class)
        validation, rest = _take(rest[::-1], split.validation_per_class)
        train, _ = _take(rest[::-1], split.train_per_class)
        roles = {"train": train, "validation": validation, "test": test}
        if any(len(roles[role]) < getattr(split, f"{role}_per_class") for role in roles):
            raise SplitError(_too_few(name, class_name, members, groups, split))
        rows += [
            (picture.path, label, class_name, picture.sha256, role, rank)
            for role, chosen in roles.items()
            for rank, picture in enumerate(chosen)
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _inspect(content: bytes) -> tuple[str, str | None]:
    """The sha256 of a file, and why it can't be used, or None if it can."""
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        decode(content)
    except PictureError as error:
        return sha256, str(error)
    return sha256, None


def _shuffled_groups(
    members: Iterable[Picture], pattern: str | None, salt: str
) -> list[list[Picture]]:
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in members:
        match = re.search(pattern, picture.path) if pattern else None
        matched = match[1] if match else None  # and None if the group is optional
        groups[picture.path if matched is None else matched].append(picture)
    return [groups[key] for key in sorted(groups, key=lambda key: _sha256(f"{salt}:{key}"))]


def _take(
    groups: Sequence[list[Picture]], count: int
) -> tuple[list[Picture], Sequence[list[Picture]]]:
    """The first ``count`` pictures, and the groups that none of them came from.

    The rest of the last group goes unused: its pictures belong on this side, which is full.
    """
    taken: list[Picture] = []
    used = 0
    while len(taken) < count and used < len(groups):
        taken += groups[used]
        used += 1
    return taken[:count], groups[used:]


def _too_few(
    name: str,
    class_name: str,
    members: Sequence[Picture],
    groups: Sequence[list[Picture]],
    split: Split,
) -> str:
    asked = split.test_per_class + split.validation_per_class + split.train_per_class
    grouped = f" in {len(groups)} groups" if split.group else ""
    return (
        f"params.yaml: datasets.{name}: class '{class_name}' has {len(members)} usable pictures"
        f"{grouped}, too few for {split.train_per_class} train + {split.validation_per_class} "
        f"validation + {split.test_per_class} test = {asked}; lower those under "
        f"datasets.{name}.split, or add '{class_name}' to datasets.{name}.leave_out"
    )


def _check_left_out_classes(name: str, dataset: Dataset, classes: set[str]) -> None:
    for class_name in dataset.leave_out if classes else []:
        if class_name not in classes:
            raise SplitError(
                f"params.yaml: datasets.{name}.leave_out: the archive has no class '{class_name}'; "
                f"{nearest(class_name, sorted(classes))}"
            )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
