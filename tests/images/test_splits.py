import hashlib
import io
import itertools
import math
import random as randomness
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from vgg16_transfer.artifacts import ArtifactError
from vgg16_transfer.images import splits
from vgg16_transfer.images.archives import ArchiveError
from vgg16_transfer.images.layouts import LayoutError
from vgg16_transfer.images.manifests import COLUMNS, LEFT_OUT, NEAR_DUPLICATES, read_manifest
from vgg16_transfer.images.splits import NAMED, SplitError, Written, split_pictures, write_splits
from vgg16_transfer.images.survey import Picture
from vgg16_transfer.params import Dataset, Split

from .conftest import jpeg, photo, picture, write_folder, write_legacy_zip, write_tar, write_zip

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
    manifest = split_pictures("d", pictures, split, seed)
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
    manifest = split_pictures("d", pictures, split, seed)
    assert list(manifest.columns) == COLUMNS
    rows = manifest[["path", "class_name", "sha256"]].itertuples(index=False)
    assert {Picture(*row) for row in rows} <= set(pictures)
    names = sorted({p.class_name for p in pictures})
    assert manifest["label"].tolist() == [names.index(name) for name in manifest["class_name"]]


@sometimes
@given(problem=problems(), seed=SEEDS)
def test_ranks_number_a_role_of_a_class_so_that_samples_nest(problem, seed: int) -> None:
    pictures, split = problem
    manifest = split_pictures("d", pictures, split, seed)
    for (_, role), rows in manifest.groupby(["class_name", "role"]):
        assert rows["rank"].tolist() == list(range(getattr(split, f"{role}_per_class")))


@sometimes
@given(problem=problems(), seed=SEEDS, fewer=st.integers(1, 6))
def test_a_smaller_training_set_is_the_beginning_of_a_larger_one(problem, seed, fewer) -> None:
    pictures, split = problem
    fewer = min(fewer, split.train_per_class)
    large = split_pictures("d", pictures, split, seed)
    small = split_pictures("d", pictures, split.model_copy(update={"train_per_class": fewer}), seed)
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
        split_pictures("d", shuffled, split, seed), split_pictures("d", pictures, split, seed)
    )


@sometimes
@given(problem=problems(), seed=SEEDS)
def test_a_group_stays_on_one_side(problem, seed: int) -> None:
    pictures, split = problem
    manifest = split_pictures("d", pictures, split.model_copy(update={"group": GROUP}), seed)
    group = manifest["path"].str.extract(r"(.*)_")[0]
    assert manifest.groupby(group)["role"].nunique().max() == 1


@sometimes
@given(problem=problems(), seed=SEEDS, role=st.sampled_from(["train", "validation"]))
def test_asking_for_one_more_leaves_the_other_roles_as_they_are(problem, seed, role) -> None:
    pictures, split = problem
    split = split.model_copy(update={"group": None})
    spare = [made_up(p.class_name, 100, 0) for p in pictures]
    pictures = sorted({*pictures, *spare})
    count = getattr(split, f"{role}_per_class")
    before = split_pictures("d", pictures, split, seed)
    more = split.model_copy(update={f"{role}_per_class": count + 1})
    after = split_pictures("d", pictures, more, seed)
    for other in set(ROLES) - {role}:  # validation pictures are taken from the others' pictures
        moved = chosen(before, other) - chosen(after, other)
        # Of each of two classes: the picture itself, and one that then moves up on the circle.
        assert len(moved) <= (4 if role == "validation" else 0)
    added = (after["role"] == role) & (after["rank"] == count)
    kept = chosen(after[~added], role)
    assert len(chosen(before, role) - kept) == 0


@sometimes
@given(problem=problems(), seed=SEEDS)
def test_a_picture_that_is_added_moves_at_most_two_of_each_role(problem, seed: int) -> None:
    pictures, split = problem
    split = split.model_copy(update={"group": None})
    before = split_pictures("d", pictures, split, seed)
    after = split_pictures("d", [*pictures, made_up(pictures[0].class_name, 999, 0)], split, seed)
    for role in ROLES:
        most = 2 if role == "train" else 1  # the new one, and one that moves to test
        assert len(chosen(before, role) - chosen(after, role)) <= most
    others = before["class_name"] != pictures[0].class_name
    pd.testing.assert_frame_equal(before[others], after[others])


CLASSES = {name: [made_up(name, group, 0) for group in range(20)] for name in ("ants", "bees")}
MANY = [p for members in CLASSES.values() for p in members]


def test_another_seed_gives_other_test_pictures() -> None:
    split = Split(train_per_class=12)
    tests = [frozenset(chosen(split_pictures("d", MANY, split, seed), "test")) for seed in range(5)]
    assert len(set(tests)) == 5


def test_classes_are_shuffled_each_in_its_own_way() -> None:
    manifest = split_pictures("d", MANY, Split(train_per_class=12), 0)
    of_class = [
        rows["path"].str.split("/").str[-1].tolist() for _, rows in manifest.groupby("label")
    ]
    assert of_class[0] != of_class[1]


@sometimes
@given(problem=problems(), seeds=st.lists(SEEDS, min_size=2, max_size=6))
def test_validation_pictures_are_test_pictures_in_no_seed(problem, seeds: list[int]) -> None:
    pictures, split = problem
    manifests = [split_pictures("d", pictures, split, seed) for seed in seeds]
    validation = chosen(manifests[0], "validation")
    for manifest in manifests:
        assert chosen(manifest, "validation") == validation
        assert not validation & chosen(manifest, "test")


@pytest.mark.parametrize("count", [3, 5, 10, 20])
def test_test_sets_of_several_seeds_overlap_hardly_more_than_they_must(count: int) -> None:
    """Two sets of 8 of 20 pictures have 3.2 in common on average, if each is drawn at random."""
    split = Split(train_per_class=8)
    tests = [chosen(split_pictures("d", MANY, split, seed), "test") for seed in range(count)]
    pairs = list(itertools.combinations(tests, 2))
    shared = sum(len(a & b) for a, b in pairs) / len(pairs) / 2  # of two classes
    # Shares are least if every picture is as often in a test set as any other one.
    often, rest = divmod(8 * count, 20)
    least = ((20 - rest) * math.comb(often, 2) + rest * math.comb(often + 1, 2)) / len(pairs)
    assert least <= shared < least + 0.25
    assert len(set().union(*tests)) == 40


def test_a_split_is_what_it_was_when_these_results_were_published() -> None:
    """Another answer here means that every split, and so every result, changes."""
    manifest = split_pictures("d", MANY, Split(train_per_class=2, test_per_class=2), 0)
    rows = manifest.loc[manifest["class_name"] == "ants", ["path", "role", "rank"]]
    assert list(rows.itertuples(index=False, name=None)) == [
        ("p/ants/g12_0.jpg", "train", 0),
        ("p/ants/g10_0.jpg", "train", 1),
        ("p/ants/g14_0.jpg", "test", 0),
        ("p/ants/g19_0.jpg", "test", 1),
    ]


def test_pictures_that_the_group_does_not_match_stand_by_themselves() -> None:
    pictures = [Picture(f"{c}/{i}.jpg", c, f"{c}{i}") for c in "ab" for i in range(5)]
    for group in (GROUP, r"(g\d+_)?\d"):
        split = Split(train_per_class=3, test_per_class=2, group=group)
        assert len(split_pictures("d", pictures, split, 0)) == 10


def test_the_same_group_in_two_classes_is_two_groups() -> None:
    pictures = [made_up(name, group, 0) for name in ("ants", "bees") for group in range(5)]
    split = Split(train_per_class=3, test_per_class=2, group=GROUP)
    assert len(split_pictures("d", pictures, split, 0)) == 10


@pytest.mark.parametrize("changes", [{"train_per_class": 13}, {"validation_per_class": 1}])
def test_a_class_with_too_few_pictures_is_named_with_what_would_do(changes) -> None:
    pictures = [*MANY, *(made_up("cats", group, 0) for group in range(30))]
    split = Split(**({"train_per_class": 12, "test_per_class": 8} | changes))
    assert len(split_pictures("d", pictures, Split(train_per_class=12, test_per_class=8), 0)) == 60
    with pytest.raises(SplitError) as raised:
        split_pictures("d", pictures, split, 0)
    assert str(raised.value) == (
        "params.yaml: datasets.d: too few usable pictures for "
        f"{split.train_per_class} train + {split.validation_per_class} validation + 8 test = 21: "
        "class 'ants' has 20, class 'bees' has 20; lower these numbers under "
        "datasets.d.split, or add these classes to datasets.d.leave_out"
    )


def test_one_class_with_too_few_pictures_is_to_be_left_out_by_name() -> None:
    pictures = [*MANY, *(made_up("cats", group, 0) for group in range(3))]
    with pytest.raises(
        SplitError, match=r"class 'cats' has 3; .* or add 'cats' to datasets.d.leave"
    ):
        split_pictures("d", pictures, Split(train_per_class=4), 0)


def test_of_very_many_small_classes_the_rest_is_counted() -> None:
    pictures = [made_up(f"c{number:03}", 0, 0) for number in range(NAMED + 5)]
    with pytest.raises(SplitError) as raised:
        split_pictures("d", pictures, Split(), 0)
    assert str(raised.value).count("' has 1") == NAMED
    assert " and 5 more classes; " in str(raised.value)


def test_a_class_with_too_few_groups_is_named_with_their_number() -> None:
    pictures = [made_up(name, index % 2, index) for name in ("ants", "bees") for index in range(30)]
    split = Split(train_per_class=2, test_per_class=1, validation_per_class=1, group=GROUP)
    with pytest.raises(SplitError, match=r"class 'ants' has 30 in 2 groups, class 'b"):
        split_pictures("d", pictures, split, 0)


@pytest.mark.parametrize(
    ("pictures", "result"), [([], "no classes"), (CLASSES["ants"], "only the class 'ants'")]
)
def test_fewer_than_two_classes_are_no_task(pictures, result: str) -> None:
    with pytest.raises(SplitError, match=re.escape(f"datasets.d: found {result}, but a head")):
        split_pictures("d", pictures, Split(), 0)


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
def write(tmp_path: Path, out: Path) -> Callable[..., Written]:
    """Writes the splits of an archive of these files, and of FILES if they do not say otherwise."""

    def run(files: dict[str, bytes] | None = None, **changes: Any) -> Written:
        path = write_tar(tmp_path / "pictures.tar", FILES | (files or {}))
        return write_splits("ants", dataset(**changes), path, out)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir()) if out.parent.exists() else []


def test_one_manifest_is_written_for_each_seed_and_a_list_of_what_was_left_out(write, out) -> None:
    left_out = write().left_out
    assert sorted(contents(out)) == ["0.csv", "1.csv", LEFT_OUT, NEAR_DUPLICATES]
    assert beside(out) == ["ants", "ants.card.md"]
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
    pd.testing.assert_frame_equal(
        read_manifest(out / "1.csv"), split_pictures("ants", pictures, SPLIT, 1)
    )


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
    assert sorted(contents(out)) == ["1.csv", "7.csv", LEFT_OUT, NEAR_DUPLICATES]
    assert beside(out) == ["ants", "ants.card.md"]


def test_pictures_that_are_of_no_use_are_left_out_with_the_reason(write, out) -> None:
    bad = {
        "p/ants/empty.png": b"",
        "p/ants/page.jpg": b"<html>",
        "p/bees/small.png": picture(99, side=1),
        "p/bees/cut.png": picture(99)[:-200],
    }
    left_out = write(bad).left_out
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
    pd.testing.assert_frame_equal(pd.read_csv(out / LEFT_OUT), left_out.drop(columns="kind"))
    assert not set(read_manifest(out / "0.csv")["path"]) & set(bad)


def test_bytes_that_came_before_are_left_out_even_from_another_class(write, out) -> None:
    again = {"p/bees/0 again.png": FILES["p/bees/0.png"], "p/bees/ant.png": FILES["p/ants/3.png"]}
    left_out = write(again, split=SPLIT.model_copy(update={"train_per_class": 4})).left_out
    assert dict(zip(left_out["path"], left_out["reason"], strict=True)) == {
        "p/bees/0.png": "has the same bytes as p/bees/0 again.png",
        "p/bees/ant.png": "has the same bytes as p/ants/3.png of another class (ants)",
    }
    assert read_manifest(out / "0.csv")["sha256"].is_unique


def test_what_is_the_same_as_an_unusable_picture_has_that_reason_too(write) -> None:
    left_out = write({"p/ants/a.png": b"<html>", "p/ants/b.png": b"<html>"}).left_out
    assert left_out["reason"].tolist() == ["is no picture: it begins with b'<html>'"] * 2


def test_a_damaged_member_of_a_zip_is_left_out_whatever_the_zip_is_called(tmp_path, out) -> None:
    path = write_zip(tmp_path / "pictures.zip", FILES)
    content = bytearray(path.read_bytes())
    content[content.find(b"p/bees/2.png") + 100] ^= 255
    path.write_bytes(content)
    left_out = write_splits("ants", dataset(), path, out).left_out
    assert left_out["path"].tolist() == ["p/bees/2.png"]
    assert left_out["reason"].item().startswith("member 'p/bees/2.png' is damaged: ")


def test_a_class_that_is_left_out_has_no_label(write, out) -> None:
    clutter = {"p/clutter/1.png": picture(50), "p/aaa/1.png": picture(51)}
    left_out = write(clutter, leave_out=["clutter", "aaa"]).left_out
    assert left_out["reason"].tolist() == ["its class is in leave_out"] * 2
    manifest = read_manifest(out / "0.csv")
    assert dict(zip(manifest["class_name"], manifest["label"], strict=True)) == {
        "ants": 0,
        "bees": 1,
    }


@pytest.mark.parametrize(
    ("folder", "asked"), [("cafe\u0301", "caf\u00e9"), ("caf\u00e9", "cafe\u0301")]
)
def test_a_class_is_left_out_however_its_name_is_spelled(write, out, folder, asked) -> None:
    write({f"p/{folder}/1.png": picture(50)}, leave_out=[asked])
    assert set(read_manifest(out / "0.csv")["class_name"]) == {"ants", "bees"}


def test_classes_are_those_that_are_named_and_their_splits_stay_as_they_were(write, out) -> None:
    write()
    before = read_manifest(out / "0.csv")
    more = {f"p/{name}/{i}.png": picture(60 + i) for name in ("cats", "dogs") for i in range(2)}
    left_out = write(more, classes=["bees", "ants"]).left_out
    assert left_out["reason"].tolist() == ["its class is not in classes"] * 4
    pd.testing.assert_frame_equal(read_manifest(out / "0.csv"), before)


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


@pytest.mark.parametrize("key", ["classes", "leave_out"])
@pytest.mark.parametrize(
    ("unknown", "hint"), [("antz", "did you mean 'ants'?"), ("xylophone", "known are: ants, bees")]
)
def test_an_unknown_class_is_refused_and_the_nearest_is_named(
    write, out, key: str, unknown: str, hint: str
) -> None:
    with pytest.raises(SplitError) as raised:
        write(**{key: [unknown]})
    assert str(raised.value) == (
        f"params.yaml: datasets.ants.{key}: the source has no class '{unknown}'; {hint}"
    )
    assert beside(out) == []


def test_classes_without_one_usable_picture_are_all_named_with_the_reasons(write, out) -> None:
    with pytest.raises(SplitError) as raised:
        write(
            {"p/cats/1.png": b"", "p/cats/2.png": b"<html>", "p/dogs/1": b"", "p/eels/1.png": b"x"}
        )
    assert (
        "class 'cats' has 0 (1: is empty; 1: is no picture), class 'dogs' has 0 (1: is empty), "
        "class 'eels' has 0 (1: is no picture); "
    ) in str(raised.value)
    assert beside(out) == []


def test_a_class_whose_pictures_are_all_copies_of_anothers_is_named(write) -> None:
    with pytest.raises(
        SplitError, match=r"class 'cats' has 0 \(1: has the same bytes as a picture of"
    ):
        write({"p/cats/1.png": FILES["p/ants/0.png"]})


def test_an_empty_class_folder_is_named_and_can_be_left_out(tmp_path, out) -> None:
    folder = write_folder(tmp_path / "folder", FILES)
    (folder / "p" / "cats").mkdir()
    with pytest.raises(SplitError, match=r"class 'cats' has 0 \(no files\); "):
        write_splits("ants", dataset(), folder, out)
    write_splits("ants", dataset(leave_out=["cats"]), folder, out)
    assert set(read_manifest(out / "0.csv")["class_name"]) == {"ants", "bees"}


@pytest.mark.parametrize("suffix", [".jfif", ".JPG", ".heic", "", ".dat", ".2024"])
def test_what_is_a_picture_is_one_whatever_its_ending(tmp_path, out, suffix: str) -> None:
    files = {path.replace(".png", suffix): content for path, content in FILES.items()}
    write_splits("ants", dataset(), write_tar(tmp_path / "t.tar", files), out)
    assert set(read_manifest(out / "0.csv")["path"]) <= set(files)


def test_what_systems_leave_behind_is_passed_by_and_counted(write, out) -> None:
    litter = {
        "p/.ipynb_checkpoints/1.png": picture(70),
        "__MACOSX/p/ants/._0.png": b"\0\5\26\7",
        "p/ants/@eaDir/0.png/SYNOPHOTO_THUMB_M.png": picture(71),
        "p/ants/Thumbs.db": b"x",
        ".thumbnails/1.png": picture(72),
    }
    written = write(litter)
    assert set(written.left_out["path"]) == set(litter)
    assert set(read_manifest(out / "0.csv")["class_name"]) == {"ants", "bees"}
    three = "__MACOSX/p/ants/._0.png, p/ants/@eaDir/0.png/SYNOPHOTO_THUMB_M.png, p/ants/Thumbs.db"
    used = set().union(*(read_manifest(path)["path"] for path in out.glob("[0-9]*.csv")))
    usable = written.usable
    assert written.lines(Path("data/splits/ants")) == [
        f"{usable} usable pictures of 2 classes; the splits use {len(used)}",
        f"left out, 3: is made by the system ({three})",
        "left out, 2: is hidden (.thumbnails/1.png, p/.ipynb_checkpoints/1.png)",
        "data/splits/ants/left_out.csv lists what was left out",
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"cat.1.png": picture(0), "dog.1.png": picture(1)},
            "found no classes, but a head n",
        ),
        (
            {"cat.1.png": picture(0), "dog.1.png": picture(1)},
            "2 pictures without a folder (cat.1.p",
        ),
        (
            {"cats/1.png": picture(0)},
            "found only the class 'cats', but a head needs at least 2",
        ),
        ({"x/101.tar.gz": b"x"}, "found no classes"),
        (
            {"x/101.tar.gz": b"x"},
            "the archive x/101.tar.gz inside it (unpack it, or set source to",
        ),
        ({}, "the source has no files"),
    ],
)
def test_a_source_without_classes_is_described(tmp_path, out, files, message) -> None:
    with pytest.raises(SplitError) as raised:
        write_splits("ants", dataset(), write_tar(tmp_path / "t.tar", files), out)
    assert message in str(raised.value)
    assert beside(out) == []


def test_an_error_about_the_layout_says_what_it_needs(write, out) -> None:
    with pytest.raises(SplitError, match=r"layout: caltech256 needs pictures like 056\.dog/"):
        write(layout="caltech256", leave_out=["257.clutter"])
    assert beside(out) == []


def test_a_missing_table_is_an_error(write, out) -> None:
    with pytest.raises(
        LayoutError, match="layout: csv needs one CSV with the columns path and label"
    ):
        write(layout="csv")
    assert beside(out) == []


def test_names_of_an_old_zip_are_read_in_the_encoding_of_params(tmp_path, out) -> None:
    files = {path.replace("ants", "鞄").replace("bees", "表示"): FILES[path] for path in FILES}
    path = write_legacy_zip(tmp_path / "z.zip", files, "cp932")
    write_splits("ants", dataset(encoding="cp932"), path, out)
    assert set(read_manifest(out / "0.csv")["class_name"]) == {"鞄", "表示"}
    with pytest.raises(ArchiveError, match=r"cp932 reads 'p/鞄/0\.png'"):
        write_splits("ants", dataset(), path, out)


def saved_again(content: bytes, text: str = "edited") -> bytes:
    """A PNG with the same pixels and other bytes."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", text)
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def test_pictures_with_the_same_pixels_count_as_one(write, out) -> None:
    again = {path.replace(".png", "-edited.png"): saved_again(FILES[path]) for path in FILES}
    written = write(again)
    assert dict(zip(written.left_out["path"], written.left_out["reason"], strict=True)) == {
        path: f"has the same pixels as {path.replace('.png', '-edited.png')}" for path in FILES
    }
    assert set(read_manifest(out / "0.csv")["path"]) <= set(again)


def test_the_same_pixels_in_two_classes_are_said(write) -> None:
    left_out = write({"p/bees/ant.png": saved_again(FILES["p/ants/3.png"])}).left_out
    assert left_out["reason"].tolist() == [
        "has the same pixels as p/ants/3.png of another class (ants)"
    ]


SPLIT_FILES = {
    f"{split}/{c}/{i}.png": picture(100 * j + 10 * k + i)
    for j, (split, count) in enumerate({"train": 6, "val": 3, "test": 4}.items())
    for k, c in enumerate(["ants", "bees"])
    for i in range(count)
}


def given_splits(tmp_path: Path, out: Path, files: dict[str, bytes], **changes: Any) -> Written:
    return write_splits("ants", dataset(**changes), write_tar(tmp_path / "g.tar", files), out)


def test_given_splits_are_kept_whole_for_every_seed(tmp_path, out) -> None:
    given_splits(tmp_path, out, SPLIT_FILES)
    first, second = (read_manifest(out / f"{seed}.csv") for seed in (0, 1))
    for manifest in (first, second):
        for role, split in {"test": "test", "validation": "val"}.items():
            assert chosen(manifest, role) == {p for p in SPLIT_FILES if p.startswith(f"{split}/")}
        assert {path.split("/")[0] for path in chosen(manifest, "train")} == {"train"}
        assert manifest[manifest["role"] == "train"].groupby("class_name").size().tolist() == [3, 3]
    assert chosen(first, "train") != chosen(second, "train")
    rows = first[first["role"] == "test"]
    pd.testing.assert_frame_equal(rows, second[second["role"] == "test"])


def test_without_a_given_validation_set_it_is_drawn_from_the_training_pictures(
    tmp_path, out
) -> None:
    files = {path: content for path, content in SPLIT_FILES.items() if not path.startswith("val")}
    split = SPLIT.model_copy(update={"validation_per_class": 2})
    given_splits(tmp_path, out, files, layout="split_folders", split=split)
    manifest = read_manifest(out / "0.csv")
    assert {path.split("/")[0] for path in chosen(manifest, "validation")} == {"train"}
    assert len(chosen(manifest, "validation")) == 4
    assert not chosen(manifest, "validation") & chosen(manifest, "train")


def test_of_equal_pictures_in_two_given_splits_that_of_the_test_set_stays(tmp_path, out) -> None:
    leak = {"train/ants/a copy.png": saved_again(SPLIT_FILES["test/ants/1.png"])}
    written = given_splits(tmp_path, out, SPLIT_FILES | leak)
    assert written.left_out["path"].tolist() == list(leak)
    assert "test/ants/1.png" in chosen(read_manifest(out / "0.csv"), "test")


def test_a_given_split_that_has_too_few_training_pictures_is_named(tmp_path, out) -> None:
    with pytest.raises(
        SplitError, match=r"class 'ants' has 6 for training, class 'bees' has 6 for t"
    ):
        given_splits(
            tmp_path, out, SPLIT_FILES, split=SPLIT.model_copy(update={"train_per_class": 7})
        )


def test_classes_that_the_given_splits_do_not_share_are_named(tmp_path, out) -> None:
    more = {f"train/cats/{i}.png": picture(900 + i) for i in range(4)}
    with pytest.raises(SplitError) as raised:
        given_splits(tmp_path, out, SPLIT_FILES | more)
    assert (
        "the given splits differ in their classes: test has none of 'cats'; validation has"
        in str(raised.value)
    )
    given_splits(tmp_path, out, SPLIT_FILES | more, leave_out=["cats"])


def test_a_class_that_only_the_given_validation_set_lacks_is_said(tmp_path, out) -> None:
    files = {path: content for path, content in SPLIT_FILES.items() if path[:8] != "val/bees"}
    written = given_splits(tmp_path, out, files)
    assert (
        "the given splits differ in their classes: validation has none of 'bees'" in written.notes
    )


def test_a_table_gives_classes_and_splits(tmp_path, out) -> None:
    names = {path: path.replace("/", "_") for path in SPLIT_FILES}
    rows = [f"{name},{path.split('/')[1]},{path.split('/')[0]}" for path, name in names.items()]
    files = {f"d/{name}": SPLIT_FILES[path] for path, name in names.items()}
    files["d/labels.csv"] = "\n".join(["image,label,split", *rows]).encode()
    written = given_splits(tmp_path, out, files, layout="csv")
    assert written.left_out.empty
    manifest = read_manifest(out / "0.csv")
    assert chosen(manifest, "test") == {f"d/{names[p]}" for p in SPLIT_FILES if p[:4] == "test"}


GROUPED = {
    f"{c}/object{i}_{shot}.png": picture(100 * k + 10 * i + j)
    for k, c in enumerate(["ants", "bees"])
    for i in range(6)
    for j, shot in enumerate("ab")
}


def test_a_group_that_matches_nothing_is_an_error_with_the_first_path(tmp_path, out) -> None:
    split = SPLIT.model_copy(update={"group": "^pets/([a-z]+/object[0-9]+)_"})
    with pytest.raises(SplitError) as raised:
        write_splits("d", dataset(split=split), write_tar(tmp_path / "t", GROUPED), out)
    assert "matches none of the 24 paths, such as ants/object0_a.png" in str(raised.value)


def test_a_group_that_matches_some_is_said_with_the_first_path_that_it_does_not(
    tmp_path, out
) -> None:
    split = SPLIT.model_copy(update={"group": "^(ants/object[0-9]+)_"})
    written = write_splits("d", dataset(split=split), write_tar(tmp_path / "t", GROUPED), out)
    (note,) = written.notes
    assert note == (
        "datasets.d.split.group matches 12 of 24 paths; the others, such as bees/object0_a.png, "
        "are in no group"
    )


SIMILAR = {
    f"{c}/{i}{version}.jpg": jpeg(photo(100 * k + i), quality)
    for k, c in enumerate(["ants", "bees"])
    for i in range(8)
    for version, quality in {"": 95, " small": 40}.items()
}


def similar_to(path: str) -> str:
    return path.replace(" small", "")


def test_near_duplicates_on_different_sides_are_listed_test_side_first(tmp_path, out) -> None:
    written = write_splits("d", dataset(), write_tar(tmp_path / "t", SIMILAR), out)
    listed = pd.read_csv(out / NEAR_DUPLICATES)
    assert list(listed.columns) == ["seed", "path", "role", "near_path", "near_role", "distance"]
    assert len(listed)
    for seed in (0, 1):
        manifest = read_manifest(out / f"{seed}.csv")
        both = {similar_to(p) for p in chosen(manifest, "test")} & {
            similar_to(p) for p in chosen(manifest, "train")
        }
        rows = listed[listed["seed"] == seed]
        assert {similar_to(path) for path in rows["path"]} == both
        assert (rows["path"].map(similar_to) == rows["near_path"].map(similar_to)).all()
    assert set(listed["role"]) == {"test"}
    assert set(listed["near_role"]) == {"train"}
    assert any(
        "near-duplicates on different sides of a split, pairs: seed 0: " in line
        for line in written.lines(out)
    )


def test_near_duplicates_of_a_class_can_be_kept_on_one_side(tmp_path, out) -> None:
    split = SPLIT.model_copy(update={"near_duplicates": "one_side"})
    written = write_splits("d", dataset(split=split), write_tar(tmp_path / "t", SIMILAR), out)
    assert written.near_duplicates.empty
    for seed in (0, 1):
        manifest = read_manifest(out / f"{seed}.csv")
        sides = manifest.groupby(manifest["path"].map(similar_to))["role"].nunique()
        assert sides.max() == 1
        assert manifest.groupby("role").size().to_dict() == {"test": 4, "train": 6}


def test_what_is_near_a_given_test_picture_does_not_train_if_one_side_is_asked_for(
    tmp_path, out
) -> None:
    near = {f"train/ants/near{i}.jpg": jpeg(photo(i), 40) for i in range(4)}
    test = {f"test/ants/t{i}.jpg": jpeg(photo(i), 95) for i in range(4)}
    split = SPLIT.model_copy(update={"near_duplicates": "one_side"})
    given_splits(tmp_path, out, SPLIT_FILES | near | test, split=split)
    for seed in (0, 1):
        manifest = read_manifest(out / f"{seed}.csv")
        assert set(test) <= chosen(manifest, "test")
        assert not chosen(manifest, "train") & set(near)


def test_a_split_that_is_not_possible_leaves_the_one_that_was_there(write, out) -> None:
    write()
    before = contents(out)
    with pytest.raises(SplitError, match="class 'ants' has 6, class 'bees' has 6;"):
        write(split=SPLIT.model_copy(update={"train_per_class": 100}))
    assert contents(out) == before
    assert beside(out) == ["ants", "ants.card.md"]


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
    with pytest.raises(ArtifactError, match="no room to write it"):
        write(split=SPLIT.model_copy(update={"seeds": [5, 6]}))
    assert contents(out) == before
    assert beside(out) == ["ants", "ants.card.md"]


def test_a_pattern_that_never_ends_is_stopped() -> None:
    split = Split(train_per_class=1, test_per_class=1, group=r"^((?:\w|/|[a-z])+)+[!?]")
    long = [made_up(name * 10, group, 0) for name in ("ants", "bees") for group in range(5)]
    with pytest.raises(SplitError, match=r"split\.group: .* needs more than 1 s for the path"):
        split_pictures("d", long, split, 0)
