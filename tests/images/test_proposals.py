import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgg16_transfer.images.proposals import Proposal, dataset_name, propose
from vgg16_transfer.images.splits import SplitError, write_splits
from vgg16_transfer.params import Split

from .conftest import jpeg, photo, picture, write_folder, write_tar

_numbers = itertools.count()


def files(**counts: int) -> dict[str, bytes]:
    return {
        f"{name}/{number}.png": picture(next(_numbers))
        for name, count in counts.items()
        for number in range(count)
    }


def look(path: Path, **options: str) -> Proposal:
    return propose(path, str(path), ["block5_pool"], **options)


def counts(split: Split) -> tuple[int, int, int]:
    return split.train_per_class, split.test_per_class, split.validation_per_class


@pytest.mark.parametrize(
    ("smallest", "expected", "sizes"),
    [
        (3, (1, 1, 1), (1,)),
        (5, (2, 2, 1), (2,)),
        (8, (4, 2, 2), (2, 4)),
        (11, (4, 4, 3), (2, 4)),
        (16, (8, 4, 4), (2, 4, 8)),
        (22, (8, 8, 6), (2, 4, 8)),
        (30, (16, 8, 6), (2, 4, 8, 16)),
    ],
)
def test_numbers_are_the_largest_that_the_smallest_class_has(tmp_path, smallest, expected, sizes):
    proposal = look(write_folder(tmp_path / "pets", files(cat=smallest, dog=smallest + 2)))
    assert counts(proposal.dataset.split) == expected
    assert sum(expected) <= smallest
    assert proposal.samples_per_class == sizes
    assert proposal.name == "pets"
    assert {name: len(members) for name, members in proposal.by_class().items()} == {
        "cat": smallest,
        "dog": smallest + 2,
    }


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=4))
def test_whatever_is_proposed_can_be_split(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("any") / "some"
    write_folder(folder, files(**{f"class{i}": count for i, count in enumerate(sizes)}))
    try:
        proposal = look(folder)
    except SplitError:
        assert sum(size >= 3 for size in sizes) < 2
    else:
        written = write_splits("some", proposal.dataset, folder, folder.with_name("out"))
        assert written.usable == sum(size for size in sizes if size >= 3)


def test_a_class_with_too_few_pictures_is_left_out_with_a_sentence(tmp_path):
    proposal = look(write_folder(tmp_path / "pets", files(cat=5, dog=5, emu=2)))
    assert proposal.dataset.leave_out == ["emu"]
    assert "emu" not in proposal.by_class()
    (note,) = proposal.notes
    assert note.startswith("left out: a class needs 3 usable pictures, ")
    assert note.endswith(": 'emu' has 2")


def test_too_few_pictures_everywhere_is_one_sentence(tmp_path):
    folder = write_folder(tmp_path / "pets", files(cat=1, dog=2, emu=9))
    with pytest.raises(SplitError) as caught:
        look(folder)
    assert str(caught.value) == (
        f"{folder}: a class needs 3 usable pictures, to train, to choose by and to test: "
        "'cat' has 1, 'dog' has 2"
    )


def test_pictures_without_classes_are_refused_with_what_is_there(tmp_path):
    folder = write_folder(tmp_path / "pets", {f"{n}.png": picture(n) for n in range(9)})
    with pytest.raises(
        SplitError, match="one folder for each class, but the source has 9 pictures"
    ):
        look(folder)


def test_one_small_class_that_holds_the_others_back_is_named(tmp_path):
    proposal = look(write_folder(tmp_path / "pets", files(cat=4, dog=12, emu=15)))
    assert counts(proposal.dataset.split) == (1, 1, 1)
    (note,) = proposal.notes
    assert note.startswith("'cat' has only 4 pictures, and every other class 12 or more; ")


def test_near_duplicates_stay_on_one_side(tmp_path):
    same = photo(1)
    content = files(cat=6, dog=6) | {
        f"cat/same{quality}.jpg": jpeg(same, quality) for quality in (60, 75, 90)
    }
    proposal = look(write_folder(tmp_path / "pets", content))
    assert proposal.dataset.split.near_duplicates == "one_side"
    assert look(write_folder(tmp_path / "other", files(cat=6, dog=6))).dataset.split == Split(
        train_per_class=2, test_per_class=2, validation_per_class=1
    )


def test_given_splits_are_recognised_and_used(tmp_path):
    given_files = {
        f"{split}/{name}": content
        for split, count in (("train", 6), ("val", 2), ("test", 3))
        for name, content in files(cat=count, dog=count).items()
    }
    dataset = look(write_folder(tmp_path / "pets", given_files)).dataset
    assert dataset.layout == "split_folders"
    assert dataset.split.train_per_class == 4


def test_a_table_is_recognised(tmp_path):
    pictures = {f"images/{n}.png": picture(n) for n in range(12)}
    rows = "".join(f"images/{n}.png,{'cat' if n % 2 else 'dog'}\n" for n in range(12))
    content = {**pictures, "labels.csv": f"path,label\n{rows}".encode()}
    proposal = look(write_folder(tmp_path / "pets", content))
    assert proposal.dataset.layout == "csv"
    assert list(proposal.by_class()) == ["cat", "dog"]


def test_an_archive_is_read_in_place(tmp_path):
    proposal = look(write_tar(tmp_path / "My Pets 2.tar.gz", files(cat=3, dog=3), "w:gz"))
    assert proposal.name == "my-pets-2"
    assert [path.name for path in tmp_path.iterdir()] == ["My Pets 2.tar.gz"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("pets", "pets"),
        ("Große Katzen.zip", "gro-e-katzen"),
        ("a_b.tar.bz2", "a-b"),
        ("猫", "pictures"),
        ("v1.2", "v1-2"),
        ("x" * 300, "x" * 100),
    ],
)
def test_a_name_is_made_of_the_sources_name(path, name):
    assert dataset_name(Path(path)) == name
