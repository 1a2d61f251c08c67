"""Old versions of splits, read back from git's tags and DVC's cache or remote."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from vgg16_transfer.images.manifests import ManifestError
from vgg16_transfer.versions.releases import (
    ReleaseError,
    add_entry,
    check_locked,
    manifests_at,
    manifests_here,
    next_version,
    released,
)

from .released import TEST, TRAIN, Repository, isolate, make_repository, manifest

OLD = manifest(TRAIN, TEST)
NEW = manifest(["a/1", "b/3", "b/6"], TEST)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Repository:
    """A released version, pushed, and another one in the workspace."""
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.getbasetemp())
        repository = make_repository(tmp_path_factory.mktemp("made"))
        repository.commit("animals-v1")
        repository.dvc("push", "--quiet")
        repository.split(NEW, OLD)
        repository.commit()
    return repository


@pytest.fixture
def repository(made: Repository, tmp_path: Path) -> Repository:
    """A copy to break, with the same remote."""
    shutil.copytree(made.root, tmp_path / "repository", symlinks=True)
    return Repository(tmp_path / "repository", made.remote)


def same(result: dict[int, pd.DataFrame], *expected: pd.DataFrame) -> bool:
    return list(result) == list(range(len(expected))) and all(
        result[seed].equals(one) for seed, one in enumerate(expected)
    )


def test_an_old_version_is_read_while_the_workspace_holds_another(repository) -> None:
    assert same(manifests_at(repository.root, "animals", "animals-v1"), OLD)
    assert same(manifests_here(repository.root / "data" / "splits" / "animals"), NEW, OLD)


def test_what_the_cache_lost_comes_from_the_remote(repository) -> None:
    shutil.rmtree(repository.root / ".dvc" / "cache")
    assert same(manifests_at(repository.root, "animals", "animals-v1"), OLD)


def test_what_is_nowhere_is_said_with_the_remedy(repository, tmp_path) -> None:
    shutil.rmtree(repository.root / ".dvc" / "cache")
    away = repository.remote.rename(tmp_path / "away")
    try:
        with pytest.raises(ReleaseError, match=r"animals-v1: its splits .* push --all-tags"):
            manifests_at(repository.root, "animals", "animals-v1")
    finally:
        away.rename(repository.remote)


@pytest.mark.parametrize(
    ("dataset", "revision", "sentence"),
    [
        ("animals", "animals-v9", "animals-v9: can't be read: unknown Git revision 'animals-v9'"),
        ("plants", "animals-v1", "animals-v1: dvc.lock has no splits of 'plants' there"),
    ],
)
def test_what_never_was_is_named(repository, dataset: str, revision: str, sentence: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        manifests_at(repository.root, dataset, revision)
    assert str(caught.value) == sentence


def test_a_folder_without_splits_is_named(tmp_path) -> None:
    with pytest.raises(ManifestError, match="holds no splits"):
        manifests_here(tmp_path)


def test_the_last_version_is_the_highest_number_behind_head(repository) -> None:
    for tag in ("animals-v2", "animals-v10", "animals-v9", "animals-v11-draft", "animal-v12"):
        repository.git("tag", "--annotate", tag, "--message", tag)
    assert released(repository.root, "animals") == "animals-v10"
    assert next_version(repository.root, "animals") == "animals-v11"


def test_a_version_of_another_branch_is_not_what_this_one_changed(repository) -> None:
    repository.git("checkout", "--quiet", "-b", "other")
    repository.commit("animals-v2")
    repository.git("checkout", "--quiet", "-")
    assert released(repository.root, "animals") == "animals-v1"
    assert next_version(repository.root, "animals") == "animals-v3"


def test_another_dataset_was_never_released(repository) -> None:
    assert released(repository.root, "plants") is None
    assert next_version(repository.root, "plants") == "plants-v1"


def test_outside_of_git_there_are_no_versions(tmp_path) -> None:
    with pytest.raises(ReleaseError, match="not a git repository"):
        next_version(tmp_path, "animals")


def test_splits_as_dvc_lock_has_them_may_be_released(repository) -> None:
    check_locked(repository.root, "animals")


@pytest.mark.parametrize("change", ["dep", "output", "gone"])
def test_splits_that_dvc_lock_does_not_know_are_refused(repository, change: str) -> None:
    folder = repository.root / "data" / "splits" / "animals"
    if change == "dep":
        (repository.root / "pictures.json").write_text("{}")
    elif change == "output":
        (folder / "0.csv").chmod(0o644)
        (folder / "0.csv").write_text("by hand")
    else:
        shutil.rmtree(folder)
    with pytest.raises(ReleaseError, match="'splits@animals' is not up to date; run dvc repro spl"):
        check_locked(repository.root, "animals")


def test_a_dataset_that_dvc_yaml_lacks_is_named(repository) -> None:
    with pytest.raises(ReleaseError, match="splits@plants"):
        check_locked(repository.root, "plants")


def test_entries_pile_up_with_the_newest_on_top(tmp_path) -> None:
    path = tmp_path / "CHANGES.md"
    add_entry(path, "animals-v1", "## animals-v1, 2026-01-01\n\nOne.\n")
    add_entry(path, "animals-v2", "## animals-v2, 2026-01-02\n\nTwo.\n")
    title, two, one = path.read_text().split("\n## ")
    assert title.startswith("# Changes\n")
    assert two == "animals-v2, 2026-01-02\n\nTwo.\n"
    assert one == "animals-v1, 2026-01-01\n\nOne.\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_entry_of_the_same_version_is_replaced(tmp_path) -> None:
    path = tmp_path / "CHANGES.md"
    for text in ("One.", "Two.", "Three."):
        for name in ("animals-v1", "animals-v10"):
            add_entry(path, name, f"## {name}, 2026-01-01\n\n{text}\n")
    assert path.read_text().count("## ") == 2
    assert path.read_text().count("Three.") == 2


def test_what_people_wrote_by_hand_into_the_file_stays(tmp_path) -> None:
    path = tmp_path / "CHANGES.md"
    path.write_text("# Ours\n\nHow we do it.\n\n## animals-v1, 2026-01-01\n\nOne, as Bo said.\n")
    before = path.read_text()
    add_entry(path, "plants-v1", "## plants-v1, 2026-01-02\n\nTwo.\n")
    assert path.read_text().replace("## plants-v1, 2026-01-02\n\nTwo.\n\n", "") == before
