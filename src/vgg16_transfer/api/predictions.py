"""Classifies pictures, for the command line and for notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from tqdm import tqdm

from vgg16_transfer.api import html
from vgg16_transfer.errors import InputError
from vgg16_transfer.images.archives import MAX_BYTES, open_archive
from vgg16_transfer.images.ignored import passed_by
from vgg16_transfer.images.pictures import PictureError, decode
from vgg16_transfer.rounding import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Probabilities = Callable[[bytes], npt.NDArray[Any]]


class UnreadableError(InputError):
    """Pictures that can't be read. The message is one line per picture."""


class Asked(NamedTuple):
    """A file to classify.

    Attributes:
        name: What it is called, such as its path.
        read: Returns its bytes.
        named: Whether the user named it, rather than a folder that it is in.
    """

    name: str
    read: Callable[[], bytes]
    named: bool = True


class Prediction(NamedTuple):
    """The most likely classes of one picture.

    Attributes:
        picture: Path of the picture.
        classes: Class names and probabilities, the most likely first.
        read: Returns the picture's bytes.
    """

    picture: str
    classes: tuple[tuple[str, float], ...]
    read: Callable[[], bytes]


@dataclass(frozen=True, repr=False)
class Predictions:
    """The most likely classes of some pictures.

    Attributes:
        answers: One per picture that could be read.
        mistakes: A sentence per picture that could not.
        skipped: Files in folders that are no pictures.
    """

    answers: tuple[Prediction, ...]
    mistakes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """``picture``, ``rank`` from 1, ``class`` and ``probability``: one row per class."""
        rows = [
            (answer.picture, rank, name, probability)
            for answer in self.answers
            for rank, (name, probability) in enumerate(answer.classes, start=1)
        ]
        return pd.DataFrame(rows, columns=["picture", "rank", "class", "probability"])

    def __repr__(self) -> str:
        lines = [
            f"{answer.picture}: {', '.join(f'{name} {percent(p)} %' for name, p in answer.classes)}"
            for answer in self.answers
        ]
        return "\n".join([*lines, *self.mistakes]) or "<Predictions of no pictures>"

    def _repr_html_(self) -> str:
        """Each picture, with its most likely classes as bars."""
        rows = []
        for answer in self.answers:
            lines = "<br>".join(
                f"{html.bar(probability)} {percent(probability)} % {html.text(name)}"
                for name, probability in answer.classes
            )
            rows.append([_thumbnail(answer), lines])
        mistakes = "".join(f"<p>{html.text(mistake)}</p>" for mistake in self.mistakes)
        return html.table(["picture", "classes"], rows) + mistakes


def ask(
    files: Iterable[Asked], class_names: Sequence[str], probabilities: Probabilities, top: int
) -> Predictions:
    """Classifies pictures, one at a time. A picture that can't be read costs only itself.

    Args:
        files: What to classify.
        class_names: Class names, in the order of ``probabilities``.
        probabilities: Returns the probability of each class for the bytes of a picture.
        top: Number of classes to keep for each picture.
    """
    answers, mistakes, skipped = [], [], []
    for name, read, named in tqdm(list(files), desc="predict", unit="picture", disable=None):
        try:
            values = [float(value) for value in probabilities(read())]
        except (InputError, OSError) as error:
            if not named and isinstance(error, PictureError) and error.kind == "is no picture":
                skipped.append(name)
                continue
            reason = error.strerror if isinstance(error, OSError) else error
            mistakes.append(f"{name}: {reason}")
            continue
        ranked = sorted(zip(class_names, values, strict=True), key=lambda pair: -pair[1])[:top]
        answers.append(Prediction(name, tuple(ranked), read))
    return Predictions(tuple(answers), tuple(mistakes), tuple(skipped))


def files_in(paths: Iterable[Path]) -> Iterator[Asked]:
    """The files to classify, those in folders sorted by name.

    Args:
        paths: Pictures, or folders of pictures.
    """
    for path in paths:
        if not path.is_dir():
            yield Asked(str(path), partial(_read, path))
            continue
        with open_archive(path) as folder:  # follows links as training does
            names = folder.names()
        within = sorted(path / name for name in names if passed_by(name) is None)
        if not within:
            yield Asked(str(path), partial(_refuse, "is a folder without pictures"))
        for one in within:
            yield Asked(str(one), partial(_read, one), named=False)


def _thumbnail(answer: Prediction) -> str:
    try:
        return html.thumbnail(decode(answer.read()), answer.picture)
    except (InputError, OSError):  # it was there when it was classified
        return html.text(answer.picture)


def _read(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise UnreadableError("is neither a file nor a folder")
    if path.exists() and path.stat().st_size > MAX_BYTES:
        raise UnreadableError(f"holds more than {MAX_BYTES / 1e6:.0f} MB, more than any picture")
    return path.read_bytes()


def _refuse(reason: str) -> bytes:
    raise UnreadableError(reason)
