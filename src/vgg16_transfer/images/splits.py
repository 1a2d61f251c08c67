"""[stage] Source → data/splits/<dataset>/<seed>.csv: train, validation and test pictures."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import regex

from vgg16_transfer.artifacts import replacing
from vgg16_transfer.errors import InputError
from vgg16_transfer.images import duplicates
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.cards import card_path, facts_of, write_card
from vgg16_transfer.images.layouts import EXPECTED, composed
from vgg16_transfer.images.manifests import COLUMNS, LEFT_OUT, NEAR_DUPLICATES, write_frame
from vgg16_transfer.images.survey import LEFT_OUT_COLUMNS, Picture, by_kind, survey
from vgg16_transfer.params import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from vgg16_transfer.images.survey import Survey
    from vgg16_transfer.params import Dataset, Split

NAMED = 20
"""Largest number of classes that a sentence names; it counts the rest."""


_GROUP_TIMEOUT_S = 1

_WHOLE = 2**64
_GOLDEN = 0x9E3779B97F4A7C15
"""The whole divided by the golden ratio. Its multiples are spread evenly, however many they are
(Knuth, The Art of Computer Programming, volume 3, section 6.4)."""


class SplitError(InputError):
    """Pictures that can't be split as params.yaml says."""


class Written(NamedTuple):
    """What the user should know about splits that were written.

    Attributes:
        left_out: Files that are not used: path, class_name (empty if none), reason, and kind, which
            is the reason without details of the file.
        near_duplicates: Pairs on different sides of a split; see
            :mod:`~vgg16_transfer.images.duplicates`.
        notes: Other facts, one sentence each.
        usable: How many usable pictures the source has.
        classes: How many classes they are of.
        used: How many of them any split uses.
        one_side: Whether near-duplicates of a class are on one side already.
    """

    left_out: pd.DataFrame
    near_duplicates: pd.DataFrame
    notes: list[str]
    usable: int
    classes: int
    used: int
    one_side: bool

    def lines(self, out: Path) -> list[str]:
        """Lines that the command prints: what is used, notes, and what is left out by reason.

        Args:
            out: Folder that was written.
        """
        counted = (
            f"{self.usable} usable pictures of {self.classes} classes; the splits use {self.used}"
        )
        lines = [counted, *self.notes, *by_kind(self.left_out)]
        if len(self.left_out):
            lines.append(f"{out / LEFT_OUT} lists what was left out")
        if len(self.near_duplicates):
            counts = Counter(self.near_duplicates["seed"])
            pairs = ", ".join(f"seed {seed}: {count}" for seed, count in sorted(counts.items()))
            remedy = (
                "those that are left are of two classes, or given splits"
                if self.one_side
                else "set split.near_duplicates: one_side to keep those of a class on one side"
            )
            lines.append(
                f"near-duplicates on different sides of a split, pairs: {pairs}; "
                f"{out / NEAR_DUPLICATES} lists them; {remedy}"
            )
        return lines


class _Class(NamedTuple):
    """Pictures of one class by role, in the order of their ranks."""

    train: list[Picture]
    validation: list[Picture]
    test: list[Picture]


def write_splits(name: str, dataset: Dataset, source: Path, out: Path) -> Written:
    """Writes one manifest per seed, a list of files left out and a list of near-duplicates.

    The whole folder is replaced. On errors, it is left unchanged. Beside it, the data card is
    written; see :mod:`~vgg16_transfer.images.cards`.

    Args:
        name: Dataset name, used in error messages and progress.
        dataset: The dataset's section of params.yaml.
        source: Output of ``fetch``: an archive, a folder, or a link to one.
        out: Folder to write; its earlier files are removed.

    Raises:
        ArchiveError: The source can't be read.
        LayoutError: The source is not laid out as params.yaml says.
        SplitError: There are fewer than two classes, ``classes`` or ``leave_out`` has an unknown
            class, classes have too few pictures, or ``group`` matches no path.
    """
    with open_archive(source, dataset.encoding) as archive:
        surveyed = survey(archive, dataset.layout, not_used(dataset), progress=f"splits {name}")
    return write_surveyed(name, dataset, surveyed, out)


def write_surveyed(name: str, dataset: Dataset, surveyed: Survey, out: Path) -> Written:
    """Does what :func:`write_splits` does, for a source that was read already.

    Raises:
        LayoutError: The source is not laid out as params.yaml says.
        SplitError: See :func:`write_splits`.
    """
    notes, pictures, split = check(name, dataset, surveyed), surveyed.pictures, dataset.split
    manifests = {seed: split_pictures(name, pictures, split, seed) for seed in split.seeds}
    hashes = {picture.path: picture.fingerprint for picture in pictures}
    near = [duplicates.across(manifest, hashes, seed) for seed, manifest in manifests.items()]
    near_duplicates = pd.concat(near, ignore_index=True)
    with replacing(out) as fresh:
        fresh.mkdir()
        for seed, manifest in manifests.items():
            write_frame(manifest, fresh / f"{seed}.csv")
        write_frame(surveyed.left_out[LEFT_OUT_COLUMNS], fresh / LEFT_OUT)
        write_frame(near_duplicates, fresh / NEAR_DUPLICATES)
    write_card(card_path(out), name, facts_of(dataset, surveyed, manifests, near_duplicates))
    used = set().union(*(manifest["path"] for manifest in manifests.values()))
    return Written(
        surveyed.left_out,
        near_duplicates,
        notes,
        len(pictures),
        len(_by_class(pictures)),
        len(used),
        split.near_duplicates == "one_side",
    )


def check(name: str, dataset: Dataset, surveyed: Survey) -> list[str]:
    """Checks that pictures can be split as params.yaml says.

    Args:
        name: Dataset name, used in error messages.
        dataset: The dataset's section of params.yaml.
        surveyed: The pictures and other files of its source.

    Returns:
        What the user should know: one sentence each.

    Raises:
        SplitError: They can't; see :func:`write_splits`.
    """
    for key, named in (("classes", dataset.classes), ("leave_out", dataset.leave_out)):
        _check_named(f"{name}.{key}", frozenset(map(composed, named)), surveyed.classes)
    unused = not_used(dataset)
    classes = frozenset(one for one in surveyed.classes if unused(one) is None)
    _check_classes(name, dataset, surveyed, classes)
    pictures, split = surveyed.pictures, dataset.split
    notes = [*surveyed.notes, *_check_groups(name, pictures, split.group)]
    notes += _check_given(name, pictures, classes)
    small = _without_pictures(classes, surveyed) | too_small(pictures, split, split.seeds[0])
    if small:
        raise SplitError(_too_few(name, split, small))
    return notes


def not_used(dataset: Dataset) -> Callable[[str], str | None]:
    """A function that says for which key a class is left out, or None for a class that is used.

    Args:
        dataset: The dataset's section of params.yaml.
    """
    chosen = frozenset(map(composed, dataset.classes))
    leave_out = frozenset(map(composed, dataset.leave_out))

    def key(class_name: str) -> str | None:
        if class_name in leave_out:
            return "in leave_out"
        return "not in classes" if chosen and class_name not in chosen else None

    return key


def split_pictures(name: str, pictures: Sequence[Picture], split: Split, seed: int) -> pd.DataFrame:
    """Splits the pictures of each class into validation, test and train.

    Validation pictures are the same for every seed, so that no test set has one of them. All other
    pictures are on a circle, in the order of a hash of (class, group). The test pictures follow a
    point on it, which moves by the golden section of the circle from one seed to the next. So any
    number of seeds covers the pictures almost equally often, and two test sets have hardly more
    pictures in common than they must, on average. Training pictures are the first of the rest
    in the order of a hash of (seed, class, group). A larger training set therefore leaves the test
    pictures unchanged, and a new picture changes the role of few others. Hashes are the same on
    every machine.

    If the source gives a test or validation set, all of it is used, for every seed. Training
    pictures, and validation pictures if no validation set is given, are then chosen from the given
    training pictures.

    Args:
        name: Dataset name, used in error messages.
        pictures: Usable pictures, in any order.
        split: Numbers of pictures for each role, and how pictures are grouped.
        seed: Seed of the shuffle.

    Returns:
        The manifest; see :mod:`~vgg16_transfer.images.manifests`. Labels number the sorted classes.

    Raises:
        SplitError: A class has too few pictures, or there are fewer than two classes.
    """
    by_class = _by_class(pictures)
    if len(by_class) < 2:  # noqa: PLR2004
        raise SplitError(_too_few_classes(name, list(by_class)))
    small = too_small(pictures, split, seed)
    if small:
        raise SplitError(_too_few(name, split, small))
    rows = [
        (picture.path, label, class_name, picture.sha256, role, rank)
        for label, (class_name, members) in enumerate(sorted(by_class.items()))
        for role, chosen in _split_class(class_name, members, split, seed)._asdict().items()
        for rank, picture in enumerate(chosen)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _by_class(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    by_class: dict[str, list[Picture]] = defaultdict(list)
    for picture in sorted(pictures):
        by_class[picture.class_name].append(picture)
    return by_class


def _split_class(class_name: str, members: Sequence[Picture], split: Split, seed: int) -> _Class:
    groups = _groups(members, split)
    given: dict[str, list[Picture]] = defaultdict(list)
    for picture in members:
        if picture.role:
            given[picture.role].append(picture)
    if given:
        # A group with a picture of a given test or validation set is not used for training.
        groups = {
            key: group
            for key, group in groups.items()
            if all(picture.role == "train" for picture in group)
        }
        given.setdefault("test", [])
    test, validation = given.get("test"), given.get("validation")
    if validation is None:
        fixed = sorted(groups, key=lambda key: _sha256(f"validation:{class_name}:{key}"))
        validation = _take(groups, fixed, split.validation_per_class)
    if test is None:
        circle = sorted(groups, key=lambda key: _sha256(f"{class_name}:{key}"))
        start = seed * _GOLDEN % _WHOLE * len(circle) // _WHOLE
        test = _take(groups, circle[start:] + circle[:start], split.test_per_class)
    shuffled = sorted(groups, key=lambda key: _sha256(f"{seed}:{class_name}:{key}"))
    return _Class(_take(groups, shuffled, split.train_per_class), validation, test)


def _groups(members: Iterable[Picture], split: Split) -> dict[str, list[Picture]]:
    """Pictures that have to stay on one side of the split, by the name of their group."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in members:
        matched = _group(split.group, picture.path)
        groups[picture.path if matched is None else matched].append(picture)
    if split.near_duplicates == "list":
        return groups
    hashes = {picture.path: picture.fingerprint for picture in members}
    paths = {key: [picture.path for picture in group] for key, group in groups.items()}
    joined: dict[str, list[Picture]] = defaultdict(list)
    for key, first in sorted(duplicates.merged(paths, hashes).items()):
        joined[first] += groups[key]
    return joined


def _group(pattern: str | None, path: str) -> str | None:
    """The group of a path, or None if it has none.

    Raises:
        SplitError: The search does not end in time. Some patterns try every way to split a path.
    """
    try:
        match = regex.search(pattern, path, timeout=_GROUP_TIMEOUT_S) if pattern else None
    except TimeoutError:
        raise SplitError(
            f"params.yaml: split.group: '{pattern}' needs more than {_GROUP_TIMEOUT_S} s for the "
            f"path {path}; use a pattern that does not repeat a repetition, such as (a+)+"
        ) from None
    return match[1] if match else None  # match[1] is None if an optional group did not match


def _take(groups: dict[str, list[Picture]], order: Iterable[str], count: int) -> list[Picture]:
    """Removes the first groups of an order, and returns their first ``count`` pictures.

    The rest of the last group is not used: its pictures must not get another role.
    """
    taken: list[Picture] = []
    for key in order:
        if len(taken) >= count:
            break
        taken += groups.pop(key)
    return taken[:count]


def too_small(pictures: Iterable[Picture], split: Split, seed: int) -> dict[str, str]:
    """Classes with too few pictures for a split, each with a description of what it has.

    Args:
        pictures: Usable pictures, in any order.
        split: Numbers of pictures for each role, and how pictures are grouped.
        seed: Seed of the shuffle.
    """
    small = {}
    for class_name, members in sorted(_by_class(pictures).items()):
        chosen = _split_class(class_name, members, split, seed)
        given = {picture.role for picture in members if picture.role}
        enough = len(chosen.train) >= split.train_per_class and (
            "validation" in given or len(chosen.validation) >= split.validation_per_class
        )
        if not given:
            enough = enough and len(chosen.test) >= split.test_per_class
        if not enough:
            small[class_name] = _count(members, split)
    return small


def _count(members: Sequence[Picture], split: Split) -> str:
    training = [picture for picture in members if picture.role in {None, "train"}]
    given = " for training" if len(training) < len(members) else ""
    if split.group is None and split.near_duplicates == "list":
        return f"{len(training)}{given}"
    return f"{len(training)}{given} in {len(_groups(training, split))} groups"


def _without_pictures(classes: Iterable[str], surveyed: Survey) -> dict[str, str]:
    """Classes without a usable picture, each with the reasons."""
    without = sorted(set(classes) - {picture.class_name for picture in surveyed.pictures})
    left_out = surveyed.left_out
    return {
        class_name: f"0 ({'; '.join(reasons) or 'no files'})"
        for class_name in without
        for reasons in [
            [
                f"{len(rows)}: {kind}"
                for kind, rows in left_out[left_out["class_name"] == class_name].groupby("kind")
            ]
        ]
    }


def _too_few(name: str, split: Split, small: Mapping[str, str]) -> str:
    needed = split.test_per_class + split.validation_per_class + split.train_per_class
    named = [f"class '{key}' has {count}" for key, count in sorted(small.items())[:NAMED]]
    rest = f" and {len(small) - NAMED} more classes" if len(small) > NAMED else ""
    these = f"'{next(iter(small))}'" if len(small) == 1 else "these classes"
    return (
        f"params.yaml: datasets.{name}: too few usable pictures for {split.train_per_class} train "
        f"+ {split.validation_per_class} validation + {split.test_per_class} test = {needed}: "
        f"{', '.join(named)}{rest}; lower these numbers under datasets.{name}.split, or add "
        f"{these} to datasets.{name}.leave_out"
    )


def _too_few_classes(name: str, classes: Sequence[str]) -> str:
    usable = f"only the class '{classes[0]}'" if classes else "no classes"
    return f"params.yaml: datasets.{name}: found {usable}, but a head needs at least 2"


def _check_classes(name: str, dataset: Dataset, surveyed: Survey, classes: frozenset[str]) -> None:
    if len(classes) > 1:
        return
    named = sorted(classes) if surveyed.pictures else []
    raise SplitError(
        f"{_too_few_classes(name, named)}; layout: {dataset.layout} needs "
        f"{EXPECTED[dataset.layout]}, but the source has {surveyed.contents}"
    )


def _check_groups(name: str, pictures: Sequence[Picture], pattern: str | None) -> list[str]:
    """A sentence if the pattern matches only some of the paths; otherwise no sentence.

    Raises:
        SplitError: The pattern matches no path.
    """
    key = f"datasets.{name}.split.group"
    unmatched = [picture.path for picture in pictures if _group(pattern, picture.path) is None]
    if pattern is None or not unmatched:
        return []
    if len(unmatched) == len(pictures):
        raise SplitError(
            f"params.yaml: {key}: '{pattern}' matches none of the {len(unmatched)} paths, such as "
            f"{unmatched[0]}; paths are relative to the source"
        )
    matched = len(pictures) - len(unmatched)
    sentence = (
        f"{key} matches {matched} of {len(pictures)} paths; the others, such as {unmatched[0]}, "
    )
    return [sentence + "are in no group"]


def _check_given(name: str, pictures: Sequence[Picture], classes: frozenset[str]) -> list[str]:
    """A sentence if classes are missing from a given validation set; otherwise no sentence.

    Raises:
        SplitError: Classes are missing from a given test set, or from the training pictures.
    """
    by_role: dict[str, set[str]] = defaultdict(set)
    for picture in pictures:
        if picture.role:
            by_role[picture.role].add(picture.class_name)
    usable = set().union(*by_role.values()) & classes
    missing = {
        role: sorted(usable - present) for role, present in by_role.items() if usable - present
    }
    lacking = [f"{role} has none of {_listed(missing[role])}" for role in sorted(missing)]
    if not lacking:
        return []
    sentence = f"the given splits differ in their classes: {'; '.join(lacking)}"
    if missing.keys() == {"validation"}:
        return [sentence]
    raise SplitError(
        f"params.yaml: datasets.{name}: {sentence}; add these classes to "
        f"datasets.{name}.leave_out, or add pictures of them to that split"
    )


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"'{name}'" for name in names[:NAMED]) + rest


def _check_named(key: str, named: frozenset[str], classes: frozenset[str]) -> None:
    for class_name in sorted(named - classes) if classes else []:
        raise SplitError(
            f"params.yaml: datasets.{key}: the source has no class '{class_name}'; "
            f"{nearest(class_name, sorted(classes))}"
        )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
