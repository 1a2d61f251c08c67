"""Whole or not at all, and one sentence for whatever can't be read."""

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vgg16_transfer import artifacts
from vgg16_transfer.artifacts import ArtifactError, alone, put, reading, remove, replacing
from vgg16_transfer.errors import InputError


class Killed(BaseException):
    """Stands in for a SIGKILL: nothing in the package may catch it."""


class OtherError(InputError):
    """What a room calls its own mistakes."""


def write(path: Path, content: str, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
        path = path / "in"
    path.write_text(content, encoding="utf-8")


def content(path: Path) -> str:
    return (path / "in" if path.is_dir() else path).read_text(encoding="utf-8")


KINDS = pytest.mark.parametrize("kind", ["file", "folder"])


@KINDS
@pytest.mark.parametrize("before", ["nothing", "file", "folder", "link"])
def test_what_is_whole_takes_the_place_of_what_was_there(tmp_path, kind: str, before: str) -> None:
    path = tmp_path / "room" / "thing.txt"
    if before != "nothing":
        path.parent.mkdir()
        if before == "link":
            (tmp_path / "target").mkdir()
            (tmp_path / "target" / "kept").touch()
            path.symlink_to(tmp_path / "target")
        else:
            write(path, "old", before)
    with replacing(path) as fresh:
        assert fresh.name == path.name
        write(fresh, "new", kind)
    assert content(path) == "new"
    assert not path.is_symlink()
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert before != "link" or (tmp_path / "target" / "kept").exists()


@KINDS
@pytest.mark.parametrize("error", [ValueError, Killed])
def test_what_fails_half_way_leaves_what_was_there(tmp_path, kind: str, error: type) -> None:
    path = tmp_path / "thing"
    write(path, "old", kind)

    def half_way() -> None:
        with replacing(path) as fresh:
            write(fresh, "half", kind)
            raise error

    with pytest.raises(error):
        half_way()
    assert content(path) == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["thing"]


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path) -> None:
    path = tmp_path / "thing"
    (tmp_path / ".thing.incoming").mkdir()
    write(tmp_path / ".thing.incoming" / "thing", "half", "folder")
    write(tmp_path / ".thing.retired", "old", "folder")
    with replacing(path) as fresh:
        write(fresh, "new", "folder")
    assert content(path) == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["thing"]


HOLD = """
import pathlib, sys, time
from vgg16_transfer.artifacts import alone
with alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_what_another_process_is_writing_is_busy_until_that_process_ends(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(artifacts, "BUSY_AFTER", 0.2)
    path = tmp_path / "thing"

    def put_new() -> None:
        with replacing(path) as fresh:
            fresh.write_text("new")

    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ArtifactError, match=r"thing: is busy: another process is writing it"):
            put_new()
        assert not path.exists()
        other.kill()
    put_new()
    assert [one.name for one in tmp_path.iterdir()] == ["thing"]


def test_one_after_the_other_writes_whole(tmp_path) -> None:
    path = tmp_path / "thing"
    inside, overlaps = [], []

    def work(number: int) -> None:
        for _ in range(5):
            with alone(path):
                inside.append(number)
                overlaps.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == [1] * 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_sentence(tmp_path, number: int) -> None:
    def full() -> None:
        with replacing(tmp_path / "thing"):
            raise OSError(number, "No space left on device")

    with pytest.raises(
        ArtifactError, match=r"thing: no room to write it \(No space left on device\)"
    ):
        full()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_may_not_be_written_to_is_one_sentence(tmp_path, number: int) -> None:
    def refused() -> None:
        with replacing(tmp_path / "thing"):
            raise OSError(number, "Read-only file system")

    with pytest.raises(ArtifactError, match=r"thing: can't be written \(Read-only file system\)"):
        refused()


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (ValueError("line 3: odd\nand more"), "x.csv: is damaged (line 3: odd); run dvc repro or"),
        (KeyError("layer"), "x.csv: is damaged ('layer'); run dvc repro or dvc pull"),
        (EOFError(), "x.csv: is damaged (EOFError); run dvc repro or dvc pull"),
        (OSError(errno.EIO, "Input/output error"), "x.csv: is damaged (Input/output error); run"),
        (FileNotFoundError(), "x.csv: no such table; run dvc repro or dvc pull"),
    ],
)
def test_whatever_goes_wrong_while_reading_is_one_sentence(problem, sentence: str) -> None:
    def read() -> None:
        with reading(Path("x.csv"), OtherError, what="table"):
            raise problem

    with pytest.raises(OtherError) as caught:
        read()
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_sentence_that_was_found_already_stays() -> None:
    def read() -> None:
        with reading(Path("x.csv")):
            raise OtherError("y.csv: is empty")

    with pytest.raises(OtherError, match=r"^y\.csv: is empty$"):
        read()


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    assert (tmp_path / "folder" / "kept").exists()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    write(tmp_path / "fresh", "new", "folder")
    put(tmp_path / "fresh", tmp_path / "link")
    assert content(tmp_path / "link") == "new"
    assert (tmp_path / "folder" / "kept").exists()
