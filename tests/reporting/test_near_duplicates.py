"""Pictures that nearly equal each other across the sides of a split, counted and listed."""

from pathlib import Path
from typing import Any

import pytest

from vgg16_transfer.reporting import near_duplicates
from vgg16_transfer.reporting.near_duplicates import FILE, SHOWN
from vgg16_transfer.reporting.report import write_report

from .conftest import folders_in, make_params, measure
from .test_page import text

HEADER = "seed,path,role,near_path,near_role,distance\n"
SEEDS = [0, 1, 2]


def write(folder: Path, *rows: str, tests: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(HEADER + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    roles = ["test"] * tests + ["train", "validation"]
    manifest = "".join(f"{number}.jpg,{role}\n" for number, role in enumerate(roles))
    for seed in SEEDS:
        (folder / f"{seed}.csv").write_text(f"path,role\n{manifest}", encoding="utf-8")


def read_pairs(folder: Path) -> Any:
    return near_duplicates.read(folder, "photos", SEEDS)


def test_without_a_file_or_a_pair_nothing_is_said(tmp_path) -> None:
    assert read_pairs(tmp_path) is None
    write(tmp_path)
    assert read_pairs(tmp_path) is None


def test_test_pictures_are_counted_split_by_split(tmp_path) -> None:
    write(
        tmp_path,
        "0,a,test,x,train,1",
        "0,a,test,y,train,2",  # the same test picture
        "0,b,test,x,train,2",
        "0,z,validation,c,test,0",  # listed the other way round
        "2,x,train,z,validation,3",  # no test picture
    )
    first, second, third = read_pairs(tmp_path).sentences
    assert first == (
        "Split 0: of 4 test pictures, 2 nearly equal a training picture and 1 nearly equals a "
        "validation picture."
    )
    none = "of 4 test pictures, none nearly equals a training or validation picture."
    assert (second, third) == (f"Split 1: {none}", f"Split 2: {none}")


def test_the_closest_pairs_come_first_and_the_rest_is_counted(tmp_path) -> None:
    rows = [f"{seed},{n}.jpg,test,n,train,{30 - n}" for seed in (1, 0) for n in range(13)]
    write(tmp_path, *rows)
    near = read_pairs(tmp_path)
    assert len(near.pairs) == SHOWN
    assert near.rest == 26 - SHOWN
    assert near.pairs[0] == {
        "split": 0,
        "picture": "12.jpg",
        "role": "test",
        "nearly equals": "n",
        "its role": "train",
        "distance": "18",
    }
    assert [row["split"] for row in near.pairs] == [0] * 13 + [1] * 7


def page(folder: Path, *rows: str) -> str:
    params, folders = make_params("caltech256", {"s": {}}), folders_in(folder)
    measure(params, folders)
    if rows:
        write(folders["splits"] / "photos", *rows)
    write_report(params, folder, **folders)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_says_what_was_found_and_what_keeps_it_apart(tmp_path) -> None:
    rows = [f"0,<b>{n}.jpg,test,t.jpg,train,2" for n in range(22)]
    seen = text(page(tmp_path, *rows))
    assert "Split 0: of 4 test pictures, 22 nearly equal a training picture." in seen
    assert "split.near_duplicates: one_side" in seen
    assert "22 pairs" in seen
    assert "0 | <b>0.jpg | test | t.jpg | train | 2 | " in seen
    assert "and 2 more" in seen


@pytest.mark.parametrize("rows", [(), ("",)])
def test_a_page_without_near_duplicates_does_not_speak_of_them(tmp_path, rows) -> None:
    assert "ear-duplicates" not in text(page(tmp_path, *rows))
