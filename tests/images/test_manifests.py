import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vgg16_transfer.images.manifests import (
    COLUMNS,
    LEFT_OUT,
    NEAR_DUPLICATES,
    ManifestError,
    read_manifest,
    read_manifests,
    write_frame,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def manifest(rows: list[tuple[str, str]]) -> pd.DataFrame:
    """One row for every path and class name."""
    full = [(path, i, name, f"{i:064x}", "train", i) for i, (path, name) in enumerate(rows)]
    return pd.DataFrame(full, columns=COLUMNS)


@pytest.mark.parametrize("name", ["NA", "nan", "null", "None", "n/a", "true", "001", "1e3", " x "])
def test_a_class_may_be_called_what_looks_like_a_value(tmp_path, name: str) -> None:
    frame = manifest([(f"p/{name}/1.jpg", name)])
    write_frame(frame, tmp_path / "0.csv")
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "0.csv"), frame)


@example(rows=[("p/Icon\r", "a\r\nb"), ('"', ",\n")])
@settings(deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_any_path_and_class_name_is_read_as_it_was_written(tmp_path_factory, rows) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    write_frame(manifest(rows), path)
    frame = read_manifest(path)
    assert list(zip(frame["path"], frame["class_name"], strict=True)) == rows


def test_the_bytes_are_those_of_plain_csv_on_every_machine(tmp_path) -> None:
    write_frame(manifest([("ä,1.jpg", "ants")]), tmp_path / "0.csv")
    assert (tmp_path / "0.csv").read_bytes() == (
        b"path,label,class_name,sha256,role,rank\n"
        b'"\xc3\xa4,1.jpg",0,ants,' + b"0" * 64 + b",train,0\n"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "No columns"),
        (b"a,b\n1,2\n", "its columns are a, b"),
        (b"path,label,class_name,sha256,role,rank\n1.jpg,x,a,b,train,0\n", "'x'"),
        (b"path,label,class_name,sha256,role,rank\n1.jpg,0,a,b\n", ""),
        (
            b"path,label,class_name,sha256,role,rank\n1,0,a,b,train,0,7,8,9\n1,2,3,4,5,6,7,8,9,10",
            "",
        ),
        (b"path,label,class_name,sha256,role,rank\n\xff\xfe.jpg,0,a,b,train,0\n", "can't decode"),
        (b"<<<<<<< HEAD\n", "its columns are <<<<<<< HEAD"),
    ],
)
def test_a_damaged_manifest_is_one_sentence_with_what_mends_it(tmp_path, content, reason) -> None:
    path = tmp_path / "0.csv"
    path.write_bytes(content)
    with pytest.raises(ManifestError) as raised:
        read_manifest(path)
    sentence = str(raised.value)
    assert sentence.startswith(f"{path}: is damaged (")
    assert reason in sentence
    assert sentence.endswith("); run dvc repro or dvc pull")
    assert "\n" not in sentence


def test_all_seeds_are_read_and_the_lists_beside_them_are_not(tmp_path) -> None:
    for seed in (0, 1, 10):
        write_frame(manifest([(f"{seed}.jpg", "ants")]), tmp_path / f"{seed}.csv")
    for name in (LEFT_OUT, NEAR_DUPLICATES):
        write_frame(pd.DataFrame([("x", "ants", "is empty")]), tmp_path / name)
    paths = [frame["path"].item() for frame in read_manifests(tmp_path)]
    assert sorted(paths) == ["0.jpg", "1.jpg", "10.jpg"]
