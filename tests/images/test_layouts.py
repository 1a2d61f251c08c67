import unicodedata
from typing import get_args

import pytest

from vgg16_transfer.images.layouts import (
    EXPECTED,
    Arrangement,
    Files,
    LayoutError,
    arrange,
    describe,
)
from vgg16_transfer.params import Layout

LAYOUTS: list[Layout] = ["class_folders", "caltech256", "urban_tribes"]
DECOMPOSED = unicodedata.normalize("NFD", "café")


def class_names(layout: Layout, names: list[str]) -> dict[str, str]:
    """The classes of pictures."""
    return arrange(layout, Files(sorted(names))).classes


@pytest.mark.parametrize("root", ["", "pictures/", "a/b/c/", "./", "./pictures/"])
def test_class_folders_may_lie_at_any_depth(root: str) -> None:
    names = [f"{root}ants/1.jpg", f"{root}ants/2.jpg", f"{root}bees/1.jpg"]
    classes = class_names("class_folders", names)
    assert classes == dict(zip(names, ["ants", "ants", "bees"], strict=True))


def test_folders_below_a_class_folder_do_not_matter() -> None:
    names = ["p/ants/1.jpg", "p/ants/big/red/2.jpg", "p/bees/x/3.jpg"]
    assert list(class_names("class_folders", names).values()) == ["ants", "ants", "bees"]


def test_pictures_beside_the_class_folders_have_no_class() -> None:
    names = ["p/ants/1.jpg", "p/bees/1.jpg", "p/cover.jpg"]
    assert list(class_names("class_folders", names)) == ["p/ants/1.jpg", "p/bees/1.jpg"]


def test_pictures_beside_the_class_folders_of_an_archive_without_a_root_have_no_class() -> None:
    names = ["cover.jpg", "ants/1.jpg", "bees/1.jpg"]
    assert list(class_names("class_folders", names)) == ["ants/1.jpg", "bees/1.jpg"]


def test_class_folders_that_begin_alike_are_told_apart() -> None:
    names = ["p/ant/1.jpg", "p/ants/1.jpg", "p/ant eater/1.jpg"]
    assert class_names("class_folders", names) == {
        "p/ant eater/1.jpg": "ant eater",
        "p/ant/1.jpg": "ant",
        "p/ants/1.jpg": "ants",
    }


def test_one_folder_is_one_class_whatever_is_nested_in_it() -> None:
    names = ["p/ants/1.jpg", "p/ants/2.jpg", "p/ants/greg/3.jpg"]
    assert class_names("class_folders", names) == dict.fromkeys(names, "ants")


def test_pictures_in_one_folder_have_no_class() -> None:
    assert class_names("class_folders", ["1.jpg", "2.jpg"]) == {}


@pytest.mark.parametrize("beside", ["readme.txt", "notes/readme.txt", "PetImages/x.csv"])
def test_files_around_the_class_folders_do_not_hide_them(beside: str) -> None:
    names = ["PetImages/Cat/1.jpg", "PetImages/Dog/1.jpg"]
    given = arrange("class_folders", Files(names, [beside], ["PetImages", "notes"]))
    assert given.classes == {names[0]: "Cat", names[1]: "Dog"}
    assert given.notes == ("the classes are the folders of PetImages; notes is left out",)


def test_a_folder_of_files_that_are_no_pictures_is_a_class_all_the_same() -> None:
    files = Files(["ants/1.jpg", "bees/1.jpg"], ["cats/1.heic"])
    assert arrange("class_folders", files).classes["cats/1.heic"] == "cats"


def test_an_empty_folder_beside_the_classes_is_an_empty_class() -> None:
    folders = ["p", "p/ants", "p/ants/old", "p/bees", "p/cats"]
    files = Files(["p/ants/1.jpg", "p/bees/1.jpg"], folders=folders)
    assert arrange("class_folders", files).empty == {"cats"}


@pytest.mark.parametrize("layout", ["class_folders", "split_folders", "urban_tribes"])
def test_two_spellings_of_a_name_are_one_class(layout: Layout) -> None:
    tops = {"class_folders": "{}/1.jpg", "split_folders": "train/{}/1.jpg"}
    path = tops.get(layout, "{}_1.jpg")
    others = [path.format("bees"), "test/bees/2.jpg"][: 1 + (layout == "split_folders")]
    names = [path.format("café"), path.format(DECOMPOSED), *others]
    assert set(class_names(layout, names).values()) == {"café", "bees"}


GIVEN = {
    "train/ants/1.jpg": ("ants", "train"),
    "train/bees/x/2.jpg": ("bees", "train"),
    "val/ants/3.jpg": ("ants", "validation"),
    "val/bees/4.jpg": ("bees", "validation"),
    "test/ants/5.jpg": ("ants", "test"),
    "test/bees/6.jpg": ("bees", "test"),
}


def given_by(arranged: Arrangement) -> dict[str, tuple[str, str]]:
    return {name: (arranged.classes[name], arranged.roles[name]) for name in arranged.classes}


@pytest.mark.parametrize("root", ["", "a/b/"])
@pytest.mark.parametrize("layout", ["class_folders", "split_folders"])
def test_split_folders_give_classes_and_splits(root: str, layout: Layout) -> None:
    expected = {root + name: value for name, value in GIVEN.items()}
    arranged = arrange(layout, Files(sorted(expected)))
    assert given_by(arranged) == expected
    note = (
        "the folders test, train, val are splits, not classes: the source is read with layout: "
        "split_folders"
    )
    assert arranged.notes == ((note,) if layout == "class_folders" else ())


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Training", "valid", "TESTING"),
        ("training_set", "validation_set", "test_set"),
        ("train", "dev", "eval"),
    ],
)
def test_splits_have_many_names(train: str, val: str, test: str) -> None:
    folders = {"train": train, "val": val, "test": test}
    names = {f"{folders[n.split('/')[0]]}/{n.split('/', 1)[1]}": v for n, v in GIVEN.items()}
    assert given_by(arrange("class_folders", Files(sorted(names)))) == names


def test_a_folder_within_a_split_is_gone_through() -> None:
    """As in Kaggle's cats and dogs: training_set/training_set/cats."""
    names = {
        "training_set/training_set/cats/1.jpg": ("cats", "train"),
        "training_set/training_set/dogs/1.jpg": ("dogs", "train"),
        "test_set/test_set/cats/1.jpg": ("cats", "test"),
        "test_set/test_set/dogs/1.jpg": ("dogs", "test"),
    }
    assert given_by(arrange("class_folders", Files(sorted(names)))) == names


def test_without_a_test_set_the_validation_set_is_the_test_set_and_that_is_said() -> None:
    names = [name for name in GIVEN if not name.startswith("test")]
    arranged = arrange("split_folders", Files(sorted(names)))
    assert {arranged.roles[name] for name in names if name.startswith("val")} == {"test"}
    assert arranged.notes == ("there is no test set: the validation set is the test set",)


def test_pictures_outside_of_the_class_folders_of_a_split_say_so() -> None:
    names = sorted([*GIVEN, "cover.jpg", "train/cover.jpg", "unlabelled/1.jpg"])
    arranged = arrange("split_folders", Files(names))
    assert given_by(arranged) == GIVEN
    assert {name: arranged.reasons[name] for name in names if name not in GIVEN} == {
        "cover.jpg": "lies outside of the split folders",
        "train/cover.jpg": "lies in no class folder of train",
        "unlabelled/1.jpg": "lies outside of the split folders",
    }


@pytest.mark.parametrize(
    "names", [["cats/1.jpg", "dogs/1.jpg"], ["val/a/1.jpg", "test/a/1.jpg"], []]
)
def test_without_a_training_folder_there_are_no_split_folders(names: list[str]) -> None:
    with pytest.raises(
        LayoutError, match="split_folders needs a folder train and a folder test or val"
    ):
        arrange("split_folders", Files(sorted(names)))


def table(content: str | bytes, pictures: list[str], name: str = "labels.csv") -> Files:
    raw = content.encode() if isinstance(content, str) else content
    return Files(sorted(pictures), [name], read=lambda _: raw)


@pytest.mark.parametrize(
    "content",
    [
        "path,label\n1.jpg,ants\nb/2.jpg,bees\n",
        "Image;Class\r\n1.jpg;ants\r\nb\\2.jpg;bees\r\n",
        "\ufefffile_name,x,category\n./1.jpg,7,ants\n/b/2.jpg,8, bees \n",
        "filename\tclass_name\n1.jpg\tants\nb/2.jpg\tbees",
    ],
)
def test_a_table_gives_classes_whatever_its_columns_are_called(content: str) -> None:
    arranged = arrange("csv", table(content, ["1.jpg", "b/2.jpg"]))
    assert arranged.classes == {"1.jpg": "ants", "b/2.jpg": "bees"}
    assert arranged.roles == {}
    assert arranged.used == {"labels.csv"}


def test_a_table_may_give_splits() -> None:
    rows = [
        f"{i}.jpg,{c},{s}" for i, (c, s) in enumerate([("a", "Train"), ("a", "dev"), ("b", "test")])
    ]
    arranged = arrange(
        "csv", table("\n".join(["path,label,split", *rows]), ["0.jpg", "1.jpg", "2.jpg"])
    )
    assert arranged.roles == {"0.jpg": "train", "1.jpg": "validation", "2.jpg": "test"}


def test_paths_of_a_table_are_relative_to_its_folder() -> None:
    files = table("file_name,label\n1.jpg,ants\n", ["d/1.jpg", "1.jpg"], "d/metadata.csv")
    assert arrange("csv", files).classes == {"d/1.jpg": "ants"}


def test_pictures_in_a_folder_beside_the_table_are_found() -> None:
    files = table("image,label\n1.jpg,ants\n2.jpg,bees\n", ["images/1.jpg", "images/2.jpg"])
    assert arrange("csv", files).classes == {"images/1.jpg": "ants", "images/2.jpg": "bees"}


def test_a_table_in_each_split_as_hugging_face_has_it() -> None:
    contents = {
        f"{s}/metadata.csv": f"file_name,label\n{s}.jpg,ants\n".encode() for s in ("train", "test")
    }
    files = Files(["test/test.jpg", "train/train.jpg"], sorted(contents), read=contents.__getitem__)
    assert given_by(arrange("csv", files)) == {
        "test/test.jpg": ("ants", "test"),
        "train/train.jpg": ("ants", "train"),
    }


def test_rows_and_files_that_do_not_meet_are_reasons() -> None:
    content = "path,label\n1.jpg,ants\ngone.jpg,bees\n2.jpg,\n3.jpg,ants\n3.jpg,bees\n"
    arranged = arrange("csv", table(content, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]))
    assert arranged.reasons == {
        "gone.jpg": "is named in the CSV, but there is no such file",
        "2.jpg": "has no label in labels.csv",
        "3.jpg": "has more than one label in labels.csv",
        "4.jpg": "is named by no row of the CSV",
    }
    assert arranged.classes == {"1.jpg": "ants", "gone.jpg": "bees"}


def test_a_row_without_split_is_taken_for_training_and_that_is_said() -> None:
    content = "path,label,split\n1.jpg,a,test\n2.jpg,a,\n"
    arranged = arrange("csv", table(content, ["1.jpg", "2.jpg"]))
    assert arranged.roles == {"1.jpg": "test", "2.jpg": "train"}
    assert arranged.notes == ("1 rows of the CSV have no split: they are used as train",)


def test_labels_and_paths_of_a_table_may_be_spelled_either_way() -> None:
    files = table(f"path,label\n{DECOMPOSED}.jpg,{DECOMPOSED}\n", ["café.jpg"])
    assert arrange("csv", files).classes == {"café.jpg": "café"}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("id,breed\n1,ant\n", "found 0: labels.csv has id, breed"),
        ("", "found 0: labels.csv has "),
        (
            "path,label\n9.jpg,a\n",
            "labels.csv: no path in it exists: it lists 9.jpg, the source has 1",
        ),
        ("path,label,split\n1.jpg,a,foo\n", "labels.csv: row 2: split 'foo' is not train, val"),
        (b"path,label\n\xe9.jpg,a", "labels.csv: is not UTF-8; save it as UTF-8"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_sentence(content: str | bytes, sentence: str) -> None:
    with pytest.raises(LayoutError) as raised:
        arrange("csv", table(content, ["1.jpg"]))
    assert sentence in str(raised.value)


def test_two_tables_that_would_do_are_named() -> None:
    files = Files(["1.jpg"], ["a.csv", "b.csv"], read=lambda _: b"path,label\n1.jpg,a\n")
    with pytest.raises(LayoutError, match=r"found 2: a.csv has path, label; b.csv has path, l"):
        arrange("csv", files)


@pytest.mark.parametrize(
    ("files", "described"),
    [
        (Files([]), "no files"),
        (Files([], ["a.txt"]), "1 files, none of them a picture"),
        (Files(["1.jpg", "2.jpg"]), "2 pictures without a folder (1.jpg, 2.jpg)"),
        (Files(["cats/1.jpg"]), "1 pictures in one folder, cats (cats/1.jpg)"),
        (
            Files([], ["x/101.tar.gz"]),
            "the archive x/101.tar.gz inside it (unpack it, or set source",
        ),
        (
            Files(["1.jpg"], ["labels.csv"]),
            "the table labels.csv (layout: csv reads labels from a CSV)",
        ),
    ],
)
def test_a_source_is_described_by_its_files(files: Files, described: str) -> None:
    assert described in describe(files)


def test_every_layout_says_what_it_looks_for() -> None:
    assert EXPECTED.keys() == set(get_args(Layout))


CALTECH256 = {
    "256_ObjectCategories/001.ak47/001_0001.jpg": "001.ak47",
    "256_ObjectCategories/056.dog/056_0103.jpg": "056.dog",
    "256_ObjectCategories/198.spider/198_0108.jpg": "198.spider",
    "256_ObjectCategories/234.tweezer/234_0122.jpg": "234.tweezer",
    "256_ObjectCategories/250.zebra-101/250_0001.jpg": "250.zebra-101",
    "256_ObjectCategories/253.faces-easy-101/253_0435.jpg": "253.faces-easy-101",
    "256_ObjectCategories/257.clutter/257_0827.jpg": "257.clutter",
}


@pytest.mark.parametrize("root", ["256_ObjectCategories/", "", "./", "somewhere/else/"])
def test_classes_of_caltech256_keep_their_numbers(root: str) -> None:
    expected = {name.replace("256_ObjectCategories/", root): c for name, c in CALTECH256.items()}
    assert class_names("caltech256", expected) == expected


@pytest.mark.parametrize(
    "stray",
    [
        "256_ObjectCategories/198.spider/RENAME2",
        "256_ObjectCategories/198.spider/RENAME2.jpg",
        "256_ObjectCategories/056.dog/greg/vision309/056_0001.jpg",
        "256_ObjectCategories/056.dog/greg/1.jpg",
        "256_ObjectCategories/056.dog/._056_0103.jpg",
        "256_ObjectCategories/056.dog/.DS_Store",
        "256_ObjectCategories/056.dog/001_0001.jpg",
        "256_ObjectCategories/056.dog/056_0103.jpg.txt",
        "256_ObjectCategories/056_0103.jpg",
        "256_ObjectCategories/README.jpg",
        "__MACOSX/256_ObjectCategories/056.dog/._056_0103.jpg",
    ],
)
def test_strays_in_caltech256_belong_to_no_class(stray: str) -> None:
    assert class_names("caltech256", [*CALTECH256, stray]) == CALTECH256


def test_the_class_of_a_group_photo_stands_before_the_first_underscore() -> None:
    expected = {
        "pictures_all/biker_group_pic00001.jpg": "biker",
        "pictures_all/country_group_pic00012.jpg": "country",
        "pictures_all/ravers_pic00001.jpg": "ravers",
    }
    assert class_names("urban_tribes", expected) == expected


@pytest.mark.parametrize("root", ["", "./", "UrbanTribes/pictures_all/", "under_scored_/"])
def test_only_the_name_of_the_file_counts_for_urban_tribes(root: str) -> None:
    name = f"{root}goth_group_pic00001.jpg"
    assert class_names("urban_tribes", [name]) == {name: "goth"}


def test_a_group_photo_without_an_underscore_has_no_class() -> None:
    assert class_names("urban_tribes", ["pictures_all/cover.jpg"]) == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_of_the_archive_does_not_matter(layout: Layout) -> None:
    names = [f"p/{c:03}.x/{c:03}_{i:04}.jpg" for c in (3, 1, 2) for i in (2, 1)]
    classes = class_names(layout, names)
    assert list(classes.items()) == list(class_names(layout, sorted(names)).items())
    assert list(classes) == sorted(names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_archive_without_files_has_no_classes(layout: Layout) -> None:
    assert class_names(layout, []) == {}


@pytest.mark.parametrize(
    "names",
    [
        ["train/{}/1.jpg", "test/{}/2.jpg", "pred/3.jpg"],
        ["seg_train/seg_train/{}/1.jpg", "seg_test/seg_test/{}/2.jpg", "seg_pred/3.jpg"],
        ["train2017/{}/1.jpg", "val2017/{}/2.jpg"],
    ],
)
def test_folders_that_look_like_given_splits_are_no_classes(names: list[str]) -> None:
    files = [name.format(kind) for name in names for kind in ("ants", "bees")]
    with pytest.raises(LayoutError, match="they look like given splits, not classes; call them"):
        arrange("class_folders", Files(sorted(set(files))))


def test_classes_whose_folders_hold_folders_of_the_same_names_are_classes() -> None:
    files = [f"{name}/{side}/1.jpg" for name in ("ants", "bees") for side in ("left", "right")]
    assert set(class_names("class_folders", files).values()) == {"ants", "bees"}


def test_a_table_that_is_no_csv_is_one_sentence() -> None:
    text = 'path,label\n"' + 200_000 * "x"
    files = Files(["1.jpg"], ["t.csv"], read=lambda _: text.encode())
    with pytest.raises(LayoutError, match=r"t\.csv: line 2: is no CSV: field larger than"):
        arrange("csv", files)
