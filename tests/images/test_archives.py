import io
import itertools
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vgg16_transfer.images import archives
from vgg16_transfer.images.archives import ArchiveError, map_files, open_archive

from .conftest import (
    member,
    noise,
    write_folder,
    write_legacy_tar,
    write_legacy_zip,
    write_tar,
    write_zip,
)

FILES = {
    "root/ants/ä 1.jpg": b"ant" * 1000,
    "root/bees/2.jpg": b"",
    "root/bees/deep/er/3.png": bytes(range(256)) * 40,
    f"root/{'long' * 60}/4.png": b"4",
    "stray.txt": b"stray",
}

FORMATS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "tar": write_tar,
    "tar.gz": lambda path, files: write_tar(path, files, "w:gz"),
    "tar.bz2": lambda path, files: write_tar(path, files, "w:bz2"),
    "tar.xz": lambda path, files: write_tar(path, files, "w:xz"),
    "zip": write_zip,
    "folder": write_folder,
}
COMPRESSED = ["tar.gz", "tar.bz2", "tar.xz"]


def contents(path: Path) -> dict[str, bytes]:
    with open_archive(path) as archive:
        return {name: archive.read(name) for name in archive.names()}


def shuffled(names: list[str], seed: int) -> list[str]:
    return [names[index] for index in np.random.default_rng(seed).permutation(len(names))]


def problem(path: Path) -> str:
    """What opening an archive is refused with; the message names the archive."""
    with pytest.raises(ArchiveError) as raised, open_archive(path):
        pass
    assert raised.value.path == path
    assert str(raised.value) == f"{path}: {raised.value.problem}"
    return raised.value.problem


@pytest.fixture(params=FORMATS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An archive of FILES whose name says nothing of its format."""
    return FORMATS[request.param](tmp_path / "pictures.archive", FILES)


def test_every_format_gives_the_same_names_and_bytes(path) -> None:
    assert contents(path) == FILES


def test_names_come_in_an_order_that_is_the_same_every_time(path) -> None:
    with open_archive(path) as first, open_archive(path) as second:
        assert first.names() == second.names()


def test_files_are_read_in_any_order_and_more_than_once(path) -> None:
    with open_archive(path) as archive:
        names = shuffled(archive.names() * 2, seed=0)
        assert [archive.read(name) for name in names] == [FILES[name] for name in names]


def test_nothing_is_written_where_the_archive_lies(path) -> None:
    before = sorted(path.parent.rglob("*"))
    contents(path)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", FORMATS)
def test_threads_that_read_at_once_get_the_right_bytes(tmp_path, kind: str) -> None:
    files = {f"p/{seed:03}.jpg": noise(seed, 3000 + seed) for seed in range(40)}
    path = FORMATS[kind](tmp_path / "pictures", files)
    barrier = threading.Barrier(4)
    with open_archive(path) as archive, ThreadPoolExecutor(4) as pool:

        def read_all(seed: int) -> dict[str, bytes]:
            names = shuffled(archive.names(), seed)
            barrier.wait()
            return {name: archive.read(name) for name in names}

        assert all(files_read == files for files_read in pool.map(read_all, range(4)))


def test_of_a_name_that_comes_twice_in_a_tar_the_last_counts(tmp_path) -> None:
    path = write_tar(tmp_path / "twice.tar", {"a.jpg": b"old", "b.jpg": b"b"})
    with tarfile.open(path, "a") as tar:
        tar.addfile(member("a.jpg", 3), io.BytesIO(b"new"))
    with open_archive(path) as archive:
        assert archive.names() == ["a.jpg", "b.jpg"]
        assert archive.read("a.jpg") == b"new"


def test_of_a_name_that_comes_twice_in_a_zip_the_last_counts(tmp_path) -> None:
    path = write_zip(tmp_path / "twice.zip", {"a.jpg": b"old", "b.jpg": b"b"})
    with (
        zipfile.ZipFile(path, "a") as zipped,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        zipped.writestr("a.jpg", b"new")
    with open_archive(path) as archive:
        assert archive.names() == ["a.jpg", "b.jpg"]
        assert archive.read("a.jpg") == b"new"


def test_folders_and_pipes_in_a_tar_are_no_files(tmp_path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.addfile(member("p", kind=tarfile.DIRTYPE))
        tar.addfile(member("pipe", kind=tarfile.FIFOTYPE))
        tar.addfile(member("p/1.jpg", 3), io.BytesIO(b"one"))
    assert contents(tmp_path / "t.tar") == {"p/1.jpg": b"one"}


def test_folders_in_a_zip_are_no_files(tmp_path) -> None:
    assert contents(write_zip(tmp_path / "z", {"p/": b"", "p/1.jpg": b"one"})) == {
        "p/1.jpg": b"one"
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_an_archive_may_hold_nothing(tmp_path, kind: str) -> None:
    assert contents(FORMATS[kind](tmp_path / "empty", {})) == {}


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path) -> None:
    inner = write_zip(tmp_path / "inner.zip", {"x.jpg": b"x"}).read_bytes()
    files = {"a.jpg": b"a", "z.zip": inner}
    assert contents(write_tar(tmp_path / "outer.tar", files)) == files


def test_every_picture_of_a_large_tar_is_listed(tmp_path) -> None:
    header = bytearray(member("p/00000.jpg").tobuf())
    with (tmp_path / "large.tar").open("wb") as file:
        for index in range(30_607):
            header[2:7] = b"%05d" % index
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            file.write(header)
        file.write(bytes(1024))
    with open_archive(tmp_path / "large.tar") as archive:
        assert archive.names() == [f"p/{index:05}.jpg" for index in range(30_607)]
        assert archive.read("p/30606.jpg") == b""


class Counter(io.FileIO):
    """A file that counts what is read of it."""

    count = 0

    def readinto(self, buffer: Any) -> int:
        read = super().readinto(buffer)
        Counter.count += read or 0
        return read or 0

    def readall(self) -> bytes:
        content = super().readall()
        Counter.count += len(content)
        return content


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many bytes were read of files since this was last called."""
    plain = io.open

    def counted(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode == "rb":
            return io.BufferedReader(Counter(file))
        return plain(file, mode, *args, **kwargs)

    monkeypatch.setattr(io, "open", counted)

    def since() -> int:
        count, Counter.count = Counter.count, 0
        return count

    since()
    return since


@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_random_access_reads_little_more_than_the_file_asked_for(
    tmp_path, bytes_read, kind: str
) -> None:
    size = 1 << 18
    files = {f"{index:02}.jpg": noise(index, size) for index in range(20)}
    path = FORMATS[kind](tmp_path / "pictures", files)
    bytes_read()
    with open_archive(path) as archive:
        assert bytes_read() < 2 * size
        for name in ["13.jpg", "02.jpg", "19.jpg", "00.jpg"]:
            assert archive.read(name) == files[name]
            assert size <= bytes_read() < 1.5 * size


@pytest.mark.parametrize("kind", COMPRESSED)
def test_a_compressed_tar_is_read_once_when_asked_for_in_its_own_order(
    tmp_path, bytes_read, kind: str
) -> None:
    files = {f"{index:02}.jpg": noise(index, 1 << 16) for index in range(20)}
    path = FORMATS[kind](tmp_path / "pictures", files)
    with open_archive(path) as archive:
        bytes_read()
        assert [archive.read(name) for name in archive.names()] == list(files.values())
        assert bytes_read() < 1.5 * path.stat().st_size


def test_nothing_at_the_path(tmp_path) -> None:
    assert problem(tmp_path / "nowhere.tar") == "no such file or folder"


def test_an_empty_file(tmp_path) -> None:
    (tmp_path / "empty.tar").touch()
    assert problem(tmp_path / "empty.tar") == "is empty"


@pytest.mark.parametrize("content", [b"<html>Not found</html>" * 99, b"PK", noise(0, 2000)])
def test_what_is_no_archive(tmp_path, content: bytes) -> None:
    (tmp_path / "page.tar").write_bytes(content)
    assert problem(tmp_path / "page.tar") == "is not a .tar, .tar.gz, .zip or folder"


THREE = {f"p/{index}.jpg": noise(index, 1000) for index in range(3)}
HEADER = 512
DATA = 1024  # of 1,000 bytes, filled up


@pytest.mark.parametrize(
    "size",
    {
        "in the first data": HEADER + 300,
        "after the first data": HEADER + 1000,
        "between members": HEADER + DATA,
        "in the second header": HEADER + DATA + 100,
        "after the second header": 2 * HEADER + DATA,
        "in the last data": 3 * HEADER + 2 * DATA + 999,
        "without end mark": 3 * (HEADER + DATA),
        "in the end mark": 3 * (HEADER + DATA) + 511,
    }.values(),
)
def test_a_tar_that_is_cut_off(tmp_path, size: int) -> None:
    path = write_tar(tmp_path / "cut.tar", THREE)
    path.write_bytes(path.read_bytes()[:size])
    assert "incomplete; fetch it again" in problem(path)


def test_a_tar_that_is_cut_off_in_its_first_header_is_no_tar(tmp_path) -> None:
    path = write_tar(tmp_path / "cut.tar", THREE)
    path.write_bytes(path.read_bytes()[:300])
    assert "is not a .tar" in problem(path)


@pytest.mark.parametrize("kind", [*COMPRESSED, "zip"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_compressed_archive_that_is_cut_off(tmp_path, kind: str, part: float) -> None:
    path = FORMATS[kind](tmp_path / "cut", THREE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert problem(path)


@pytest.mark.parametrize("size", [12, 40, -9, -5, -1])
def test_a_tar_gz_that_lacks_a_byte_is_cut_off(tmp_path, size: int) -> None:
    path = FORMATS["tar.gz"](tmp_path / "cut", THREE)
    path.write_bytes(path.read_bytes()[:size])
    assert "incomplete" in problem(path)


@pytest.mark.parametrize("from_end", [1, 22])
def test_a_zip_that_lacks_its_end_is_cut_off(tmp_path, from_end: int) -> None:
    path = write_zip(tmp_path / "cut.zip", THREE)
    path.write_bytes(path.read_bytes()[:-from_end])
    assert "incomplete" in problem(path)


def test_a_tar_gz_whose_checksum_is_wrong_is_damaged(tmp_path) -> None:
    path = FORMATS["tar.gz"](tmp_path / "t", THREE)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert "is damaged" in problem(path)


def test_a_tar_whose_second_header_is_damaged(tmp_path) -> None:
    path = write_tar(tmp_path / "t", THREE)
    content = bytearray(path.read_bytes())
    content[HEADER + DATA + 5] ^= 1
    path.write_bytes(content)
    assert "is damaged" in problem(path)


def test_a_tar_whose_member_leads_back_to_itself_is_damaged(tmp_path) -> None:
    back = member("b.jpg", size=-512).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "t").write_bytes(member("a.jpg").tobuf() + back + bytes(4096))
    assert "is damaged" in problem(tmp_path / "t")


def test_a_tar_whose_header_names_a_size_out_of_all_bounds_is_damaged(tmp_path) -> None:
    header = member("a.jpg", size=1 << 80, kind=tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "t").write_bytes(header + bytes(4096))
    assert "is damaged" in problem(tmp_path / "t")


@pytest.mark.parametrize("name", ["../../x", "a/../../x", "/etc/x", "..", "a\\..\\..\\x"])
@pytest.mark.parametrize("write", [write_tar, FORMATS["tar.gz"], write_zip])
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path, write, name: str) -> None:
    path = write(tmp_path / "pictures", {"a.jpg": b"a", name: b"x"})
    assert problem(path) == (
        f"member '{name}' points outside of the archive; repack it with plain relative names"
    )


def test_a_name_with_dots_in_it_is_fine(tmp_path) -> None:
    files = {"a..b/c..jpg": b"1", "...": b"2"}
    assert contents(write_tar(tmp_path / "t", files)) == files


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "a.jpg"])
def test_links_in_a_tar_are_refused(tmp_path, kind: bytes, target: str) -> None:
    link = member("b.jpg", kind=kind)
    link.linkname = target
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.addfile(member("a.jpg", 1), io.BytesIO(b"a"))
        tar.addfile(link)
    assert (
        problem(tmp_path / "t.tar") == "member 'b.jpg' is a link; repack it with the file instead"
    )


def test_links_in_a_zip_are_refused(tmp_path) -> None:
    link = zipfile.ZipInfo("b.jpg")
    link.create_system = 3
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as zipped:
        zipped.writestr(link, "/etc/passwd")
    assert (
        problem(tmp_path / "z.zip") == "member 'b.jpg' is a link; repack it with the file instead"
    )


def test_a_sparse_file_in_a_tar_is_refused(tmp_path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.addfile(member("a.jpg", kind=tarfile.GNUTYPE_SPARSE))
    assert (
        problem(tmp_path / "t.tar")
        == "member 'a.jpg' is stored sparse; repack it without sparse files"
    )


def damage(path: Path, find: bytes, offset: int, flip: int) -> None:
    """Changes one byte behind the first place, and behind the last, where some bytes stand."""
    content = bytearray(path.read_bytes())
    for start in {content.find(find), content.rfind(find)}:
        content[start + offset] ^= flip
    path.write_bytes(content)


def test_an_encrypted_zip_is_refused(tmp_path) -> None:
    path = write_zip(tmp_path / "z.zip", {"a.jpg": b"a"})
    damage(path, b"PK\x01\x02", 8, 1)
    assert problem(path) == "member 'a.jpg' is encrypted; repack it without encryption"


def test_a_damaged_member_of_a_zip_is_named_and_the_others_are_read(tmp_path) -> None:
    path = write_zip(tmp_path / "z.zip", THREE)
    damage(path, THREE["p/1.jpg"][100:200], 50, 1)
    with open_archive(path) as archive:
        assert archive.read("p/0.jpg") == THREE["p/0.jpg"]
        with pytest.raises(ArchiveError, match=r"z\.zip: member 'p/1\.jpg' is damaged: Bad CRC"):
            archive.read("p/1.jpg")


def test_a_way_of_compression_that_python_does_not_know_is_named(tmp_path) -> None:
    path = write_zip(tmp_path / "z.zip", {"a.jpg": b"a"})
    damage(path, b"PK\x01\x02", 10, 8 ^ 9)  # deflate64
    with (
        open_archive(path) as archive,
        pytest.raises(ArchiveError, match=r"member 'a\.jpg' is damaged: .*compression"),
    ):
        archive.read("a.jpg")


LEGACY = {"zip": write_legacy_zip, "tar": write_legacy_tar}
JAPANESE = {
    "pets/鞄/1.jpg": b"1",
    "pets/表示/2.jpg": b"2",
    "pets/a.jpg": b"3",
}  # 表 holds byte 0x5C


@pytest.mark.parametrize("kind", LEGACY)
def test_names_are_read_in_the_encoding_that_is_given(tmp_path, kind: str) -> None:
    path = LEGACY[kind](tmp_path / "old", JAPANESE, "cp932")
    with open_archive(path, "cp932") as archive:
        assert {name: archive.read(name) for name in archive.names()} == JAPANESE
        assert archive.folders() == ["pets", "pets/表示", "pets/鞄"]


@pytest.mark.parametrize("kind", LEGACY)
def test_names_without_a_mark_are_utf8_if_all_of_them_can_be(tmp_path, kind: str) -> None:
    assert contents(LEGACY[kind](tmp_path / "old", JAPANESE, "utf-8")) == JAPANESE


@pytest.mark.parametrize("kind", LEGACY)
def test_names_of_an_unknown_encoding_are_asked_about_with_likely_ones(tmp_path, kind) -> None:
    path = LEGACY[kind](tmp_path / "old", JAPANESE, "cp932")
    with open_archive(path) as archive, pytest.raises(ArchiveError) as raised:
        archive.names()
    assert "2 names such as 'pets/\\udc8a\\udc93/1.jpg' are not UTF-8" in str(raised.value)
    assert "set datasets.NAME.encoding in params.yaml" in str(raised.value)
    assert "cp932 reads 'pets/鞄/1.jpg'" in str(raised.value)


@pytest.mark.parametrize("kind", LEGACY)
def test_an_encoding_that_the_names_are_not_in_is_an_error(tmp_path, kind: str) -> None:
    path = LEGACY[kind](tmp_path / "old", JAPANESE, "cp932")
    with open_archive(path, "ascii") as archive, pytest.raises(ArchiveError, match="not ascii;"):
        archive.folders()


@pytest.mark.parametrize("kind", LEGACY)
def test_a_name_of_an_unknown_encoding_that_leads_out_is_refused(tmp_path, kind: str) -> None:
    path = LEGACY[kind](tmp_path / "old", {"鞄/../../x": b""}, "cp932")
    assert "points outside of the archive" in problem(path)


def test_the_utf8_name_that_info_zip_adds_is_the_name(tmp_path) -> None:
    info = zipfile.ZipInfo("bag.jpg")
    name = "鞄.jpg".encode()
    head = b"\1" + zlib.crc32(b"bag.jpg").to_bytes(4, "little")
    size = len(head + name).to_bytes(2, "little")
    info.extra = b"\x75\x70" + size + head + name
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as zipped:
        zipped.writestr(info, b"x")
    assert contents(tmp_path / "z.zip") == {"鞄.jpg": b"x"}


def test_backslashes_separate_folders_in_a_zip_without_slashes(tmp_path) -> None:
    path = write_legacy_zip(tmp_path / "z", {"p\\表\\1.jpg": b"1", "p\\b\\": b""}, "cp932")
    with open_archive(path, "cp932") as archive:
        assert archive.names() == ["p/表/1.jpg"]
        assert archive.folders() == ["p", "p/b", "p/表"]


def test_a_backslash_beside_slashes_is_part_of_a_name(tmp_path) -> None:
    files = {"p/a\\b.jpg": b"1"}
    assert contents(write_zip(tmp_path / "z", files)) == files


@pytest.mark.parametrize("kind", FORMATS)
def test_folders_without_files_are_listed(tmp_path, kind: str) -> None:
    path = FORMATS["folder"](tmp_path / "pictures", {"p/ants/1.jpg": b"1"})
    (path / "p" / "bees").mkdir()
    if kind == "zip":
        path = write_zip(tmp_path / "z", {"p/ants/1.jpg": b"1", "p/bees/": b""})
    elif kind != "folder":
        with tarfile.open(tmp_path / "t", kind.replace("tar", "w").replace(".", ":")) as tar:
            tar.add(path / "p", "p")
        path = tmp_path / "t"
    with open_archive(path) as archive:
        assert archive.folders() == ["p", "p/ants", "p/bees"]
        assert archive.names() == ["p/ants/1.jpg"]
        assert archive.size("p/ants/1.jpg") == 1


def test_an_error_behind_a_link_names_the_place_that_it_leads_to(tmp_path) -> None:
    (tmp_path / "real.tar").write_bytes(b"no archive")
    (tmp_path / "link").symlink_to("real.tar")
    with pytest.raises(ArchiveError) as raised, open_archive(tmp_path / "link"):
        pass
    assert raised.value.path == tmp_path / "real.tar"


def test_a_link_to_nothing_names_what_is_missing(tmp_path) -> None:
    (tmp_path / "link").symlink_to("gone.tar")
    with pytest.raises(ArchiveError, match=r"gone\.tar: no such file") as raised:
        open_archive(tmp_path / "link").__enter__()
    assert raised.value.path == tmp_path / "gone.tar"


def test_a_name_in_a_folder_that_is_not_utf8_is_refused(tmp_path) -> None:
    path = write_folder(tmp_path / "pictures", {"caf\udce9.jpg": b"x"})
    assert problem(path) == "the name 'caf\\udce9.jpg' is not UTF-8; rename that file"


def test_a_tar_that_shrinks_while_it_is_open_is_cut_off(tmp_path) -> None:
    path = write_tar(tmp_path / "t.tar", {name: THREE[name] * 100 for name in THREE})
    with open_archive(path) as archive:
        with path.open("r+b") as file:
            file.truncate(5000)
        with pytest.raises(ArchiveError, match=r"ends inside member 'p/2\.jpg'"):
            archive.read("p/2.jpg")


def test_links_in_a_folder_are_followed(tmp_path) -> None:
    elsewhere = write_folder(tmp_path / "elsewhere", {"bees/1.jpg": b"bee", "ant.jpg": b"ant"})
    folder = write_folder(tmp_path / "folder", {"flies/1.jpg": b"fly"})
    (folder / "ants").mkdir()
    (folder / "ants" / "1.jpg").symlink_to(elsewhere / "ant.jpg")
    (folder / "bees").symlink_to(elsewhere / "bees")
    assert contents(folder) == {"ants/1.jpg": b"ant", "bees/1.jpg": b"bee", "flies/1.jpg": b"fly"}


def test_links_that_lead_nowhere_or_in_circles_are_passed_by(tmp_path) -> None:
    folder = write_folder(tmp_path / "folder", {"a/1.jpg": b"one", "b/2.jpg": b"two"})
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b" / "here").symlink_to(".")
    assert contents(folder) == {"a/1.jpg": b"one", "b/2.jpg": b"two"}


def test_links_that_lead_from_one_folder_to_the_other_and_back_come_to_an_end(tmp_path) -> None:
    folder = write_folder(tmp_path / "folder", {"a/1.jpg": b"one", "b/2.jpg": b"two"})
    (folder / "a" / "b").symlink_to(folder / "b")
    (folder / "b" / "a").symlink_to(folder / "a")
    assert sorted(contents(folder)) == ["a/1.jpg", "b/2.jpg"]


def test_a_link_to_a_folder_above_leads_to_what_was_not_visited(tmp_path) -> None:
    above = write_folder(tmp_path / "above", {"folder/a/1.jpg": b"one", "other/2.jpg": b"two"})
    folder = above / "folder"
    (folder / "a" / "up").symlink_to(above)
    assert sorted(contents(folder)) == ["a/1.jpg", "a/up/other/2.jpg"]


def test_a_file_that_vanishes_from_a_folder_is_named(tmp_path) -> None:
    folder = write_folder(tmp_path / "folder", {"a.jpg": b"a"})
    with open_archive(folder) as archive:
        (folder / "a.jpg").unlink()
        with pytest.raises(ArchiveError, match=r"'a\.jpg' can't be read: .*No such file"):
            archive.read("a.jpg")


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_what_may_not_be_read_is_an_error(tmp_path, monkeypatch, kind: str) -> None:
    path = FORMATS[kind](tmp_path / "pictures", FILES)

    def denied(*_: object) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    monkeypatch.setattr(Path, "open", denied)
    assert problem(path) == "can't be read: [Errno 13] Permission denied"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {k: w(folder / k, FILES).read_bytes() for k, w in FORMATS.items() if k != "folder"}


@settings(deadline=None)
@given(
    kind=st.sampled_from([kind for kind in FORMATS if kind != "folder"]),
    place=st.floats(0, 1, exclude_max=True),
    flips=st.binary(min_size=1, max_size=8),
)
def test_damage_anywhere_gives_bytes_or_an_archive_error(
    tmp_path_factory, whole, kind: str, place: float, flips: bytes
) -> None:
    content = bytearray(whole[kind])
    start = int(place * len(content))
    for index, flip in enumerate(flips[: len(content) - start]):
        content[start + index] ^= flip
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        files = contents(path)
    except ArchiveError:
        return
    if kind in {"tar.gz", "tar.xz"}:
        assert files == FILES  # their checksums leave no room for other bytes


class Recorder:
    """An archive whose files hold their own names, and that knows what was read of it."""

    def __init__(self, damaged: str = "") -> None:
        self.read_so_far: list[str] = []
        self.damaged = damaged

    def names(self) -> list[str]:
        raise NotImplementedError

    def size(self, name: str) -> int:
        return len(name)

    def read(self, name: str) -> bytes:
        self.read_so_far.append(name)
        if name == self.damaged:
            raise ArchiveError(Path("a.zip"), f"member '{name}' is damaged")
        return name.encode()


def numbered(count: int) -> list[str]:
    return [f"{index:03}" for index in range(count)]


def test_results_come_in_the_order_of_the_names_whichever_is_done_first() -> None:
    archive, names = Recorder(), numbered(10)
    later_is_done = threading.Event()

    def first_waits_for_second(content: bytes) -> str:
        if content == b"000":
            assert later_is_done.wait(60)
        if content == b"001":
            later_is_done.set()
        return content.decode()

    assert list(map_files(archive, names, first_waits_for_second)) == names


def test_files_are_read_in_the_order_of_the_names() -> None:
    archive, names = Recorder(), numbered(200)
    for _ in map_files(archive, names[::-1], len):
        pass
    assert archive.read_so_far == names[::-1]


def test_files_are_read_no_further_ahead_than_the_window() -> None:
    archive, names = Recorder(), numbered(5 * archives._READ_AHEAD)
    ahead = [
        len(archive.read_so_far) - taken
        for taken, _ in enumerate(map_files(archive, names, len), start=1)
    ]
    assert max(ahead) == archives._READ_AHEAD - 1
    assert ahead[-1] == 0


def test_names_are_asked_for_no_further_ahead_than_the_window() -> None:
    archive = Recorder()
    results = map_files(archive, map(str, itertools.count()), len)
    assert [next(results) for _ in range(12)] == [1] * 10 + [2] * 2
    results.close()  # type: ignore[attr-defined]
    assert len(archive.read_so_far) == archives._READ_AHEAD + 11


def test_no_names_give_no_results() -> None:
    assert list(map_files(Recorder(), [], len)) == []


def test_a_damaged_file_stops_the_rest() -> None:
    results = map_files(Recorder(damaged="b"), ["a", "b", "c"], len)
    with pytest.raises(ArchiveError, match="member 'b' is damaged"):
        list(results)


def test_something_else_may_stand_for_a_damaged_file() -> None:
    results: Iterator[str] = map_files(
        Recorder(damaged="b"), ["a", "b", "c"], bytes.decode, on_damage=lambda e: e.problem
    )
    assert list(results) == ["a", "member 'b' is damaged", "c"]


def test_what_the_function_raises_comes_out() -> None:
    def fail(content: bytes) -> int:
        raise KeyError(content)

    with pytest.raises(KeyError, match="a"):
        list(map_files(Recorder(), ["a"], fail))


def test_the_function_sees_a_files_bytes(path) -> None:
    with open_archive(path) as archive:
        names = archive.names()
        assert list(map_files(archive, names, bytes.hex)) == [FILES[n].hex() for n in names]


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch, form: str) -> None:
    path = FORMATS[form](tmp_path / "source", {"a.jpg": b"a" * 100, "b.jpg": b"b" * 101})
    monkeypatch.setattr(archives, "MAX_BYTES", 100)
    with open_archive(path) as archive:
        assert archive.read("a.jpg") == b"a" * 100
        with pytest.raises(ArchiveError, match=r"'b\.jpg' holds .* MB, more than the"):
            archive.read("b.jpg")


def test_files_in_memory_are_together_no_larger_than_one_may_be(tmp_path, monkeypatch) -> None:
    """The consumer never gets ahead of the sizes, whatever their order."""
    sizes = [90, 5, 5, 60, 60, 1, 100, 100, 20]
    files = {f"{number}.jpg": bytes(size) for number, size in enumerate(sizes)}
    path = write_tar(tmp_path / "t.tar", files)
    monkeypatch.setattr(archives, "MAX_BYTES", 100)
    most, unread = 0, []
    with open_archive(path) as archive:
        read = archive.read

        def counted(name: str) -> bytes:
            nonlocal most
            unread.append(len(files[name]))
            most = max(most, sum(unread))
            return read(name)

        monkeypatch.setattr(archive, "read", counted)
        lengths = []
        for length in map_files(archive, list(files), len):
            lengths.append(length)
            unread.remove(length)
    assert lengths == sizes
    assert most <= 100


def test_folders_that_link_to_each_other_are_visited_once(tmp_path) -> None:
    for number in range(22):
        (tmp_path / "s" / f"d{number:02}").mkdir(parents=True)
        (tmp_path / "s" / f"d{number:02}" / "p.jpg").write_bytes(b"p")
    for number, other in itertools.permutations(range(22), 2):
        (tmp_path / "s" / f"d{number:02}" / f"to{other:02}").symlink_to(f"../d{other:02}")
    with open_archive(tmp_path / "s") as archive:
        assert archive.names() == [f"d{number:02}/p.jpg" for number in range(22)]


def test_what_is_neither_a_file_nor_a_folder_is_refused(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert problem(tmp_path / "pipe") == "is neither a file nor a folder"


def test_a_tar_with_a_thousand_chained_headers_is_damaged(tmp_path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 2
    block = header.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    (tmp_path / "t.tar").write_bytes(block * 2000 + member("a").tobuf() + bytes(1024))
    assert problem(tmp_path / "t.tar") == "is damaged or incomplete; fetch it again"


def test_a_zip_member_whose_size_is_lost_is_damaged_and_an_empty_one_is_not(tmp_path) -> None:
    path = write_zip(tmp_path / "z.zip", {"a.jpg": b"a" * 100, "empty.jpg": b""})
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")  # of a.jpg, in the list at the end
    content[entry + 16 : entry + 28] = bytes(12)  # its checksum and both sizes
    path.write_bytes(content)
    with open_archive(path) as archive:
        assert archive.read("empty.jpg") == b""
        with pytest.raises(ArchiveError, match=r"member 'a\.jpg' is damaged: its size is lost"):
            archive.read("a.jpg")
