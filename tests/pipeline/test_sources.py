"""What changes in a source is seen by `dvc status` and `dvc repro`, wherever it lies."""

import csv
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .conftest import SMALL, Workspace, stages_run

pytestmark = pytest.mark.pipeline

CLASSES = ["ant", "bee"]
SPLIT = {"seeds": [0], "train_per_class": 3, "test_per_class": 3}


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_class(folder: Path, name: str, numbers: range) -> None:
    (folder / name).mkdir(parents=True)
    for number in numbers:
        (folder / name / f"{number}.png").write_bytes(picture(number))


def write_folder(folder: Path) -> Path:
    for index, name in enumerate(CLASSES):
        write_class(folder, name, range(10 * index, 10 * index + 6))
    return folder


def write_archive(path: Path, folder: Path) -> Path:
    with tarfile.open(path, "w") as tar:
        tar.add(folder, "pets")
    return path


@pytest.fixture
def make(make_clone: Callable[..., Workspace]) -> Callable[..., Workspace]:
    """A workspace with one dataset from a source."""

    def made(source: str) -> Workspace:
        dataset = {"source": source, "split": SPLIT, "layers": ["block5_pool"]}
        study = {"dataset": "pets", "samples_per_class": 2}
        params = SMALL | {"datasets": {"pets": dataset}, "studies": {"few": study}}
        return make_clone(params)

    return made


def repro(workspace: Workspace, **environment: str) -> list[str]:
    return stages_run(workspace.run("dvc", "repro", "splits@pets", **environment))


def classes(workspace: Workspace) -> list[str]:
    with (workspace.root / "data/splits/pets/0.csv").open(encoding="utf-8", newline="") as file:
        return sorted({row["class_name"] for row in csv.DictReader(file)})


BOTH = ["fetch@pets", "splits@pets"]


@pytest.mark.parametrize("kind", ["absolute", "home", "relative", "link"])
def test_what_is_added_to_a_folder_is_used(make, tmp_path: Path, kind: str) -> None:
    home = tmp_path / "home"
    folder = {
        "absolute": tmp_path / "pets",
        "home": home / "pets",
        "relative": tmp_path / "clone" / "data" / "pets",
        "link": tmp_path / "real",
    }[kind]
    source = {
        "absolute": str(folder),
        "home": "~/pets",
        "relative": "data/pets",
        "link": str(tmp_path / "link"),
    }[kind]
    workspace = make(source)
    write_folder(folder)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    asked = {"HOME": str(home)}
    assert repro(workspace, **asked) == BOTH
    assert repro(workspace, **asked) == []
    write_class(folder, "cat", range(50, 56))
    assert "modified:           data/raw/pets" in workspace.run("dvc", "status", **asked)
    assert repro(workspace, **asked) == BOTH
    assert classes(workspace) == ["ant", "bee", "cat"]
    assert repro(workspace, **asked) == []


def test_what_is_replaced_or_removed_in_a_folder_is_noticed(make, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    workspace = make(str(folder))
    repro(workspace)
    (folder / "ant" / "0.png").write_bytes(picture(70))
    assert repro(workspace) == BOTH
    shutil.rmtree(folder / "ant")
    write_class(folder, "wasp", range(80, 86))
    assert repro(workspace) == BOTH
    assert classes(workspace) == ["bee", "wasp"]


def test_an_archive_without_an_md5_that_is_replaced_is_noticed(make, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    path = write_archive(tmp_path / "pets.tar", folder)
    workspace = make(str(path))
    assert repro(workspace) == BOTH
    write_class(folder, "cat", range(50, 56))
    write_archive(path, folder)
    assert repro(workspace) == BOTH
    assert classes(workspace) == ["ant", "bee", "cat"]


def test_nothing_of_a_source_is_copied_or_changed(make, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    before = {path: path.stat() for path in sorted(folder.rglob("*"))}
    workspace = make(str(folder))
    repro(workspace)
    workspace.run("dvc", "repro", "--force", "splits@pets")
    assert (workspace.root / "data/raw/pets").readlink() == folder
    assert {path: path.stat() for path in sorted(folder.rglob("*"))}.keys() == before.keys()
    for path, stat in before.items():
        assert (path.stat().st_ino, path.stat().st_mtime) == (stat.st_ino, stat.st_mtime)
    cached = {path.read_bytes() for path in (workspace.root / ".dvc").rglob("*") if path.is_file()}
    assert cached.isdisjoint(path.read_bytes() for path in before if path.is_file())


def test_what_viewers_leave_behind_makes_no_source_another_one(make, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    workspace = make(str(folder))
    repro(workspace)
    (folder / ".DS_Store").touch()
    (folder / "ant" / "Thumbs.db").touch()
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "0.png").write_bytes(picture(0))
    assert repro(workspace) == []


def test_pictures_that_dvc_tracks_are_a_source_that_a_team_shares(make, tmp_path: Path) -> None:
    workspace = make("data/pets")
    write_folder(workspace.root / "data" / "pets")
    workspace.run("dvc", "add", "--quiet", "data/pets")
    assert repro(workspace) == BOTH
    shutil.rmtree(workspace.root / "data" / "pets")
    workspace.run("dvc", "checkout", "data/pets.dvc")
    assert repro(workspace) == []
    assert classes(workspace) == CLASSES


@pytest.mark.parametrize("text", ["a; touch ran; true", "$(touch ran)", "`touch ran`", "a' 'b"])
def test_no_name_reaches_a_shell(make, tmp_path: Path, text: str) -> None:
    workspace = make(str(write_folder(tmp_path / "pets")))
    params = workspace.read("params.yaml")
    for section in ("datasets", "studies"):
        entries = params[section]
        workspace.write_params(params | {section: {text: next(iter(entries.values()))} | entries})
        stage = {"datasets": "fetch", "studies": "train"}[section]
        code, printed = workspace.finish("dvc", "repro", f"{stage}@{text}")
        assert code != 0
        assert f"{section}.{text}: a name is lower-case letters" in printed
    assert not list(workspace.root.rglob("ran"))
