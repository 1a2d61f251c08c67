"""What params.yaml names as weights, as DVC sees it."""

from pathlib import Path

import pytest

from vgg16_transfer.backbones.sources import NAMED, write_sources
from vgg16_transfer.errors import WeightsError


@pytest.mark.parametrize("source", NAMED)
def test_a_name_is_written_as_text(tmp_path: Path, source: str) -> None:
    write_sources({"vgg16": source}, tmp_path / "sources")
    assert (tmp_path / "sources" / "vgg16").read_text(encoding="utf-8") == f"{source}\n"


def test_a_file_is_linked_and_a_relative_path_stays_relative(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.h5"
    file.write_bytes(b"weights")
    out = Path("models", "sources")
    write_sources({"one": "mine.h5", "two": str(file)}, out)
    assert {path.name: str(path.readlink()) for path in out.iterdir()} == {
        "one": "../../mine.h5",
        "two": str(file),
    }
    file.write_bytes(b"others")
    assert (out / "one").read_bytes() == (out / "two").read_bytes() == b"others"


def test_a_relative_path_is_also_looked_for_in_the_workspace_itself(
    tmp_path: Path, monkeypatch
) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    home.mkdir()
    copy.mkdir()
    (home / "mine.h5").write_bytes(b"weights")
    monkeypatch.chdir(copy)
    write_sources({"vgg16": "mine.h5"}, Path("sources"), home)
    assert Path("sources", "vgg16").read_bytes() == b"weights"


def test_what_is_no_longer_named_is_removed(tmp_path: Path) -> None:
    write_sources({"vgg16": "random", "vgg19": "random"}, tmp_path / "sources")
    write_sources({"vgg19": "imagenet"}, tmp_path / "sources")
    assert [path.name for path in (tmp_path / "sources").iterdir()] == ["vgg19"]


@pytest.mark.parametrize(
    ("source", "problem"),
    [("nowhere.h5", "no such file"), ("folder", "is a folder"), ("~nobody-here/x", "no such file")],
)
def test_what_is_no_file_is_refused_and_nothing_changes(
    tmp_path: Path, monkeypatch, source: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    write_sources({"vgg16": "random"}, tmp_path / "sources")
    with pytest.raises(
        WeightsError, match=rf"^params.yaml: backbone: weights of vgg16: {source}: {problem}"
    ):
        write_sources({"vgg16": source}, tmp_path / "sources")
    assert (tmp_path / "sources" / "vgg16").read_text(encoding="utf-8") == "random\n"
