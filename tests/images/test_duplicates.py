import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from vgg16_transfer.images import duplicates
from vgg16_transfer.images.duplicates import (
    COLUMNS,
    NEAR,
    Pair,
    across,
    fingerprint,
    merged,
    near_pairs,
)
from vgg16_transfer.images.pictures import decode

from .conftest import jpeg, photo

ORIGINAL = photo(0)
FAR = bytes(32)


def flipped(bits: int) -> bytes:
    """A fingerprint so many bits away from FAR."""
    return ((1 << bits) - 1).to_bytes(32, "big")


@pytest.mark.parametrize(
    "changed",
    [
        decode(jpeg(ORIGINAL, 30)),
        ORIGINAL.resize((80, 80), Image.Resampling.BICUBIC),
        ORIGINAL.resize((400, 300), Image.Resampling.BICUBIC),
        ORIGINAL.convert("L").convert("RGB"),
        ImageEnhance.Brightness(ORIGINAL).enhance(1.1),
    ],
    ids=["compressed", "smaller", "larger", "grey", "brighter"],
)
def test_a_picture_that_was_changed_a_little_is_near(changed: Image.Image) -> None:
    assert len(list(near_pairs([fingerprint(ORIGINAL)], [fingerprint(changed)]))) == 1


def test_different_pictures_are_not_near() -> None:
    hashes = [fingerprint(photo(seed)) for seed in range(20)]
    assert [pair for pair in near_pairs(hashes, hashes) if pair.first != pair.second] == []


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_pairs_come_in_order_with_their_distance_whatever_the_chunk(monkeypatch, chunk) -> None:
    monkeypatch.setattr(duplicates, "_CHUNK", chunk)
    left, right = [FAR, flipped(NEAR + 1), flipped(200)], [flipped(NEAR), flipped(201), FAR]
    assert list(near_pairs(left, right)) == [
        Pair(0, 0, NEAR),
        Pair(0, 2, 0),
        Pair(1, 0, 1),
        Pair(2, 1, 1),
    ]


@pytest.mark.parametrize("other", ["lime", "#ff0100", "black"])
def test_pages_of_different_colours_are_not_near(other: str) -> None:
    pages = [fingerprint(Image.new("RGB", (64, 64), colour)) for colour in ("red", other)]
    assert list(near_pairs(pages[:1], pages[1:])) == []


def test_nothing_is_near_nothing() -> None:
    assert list(near_pairs([], [FAR])) == list(near_pairs([FAR], [])) == []


def test_pairs_across_the_sides_of_a_split_are_listed_once_test_side_first() -> None:
    roles = {"t1": "test", "t2": "test", "v": "validation", "r": "train", "s": "train"}
    manifest = pd.DataFrame({"path": roles.keys(), "role": roles.values()})
    hashes = {"t1": FAR, "t2": FAR, "v": flipped(2), "r": flipped(5), "s": flipped(250)}
    pairs = across(manifest, hashes, seed=7)
    assert list(pairs.columns) == COLUMNS
    assert pairs.to_numpy().tolist() == [
        [7, "t1", "test", "v", "validation", 2],
        [7, "t2", "test", "v", "validation", 2],
        [7, "t1", "test", "r", "train", 5],
        [7, "t2", "test", "r", "train", 5],
        [7, "v", "validation", "r", "train", 3],
    ]


def test_groups_that_are_joined_by_a_chain_become_one() -> None:
    hashes = {"1": FAR, "2": flipped(20), "3": flipped(40), "4": flipped(200), "5": flipped(42)}
    groups = {"a": ["4"], "b": ["3"], "c": ["1", "5"], "d": ["2"]}
    assert merged(groups, hashes) == {"a": "a", "b": "b", "c": "b", "d": "b"}
