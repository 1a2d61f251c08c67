"""A disk that is full, or that takes no writes, while a stage logs: for real, on a small tmpfs."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vgg16_transfer.tracking.log import or_later
from vgg16_transfer.tracking.mlflow_store import ARTIFACTS, DATABASE, find_store
from vgg16_transfer.tracking.reach import reached

from .conftest import DATASET, log, make_lineage, make_study, write_outputs

ROOM = "64m"
Disk = Callable[..., None]


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Mounts a disk of some size over a folder, or changes it; root may, and others skip."""
    mounted: list[Path] = []

    def mount(folder: Path, options: str) -> None:
        again = "remount," if folder in mounted else ""
        folder.mkdir(exist_ok=True, parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"{again}{options}", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no tmpfs can be mounted here")
        mounted.append(folder)

    yield mount
    for folder in set(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    ("where", "options", "reason"),
    [
        ("database", "size=960k", "database or disk is full"),
        ("fresh database", "size=300k", "database or disk is full"),
        ("read-only database", "ro", "Read-only file system"),
        ("artifacts", "size=20k", "No space left on device"),
        ("artifacts", "size=120k", "No space left on device"),
        ("read-only artifacts", "ro", "Read-only file system"),
        ("temporary files", "size=24k", "No space left on device"),
        ("temporary files", "size=32k", "No space left on device"),
    ],
)
def test_a_disk_without_room_costs_one_sentence_and_publish_completes_it(
    where: str,
    options: str,
    reason: str,
    disk: Disk,
    database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = make_study(samples_per_class=2, seed=0)
    lineage = make_lineage(study)
    outputs = write_outputs(study, tmp_path / "outputs")
    root = tmp_path / "w"
    small = root / ARTIFACTS if where.endswith("artifacts") else root
    if where == "temporary files":
        small = tmp_path / "tmp"
    disk(small, f"size={ROOM}")
    if where != "fresh database":
        root.mkdir(exist_ok=True)
        shutil.copyfile(database, root / DATABASE)
    if where == "temporary files":
        monkeypatch.setattr(tempfile, "tempdir", str(small))
    store = find_store(root, None)
    warnings: list[str] = []
    disk(small, options)
    with or_later("train@samples", warnings.append), reached(store):
        log(store, study, outputs, lineage)
    (warning,) = warnings
    assert warning.startswith(f"warning: train@samples: sqlite:///{root / DATABASE}: can't be ")
    assert reason in warning
    assert "vgg16-transfer publish" in warning
    disk(small, f"rw,size={ROOM}")
    assert log(store, study, outputs, lineage) in {1, 2}  # the larger disk took the trial
    client = store.client()
    runs = client.search_runs([store.experiment(client, DATASET)])
    assert sorted(run.info.run_name for run in runs) == ["samples", "samples: only trial"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert log(store, study, outputs, lineage) == 0
