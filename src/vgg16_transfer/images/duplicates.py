"""Finds pictures that are almost the same, by their perceptual hashes.

The hash is pHash with 16 x 16 coefficients (256 bits). Two pictures count as near-duplicates if at
most ``NEAR`` bits differ. docs/datasets.md says how the limit was chosen, and what is not found.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import imagehash
import numpy as np
import pandas as pd
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

NEAR = 26
"""Largest number of different bits, of 256: about one in ten."""

COLUMNS = ["seed", "path", "role", "near_path", "near_role", "distance"]

_SIDE = 16
_FLAT = 8  # of 255: a picture with less contrast than this is taken as one colour
_SHRUNK = 4 * _SIDE  # pixels: the side to which pHash scales a picture
_ROLES = ["test", "validation", "train"]
_CHUNK = 1 << 20  # number of pairs that are compared at once


class Pair(NamedTuple):
    """Indices of two pictures in the given sequences, and how many bits differ."""

    first: int
    second: int
    distance: int


def fingerprint(picture: Image.Image) -> bytes:
    """Perceptual hash of an RGB picture, 32 bytes."""
    small = picture.convert("L")
    if min(picture.size) > _SHRUNK:
        # Much faster than pHash's own Lanczos filter on a whole photo, with the same pairs found.
        small = small.resize((_SHRUNK, _SHRUNK), Image.Resampling.BOX)
    if np.ptp(np.asarray(small)) < _FLAT:
        # pHash gives the same hash for every picture of one colour.
        return hashlib.sha256(picture.resize((_SIDE, _SIDE)).tobytes()).digest()
    return np.packbits(imagehash.phash(small, hash_size=_SIDE).hash).tobytes()


def near_pairs(first: Sequence[bytes], second: Sequence[bytes]) -> Iterator[Pair]:
    """Pairs of near-duplicates, one from each sequence of fingerprints, in order."""
    left, right = _words(first), _words(second)
    rows = max(1, _CHUNK // max(1, len(right)))
    for start in range(0, len(left), rows):
        chunk = left[start : start + rows]
        distance = np.zeros((len(chunk), len(right)), np.uint16)
        for word in range(left.shape[1]):
            distance += np.bitwise_count(chunk[:, None, word] ^ right[:, word])
        for row, column in np.argwhere(distance <= NEAR):
            yield Pair(start + int(row), int(column), int(distance[row, column]))


def across(manifest: pd.DataFrame, fingerprints: Mapping[str, bytes], seed: int) -> pd.DataFrame:
    """Near-duplicates on different sides of one split.

    Args:
        manifest: Manifest of the split; see :mod:`~vgg16_transfer.images.manifests`.
        fingerprints: Fingerprints by path.
        seed: Seed of the split.

    Returns:
        One row per pair, with ``COLUMNS``, sorted. ``path`` is on the side that comes first in the
        order test, validation, train.
    """
    paths = {role: sorted(manifest.loc[manifest["role"] == role, "path"]) for role in _ROLES}
    rows = [
        (seed, paths[role][pair.first], role, paths[other][pair.second], other, pair.distance)
        for index, role in enumerate(_ROLES)
        for other in _ROLES[index + 1 :]
        for pair in near_pairs(
            [fingerprints[path] for path in paths[role]],
            [fingerprints[path] for path in paths[other]],
        )
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def merged(
    groups: Mapping[str, Sequence[str]], fingerprints: Mapping[str, bytes]
) -> dict[str, str]:
    """Joins groups of pictures that have near-duplicates in each other.

    Args:
        groups: Paths by group.
        fingerprints: Fingerprints by path.

    Returns:
        For each group, the first group by name that it is joined with; the group itself if none.
    """
    leader = {group: group for group in groups}

    def lead(group: str) -> str:
        while leader[group] != group:
            leader[group] = leader[leader[group]]
            group = leader[group]
        return group

    owner = [(path, group) for group in sorted(groups) for path in groups[group]]
    hashes = [fingerprints[path] for path, _ in owner]
    for pair in near_pairs(hashes, hashes):
        one, other = sorted((lead(owner[pair.first][1]), lead(owner[pair.second][1])))
        leader[other] = one
    return {group: lead(group) for group in groups}


def _words(fingerprints: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(fingerprints), np.uint64).reshape(-1, _SIDE * _SIDE // 64)
