"""The committed data set ``data/clipart.tar`` and the tool that builds it."""

import collections
import hashlib
import io
import itertools
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml
from PIL import Image

from .loading import load

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "clipart" / "build.py"
TAR = ROOT / "data" / "clipart.tar"
SELECTION = yaml.safe_load(TOOL.with_name("selection.yaml").read_text(encoding="utf-8"))
WORDS = "[a-z0-9]+(_[a-z0-9]+)*"
MEMBER = re.compile(rf"clipart/(?P<label>[a-z]+)/(?P<stem>{WORDS})__{WORDS}\.jpg")


def run_tool(deb: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Run the tool as a user would."""
    command = [sys.executable, str(TOOL), str(deb), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def members() -> list[tarfile.TarInfo]:
    """Return the tar file's members in their order."""
    with tarfile.open(TAR) as tar:
        return tar.getmembers()


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Return every member's bytes."""
    with tarfile.open(TAR) as tar:
        files = ((member.name, tar.extractfile(member)) for member in tar)
        return {name: file.read() for name, file in files if file is not None}


def test_members_are_plain_sorted_and_without_history(members: list[tarfile.TarInfo]) -> None:
    names = [member.name for member in members]
    assert names == sorted(set(names))
    for member in members:
        assert member.isreg()
        assert MEMBER.fullmatch(member.name), member.name
        assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
        assert (member.uname, member.gname) == ("", "")


def test_sixteen_classes_of_thirty_or_more(members: list[tarfile.TarInfo]) -> None:
    assert TAR.stat().st_size <= 6_000_000
    counts = collections.Counter(member.name.split("/")[1] for member in members)
    assert counts.keys() == SELECTION["classes"].keys()
    assert len(counts) == 16
    assert min(counts.values()) >= 30


def test_a_class_has_many_stems_and_a_stem_few_pictures(members: list[tarfile.TarInfo]) -> None:
    matches = [match for member in members if (match := MEMBER.fullmatch(member.name))]
    stems = collections.Counter((match["label"], match["stem"]) for match in matches)
    assert max(stems.values()) <= SELECTION["limits"]["per_stem"]
    assert min(collections.Counter(label for label, _ in stems).values()) >= 20


def test_every_picture_is_a_small_rgb_jpeg(contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            assert (picture.format, picture.mode) == ("JPEG", "RGB"), name
            assert max(picture.size) <= SELECTION["output"]["long_side"], name
            assert not picture.getexif(), name


def test_no_two_pictures_are_the_same(contents: dict[str, bytes]) -> None:
    assert len({hashlib.sha256(content).digest() for content in contents.values()}) == len(contents)
    tool, limits = load(TOOL), SELECTION["limits"]
    hashes: dict[str, list[tuple[int, str]]] = collections.defaultdict(list)
    for name, content in contents.items():
        with Image.open(io.BytesIO(content)) as picture:
            bits = tool.difference_hash(picture, limits["hash_side"])
        hashes[name.split("/")[1]].append((bits, name))
    for pictures in hashes.values():
        for (one, name), (other, other_name) in itertools.combinations(pictures, 2):
            assert (one ^ other).bit_count() > limits["hash_distance"], (name, other_name)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/home_01.png", "home__01"),
        ("a/Car-Red.png", "car_red__01"),
        ("a/cat_bw.png", "cat__outline"),
        ("a/cone2_bw_ganson.png", "cone2__outline"),
    ],
)
def test_names_show_what_belongs_together(path: str, name: str) -> None:
    assert load(TOOL).output_name(path, SELECTION["names"]) == name


def test_pick_prefers_new_stems() -> None:
    tool = load(TOOL)
    blank = Image.new("RGB", (1, 1))
    names = ["a__1", "a__2", "a__3", "a__4", "b__1", "c__1"]
    fit = [tool.Candidate(name, name, blank) for name in names]
    picked = [[one.name for one in tool.pick(fit, count, 3)] for count in (2, 4, 9)]
    assert picked == [
        ["a__1", "b__1"],
        ["a__1", "b__1", "c__1", "a__2"],
        ["a__1", "b__1", "c__1", "a__2", "a__3"],
    ]


def test_a_huge_picture_is_never_decoded() -> None:
    tool = load(TOOL)
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR"
    limits = SELECTION["limits"]
    sizes = {(60_000, 60_000): "huge", (20, 90): "tiny", (700, 50): "thin", (90, 90): None}
    for (width, height), reason in sizes.items():
        png = header + width.to_bytes(4, "big") + height.to_bytes(4, "big")
        assert tool.unfit_size(png, limits) == reason
    assert tool.unfit_size(b"GIF89a", limits) == "broken"


def test_another_package_is_refused(tmp_path: Path) -> None:
    deb, target = tmp_path / "other.deb", tmp_path / "clipart.tar"
    deb.write_bytes(b"!<arch>\n")
    result = run_tool(deb, target)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "sha256" in result.stderr
    assert list(tmp_path.iterdir()) == [deb]


def test_a_missing_package_is_one_sentence(tmp_path: Path) -> None:
    result = run_tool(tmp_path / "none.deb", tmp_path / "clipart.tar")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "none.deb" in result.stderr
    assert not list(tmp_path.iterdir())


def test_rebuild_gives_the_committed_bytes(tmp_path: Path) -> None:
    deb = Path(os.environ.get("OPENCLIPART_DEB") or "OPENCLIPART_DEB is not set")
    if not deb.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail(f"No package to rebuild from: {deb}.")
        pytest.skip(f"No package to rebuild from: {deb}.")
    target = tmp_path / "clipart.tar"
    result = run_tool(deb, target)
    assert result.returncode == 0, result.stderr
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(TAR.read_bytes()).digest()
    assert list(tmp_path.iterdir()) == [target]
