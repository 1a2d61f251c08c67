"""Heads as ``.keras`` files, and their probabilities. The same model gives the same bytes."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from vgg16_transfer.artifacts import reading, replacing
from vgg16_transfer.heads.saved import MADE_OF, METADATA, HeadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from vgg16_transfer.heads.rows import Features
    from vgg16_transfer.heads.saved import MadeOf

_AT_ONCE = 64  # pictures; more could fill the memory if a head has fine-tuned blocks

_COPIED = 1 << 20  # bytes that are copied at a time

_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The earliest time stamp that a zip file can hold."""


def save(model: keras.Model, path: Path, made_of: MadeOf | None = None) -> None:
    """Saves a model as ``.keras`` such that the same model gives the same bytes.

    Keras writes the current time into the file's members and metadata. Both are replaced by the
    earliest time that a zip file can hold. Keras also identifies the objects of the configuration
    by their addresses in memory. These are replaced by numbers.

    Args:
        model: A head, or a backbone.
        path: The file to write. On errors, it is left unchanged.
        made_of: What a head was trained on, written to the file's metadata. None for a backbone.
    """
    with replacing(path) as fresh:
        stamped = fresh.with_name("stamped.keras")
        model.save(stamped)
        with zipfile.ZipFile(stamped) as source, zipfile.ZipFile(fresh, "w") as target:
            metadata = json.loads(source.read(METADATA)) | {"date_saved": "1980-01-01@00:00:00"}
            if made_of is not None:
                metadata[MADE_OF] = made_of._asdict()
            changed = {
                METADATA: json.dumps(metadata, ensure_ascii=False).encode(),
                "config.json": _numbered(source.read("config.json")),
            }
            for name in sorted(source.namelist()):
                member = zipfile.ZipInfo(name, _LONG_AGO)
                if name in changed:
                    target.writestr(member, changed[name])
                    continue
                member.file_size = source.getinfo(name).file_size
                # Weights may have half a gigabyte, which need not be in memory once more.
                with source.open(name) as content, target.open(member, "w") as copy:
                    shutil.copyfileobj(content, copy, _COPIED)


def _numbered(config: bytes) -> bytes:
    """Replaces the ids of shared objects by 1, 2, … in the order of their first occurrence."""
    ids: dict[bytes, int] = {}
    return re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda match: b"%d" % ids.setdefault(match[0], len(ids) + 1),
        config,
    )


def load(path: Path) -> keras.Model:
    """Loads a model that :func:`save` wrote. Code in the file is never run.

    Raises:
        HeadError: The file is missing or damaged.
    """
    with reading(path, HeadError):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # compares every member with its checksum
        if damaged:
            raise ValueError(f"its member {damaged} has another checksum")
        return keras.saving.load_model(path, compile=False, safe_mode=True)


def probabilities(model: keras.Model, features: Features) -> npt.NDArray[np.float32]:
    """Computes class probabilities.

    Args:
        model: A head.
        features: Shape (n, width), float32.

    Returns:
        Shape (n, classes), float32.
    """
    return in_parts(model, features)


def in_parts(
    function: Callable[[npt.NDArray[np.float32]], Any], features: Features
) -> npt.NDArray[np.float32]:
    """Applies a function, such as a model, to a few rows at a time.

    Args:
        function: Takes rows of shape (few, width), and returns a tensor of as many rows.
        features: Shape (n, width), float32.

    Returns:
        The results, one below the other.
    """
    rows = range(0, len(features), _AT_ONCE)
    parts = [function(features[row : row + _AT_ONCE]) for row in rows]
    return np.concatenate([part.numpy() for part in parts])
