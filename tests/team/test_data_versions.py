"""Two people, two clones, and the places that DVC pushes to: a real sshd and an S3 server."""

import io
import os
import shutil
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vgg16_transfer.hashing import file_md5

from ..pipeline.conftest import Workspace, clone, stages_run  # noqa: TID252 (no test is installed)
from .remotes import KINDS, Remote

pytestmark = pytest.mark.server

PARAMS = {
    "backbone": {"weights": "random-conv", "image_size": 32},
    "datasets": {
        "noise": {
            "source": "data/noise.tar",
            "layout": "class_folders",
            "split": {"seeds": [0], "train_per_class": 2, "test_per_class": 2},
            "layers": ["block5_pool"],
        }
    },
    "studies": {"few": {"dataset": "noise", "samples_per_class": 2, "epochs": 2}},
}
WITH_A_SEED_MORE = PARAMS | {
    "datasets": {
        "noise": PARAMS["datasets"]["noise"]
        | {"split": {"seeds": [0, 1], "train_per_class": 2, "test_per_class": 2}}
    }
}
WITH_ANOTHER_STUDY = PARAMS | {"studies": {"few": PARAMS["studies"]["few"] | {"epochs": 3}}}
PER_CLASS = 8

ROOMS = ("data/splits", "data/features", "models", "reports", "results")


@dataclass
class Person(Workspace):
    """Somebody's clone; home, keys and DVC's caches are their own.

    Attributes:
        home: Their home folder.
    """

    home: Path

    def environment(self) -> dict[str, str]:
        of_project = {"HOME": str(self.home), "DVC_SITE_CACHE_DIR": str(self.home / "site")}
        return super().environment() | of_project | {"DVC_NO_ANALYTICS": "1"}

    def knows(self, remotes: dict[str, Remote]) -> None:
        """Keeps keys and secrets where git does not look."""
        self._configure("config.local", {name: one.secrets for name, one in remotes.items()})

    def shares(self, remotes: dict[str, Remote]) -> None:
        """Names the remotes for everybody, as docs/team.md has it."""
        shared = {name: {"url": one.url, "verify": "true"} for name, one in remotes.items()}
        self._configure("config", shared)
        self.knows(remotes)

    def _configure(self, name: str, remotes: dict[str, dict[str, str]]) -> None:
        """What ``dvc remote add`` and ``modify`` write, without a process for each option."""
        with (self.root / ".dvc" / name).open("a") as file:
            for remote, options in remotes.items():
                file.write(f"['remote \"{remote}\"']\n")
                file.writelines(f"    {key} = {value}\n" for key, value in options.items())

    def commit(self, tag: str | None = None) -> None:
        self.run("git", "add", "--all")
        self.run("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "m")
        if tag:
            self.run("git", "tag", tag)

    def fails(self, *command: str) -> str:
        """What a command prints that must fail."""
        code, printed = self.finish(*command)
        assert code > 0, printed
        return printed


def person(folder: Path) -> Person:
    (folder / "home").mkdir(parents=True)
    return Person(folder / "clone", folder / "home")


@pytest.fixture
def colleague(tmp_path) -> Callable[[Person, dict[str, Remote]], Person]:
    """Makes somebody who has just cloned another one's repository."""

    def make(of: Person, remotes: dict[str, Remote]) -> Person:
        one = person(tmp_path / f"colleague{len(list(tmp_path.iterdir()))}")
        of.run("git", "clone", "--quiet", str(of.root), str(one.root))
        one.knows(remotes)
        return one

    return make


@pytest.fixture(scope="module")
def remotes(tmp_path_factory) -> Iterator[dict[str, Remote]]:
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("remotes")
        yield {kind: stack.enter_context(start(folder / kind)) for kind, start in KINDS.items()}


def write_pictures(path: Path) -> None:
    random = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for class_name in ("ant", "bee"):
            for index in range(PER_CLASS):
                buffer = io.BytesIO()
                pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(buffer, "PNG")
                info = tarfile.TarInfo(f"{class_name}/{index}.png")
                info.size = buffer.tell()
                buffer.seek(0)
                tar.addfile(info, buffer)


@pytest.fixture(scope="module")
def ada(tmp_path_factory, remotes) -> Person:
    """She ran the pipeline, tagged it v1, and pushed it to both remotes."""
    ada = person(tmp_path_factory.mktemp("ada"))
    ada.root.mkdir()
    clone(ada.root, PARAMS)
    write_pictures(ada.root / "data" / "noise.tar")
    ada.run("dvc", "repro")
    ada.shares(remotes)
    ada.commit(tag="v1")
    for name in remotes:
        ada.run("dvc", "push", "--remote", name)
    return ada


@pytest.mark.parametrize("kind", KINDS)
def test_a_colleague_pulls_the_same_bytes_and_computes_nothing(
    kind: str, ada: Person, remotes, colleague
) -> None:
    bo = colleague(ada, remotes)
    bo.run("dvc", "pull", "--remote", kind)
    assert bo.files(*ROOMS) == ada.files(*ROOMS)
    # Links to what lies outside are made again.
    assert sorted(stages_run(bo.run("dvc", "repro"))) == ["fetch@noise", "sources"]
    assert stages_run(bo.run("dvc", "repro")) == []
    assert bo.run("git", "status", "--porcelain") == ""


def test_a_colleague_pays_for_what_is_new_and_the_old_split_comes_back(
    ada: Person, remotes, colleague
) -> None:
    bo = colleague(ada, remotes)
    bo.run("dvc", "pull", "--remote", "ssh")
    first = bo.files(*ROOMS)

    bo.write_params(WITH_ANOTHER_STUDY)
    printed = bo.run("dvc", "repro", "train@few")
    assert sorted(stages_run(printed)) == ["fetch@noise", "sources", "train@few"]

    bo.write_params(WITH_A_SEED_MORE)
    printed = bo.run("dvc", "repro", "features@noise")
    assert stages_run(printed) == ["fetch@noise", "splits@noise", "features@noise"]
    seen, both = (set().union(*(pictures(bo, seed) for seed in seeds)) for seeds in ([0], [0, 1]))
    assert f"\n{len(both - seen)} pictures went through the network" in printed
    assert 0 < len(both - seen) < len(both)
    second = bo.files(*ROOMS)
    bo.commit(tag="v2")
    bo.run("dvc", "push", "--remote", "ssh")

    cy = colleague(bo, remotes)
    cy.run("dvc", "pull", "--remote", "ssh", "features@noise", "splits@noise")
    assert cy.files("data/splits", "data/features") == {
        path: content
        for path, content in second.items()
        if path.startswith(("data/splits", "data/features"))
    }

    bo.run("git", "checkout", "--quiet", "v1")
    bo.run("dvc", "checkout")
    assert bo.files(*ROOMS) == first


def pictures(workspace: Workspace, seed: int) -> set[str]:
    lines = (workspace.root / f"data/splits/noise/{seed}.csv").read_text().splitlines()
    return {line.split(",")[3] for line in lines[1:]}


@pytest.mark.parametrize(
    ("kind", "output"), [("ssh", "data/features/noise"), ("s3", "models/vgg16.weights.h5")]
)
def test_a_damaged_object_is_named_and_not_used_and_repaired(
    kind: str, output: str, ada: Person, remotes, colleague
) -> None:
    remote = remotes[kind]
    files = {path: own for path, own in ada.files(*ROOMS).items() if path.startswith(output)}
    path = max(files, key=lambda path: len(files[path]))
    md5 = file_md5(ada.root / path)
    name = f"files/md5/{md5[:2]}/{md5[2:]}"
    whole = remote.read(name)
    remote.write(name, whole[:-1] + bytes([whole[-1] ^ 1]))

    bo = colleague(ada, remotes)
    assert f"\n{output}\n" in bo.fails("dvc", "pull", "--remote", kind)
    assert not (bo.root / path).exists()
    printed = bo.fails("vgg16-transfer", "verify", kind)
    assert f"error: {path}: " in printed
    assert f"{name} is damaged; run this with --repair in a clone that has a copy" in printed
    assert "has no undamaged copy" in bo.fails("vgg16-transfer", "verify", kind, "--repair")

    assert f"repaired: {path}: " in ada.run("vgg16-transfer", "verify", kind, "--repair")
    assert remote.read(name) == whole
    assert " objects are undamaged" in bo.run("vgg16-transfer", "verify", kind)
    bo.run("dvc", "pull", "--remote", kind)
    assert {path: bo.files(*ROOMS)[path] for path in files} == files


@pytest.fixture(scope="module")
def empty(tmp_path_factory, remotes) -> Person:
    """Somebody's repository without a pipeline: what is tested is DVC and the remotes."""
    one = person(tmp_path_factory.mktemp("empty"))
    one.root.mkdir()
    one.run("git", "init", "--quiet")
    one.run("dvc", "init", "--quiet")
    one.shares(remotes)
    one.commit()
    return one


@pytest.fixture
def tiny(empty: Person, remotes, colleague) -> Person:
    return colleague(empty, remotes)


def add(workspace: Person, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (workspace.root / name).parent.mkdir(exist_ok=True)
        (workspace.root / name).write_bytes(content)
    workspace.run("dvc", "add", "--quiet", *sorted({name.partition("/")[0] for name in files}))
    workspace.commit()


def bytes_of(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


# S3 takes files from 100 MB in parts; a smaller one comes whole or not at all.
@pytest.mark.parametrize(("kind", "size"), [("ssh", 1 << 26), ("s3", 1 << 27)])
def test_an_interrupted_push_leaves_nothing_that_is_taken_for_whole(
    kind: str, size: int, tiny: Person, remotes, colleague
) -> None:
    remote = remotes[kind]
    before = remote.names()
    add(tiny, {"large": bytes_of(1, size), "small": b"small"})
    push = tiny.start("dvc", "push", "--remote", kind, "large")
    wait_for(lambda: remote.begun() or push.poll() is not None)
    os.killpg(push.pid, signal.SIGKILL)
    push.communicate(timeout=60)
    assert push.returncode == -signal.SIGKILL
    left = {name for name in remote.names() - before if not name.endswith(".tmp")}
    assert left == set()

    bo = colleague(tiny, remotes)
    assert "large" in bo.fails("dvc", "pull", "--remote", kind)
    assert not (bo.root / "large").exists()
    tiny.run("dvc", "push", "--remote", kind)
    bo.run("dvc", "pull", "--remote", kind)
    assert file_md5(bo.root / "large") == file_md5(tiny.root / "large")
    shutil.rmtree(bo.root)


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("what was waited for did not come")
        time.sleep(0.002)


@pytest.mark.parametrize("kind", KINDS)
def test_two_who_push_at_once_lose_nothing(kind: str, tiny: Person, remotes, colleague) -> None:
    bo = colleague(tiny, remotes)
    shared = {f"folder/both{i}": bytes_of(i, 50_000) for i in range(20)}
    for who, seed in ((tiny, 100), (bo, 200)):
        own = {f"folder/own{i}": bytes_of(seed + i, 50_000) for i in range(20)}
        add(who, shared | own)
    pushes = [who.start("dvc", "push", "--remote", kind) for who in (tiny, bo)]
    printed = [push.communicate(timeout=300)[0] for push in pushes]
    assert [push.returncode for push in pushes] == [0, 0], printed
    for who in (tiny, bo):
        reader = colleague(who, remotes)
        reader.run("dvc", "pull", "--remote", kind)
        assert reader.files("folder") == who.files("folder")
