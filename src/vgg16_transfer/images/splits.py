"""[stage] Source → data/splits/<dataset>/<seed>.csv: which pictures train and which test."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.errors import InputError
from vgg16_transfer.images import duplicates
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.layouts import EXPECTED, composed
from vgg16_transfer.images.manifests import COLUMNS, LEFT_OUT, NEAR_DUPLICATES, write_frame
from vgg16_transfer.images.survey import LEFT_OUT_COLUMNS, Picture, by_kind, survey
from vgg16_transfer.params import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vgg16_transfer.images.survey import Survey
    from vgg16_transfer.params import Dataset, Split

NAMED = 20
"""So many classes are named in one sentence before the rest is counted."""


class SplitError(InputError):
    """Pictures that can't be split as params.yaml asks."""


class Written(NamedTuple):
    """What the user should know of splits that were written.

    Attributes:
        left_out: Files that are not used: path, class_name (empty if none), reason, and kind, which
            is the reason without what differs from file to file.
        near_duplicates: Pairs on different sides of a split; see
            :mod:`~vgg16_transfer.images.duplicates`.
        notes: One sentence each.
    """

    left_out: pd.DataFrame
    near_duplicates: pd.DataFrame
    notes: list[str]

    def lines(self, out: Path) -> list[str]:
        """What the command says: the notes, and how many files were left out for which reason.

        Args:
            out: The folder that was written.
        """
        lines = [*self.notes, *by_kind(self.left_out)]
        if len(self.left_out):
            lines.append(f"{out / LEFT_OUT} lists what was left out")
        if len(self.near_duplicates):
            counts = Counter(self.near_duplicates["seed"])
            pairs = ", ".join(f"seed {seed}: {count}" for seed, count in sorted(counts.items()))
            lines.append(
                f"near-duplicates on different sides of a split, pairs: {pairs}; "
                f"{out / NEAR_DUPLICATES} lists them, split.near_duplicates: one_side parts none"
            )
        return lines


class _Class(NamedTuple):
    """The pictures of one class, by role, in the order of their ranks."""

    train: list[Picture]
    validation: list[Picture]
    test: list[Picture]


def write_splits(name: str, dataset: Dataset, source: Path, out: Path) -> Written:
    """Writes one manifest per seed, and lists of what was left out and of near-duplicates.

    The folder is replaced as a whole, or left as it is when anything goes wrong.

    Args:
        name: Dataset name, used in error messages and progress.
        dataset: Its section of params.yaml.
        source: What ``fetch`` made: an archive, a folder, or a link to one.
        out: Folder to write; what it held before is gone afterwards.

    Raises:
        ArchiveError: The source can't be read.
        LayoutError: The source is not laid out as params.yaml says.
        SplitError: There are fewer than two classes, an unknown one is to be left out, some are too
            small, or the pattern of groups matches nothing.
    """
    leave_out = frozenset(map(composed, dataset.leave_out))
    with open_archive(source, dataset.encoding) as archive:
        surveyed = survey(archive, dataset.layout, leave_out, progress=f"splits {name}")
    _check_left_out_classes(name, leave_out, surveyed.classes)
    classes = surveyed.classes - leave_out
    _check_classes(name, dataset, surveyed, classes)
    pictures, split = surveyed.pictures, dataset.split
    notes = [*surveyed.notes, *_check_groups(name, pictures, split.group)]
    notes += _check_given(name, pictures, classes)
    small = _lost(classes, surveyed) | _too_small(pictures, split, split.seeds[0])
    if small:
        raise SplitError(_too_few(name, split, small))
    manifests = {seed: deal(name, pictures, split, seed) for seed in split.seeds}
    hashes = {picture.path: picture.fingerprint for picture in pictures}
    near = [duplicates.across(manifest, hashes, seed) for seed, manifest in manifests.items()]
    near_duplicates = pd.concat(near, ignore_index=True)
    with replacing(out) as fresh:
        fresh.mkdir()
        for seed, manifest in manifests.items():
            write_frame(manifest, fresh / f"{seed}.csv")
        write_frame(surveyed.left_out[LEFT_OUT_COLUMNS], fresh / LEFT_OUT)
        write_frame(near_duplicates, fresh / NEAR_DUPLICATES)
    return Written(surveyed.left_out, near_duplicates, notes)


def deal(name: str, pictures: Sequence[Picture], split: Split, seed: int) -> pd.DataFrame:
    """Splits the pictures of each class into test, train and validation.

    The order is a shuffle keyed by hashes of (seed, class, group): the same on every machine and
    under every version of every library, and a picture that is added moves few of the others. Test
    takes from the front, train goes on from there, validation takes from the back, so that asking
    for more training or validation pictures leaves the test pictures as they are.

    Where the source gives a test set, that is the test set, whole, for every seed; so is a
    validation set. Train, and validation if none is given, then come from its training pictures.

    Args:
        name: Dataset name, used in error messages.
        pictures: The usable ones, in any order.
        split: How many of each role, and what keeps pictures together.
        seed: Of the shuffle.

    Returns:
        The manifest; see :mod:`~vgg16_transfer.images.manifests`. Labels number the sorted classes.

    Raises:
        SplitError: A class has too few pictures, or there are fewer than two classes.
    """
    by_class = _by_class(pictures)
    if len(by_class) < 2:  # noqa: PLR2004
        raise SplitError(_too_few_classes(name, list(by_class)))
    small = _too_small(pictures, split, seed)
    if small:
        raise SplitError(_too_few(name, split, small))
    rows = [
        (picture.path, label, class_name, picture.sha256, role, rank)
        for label, (class_name, members) in enumerate(sorted(by_class.items()))
        for role, chosen in _deal_class(class_name, members, split, seed)._asdict().items()
        for rank, picture in enumerate(chosen)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _by_class(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    by_class: dict[str, list[Picture]] = defaultdict(list)
    for picture in sorted(pictures):
        by_class[picture.class_name].append(picture)
    return by_class


def _deal_class(class_name: str, members: Sequence[Picture], split: Split, seed: int) -> _Class:
    groups = _shuffled_groups(members, split, f"{seed}:{class_name}")
    given: dict[str, list[Picture]] = defaultdict(list)
    for picture in members:
        if picture.role:
            given[picture.role].append(picture)
    if not given:
        test, rest = _take(groups, split.test_per_class)
        validation, rest = _take(rest[::-1], split.validation_per_class)
        train, _ = _take(rest[::-1], split.train_per_class)
        return _Class(train, validation, test)
    # What belongs with a picture of a given test or validation set may not train.
    rest = [group for group in groups if all(picture.role == "train" for picture in group)]
    validation = given["validation"]
    if not validation:
        validation, rest = _take(rest[::-1], split.validation_per_class)
        rest = rest[::-1]
    train, _ = _take(rest, split.train_per_class)
    return _Class(train, validation, given["test"])


def _shuffled_groups(members: Iterable[Picture], split: Split, salt: str) -> list[list[Picture]]:
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in members:
        matched = _group(split.group, picture.path)
        groups[picture.path if matched is None else matched].append(picture)
    if split.near_duplicates == "one_side":
        hashes = {picture.path: picture.fingerprint for picture in members}
        paths = {key: [picture.path for picture in group] for key, group in groups.items()}
        joined: dict[str, list[Picture]] = defaultdict(list)
        for key, first in sorted(duplicates.merged(paths, hashes).items()):
            joined[first] += groups[key]
        groups = joined
    return [groups[key] for key in sorted(groups, key=lambda key: _sha256(f"{salt}:{key}"))]


def _group(pattern: str | None, path: str) -> str | None:
    match = re.search(pattern, path) if pattern else None
    return match[1] if match else None  # and None if the group is optional


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


def _too_small(pictures: Iterable[Picture], split: Split, seed: int) -> dict[str, str]:
    """What classes have that have too few pictures."""
    small = {}
    for class_name, members in sorted(_by_class(pictures).items()):
        dealt = _deal_class(class_name, members, split, seed)
        given = {picture.role for picture in members if picture.role}
        enough = len(dealt.train) >= split.train_per_class and (
            "validation" in given or len(dealt.validation) >= split.validation_per_class
        )
        if not given:
            enough = enough and len(dealt.test) >= split.test_per_class
        if not enough:
            small[class_name] = _has(members, split)
    return small


def _has(members: Sequence[Picture], split: Split) -> str:
    training = [picture for picture in members if picture.role in {None, "train"}]
    given = " for training" if len(training) < len(members) else ""
    if split.group is None and split.near_duplicates == "list":
        return f"{len(training)}{given}"
    return f"{len(training)}{given} in {len(_shuffled_groups(training, split, ''))} groups"


def _lost(classes: Iterable[str], surveyed: Survey) -> dict[str, str]:
    """Why classes have no usable picture, of those that have none."""
    lost = sorted(set(classes) - {picture.class_name for picture in surveyed.pictures})
    left_out = surveyed.left_out
    return {
        class_name: f"0 ({'; '.join(reasons) or 'no files'})"
        for class_name in lost
        for reasons in [
            [
                f"{len(rows)}: {kind}"
                for kind, rows in left_out[left_out["class_name"] == class_name].groupby("kind")
            ]
        ]
    }


def _too_few(name: str, split: Split, small: Mapping[str, str]) -> str:
    asked = split.test_per_class + split.validation_per_class + split.train_per_class
    named = [f"class '{one}' has {what}" for one, what in sorted(small.items())[:NAMED]]
    rest = f" and {len(small) - NAMED} more classes" if len(small) > NAMED else ""
    these = ", ".join(f"'{one}'" for one in sorted(small)) if len(small) == 1 else "these classes"
    return (
        f"params.yaml: datasets.{name}: too few usable pictures for {split.train_per_class} train "
        f"+ {split.validation_per_class} validation + {split.test_per_class} test = {asked}: "
        f"{', '.join(named)}{rest}; lower those under datasets.{name}.split, or add {these} to "
        f"datasets.{name}.leave_out"
    )


def _too_few_classes(name: str, classes: Sequence[str]) -> str:
    there = f"only the class '{classes[0]}'" if classes else "no classes"
    return f"params.yaml: datasets.{name}: found {there}, and a head tells at least 2 apart"


def _check_classes(name: str, dataset: Dataset, surveyed: Survey, classes: frozenset[str]) -> None:
    if len(classes) > 1:
        return
    named = sorted(classes) if surveyed.pictures else []
    raise SplitError(
        f"{_too_few_classes(name, named)}; layout: {dataset.layout} looks for "
        f"{EXPECTED[dataset.layout]}, and the source holds {surveyed.found}"
    )


def _check_groups(name: str, pictures: Sequence[Picture], pattern: str | None) -> list[str]:
    """A sentence if the pattern matches only some paths.

    Raises:
        SplitError: It matches none.
    """
    key = f"datasets.{name}.split.group"
    strays = [picture.path for picture in pictures if _group(pattern, picture.path) is None]
    if pattern is None or not strays:
        return []
    if len(strays) == len(pictures):
        raise SplitError(
            f"params.yaml: {key}: '{pattern}' matches none of the {len(strays)} paths, such as "
            f"{strays[0]}; paths are relative to the source"
        )
    matched = len(pictures) - len(strays)
    sentence = (
        f"{key} matches {matched} of {len(pictures)} paths; the others, such as {strays[0]}, "
    )
    return [sentence + "are in no group"]


def _check_given(name: str, pictures: Sequence[Picture], classes: frozenset[str]) -> list[str]:
    """A sentence if classes are missing from a given validation set.

    Raises:
        SplitError: Classes are missing from a given test set, or from the training pictures.
    """
    by_role: dict[str, set[str]] = defaultdict(set)
    for picture in pictures:
        if picture.role:
            by_role[picture.role].add(picture.class_name)
    usable = set().union(*by_role.values()) & classes
    missing = {role: sorted(usable - there) for role, there in by_role.items() if usable - there}
    said = [f"{role} has none of {_listed(missing[role])}" for role in sorted(missing)]
    if not said:
        return []
    sentence = f"the given splits differ in their classes: {'; '.join(said)}"
    if missing.keys() == {"validation"}:
        return [sentence]
    raise SplitError(
        f"params.yaml: datasets.{name}: {sentence}; add these to datasets.{name}.leave_out, or to "
        "the split that lacks them"
    )


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:NAMED]) + rest


def _check_left_out_classes(name: str, leave_out: frozenset[str], classes: frozenset[str]) -> None:
    for class_name in sorted(leave_out - classes) if classes else []:
        raise SplitError(
            f"params.yaml: datasets.{name}.leave_out: the source has no class '{class_name}'; "
            f"{nearest(class_name, sorted(classes))}"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
