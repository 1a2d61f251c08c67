import hashlib
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vgg16_transfer.artifacts import ArtifactError
from vgg16_transfer.images import fetch as module
from vgg16_transfer.images.archives import ArchiveError, open_archive
from vgg16_transfer.images.fetch import CALTECH256, Address, FetchError, fetch

from .conftest import Server, noise, write_folder, write_tar, write_zip

FILES = {f"p/ants/{index}.jpg": noise(index, 100_000) for index in range(5)}
HALF = 250_000


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    """The bytes of a tar of half a megabyte."""
    path = write_tar(tmp_path / "whole.tar", FILES)
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "ants.archive"


@pytest.fixture
def bring(server: Server, archive: bytes, out: Path) -> Callable[..., None]:
    """Fetches what the server serves, as the archive that it ought to be."""
    server.content = archive

    def run(**changes: Any) -> None:
        given = {"source": server.url, "md5": md5(archive), "layout": "class_folders"} | changes
        fetch("ants", out=out, **given)

    return run


def beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir()) if out.parent.exists() else []


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for headers in server.asked]


def test_a_download_arrives_whole_and_alone(server, archive, out, bring) -> None:
    bring()
    assert out.read_bytes() == archive
    assert beside(out) == ["ants.archive"]
    assert ranges(server) == [None]


def test_a_server_that_sends_a_few_bytes_at_a_time(server, archive, out, bring) -> None:
    server.piece = 1000
    bring()
    assert out.read_bytes() == archive


def test_what_is_there_and_has_the_md5_is_not_fetched_again(server, archive, out, bring) -> None:
    bring()
    bring()
    assert len(server.asked) == 1


def test_what_is_there_and_has_another_md5_is_replaced(server, archive, out, bring) -> None:
    out.parent.mkdir()
    out.write_bytes(b"old")
    bring()
    assert out.read_bytes() == archive


def test_a_download_that_breaks_off_is_continued_where_it_broke(
    server, archive, out, bring
) -> None:
    server.stops = [HALF]
    bring()
    first, second = ranges(server)
    assert first is None
    assert second is not None
    start = int(second.removeprefix("bytes=").removesuffix("-"))
    assert HALF - module._BLOCK < start <= HALF
    assert out.read_bytes() == archive
    assert beside(out) == ["ants.archive"]


def test_a_server_that_falls_silent_is_asked_again(
    server, archive, out, bring, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.5)
    server.stops, server.hangs = [HALF], True
    bring()
    assert len(server.asked) == 2
    assert out.read_bytes() == archive


def test_a_server_that_does_not_know_ranges_starts_again(server, archive, out, bring) -> None:
    server.stops, server.ranges = [HALF], False
    bring()
    assert len(server.asked) == 2
    assert out.read_bytes() == archive


def test_a_server_that_breaks_off_every_time_leaves_what_arrived(
    server, archive, out, bring
) -> None:
    server.stops = [HALF, 0, 0, 0, 0]
    with pytest.raises(FetchError, match=r"could not be reached.*bytes are kept; run this again"):
        bring()
    assert len(server.asked) == module._ATTEMPTS
    assert beside(out) == [".ants.archive.part"]
    part = (out.parent / ".ants.archive.part").read_bytes()
    assert HALF - module._BLOCK < len(part) <= HALF
    assert part == archive[: len(part)]


def test_the_next_run_goes_on_from_what_arrived(server, archive, out, bring) -> None:
    server.stops = [HALF, 0, 0, 0, 0]
    with pytest.raises(FetchError):
        bring()
    kept = (out.parent / ".ants.archive.part").stat().st_size
    server.asked.clear()
    bring()
    assert ranges(server) == [f"bytes={kept}-"]
    assert out.read_bytes() == archive
    assert beside(out) == ["ants.archive"]


def test_every_try_adds_to_what_arrived(server, archive, out, bring) -> None:
    server.stops = [150_000] * 3
    bring()
    starts = [int(r.removeprefix("bytes=").removesuffix("-")) for r in ranges(server) if r]
    assert len(starts) == 3
    assert starts == sorted(set(starts))
    assert out.read_bytes() == archive


def test_a_part_that_is_whole_already_is_only_checked(server, archive, out, bring) -> None:
    out.parent.mkdir()
    (out.parent / ".ants.archive.part").write_bytes(archive)
    bring()
    assert ranges(server) == [f"bytes={len(archive)}-"]
    assert beside(out) == ["ants.archive"]


def test_a_part_of_something_else_is_deleted(server, archive, out, bring) -> None:
    out.parent.mkdir()
    (out.parent / ".ants.archive.part").write_bytes(b"x" * HALF)
    with pytest.raises(FetchError, match=f"does not have the md5 {md5(archive)} and was deleted"):
        bring()
    assert beside(out) == []
    bring()
    assert out.read_bytes() == archive


def test_wrong_bytes_are_deleted(server, archive, out, bring) -> None:
    server.content = archive[:-1] + b"x"
    with pytest.raises(FetchError) as raised:
        bring()
    assert str(raised.value) == (
        f"{server.url}: the download does not have the md5 {md5(archive)} and was deleted; "
        f"run this again, or download it elsewhere, check that its md5 is {md5(archive)}, "
        "and write its path in params.yaml"
    )
    assert beside(out) == []


def test_bytes_are_asked_for_as_they_are_not_compressed(server, bring) -> None:
    bring()
    assert server.asked[0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses_is_quoted_and_not_asked_again(server, out, bring, status) -> None:
    server.status = status
    with pytest.raises(FetchError, match=rf"{server.url}: the server answered {status}; check the"):
        bring()
    assert len(server.asked) == 1
    assert beside(out) == []


def test_a_server_that_refuses_leaves_what_arrived_before(server, out, bring) -> None:
    server.stops = [HALF, 0, 0, 0, 0]
    with pytest.raises(FetchError):
        bring()
    server.status = 503
    with pytest.raises(FetchError, match="answered 503"):
        bring()
    assert beside(out) == [".ants.archive.part"]


@pytest.fixture
def closed_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def test_without_a_network_the_message_says_what_else_would_do(out, bring, closed_port) -> None:
    url = f"http://127.0.0.1:{closed_port}/pictures.tar"
    with pytest.raises(FetchError) as raised:
        bring(source=url, md5="0" * 32)
    assert str(raised.value) == (
        f"{url}: could not be reached (ConnectionError); run this again to go on, "
        f"or download it elsewhere, check that its md5 is {'0' * 32}, "
        "and write its path in params.yaml"
    )
    assert beside(out) == []


def test_without_a_network_what_arrived_before_is_kept(server, out, bring, closed_port) -> None:
    out.parent.mkdir()
    (out.parent / ".ants.archive.part").write_bytes(b"x" * 1234)
    with pytest.raises(FetchError, match="1,234 bytes are kept; run this again to go on"):
        bring(source=f"http://127.0.0.1:{closed_port}/pictures.tar")
    assert beside(out) == [".ants.archive.part"]


def test_a_failed_download_leaves_the_archive_that_was_there(server, out, bring) -> None:
    out.parent.mkdir()
    out.write_bytes(b"old")
    server.status = 404
    with pytest.raises(FetchError):
        bring()
    assert out.read_bytes() == b"old"


def test_a_download_without_an_md5_is_not_trusted(server, out, bring) -> None:
    with pytest.raises(FetchError, match=r"params\.yaml: datasets\.ants\.md5 is missing"):
        bring(md5=None)
    assert server.asked == []


def test_a_download_that_is_no_archive_is_refused_by_its_address(server, out, bring) -> None:
    server.content = b"<html>sign in</html>"
    with pytest.raises(FetchError) as raised:
        bring(md5=md5(server.content))
    assert str(raised.value) == f"{server.url}: is not a .tar, .tar.gz, .zip or folder"
    assert beside(out) == []


@pytest.mark.parametrize("given", ["md5", None])
@pytest.mark.parametrize("write", [write_tar, write_zip])
def test_an_archive_is_linked_and_not_copied(tmp_path, out, bring, write, given) -> None:
    path = write(tmp_path / "mine", FILES)
    bring(source=str(path), md5=md5(path.read_bytes()) if given else None)
    assert out.readlink() == path
    assert beside(out) == ["ants.archive"]


def test_a_relative_path_stays_one_so_that_a_workspace_can_be_moved(
    tmp_path, out, bring, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "mine", FILES)
    bring(source="mine", md5=None)
    assert out.readlink() == Path("../mine")
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    with open_archive(moved / "raw" / "ants.archive") as archive:
        assert archive.names() == list(FILES)


def test_what_changes_in_a_source_is_seen_through_the_link(tmp_path, out, bring) -> None:
    folder = write_folder(tmp_path / "mine", FILES)
    bring(source=str(folder), md5=None)
    (folder / "p" / "ants" / "new.jpg").write_bytes(b"new")
    with open_archive(out) as archive:
        assert archive.read("p/ants/new.jpg") == b"new"


def test_another_source_takes_the_place_of_the_old_one(server, tmp_path, out, bring) -> None:
    first, second = (write_folder(tmp_path / name, FILES) for name in ("one", "two"))
    bring(source=str(first), md5=None)
    bring(source=str(second), md5=None)
    assert out.readlink() == second
    bring()
    assert not out.is_symlink()
    bring(source=str(first), md5=None)
    assert out.readlink() == first
    assert beside(out) == ["ants.archive"]
    assert sorted(path.name for path in first.rglob("*.jpg")) == [f"{i}.jpg" for i in range(5)]


def test_a_path_that_is_not_here_is_looked_for_at_home(tmp_path, out, bring, monkeypatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "home").mkdir()
    folder = write_folder(tmp_path / "home" / "mine", FILES)
    bring(source="mine", md5=None, home=tmp_path / "home")
    assert out.resolve() == folder


def test_a_path_whose_md5_is_another_is_refused_with_both(tmp_path, out, bring, archive) -> None:
    path = write_tar(tmp_path / "mine.tar", {"a.jpg": b"a"})
    actual = md5(path.read_bytes())
    with pytest.raises(FetchError) as raised:
        bring(source=str(path))
    assert str(raised.value) == (
        f"params.yaml: datasets.ants.md5 is {md5(archive)}, but {path} has {actual}; "
        f"if this is the right file, set md5 to {actual}"
    )
    assert beside(out) == []


@pytest.mark.parametrize("md5", ["0" * 32, None])
def test_a_path_where_nothing_is(tmp_path, out, bring, md5: str | None) -> None:
    path = tmp_path / "nowhere.tar"
    sentence = f"params.yaml: datasets.ants.source: no such file or folder: {path}"
    with pytest.raises(FetchError) as raised:
        bring(source=str(path), md5=md5)
    assert str(raised.value) == sentence
    assert beside(out) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"<html></html>", "is not a .tar, .tar.gz, .zip or folder"),
        (None, "is damaged or incomplete; fetch it again"),
    ],
)
def test_a_path_that_holds_no_whole_archive_is_refused_by_its_name(
    tmp_path, out, bring, archive, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "mine.tar"
    path.write_bytes(archive[:HALF] if content is None else content)
    with pytest.raises(ArchiveError) as raised:
        bring(source=str(path), md5=None)
    assert str(raised.value) == f"{path}: {sentence}"
    assert beside(out) == []


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_a_path_may_begin_at_home(tmp_path, out, bring, monkeypatch, kind: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    {"tar": write_tar, "folder": write_folder}[kind](tmp_path / "home" / "mine", FILES)
    bring(source="~/mine", md5=None)
    with open_archive(out) as archive:
        assert archive.names() == list(FILES)


def test_the_home_of_nobody_is_no_such_folder(out, bring) -> None:
    with pytest.raises(FetchError, match="no such file or folder: ~nobody-of-that-name/mine"):
        bring(source="~nobody-of-that-name/mine", md5=None)


def test_a_source_may_itself_be_a_link(tmp_path, out, bring) -> None:
    folder = write_folder(tmp_path / "mine", FILES)
    (tmp_path / "pets").symlink_to(folder)
    bring(source=str(tmp_path / "pets"), md5=None)
    with open_archive(out) as archive:
        assert archive.names() == list(FILES)


def test_links_to_files_are_followed(tmp_path, out, bring) -> None:
    folder = write_folder(tmp_path / "mine", {"ants/1.jpg": b"one"})
    elsewhere = write_folder(tmp_path / "elsewhere", {"2.jpg": b"two"})
    (folder / "ants" / "2.jpg").symlink_to(elsewhere / "2.jpg")
    bring(source=str(folder), md5=None)
    with open_archive(out) as archive:
        assert archive.read("ants/2.jpg") == b"two"


def test_what_dvc_would_not_see_in_a_folder_is_refused(tmp_path, out, bring) -> None:
    folder = write_folder(tmp_path / "mine", {"ants/1.jpg": b"one"})
    elsewhere = write_folder(tmp_path / "elsewhere", {"2.jpg": b"two"})
    (folder / "bees").symlink_to(elsewhere)
    with pytest.raises(FetchError, match=r"mine/bees: is a link to a folder.*\(cp -rs\)"):
        bring(source=str(folder), md5=None)
    (folder / "bees").unlink()
    (folder / "ants" / "2.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FetchError, match=r"ants/2\.jpg: is a broken link"):
        bring(source=str(folder), md5=None)
    (folder / "ants" / "2.jpg").unlink()
    os.mkfifo(folder / "ants" / "pipe")
    with pytest.raises(FetchError, match="ants/pipe: is not a regular file, which DVC can't hash"):
        bring(source=str(folder), md5=None)
    assert not out.exists()


def test_a_folder_that_holds_the_workspace_is_refused(tmp_path, out, bring) -> None:
    write_folder(tmp_path / "mine", FILES)
    out.parent.mkdir()
    with pytest.raises(FetchError, match="contains data/raw of this workspace; set source to"):
        bring(source=str(tmp_path), md5=None)


def test_a_folder_has_no_md5(tmp_path, out, bring) -> None:
    folder = write_folder(tmp_path / "mine", FILES)
    with pytest.raises(FetchError, match=r"datasets\.ants\.md5: a folder has no md5; remove the"):
        bring(source=str(folder))
    assert beside(out) == []


def test_a_folder_with_a_name_that_can_not_be_read_is_named(tmp_path, out, bring) -> None:
    folder = write_folder(tmp_path / "mine", {"caf\udce9.jpg": b"x"})
    with pytest.raises(ArchiveError, match="not UTF-8") as raised:
        bring(source=str(folder), md5=None)
    assert raised.value.path == folder
    assert beside(out) == []


def test_a_download_that_finds_no_room_leaves_what_was_there(out, bring, monkeypatch) -> None:
    out.parent.mkdir()
    out.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(ArtifactError, match=r"no room to write it .* run this again"):
        bring()
    assert beside(out) == [".ants.archive.part", "ants.archive"]
    assert out.read_bytes() == b"old"


def test_urban_tribes_without_a_source_says_where_to_ask_and_where_to_put_it(out, bring) -> None:
    with pytest.raises(FetchError) as raised:
        bring(source=None, md5=None, layout="urban_tribes")
    assert str(raised.value) == (
        "params.yaml: datasets.ants.source is missing; Urban Tribes has no public address: ask its "
        "authors (Kwak, Murillo, Belhumeur, Kriegman, Belongie, BMVC 2013) for the archive, copy "
        "it to this machine, and set datasets.NAME.source to its path"
    )


def test_urban_tribes_that_is_not_where_params_say_says_where_to_ask(out, bring) -> None:
    with pytest.raises(
        FetchError, match=r"no such file or folder: .*tribes\.tar; Urban Tribes has"
    ):
        bring(source="tribes.tar", md5=None, layout="urban_tribes")


def test_class_folders_without_a_source_have_no_address(out, bring) -> None:
    with pytest.raises(
        FetchError, match=r"datasets\.ants\.source is missing; set it to the path or"
    ):
        bring(source=None, md5=None)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, archive: bytes) -> list[Address]:
    """What was asked for; nothing leaves the machine."""
    asked: list[Address] = []

    def arrived(address: Address, out: Path, part: Path) -> None:
        asked.append(address)
        out.write_bytes(archive)

    monkeypatch.setattr(module, "download", arrived)
    return asked


def test_caltech256_without_a_source_comes_from_its_official_address(out, bring, downloads) -> None:
    bring(source=None, md5=None, layout="caltech256")
    assert downloads == [CALTECH256]
    assert CALTECH256.url == (
        "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar"
    )
    assert CALTECH256.md5 == "67b4f42ca05d46448c6bb8ecd2220f6d"
    assert out.exists()


def test_an_md5_in_params_goes_before_the_known_one(out, bring, downloads, archive) -> None:
    for _ in range(2):
        bring(source=None, layout="caltech256")
    assert downloads == [Address(CALTECH256.url, md5(archive))]


def test_caltech256_from_elsewhere_is_not_the_known_address(server, out, bring, downloads) -> None:
    bring(layout="caltech256", md5="1" * 32)
    assert downloads == [Address(server.url, "1" * 32)]


def test_caltech256_that_is_there_is_not_fetched_again(
    out, bring, downloads, archive, monkeypatch
) -> None:
    monkeypatch.setitem(module._KNOWN, "caltech256", Address("http://127.0.0.1", md5(archive)))
    bring(source=None, md5=None, layout="caltech256")
    bring(source=None, md5=None, layout="caltech256")
    assert len(downloads) == 1


@pytest.mark.parametrize("below", ["", "images"])
@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_pictures_that_lie_where_the_link_goes_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("data/raw/pets")
    picture = out / below / "ant" / "1.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"x")
    source = out / below if kind == "relative" else tmp_path / out / below
    with pytest.raises(
        FetchError, match=r"datasets\.pets\.source: .* lies where this stage writes"
    ):
        fetch("pets", str(source), None, "class_folders", out=out)
    assert picture.read_bytes() == b"x"


def test_a_folder_that_is_no_link_is_not_replaced_by_one(tmp_path: Path) -> None:
    out, source = tmp_path / "data" / "raw" / "pets", tmp_path / "source"
    for folder in (out, source):
        (folder / "ant").mkdir(parents=True)
        (folder / "ant" / "1.jpg").write_bytes(b"x")
    with pytest.raises(FetchError, match="is a folder, and this stage writes a link there"):
        fetch("pets", str(source), None, "class_folders", out=out)
    assert (out / "ant" / "1.jpg").exists()
