"""Looks at a source for the first time: the dataset section and the study that fit it."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, NamedTuple

from PIL import Image

from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.duplicates import near_pairs
from vgg16_transfer.images.ignored import passed_by
from vgg16_transfer.images.layouts import Files, composed, recognise
from vgg16_transfer.images.splits import NAMED, SplitError, check, not_used, too_small
from vgg16_transfer.images.survey import survey
from vgg16_transfer.params import Dataset, Split
from vgg16_transfer.params.section import MAX_NAME, NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vgg16_transfer.images.archives import Archive
    from vgg16_transfer.images.survey import Picture, Survey
    from vgg16_transfer.params import Layout

_COUNTS = (
    (16, 8, 6),
    (8, 8, 6),
    (8, 4, 4),
    (4, 4, 3),
    (4, 2, 2),
    (2, 2, 1),
    (1, 1, 1),
)
"""Training, test and validation pictures of a class. The first row that fits is proposed."""

_SIZES = (2, 4, 8, 16)
"""Training pictures of a class, as in the report."""

_CLASSES = 2
_SMALLEST = sum(_COUNTS[-1])
_ENDINGS = re.compile(r"(\.tar)?\.(tar|tgz|tbz2?|txz|zip|gz|bz2|xz)$", re.IGNORECASE)


class Proposal(NamedTuple):
    """What a source holds, and how to use it.

    Attributes:
        name: Dataset name.
        dataset: The dataset's section of params.yaml.
        samples_per_class: Sizes of training sets to compare, ascending.
        surveyed: The pictures and other files of the source.
        notes: What the user should know: one sentence each.
    """

    name: str
    dataset: Dataset
    samples_per_class: tuple[int, ...]
    surveyed: Survey
    notes: tuple[str, ...]

    def by_class(self) -> dict[str, list[Picture]]:
        """The usable pictures of each class, by class name, sorted."""
        classes: dict[str, list[Picture]] = defaultdict(list)
        for picture in sorted(self.surveyed.pictures):
            classes[picture.class_name].append(picture)
        return dict(sorted(classes.items()))


def propose(
    path: Path,
    source: str,
    layers: Sequence[str],
    *,
    name: str | None = None,
    layout: Layout | None = None,
    leave_out: Iterable[str] | None = None,
    encoding: str | None = None,
) -> Proposal:
    """Reads every picture of a source once, and proposes how to use it.

    The numbers of pictures are the largest that every class has. A class with too few pictures for
    the smallest numbers is left out. If a class has near-duplicates, they are kept on one side.

    Args:
        path: An archive or a folder.
        source: What the section calls the path.
        layers: Layers of the section.
        name: Dataset name; by default, it is made of the path's name.
        layout: Layout of the source; by default, it is recognised.
        leave_out: Classes to leave out; by default, those with too few pictures.
        encoding: Encoding of the names in an archive that does not record it.

    Raises:
        ArchiveError: The source can't be read.
        LayoutError: The source is not laid out as ``layout`` says.
        SplitError: The source has fewer than two classes with three pictures.
    """
    name = name or dataset_name(path)
    with open_archive(path, encoding) as archive:
        dataset = Dataset(
            source=source,
            layout=layout or recognise(_files(archive)),
            encoding=encoding,
            leave_out=sorted(map(composed, leave_out or [])),
            layers=list(layers),
        )
        surveyed = survey(archive, dataset.layout, not_used(dataset), f"read {path.name}")
        small = _too_few(surveyed, dataset.leave_out)
        if leave_out is None and small and len(surveyed.classes) - len(small) >= _CLASSES:
            dataset = dataset.model_copy(update={"leave_out": sorted(small)})
            surveyed = survey(archive, dataset.layout, not_used(dataset), f"read {path.name}")
    split = _split(surveyed.pictures)
    if split is None and small and len(surveyed.classes) >= _CLASSES:
        raise SplitError(f"{path}: {_needs(small)}")
    dataset = dataset.model_copy(update={"split": split or Split()})
    notes = check(name, dataset, surveyed)
    if small:
        notes.append(f"left out: {_needs(small)}")
    notes += _held_back_by(surveyed.pictures, dataset.split)
    train = dataset.split.train_per_class
    sizes = tuple(size for size in _SIZES if size <= train) or (train,)
    return Proposal(name, dataset, sizes, surveyed, tuple(notes))


def dataset_name(path: Path) -> str:
    """A dataset name made of the name of a folder or archive."""
    words = re.findall(r"[a-z0-9]+", _ENDINGS.sub("", path.name).lower())
    name = "-".join(words)[:MAX_NAME].rstrip("-")
    return name if NAME.fullmatch(name) else "pictures"


def _files(archive: Archive) -> Files:
    """The files of a source, told apart by their endings: nothing is decoded yet."""
    endings = Image.registered_extensions()
    names = sorted(name for name in archive.names() if not passed_by(name))
    is_picture = {name: PurePosixPath(name).suffix.lower() in {"", *endings} for name in names}
    return Files(
        pictures=[name for name in names if is_picture[name]],
        others=[name for name in names if not is_picture[name]],
        folders=[name for name in archive.folders() if not passed_by(name)],
        read=archive.read,
    )


def _too_few(surveyed: Survey, leave_out: Iterable[str]) -> dict[str, int]:
    """Number of usable pictures of each class that has too few of them for any split."""
    counts = Counter(picture.class_name for picture in surveyed.pictures)
    given = any(picture.role for picture in surveyed.pictures)
    needed = 1 if given else _SMALLEST
    used = sorted(surveyed.classes - set(leave_out))
    return {name: counts[name] for name in used if counts[name] < needed}


def _needs(small: Mapping[str, int]) -> str:
    listed = ", ".join(f"'{name}' has {count}" for name, count in list(small.items())[:NAMED])
    more = f" and {len(small) - NAMED} more have too few" if len(small) > NAMED else ""
    return (
        f"a class needs {_SMALLEST} usable pictures, to train, to choose by and to test: "
        f"{listed}{more}"
    )


def _split(pictures: Sequence[Picture]) -> Split | None:
    """The largest split that every class has pictures for, or None."""
    kinds: tuple[Literal["one_side", "list"], ...] = ("list",)
    if _has_near_duplicates(pictures):
        kinds = ("one_side", "list")
    for near_duplicates, (train, test, validation) in itertools.product(kinds, _COUNTS):
        split = Split(
            train_per_class=train,
            test_per_class=test,
            validation_per_class=validation,
            near_duplicates=near_duplicates,
        )
        if pictures and not too_small(pictures, split, split.seeds[0]):
            return split
    return None


def _has_near_duplicates(pictures: Iterable[Picture]) -> bool:
    """Whether two pictures of one class are almost the same."""
    by_class: dict[str, list[bytes]] = defaultdict(list)
    for picture in pictures:
        by_class[picture.class_name].append(picture.fingerprint)
    return any(
        pair.first < pair.second
        for hashes in by_class.values()
        for pair in near_pairs(hashes, hashes)
    )


def _held_back_by(pictures: Iterable[Picture], split: Split) -> list[str]:
    """A sentence about one class that is much smaller than all others."""
    counts = Counter(picture.class_name for picture in pictures if picture.role != "test")
    (smallest, count), *others = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    if others[0][1] < 2 * count or split.train_per_class == _COUNTS[0][0]:
        return []
    sentence = (
        f"'{smallest}' has only {count} pictures, and every other class {others[0][1]} or more; "
        "to train on more of each class, add pictures to it, or leave it out (leave_out)"
    )
    return [sentence]
