"""The data card of a dataset, with its example pictures, for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vgg16_transfer.images.cards import EXAMPLES, card_path, read_facts
from vgg16_transfer.reporting import embedded, reading

if TYPE_CHECKING:
    from pathlib import Path

    from vgg16_transfer.reporting.embedded import Picture


class DataCard(NamedTuple):
    """What the page says about a dataset.

    Attributes:
        facts: Facts by title; see :mod:`~vgg16_transfer.images.cards`.
        samples: Training pictures of each class; none if they were not drawn.
    """

    facts: dict[str, str]
    samples: list[Picture]


def read(splits: Path, filters: Path, dataset: str, seed: int) -> DataCard | None:
    """Reads the data card of a dataset; None if there is none.

    Args:
        splits: Folder of the dataset's manifests.
        filters: Folder of the pictures that the stage ``filters`` drew for the dataset.
        dataset: Name of the dataset.
        seed: Seed of the dataset's first split, whose training pictures are shown.

    Raises:
        ReadError: The card, the manifest or the sheet of pictures is damaged.
    """
    path = card_path(splits)
    if not path.exists():
        return None
    with reading.checked(path, f"dvc repro splits@{dataset}"):
        facts = read_facts(path.read_text(encoding="utf-8"))
    facts.pop(EXAMPLES)  # the page shows more pictures than these
    return DataCard(facts, embedded.samples(filters, dataset, splits / f"{seed}.csv"))
