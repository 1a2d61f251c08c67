"""What CHANGES.md says of two versions of a dataset, and that nothing is left out of it."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgg16_transfer.images.manifests import COLUMNS
from vgg16_transfer.versions.changes import FIELDS, NAMED, difference, entry, same

ROLES = ["train", "validation", "test"]

rows = st.tuples(
    st.integers(0, 2), st.sampled_from("ab"), st.sampled_from("01"), st.sampled_from(ROLES)
)
manifests = st.dictionaries(
    st.sampled_from([f"{i}.png" for i in range(8)]), st.tuples(rows, st.integers(0, 2))
).map(
    lambda pictures: pd.DataFrame(
        [(path, *row, rank) for path, (row, rank) in pictures.items()], columns=COLUMNS
    )
)


def manifest(*pictures: str, **changes: dict[str, object]) -> pd.DataFrame:
    """Pictures as ``class/name:role``, in the order of their ranks; changes by name."""
    result = []
    for rank, picture in enumerate(pictures):
        path, role = picture.split(":")
        class_name, name = path.split("/")
        row = {"path": path, "label": 0, "class_name": class_name, "sha256": name * 8}
        result.append(row | {"role": role, "rank": rank} | changes.get(name, {}))
    return pd.DataFrame(result, columns=COLUMNS)


def listed(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.lstrip().startswith("- ")]


def rebuilt(before: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """A manifest after a difference is applied, sorted by path."""
    kept = before[~before["path"].isin(rows["path"])].astype(object)
    came = rows.dropna(subset=["role_after"])[["path", *(f"{field}_after" for field in FIELDS)]]
    both = pd.concat([kept, came.set_axis(COLUMNS, axis="columns").astype(object)])
    return both.sort_values("path", ignore_index=True)


@settings(deadline=None, max_examples=40)
@given(before=manifests, after=manifests)
def test_the_difference_applied_to_the_old_manifest_gives_the_new_one(before, after) -> None:
    expected = after.astype(object).sort_values("path", ignore_index=True)
    result = rebuilt(before, difference(before, after))
    assert result.to_dict("records") == expected.to_dict("records")


@settings(deadline=None, max_examples=40)
@given(before=manifests, after=manifests)
def test_the_difference_holds_nothing_that_is_the_same(before, after) -> None:
    rows = difference(before, after)
    old = {tuple(row) for row in before.itertuples(index=False)}
    new = {tuple(row) for row in after.itertuples(index=False)}
    assert set(rows["path"]) == {row[0] for row in old ^ new}
    assert same({0: before}, {0: after}) == (old == new)


@settings(deadline=None, max_examples=40)
@given(before=manifests, after=manifests)
def test_every_picture_that_came_or_went_is_named(before, after) -> None:
    text = entry("v2", "v1", {0: before}, {0: after})
    for path in set(before["path"]) ^ set(after["path"]):
        assert f"`{path}`" in text


def test_what_happened_to_pictures_is_told_by_kind() -> None:
    before = manifest("a/1:train", "a/2:train", "a/3:test", "a/4:test")
    after = manifest(
        "a/1:train", "a/2:train", "a/3:test", "b/5:test",
        **{"1": {"class_name": "b"}, "2": {"sha256": "other"}},
    )  # fmt: skip
    assert listed(entry("v2", "v1", {0: before}, {0: after})) == [
        "- added, 1: `b/5`",
        "- removed, 1: `a/4`",
        "- relabelled, 1: `a/1` (`a` → `b`)",
        "- other bytes, 1: `a/2`",
        "- seed 0: 2 train, 2 test",
        "- new in test, 1: `b/5`",
        "- no longer in test, 1: `a/4`",
    ]


@pytest.mark.parametrize("old", ROLES)
@pytest.mark.parametrize("new", ROLES)
def test_a_picture_that_changes_sides_is_moved(old: str, new: str) -> None:
    before = manifest(f"a/1:{old}", "a/2:train")
    after = manifest(f"a/1:{new}", "a/2:train")
    moved = [f"- moved from {old} to {new}, 1: `a/1`"] if old != new else []
    assert listed(entry("v2", "v1", {0: before}, {0: after}))[1:] == moved


def test_another_order_is_told_since_small_heads_see_the_front_of_it() -> None:
    before, after = manifest("a/1:train", "a/2:train"), manifest("a/2:train", "a/1:train")
    text = entry("v2", "v1", {0: before}, {0: after})
    assert listed(text) == ["- seed 0: 2 train", "- in another place of the order: 2"]


def test_seeds_that_are_the_same_are_passed_over() -> None:
    one, other = manifest("a/1:train", "a/2:test"), manifest("a/2:train", "a/1:test")
    text = entry("v2", "v1", {0: one, 1: one, 3: one}, {0: one, 1: other, 2: one})
    assert [line for line in listed(text) if "seed" in line] == [
        "- seed 1: 1 train, 1 test",
        "- seed 2 is new: 1 train, 1 test",
        "- seed 3 is gone",
    ]


def test_a_picture_that_only_another_seed_takes_is_not_new_to_the_dataset() -> None:
    one, other = manifest("a/1:train"), manifest("a/2:train")
    text = entry("v2", "v1", {0: one, 1: other}, {0: other, 1: one})
    assert "- added" not in text
    assert "- removed" not in text
    assert text.count("new in train, 1") == 2


def test_the_first_version_is_counted_and_not_listed() -> None:
    text = entry("v1", None, {}, {0: manifest("a/1:train", "b/2:test")})
    assert text == (
        "## v1\n\nThe first version: 2 pictures in 2 classes added.\n\n"
        "- seed 0 is new: 1 train, 1 test\n"
    )


@pytest.mark.parametrize("more", [0, 1, 30])
def test_long_lists_name_the_first_and_count_the_rest(more: int) -> None:
    count = NAMED + more
    after = manifest(*(f"a/{i:03}:train" for i in range(count)))
    text = entry("v2", "v1", {0: after.head(0)}, {0: after})
    (added,) = [line for line in listed(text) if line.startswith("- added")]
    assert added.startswith(f"- added, {count}: `a/000`, `a/001`")
    assert added.count("`a/") == NAMED
    assert added.endswith(f" and {more} more") == (more > 0)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a`b", "`` a/a`b ``"), ("a\nb", "`a/a\\nb`"), ("ä b", "`a/ä b`"), ("*b*", "`a/*b*`")],
)
def test_a_name_breaks_no_markdown(name: str, shown: str) -> None:
    after = manifest(f"a/{name}:train")
    assert f"- added, 1: {shown}" in listed(entry("v2", "v1", {0: after.head(0)}, {0: after}))
