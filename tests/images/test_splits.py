import hashlib
import random as randomness
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgg16_transfer.images import splits
from vgg16_transfer.images.archives import ArchiveError, open_archive
from vgg16_transfer.images.manifests import COLUMNS, LEFT_OUT, read_manifest
from vgg16_transfer.images.splits import Picture, SplitError, deal, survey, write_splits
from vgg16_transfer.params import Dataset, Split

from .conftest import picture, write_folder, write_tar, write_zip

GROUP = r"/(g\d+)_"
ROLES = ("train", "validation", "test")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def made_up(class_name: str, group: int, index: int) -> Picture:
    path = f"p/{class_name}/g{group}_{index}.jpg"
    return Picture(path, class_name, sha256(path.encode()))


def chosen(manifest: pd.DataFrame, role: str, key: str = "path") -> set[str]:
    return set(manifest.loc[manifest["role"] == role, key])


@st.composite
def splits_of_any_size(draw: st.DrawFn) -> Split:
    return Split(
        seeds=[0],
        train_per_class=draw(st.integers(1, 6)),
        test_per_class=draw(st.integers(1, 6)),
        validation_per_class=draw(st.integers(0, 4)),
        group=draw(st.sampled_from([None, GROUP])),
    )


def asked(split: Split) -> int:
    return split.train_per_class + split.test_per_class + split.validation_per_class


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Picture], Split]:
    """A split, and classes that have groups enough for it, of one to three pictures each."""
    split = draw(splits_of_any_size())
    pictures = []
    for class_name in draw(st.sampled_from([["ants", "bees"], ["z", "a", "m m"]])):
        spare = draw(st.integers(0, 5))
        sizes = draw(
            st.lists(
                st.integers(1, 3), min_size=asked(split) + spare, max_size=asked(split) + spare
            )
        )
        pictures += [
            made_up(class_name, group, index)
            for group, size in enumerate(sizes)
            for index in range(size)
        ]
    return pictures, split


SEEDS = st.integers(0, 2**31)
sometimes = settings(deadline=None, max_examples=30)


@sometimes
@given(problem=problems(), seed=SEEDS)
def test_roles_are_as_large_as_asked_and_share_nothing(problem, seed: int) -> None:
    pictures, split = problem
    manifest = deal("d", pictures, split, seed)
    sizes = manifest.groupby(["class_name", "role"]).size().to_dict()
    assert sizes == {
        (class_name, role): getattr(split, f"{role}_per_class")
        for class_name in {p.class_name for p in pictures}
        for role in ROLES
        if getattr(split, f"{role}_per_class")
    }
    assert manifest["path"].is_unique
    assert manifest["sha256"].is_unique


@sometimes
@given(problem=problems(), seed=SEEDS)
def test_rows_say_of_a_picture_what_was_known_of_it(problem, seed: int) -> None:
    pictures, split = problem
    manifest = deal("d", pictures, split, seed)
    assert list(manifest.columns) == COLUMNS
    rows = manifest[["path", "class_name", "sha256"]].itertuples(index=False)
    assert {Picture(*row) for row in rows} <= set(pictures)
    names = sorted({p.class_name for p in pictures})
    assert manifest["label"].tolist() == [names.index(name) for name in manifest["class_name"]]


@sometimes
@given(problem=problems(), seed=SEEDS)
def test_ranks_number_a_role_of_a_class_so_that_samples_nest(problem, seed: int) -> None:
    pictures, split = problem
    manifest = deal("d", pictures, split, seed)
    for (_, role), rows in manifest.groupby(["class_name", "role"]):
        assert rows["rank"].tolist() == list(range(getattr(split, f"{role}_per_class")))


@sometimes
@given(problem=problems(), seed=SEEDS, fewer=st.integers(1, 6))
def test_a_smaller_training_set_is_the_beginning_of_a_larger_one(problem, seed, fewer) -> None:
    pictures, split = problem
    fewer = min(fewer, split.train_per_class)
    large = deal("d", pictures, split, seed)
    small = deal("d", pictures, split.model_copy(update={"train_per_class": fewer}), seed)
    beginning = (large["role"] != "train") | (large["rank"] < fewer)
    pd.testing.assert_frame_equal(small, large[beginning].reset_index(drop=True))


@sometimes
@given(problem=problems(), seed=SEEDS, order=st.randoms(use_true_random=False))
def test_the_order_of_the_pictures_does_not_matter(
    problem, seed: int, order: randomness.Random
) -> None:
    pictures, split = problem
    shuffled = order.sample(pictures, len(pictures))
    pd.testing.assert_frame_equal(
        deal("d", shuffled, split, seed), deal("d", pictures, split, seed)
    )


@sometimes
@given(problem=problems(), seed=SEEDS)
def test_a_group_stays_on_one_side(problem, seed: int) -> None:
    pictures, split = problem
    manifest = deal("d", pictures, split.model_copy(update={"group": GROUP}), seed)
    group = manifest["path"].str.extract(r"(.*)_")[0]
    assert manifest.groupby(group)["role"].nunique().max() == 1


@sometimes
@given(problem=problems(), seed=SEEDS, role=st.sampled_from(["train", "validation"]))
def test_asking_for_one_more_leaves_the_other_roles_as_they_are(problem, seed, role) -> None:
    pictures, split = problem
    spare = [made_up(p.class_name, 100, 0) for p in pictures]
    pictures = sorted({*pictures, *spare})
    count = getattr(split, f"{role}_per_class")
    before = deal("d", pictures, split, seed)
    more = split.model_copy(update={f"{role}_per_class": count + 1})
    after = deal("d", pictures, more, seed)
    added = (after["role"] == role) & (after["rank"] == count)
    pd.testing.assert_frame_equal(after[~added].reset_index(drop=True), before)


@sometimes
@given(problem=problems(), seed=SEEDS)
def test_a_picture_that_is_added_moves_at_most_one_of_each_role(problem, seed: int) -> None:
    pictures, split = problem
    split = split.model_copy(update={"group": None})
    before = deal("d", pictures, split, seed)
    after = deal("d", [*pictures, made_up(pictures[0].class_name, 999, 0)], split, seed)
    for role in ROLES:
        assert len(chosen(before, role) - chosen(after, role)) <= 1
    others = before["class_name"] != pictures[0].class_name
    pd.testing.assert_frame_equal(before[others], after[others])


CLASSES = {name: [made_up(name, group, 0) for group in range(20)] for name in ("ants", "bees")}
MANY = [p for members in CLASSES.values() for p in members]


def test_another_seed_deals_other_pictures() -> None:
    split = Split(train_per_class=12)
    tests = [frozenset(chosen(deal("d", MANY, split, seed), "test")) for seed in range(5)]
    assert len(set(tests)) == 5


def test_classes_are_shuffled_each_in_its_own_way() -> None:
    manifest = deal("d", MANY, Split(train_per_class=12), 0)
    of_class = [
        rows["path"].str.split("/").str[-1].tolist() for _, rows in manifest.groupby("label")
    ]
    assert of_class[0] != of_class[1]


def test_a_deal_is_what_it_was_when_the_first_results_were_published() -> None:
    """Another answer here means that every split, and so every result, changes."""
    manifest = deal("d", MANY, Split(train_per_class=2, test_per_class=2), 0)
    found = manifest.loc[manifest["class_name"] == "ants", ["path", "role", "rank"]]
    assert list(found.itertuples(index=False, name=None)) == [
        ("p/ants/g13_0.jpg", "train", 0),
        ("p/ants/g0_0.jpg", "train", 1),
        ("p/ants/g12_0.jpg", "test", 0),
        ("p/ants/g10_0.jpg", "test", 1),
    ]


def test_pictures_that_the_group_does_not_match_stand_by_themselves() -> None:
    pictures = [Picture(f"{c}/{i}.jpg", c, f"{c}{i}") for c in "ab" for i in range(5)]
    for group in (GROUP, r"(g\d+_)?\d"):
        split = Split(train_per_class=3, test_per_class=2, group=group)
        assert len(deal("d", pictures, split, 0)) == 10


def test_the_same_group_in_two_classes_is_two_groups() -> None:
    pictures = [made_up(name, group, 0) for name in ("ants", "bees") for group in range(5)]
    split = Split(train_per_class=3, test_per_class=2, group=GROUP)
    assert len(deal("d", pictures, split, 0)) == 10


@pytest.mark.parametrize("changes", [{"train_per_class": 13}, {"validation_per_class": 1}])
def test_a_class_with_too_few_pictures_is_named_with_what_would_do(changes) -> None:
    pictures = [*MANY, *(made_up("cats", group, 0) for group in range(30))]
    split = Split(**({"train_per_class": 12, "test_per_class": 8} | changes))
    assert len(deal("d", pictures, Split(train_per_class=12, test_per_class=8), 0)) == 60
    with pytest.raises(SplitError) as raised:
        deal("d", pictures, split, 0)
    assert str(raised.value) == (
        "params.yaml: datasets.d: class 'ants' has 20 usable pictures, too few for "
        f"{split.train_per_class} train + {split.validation_per_class} validation + 8 test = 21; "
        "lower those under datasets.d.split, or add 'ants' to datasets.d.leave_out"
    )


def test_a_class_with_too_few_groups_is_named_with_their_number() -> None:
    pictures = [made_up(name, index % 2, index) for name in ("ants", "bees") for index in range(30)]
    split = Split(train_per_class=2, test_per_class=1, validation_per_class=1, group=GROUP)
    with pytest.raises(SplitError, match=r"class 'ants' has 30 usable pictures in 2 groups, too"):
        deal("d", pictures, split, 0)


@pytest.mark.parametrize(
    ("pictures", "found"), [([], "0 classes (no pictures)"), (CLASSES["ants"], "1 classes (ants)")]
)
def test_fewer_than_two_classes_are_no_task(pictures, found: str) -> None:
    with pytest.raises(SplitError, match=re.escape(f"datasets.d: found {found}, and a head tells")):
        deal("d", pictures, Split(), 0)


FILES = {
    f"p/{c}/{i}.png": picture(10 * k + i) for k, c in enumerate(["ants", "bees"]) for i in range(6)
}
SPLIT = Split(seeds=[0, 1], train_per_class=3, test_per_class=2)


def dataset(**changes: Any) -> Dataset:
    return Dataset(**({"split": SPLIT, "layers": ["block5_pool"]} | changes))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "splits" / "ants"


@pytest.fixture
def write(tmp_path: Path, out: Path) -> Callable[..., pd.DataFrame]:
    """Writes the splits of an archive of these files, and of FILES if they do not say otherwise."""

    def run(files: dict[str, bytes] | None = None, **changes: Any) -> pd.DataFrame:
        path = write_tar(tmp_path / "pictures.tar", FILES | (files or {}))
        return write_splits("ants", dataset(**changes), path, out)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir()) if out.parent.exists() else []


def test_one_manifest_is_written_for_each_seed_and_a_list_of_what_was_left_out(write, out) -> None:
    left_out = write()
    assert sorted(contents(out)) == ["0.csv", "1.csv", LEFT_OUT]
    assert beside(out) == ["ants"]
    assert left_out.empty
    assert contents(out)[LEFT_OUT] == b"path,class_name,reason\n"


def test_a_manifest_holds_the_digests_of_the_bytes_in_the_archive(write, out) -> None:
    write()
    manifest = read_manifest(out / "1.csv")
    assert len(manifest) == 10
    assert manifest["sha256"].tolist() == [sha256(FILES[path]) for path in manifest["path"]]


def test_a_manifest_is_what_was_dealt(write, out) -> None:
    write()
    pictures = [Picture(path, path.split("/")[1], sha256(FILES[path])) for path in FILES]
    pd.testing.assert_frame_equal(read_manifest(out / "1.csv"), deal("ants", pictures, SPLIT, 1))


@pytest.mark.parametrize("kind", ["tar.gz", "zip", "folder", "tar in another order"])
def test_the_same_pictures_give_the_same_bytes_whatever_they_lie_in(
    tmp_path, write, out, kind: str
) -> None:
    write()
    expected = contents(out)
    path = tmp_path / "other"
    if kind == "tar.gz":
        write_tar(path, FILES, "w:gz")
    elif kind == "zip":
        write_zip(path, FILES)
    elif kind == "folder":
        write_folder(path, FILES)
    else:
        write_tar(path, dict(reversed(FILES.items())))
    write_splits("ants", dataset(), path, out)
    assert contents(out) == expected


def test_the_same_pictures_in_another_place_give_the_same_bytes(tmp_path, write, out) -> None:
    bad = {"p/ants/bad.png": b"", "p/bees/worse.png": b"<html>"}
    write(bad)
    expected = contents(out)
    path = write_tar(tmp_path / "else.tar", FILES | bad)
    write_splits("bees", dataset(), path, tmp_path / "there" / "else")
    assert contents(tmp_path / "there" / "else") == expected


def test_seeds_of_an_earlier_run_are_gone(write, out) -> None:
    write()
    write(split=SPLIT.model_copy(update={"seeds": [1, 7]}))
    assert sorted(contents(out)) == ["1.csv", "7.csv", LEFT_OUT]
    assert beside(out) == ["ants"]


def test_pictures_that_are_of_no_use_are_left_out_with_the_reason(write, out) -> None:
    bad = {
        "p/ants/empty.png": b"",
        "p/ants/page.jpg": b"<html>",
        "p/bees/small.png": picture(99, side=1),
        "p/bees/cut.png": picture(99)[:-200],
    }
    left_out = write(bad)
    assert left_out[["path", "class_name"]].to_numpy().tolist() == [
        ["p/ants/empty.png", "ants"],
        ["p/ants/page.jpg", "ants"],
        ["p/bees/cut.png", "bees"],
        ["p/bees/small.png", "bees"],
    ]
    reasons = dict(zip(left_out["path"], left_out["reason"], strict=True))
    assert reasons["p/ants/empty.png"] == "is empty"
    assert reasons["p/ants/page.jpg"] == "is no picture: it begins with b'<html>'"
    assert reasons["p/bees/small.png"] == "measures 1 x 1 pixels, less than 16 on a side"
    assert reasons["p/bees/cut.png"].startswith("is damaged: ")
    pd.testing.assert_frame_equal(pd.read_csv(out / LEFT_OUT), left_out)
    assert not set(read_manifest(out / "0.csv")["path"]) & set(bad)


def test_bytes_that_came_before_are_left_out_even_from_another_class(write, out) -> None:
    again = {"p/bees/0 again.png": FILES["p/bees/0.png"], "p/bees/ant.png": FILES["p/ants/3.png"]}
    left_out = write(again, split=SPLIT.model_copy(update={"train_per_class": 4}))
    assert dict(zip(left_out["path"], left_out["reason"], strict=True)) == {
        "p/bees/0.png": "has the same bytes as p/bees/0 again.png",
        "p/bees/ant.png": "has the same bytes as p/ants/3.png",
    }
    assert read_manifest(out / "0.csv")["sha256"].is_unique


def test_what_is_the_same_as_an_unusable_picture_has_that_reason_too(write) -> None:
    left_out = write({"p/ants/a.png": b"<html>", "p/ants/b.png": b"<html>"})
    assert left_out["reason"].tolist() == ["is no picture: it begins with b'<html>'"] * 2


def test_a_damaged_member_of_a_zip_is_left_out_whatever_the_zip_is_called(tmp_path, out) -> None:
    path = write_zip(tmp_path / "pictures.zip", FILES)
    content = bytearray(path.read_bytes())
    content[content.find(b"p/bees/2.png") + 100] ^= 255
    path.write_bytes(content)
    left_out = write_splits("ants", dataset(), path, out)
    assert left_out["path"].tolist() == ["p/bees/2.png"]
    assert left_out["reason"].item().startswith("member 'p/bees/2.png' is damaged: ")


def test_files_that_are_no_pictures_of_a_class_are_not_even_read(tmp_path) -> None:
    folder = write_folder(tmp_path / "p", {"README.txt": b"", "ants/1.png": picture(0)})
    with open_archive(folder) as archive:
        (folder / "README.txt").unlink()
        pictures, left_out = survey(archive, {"ants/1.png": "ants"})
    assert pictures == [Picture("ants/1.png", "ants", sha256(picture(0)))]
    assert left_out.empty


def test_a_class_that_is_left_out_is_not_read_and_has_no_label(write, out) -> None:
    left_out = write({"p/clutter/1.png": b"", "p/aaa/1.png": b""}, leave_out=["clutter", "aaa"])
    assert left_out.empty
    manifest = read_manifest(out / "0.csv")
    assert dict(zip(manifest["class_name"], manifest["label"], strict=True)) == {
        "ants": 0,
        "bees": 1,
    }


def test_clutter_of_caltech256_can_be_left_out(write, out) -> None:
    numbers = {"001.ak47": 0, "056.dog": 10, "257.clutter": 20}
    files = {
        f"256/{name}/{name[:3]}_{i:04}.jpg": picture(seed + i)
        for name, seed in numbers.items()
        for i in range(5)
    }
    strays = {"256/198.spider/RENAME2": b"", "256/056.dog/greg/056_0001.jpg": picture(30)}
    write(files | strays, layout="caltech256", leave_out=["257.clutter"])
    manifest = read_manifest(out / "0.csv")
    assert sorted(set(manifest["class_name"])) == ["001.ak47", "056.dog"]
    assert set(manifest["path"]) <= set(files)


@pytest.mark.parametrize(
    ("unknown", "hint"), [("antz", "did you mean 'ants'?"), ("xylophone", "known are: ants, bees")]
)
def test_an_unknown_class_can_not_be_left_out_and_the_nearest_is_named(
    write, out, unknown: str, hint: str
) -> None:
    with pytest.raises(SplitError) as raised:
        write(leave_out=[unknown])
    assert str(raised.value) == (
        f"params.yaml: datasets.ants.leave_out: the archive has no class '{unknown}'; {hint}"
    )
    assert beside(out) == []


def test_a_class_without_one_usable_picture_is_named(write, out) -> None:
    with pytest.raises(
        SplitError, match=r"class 'cats' has 0 usable pictures, too few for 3 train"
    ):
        write({"p/cats/1.png": b"", "p/cats/2.png": b"<html>"})
    assert beside(out) == []


def test_the_wrong_layout_is_told_by_what_it_finds(write, out) -> None:
    with pytest.raises(
        SplitError, match=r"found 0 classes \(no pictures\).*check datasets\.ants\.la"
    ):
        write(layout="caltech256", leave_out=["257.clutter"])
    assert beside(out) == []


def test_a_split_that_can_not_be_dealt_leaves_the_one_that_was_there(write, out) -> None:
    write()
    before = contents(out)
    with pytest.raises(SplitError, match="class 'ants' has 6 usable pictures, too few"):
        write(split=SPLIT.model_copy(update={"train_per_class": 100}))
    assert contents(out) == before
    assert beside(out) == ["ants"]


def test_an_archive_that_can_not_be_read_leaves_the_split_that_was_there(
    tmp_path, write, out
) -> None:
    write()
    before = contents(out)
    (tmp_path / "cut.tar").write_bytes((tmp_path / "pictures.tar").read_bytes()[:5000])
    with pytest.raises(ArchiveError):
        write_splits("ants", dataset(), tmp_path / "cut.tar", out)
    assert contents(out) == before


def test_writing_that_stops_half_way_leaves_nothing_behind(write, out, monkeypatch) -> None:
    write()
    before = contents(out)
    left = iter([splits.write_frame])

    def full(frame: pd.DataFrame, path: Path) -> None:
        writer = next(left, None)
        if writer is None:
            raise OSError(28, "No space left on device")
        writer(frame, path)

    monkeypatch.setattr(splits, "write_frame", full)
    with pytest.raises(OSError, match="No space left"):
        write(split=SPLIT.model_copy(update={"seeds": [5, 6]}))
    assert contents(out) == before
    assert beside(out) == ["ants"]
