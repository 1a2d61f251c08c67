"""A tiny workspace whose studies are trained for real, without DVC: the stages are called."""

import os

# For matrices as small as those of tests, threads of BLAS take three times the CPU time, most of it
# to wait for each other. NumPy reads this while it is imported, and so do the commands of tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gc
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from vgg16_transfer.params import Params, read_params
from vgg16_transfer.workspace import Workspace

from .tools.loading import load

_CHROMIUM = Path(__file__).parents[1] / "tools" / "screenshots" / "chromium.py"

CLASSES = ["ant", "bee", "cat"]
STUDIES = {
    "few": {"samples_per_class": [1, 2], "seed": [0, 1], "epochs": 3},
    "tuned": {
        "approach": "end_to_end",
        "fine_tune_from": "block5",
        "samples_per_class": 1,
        "epochs": 1,
    },
}
PARAMS = {
    "backbone": {"weights": "random-conv", "image_size": 32},
    "datasets": {
        "animals": {
            "source": "animals.tar",
            "split": {
                "seeds": [0, 1],
                "train_per_class": 2,
                "validation_per_class": 2,
                "test_per_class": 2,
            },
            "layers": ["block4_pool", "block5_pool"],
        }
    },
    "studies": {name: {"dataset": "animals"} | study for name, study in STUDIES.items()},
}


@dataclass(frozen=True)
class Trained:
    """A workspace in which every stage up to training has run."""

    root: Path

    @property
    def layout(self) -> Workspace:
        return Workspace(self.root)

    @property
    def params(self) -> Params:
        return read_params(self.layout.params)

    def copy(self, root: Path) -> "Trained":
        shutil.copytree(self.root, root)
        return Trained(root)


def noise(label: int, number: int) -> bytes:
    """A picture of noise with a tinge of its class's colour, as JPEG."""
    random = np.random.default_rng([label, number])
    pixels = random.integers(0, 256, (40, 48, 3)) // 2 + 90 * np.eye(3, dtype=int)[label]
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_archive(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w") as tar:
        for label, name in enumerate(CLASSES):
            for number in range(6):
                member = tarfile.TarInfo(f"{name}/{number}.jpg")
                content = noise(label, number)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_lock(root: Path, **more: str) -> None:
    """A dvc.lock as DVC might have written it; more makes it another one."""
    from vgg16_transfer.lineage.locked import md5_of

    deps = [{"path": f"data/{kind}/animals", "md5": "0" * 32} for kind in ("splits", "features")]
    weights = {"path": "models/vgg16.weights.h5", "md5": md5_of(root / "models/vgg16.weights.h5")}
    stages: dict[str, Any] = {"weights": {"cmd": "vgg16-transfer weights", "outs": [weights]}}
    for name in STUDIES:
        results = sorted((root / "results" / name).iterdir())
        outs = [root / "models" / "heads" / name, *results]
        stages[f"train@{name}"] = {
            "cmd": f"vgg16-transfer train {name}",
            "deps": deps,
            "outs": [
                {"path": path.relative_to(root).as_posix(), "md5": md5_of(path)} for path in outs
            ],
            **more,
        }
    YAML(typ="safe", pure=True).dump({"schema": "2.0", "stages": stages}, root / "dvc.lock")


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The workspace itself, which no test changes: those that do take a copy."""
    from vgg16_transfer.backbones.features import write_features
    from vgg16_transfer.backbones.weights import write_weights
    from vgg16_transfer.heads.studies import Streamed, train_study
    from vgg16_transfer.images.source import Source
    from vgg16_transfer.images.splits import write_splits

    workspace = Trained(tmp_path_factory.mktemp("trained"))
    layout, name = workspace.layout, "animals"
    YAML(typ="safe", pure=True).dump(PARAMS, layout.params)
    params = workspace.params
    source = Source(layout.source(name))
    write_archive(source.path)
    write_splits(name, params.dataset(name), source.path, layout.splits(name))
    write_weights(params.backbone.network, params.backbone.weights, layout.weights)
    write_features(
        params.backbones,
        params.dataset(name).layers,
        weights=layout.weights_of(params.backbones),
        splits=layout.splits(name),
        source=source,
        outs=layout.features_of(name, params.backbones),
    )
    for study in params.studies.values():
        train_study(
            study,
            splits=layout.splits(name),
            features=layout.features_of(name, params.backbones),
            streamed=Streamed(source, layout.weights_of(params.backbones)),
            heads=layout.heads(study.name),
            results=layout.record(study.name),
        )
    write_lock(workspace.root)
    git(workspace.root, "init", "--quiet")
    git(workspace.root, "add", "params.yaml", "dvc.lock")
    git(workspace.root, "commit", "--quiet", "--message", "a study")
    return workspace


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium; apt-get install chromium")
        pytest.skip("no chromium; apt-get install chromium")
    browser = load(_CHROMIUM).Chromium(program, tmp_path_factory.mktemp("profile"))
    try:
        browser.attach()
        yield browser
    finally:
        browser.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the files that take minutes first, so that both processes end at the same time."""
    slow = {
        item.path
        for item in items
        if item.get_closest_marker("pipeline")
        or "team" in item.path.parts
        or item.path.name == "test_ray.py"
    }
    items.sort(key=lambda item: item.path not in slow)


gc.disable()  # until the tests are collected: imports create a million objects, and no garbage


def pytest_collection_finish() -> None:
    """Lets Python's collector pass over what was imported, which took a fifth of all time."""
    gc.enable()
    gc.freeze()


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """The command line lets Python's collector rest, which a process of 900 tests can't afford."""
    thresholds = gc.get_threshold()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "freeze", lambda: None)
        yield
    gc.set_threshold(*thresholds)


@pytest.fixture(scope="module", autouse=True)
def _networks() -> Iterator[None]:
    """Networks of a module's tests, of 60 MB each, do not outlive it."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
        gc.collect()
        gc.freeze()  # what was imported since


@pytest.fixture(scope="session")
def relock() -> Callable[..., None]:
    """Writes the dvc.lock of a workspace anew, for the bytes that lie there."""
    return write_lock


@pytest.fixture(scope="session")
def publish() -> Callable[[Trained, str], None]:
    """Logs a study to the store of its workspace, as the command does but for the report."""

    def log(workspace: Trained, study: str) -> None:
        from vgg16_transfer.lineage.lineage import locked_stages
        from vgg16_transfer.tracking.log import log_study
        from vgg16_transfer.tracking.mlflow_store import find_store

        layout, params = workspace.layout, workspace.params
        store = find_store(workspace.root, None)
        (origin,) = locked_stages(workspace.root, [f"train@{study}"]).values()
        log_study(store, params, layout, study, None, origin)

    return log
