import pytest

from vgg16_transfer.images.datasets import class_names
from vgg16_transfer.params import Layout

LAYOUTS: list[Layout] = ["class_folders", "caltech256", "urban_tribes"]


@pytest.mark.parametrize("root", ["", "pictures/", "a/b/c/", "./", "./pictures/"])
def test_class_folders_may_lie_at_any_depth(root: str) -> None:
    names = [f"{root}ants/1.jpg", f"{root}ants/2.jpg", f"{root}bees/1.jpg"]
    found = class_names("class_folders", names)
    assert found == dict(zip(names, ["ants", "ants", "bees"], strict=True))


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


def test_one_folder_makes_no_classes() -> None:
    assert class_names("class_folders", ["p/ants/1.jpg", "p/ants/2.jpg"]) == {}


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
def test_what_macos_adds_to_archives_is_no_picture(layout: Layout) -> None:
    names = [
        "p/001.a/001_0001.jpg",
        "p/002.b/002_0001.jpg",
        "p/001.a/._001_0001.jpg",
        "p/001.a/.DS_Store",
        "__MACOSX/p/001.a/._001_0001.jpg",
    ]
    assert list(class_names(layout, names)) == names[:2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_other_kinds_are_left_alone(layout: Layout) -> None:
    names = ["p/001.a/001_0001.txt", "p/002.b/002_0001", "p/Thumbs.db", "p/001.a/labels_1.csv"]
    assert class_names(layout, names) == {}


@pytest.mark.parametrize(
    "suffix", ["jpg", "JPG", "jpeg", "png", "gif", "bmp", "webp", "tif", "TIFF"]
)
def test_pictures_of_many_formats_count(suffix: str) -> None:
    names = [f"ants/1.{suffix}", f"bees/1.{suffix}"]
    assert list(class_names("class_folders", names)) == names


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_of_the_archive_does_not_matter(layout: Layout) -> None:
    names = [f"p/{c:03}.x/{c:03}_{i:04}.jpg" for c in (3, 1, 2) for i in (2, 1)]
    found = class_names(layout, names)
    assert list(found.items()) == list(class_names(layout, sorted(names)).items())
    assert list(found) == sorted(names)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_archive_without_files_has_no_classes(layout: Layout) -> None:
    assert class_names(layout, []) == {}
