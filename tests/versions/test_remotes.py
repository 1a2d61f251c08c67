"""A remote is read back byte by byte; tests/team does so over SSH and S3."""

import shutil
from pathlib import Path

import pytest

from vgg16_transfer.versions.remotes import RemoteError, verify_remote

from .released import TEST, TRAIN, Repository, isolate, make_repository, manifest

SPLITS = "data/splits/animals"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Repository:
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.getbasetemp())
        repository = make_repository(tmp_path_factory.mktemp("made"))
        repository.split(manifest(TRAIN, TEST), manifest(TEST, TRAIN))
        repository.dvc("push", "--quiet")
    return repository


@pytest.fixture
def repository(made: Repository, tmp_path: Path) -> Repository:
    """A copy to break, with a remote of its own."""
    shutil.copytree(made.root, tmp_path / "repository", symlinks=True)
    shutil.copytree(made.remote, tmp_path / "remote")
    (tmp_path / "repository" / ".dvc" / "config.local").write_text(
        f"['remote \"lab\"']\n    url = {tmp_path / 'remote'}\n"
    )
    return Repository(tmp_path / "repository", tmp_path / "remote")


def stored(repository: Repository, ending: str) -> Path:
    """The object of the splits' list of files, or of another one."""
    files = [path for path in repository.remote.rglob("*") if path.is_file()]
    listing = next(path for path in files if path.suffix == ".dir")
    if ending == ".dir":
        return listing
    return next(path for path in files if b",train,0" in path.read_bytes())


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-2] + b"?" + content[-1:])


def damages(repository: Repository, *, repair: bool = False) -> list[tuple[str, str, bool]]:
    _, items = verify_remote(repository.root, None, repair=repair)
    return [(one.path.removesuffix("0.csv").removesuffix("1.csv"), one.problem, one.repaired)
            for one in items]  # fmt: skip


def test_a_whole_remote_is_counted(repository) -> None:
    # Two manifests, what was left out, their list, and the page.
    assert verify_remote(repository.root, "lab", repair=False) == (5, [])


@pytest.mark.parametrize(("ending", "path"), [(".dir", SPLITS), ("", f"{SPLITS}/")])
def test_a_damaged_object_is_named_by_the_file_that_needs_it(repository, ending, path) -> None:
    hurt = stored(repository, ending)
    whole = hurt.read_bytes()
    damage(hurt)
    assert damages(repository) == [(path, "is damaged", False)]
    assert hurt.read_bytes() != whole
    assert damages(repository, repair=True) == [(path, "is damaged", True)]
    assert hurt.read_bytes() == whole
    assert damages(repository) == []


def test_a_missing_object_is_sent_again(repository) -> None:
    lost = stored(repository, "")
    lost.unlink()
    assert damages(repository, repair=True) == [(f"{SPLITS}/", "is missing", True)]
    assert damages(repository) == []


def test_a_damaged_copy_in_the_cache_repairs_nothing(repository) -> None:
    hurt = stored(repository, "")
    damage(hurt)
    damage(repository.root / ".dvc" / "cache" / hurt.relative_to(repository.remote))
    assert damages(repository, repair=True) == [(f"{SPLITS}/", "is damaged", False)]


def test_a_clone_without_a_copy_repairs_nothing(repository) -> None:
    damage(stored(repository, ""))
    shutil.rmtree(repository.root / ".dvc" / "cache")
    assert damages(repository, repair=True) == [(f"{SPLITS}/", "is damaged", False)]


def test_an_unknown_remote_is_named(repository) -> None:
    with pytest.raises(RemoteError, match=r"^shelf: can't be read: .*shelf"):
        verify_remote(repository.root, "shelf", repair=False)


def test_without_a_remote_there_is_nothing_to_verify(repository) -> None:
    for name in ("config", "config.local"):
        (repository.root / ".dvc" / name).write_text("")
    with pytest.raises(RemoteError, match=r"^the default remote: .* no remote specified"):
        verify_remote(repository.root, None, repair=False)
