"""A damaged file of the page is one sentence that names it and the command that mends it."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from vgg16_transfer.errors import InputError
from vgg16_transfer.heads.records import AVERAGED
from vgg16_transfer.reporting import reading
from vgg16_transfer.reporting.reading import ReadError
from vgg16_transfer.reporting.report import write_report

from .conftest import STUDIES, folders_in, make_params

PARAMS = make_params("caltech256", STUDIES)
COMMANDS = {
    "results/samples/trials.csv": "dvc repro train@samples",
    "results/samples/history.csv": "dvc repro train@samples",
    "results/samples/predictions.csv": "dvc repro train@samples",
    "results/samples/confusion.csv": "dvc repro train@samples",
    "results/samples/per_class.csv": "dvc repro train@samples",
    "gradients/photos.csv": "dvc repro gradients@photos",
    "splits/photos/near_duplicates.csv": "dvc repro splits@photos",
    "splits/photos.card.md": "dvc repro splits@photos",
    "explained/samples/captions.json": "dvc repro explain@samples",
    "explained/samples/nearest.svg": "dvc repro explain@samples",
    "filters/photos/block1_conv1.png": "dvc repro filters@photos",
    "filters/photos/samples.png": "dvc repro filters@photos",
}
TABLES = [path for path in COMMANDS if path.endswith(".csv")]
NEAR = "seed,path,role,near_path,near_role,distance\n0,a.jpg,test,b.jpg,train,2\n"
MANIFEST = "path,role,label,class_name,rank\na.jpg,test,0,ant,0\nb.jpg,train,0,ant,0\n"
MANIFEST += "c.jpg,train,1,bee,0\n"
CONFLICT = b"<<<<<<< ours\n=======\n>>>>>>> theirs\n"


@pytest.fixture
def damaged(full, tmp_path) -> Callable[[str, Callable[[bytes], bytes]], str]:
    """What is said of a page of which one file is changed; its old page stays as it is."""
    folder = tmp_path / "copy"
    shutil.copytree(full, folder)
    near = folder / "splits" / "photos"
    (near / "near_duplicates.csv").write_text(NEAR, encoding="utf-8")
    for seed in (0, 1, 2):
        (near / f"{seed}.csv").write_text(MANIFEST, encoding="utf-8")

    def of(name: str, change: Callable[[bytes], bytes]) -> str:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        before = (folder / "report.html").read_bytes(), sorted(folder.rglob("figures/**"))
        with pytest.raises(InputError) as caught:
            write_report(PARAMS, folder, **folders_in(folder))
        after = (folder / "report.html").read_bytes(), sorted(folder.rglob("figures/**"))
        assert after == before
        sentence = str(caught.value)
        assert sentence.startswith(f"{path}: ")
        assert "\n" not in sentence
        return sentence

    return of


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2] + b"\xff\xfe\xff",
        lambda _: b"",
        lambda _: b"\x00\xff\xd8 no such thing",
        lambda content: CONFLICT + content,
    ],
    ids=["cut off", "empty", "other bytes", "merge markers"],
)
def test_a_damaged_file_is_named_with_the_command_that_mends_it(damaged, name, change) -> None:
    sentence = damaged(name, change)
    assert "is damaged (" in sentence
    assert sentence.endswith(f"; run {COMMANDS[name]} or dvc pull")


@pytest.mark.parametrize("name", TABLES)
def test_a_table_without_a_column_names_the_column(damaged, name: str) -> None:
    column = "distance" if "near" in name else "average" if "grad" in name else "trial"
    sentence = damaged(name, lambda content: content.replace(column.encode(), b"other", 1))
    assert f"has no column '{column}'" in sentence


@pytest.mark.parametrize("name", TABLES)
def test_a_word_where_a_number_belongs_names_the_column(damaged, name: str) -> None:
    def change(content: bytes) -> bytes:
        frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        columns = {"trials": "accuracy", "history": "epoch", "predictions": "probability"}
        columns |= {"confusion": "count", "per_class": "accuracy", "photos": "max"}
        frame.loc[0, columns.get(Path(name).stem, "distance")] = "many"
        return frame.to_csv(index=False).encode()

    assert "does not hold " in damaged(name, change)


def edited(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[bytes], bytes]:
    def of(content: bytes) -> bytes:
        frame = pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""])
        return change(frame).to_csv(index=False).encode()

    return of


def test_a_trial_that_finished_without_a_number_is_damage(damaged) -> None:
    change = edited(lambda frame: frame.assign(loss=float("nan")))
    assert "column 'loss' is empty" in damaged("results/samples/trials.csv", change)


def test_a_trial_that_failed_needs_no_numbers(tmp_path, full) -> None:
    folder = tmp_path / "samples"
    shutil.copytree(full / "results" / "samples", folder)
    trials = pd.read_csv(folder / "trials.csv").assign(status="finished", failure="")
    trials.loc[0, ["status", "failure", *AVERAGED]] = ["failed", "it was", *[None] * len(AVERAGED)]
    trials.to_csv(folder / "trials.csv", index=False)
    trials = reading.record(folder, PARAMS.studies["samples"]).trials
    assert trials["status"].tolist() == ["failed", *["finished"] * 7]
    assert trials.loc[0, list(AVERAGED)].isna().all()


@pytest.mark.parametrize("name", ["trials", "history"])
def test_a_record_without_a_trial_of_the_study_names_the_trial(damaged, name: str) -> None:
    change = edited(lambda frame: frame[frame["trial"] != "samples_per_class=4,seed=0"])
    sentence = damaged(f"results/samples/{name}.csv", change)
    assert "(lacks trial 'samples_per_class=4,seed=0'); run dvc repro train@samples" in sentence


@pytest.mark.parametrize("content", [b"[]", b'{"a.png": 1}', b"null"])
def test_captions_that_are_no_texts_are_damage(damaged, content: bytes) -> None:
    assert "is not an object of texts by file name" in damaged(
        "explained/samples/captions.json", lambda _: content
    )


def test_a_picture_that_is_no_png_is_damage(damaged) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "JPEG")
    damaged("filters/photos/block1_conv1.png", lambda _: buffer.getvalue())


@pytest.mark.parametrize("cut", [20, 60, 100, 200, -30, -20, -14])
def test_a_picture_that_is_cut_off_anywhere_is_damage(tmp_path, cut: int) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 60).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(buffer.getvalue()[:cut])
    with pytest.raises(ReadError, match=r"a.png: is damaged \(.*\); run dvc repro filters@d"):
        reading.png(tmp_path / "a.png", "dvc repro filters@d")


def test_a_picture_with_another_byte_is_damage(tmp_path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 60).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ReadError, match=r"a.png: is damaged"):
        reading.png(tmp_path / "a.png", "dvc repro filters@d")


def test_a_whole_picture_is_read(tmp_path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "a.png")
    assert reading.png(tmp_path / "a.png", "dvc repro report").getpixel((7, 7)) == (255, 0, 0)


def test_a_folder_in_place_of_a_file_is_one_sentence(tmp_path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(ReadError, match=r"a.csv: is damaged \(Is a directory\); run x"):
        reading.table(tmp_path / "a.csv", {}, "x")


def test_a_class_may_have_any_name(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("class_name,n\nNA,1\n007,2\ntrue,3\n", encoding="utf-8")
    frame = reading.table(tmp_path / "a.csv", {"class_name": str, "n": int}, "x")
    assert frame["class_name"].tolist() == ["NA", "007", "true"]
