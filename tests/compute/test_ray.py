"""Features on a real cluster: the bytes of the local way, whoever is killed on the way."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.backbones.conftest import picture, write_archive, write_split

from vgg16_transfer.backbones.weights import write_weights
from vgg16_transfer.compute import ray

from .cluster import Cluster, running
from .driver import CHUNK

pytestmark = pytest.mark.server

PICTURES = 100  # chunks that wait for an earlier one can be written at once: more than that
_DRIVER = Path(__file__).with_name("driver.py")


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("CI"):
            pytest.fail("no Ray; pip install -e '.[ray]'")
        pytest.skip("no Ray; pip install -e '.[ray]'")


@pytest.fixture(scope="module")
def cluster(_installed) -> Iterator[Cluster]:
    with running() as cluster:
        yield cluster


class World:
    """Pictures, their split and a network on disk; features of each way in a folder of its name."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment

    def start(self, compute: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(_DRIVER), str(self.folder), compute],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, compute: str) -> tuple[str, str]:
        driver = self.start(compute)
        out, err = driver.communicate()
        assert driver.returncode == 0, err
        return out.strip(), err

    def files(self, compute: str) -> dict[str, bytes]:
        folder = self.folder / compute / "d"
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    def await_chunks(self, compute: str, number: int, driver: "subprocess.Popen[str]") -> int:
        """Waits until an unfinished store has so many chunks. Returns how many it has."""
        chunks = 0
        while chunks < number and driver.poll() is None:
            time.sleep(0.02)
            for index in (self.folder / compute).glob(".d.*.partial/index.jsonl"):
                chunks = index.read_bytes().count(b"\n") - 1
        assert driver.poll() is None, driver.communicate()
        return chunks


@pytest.fixture(scope="module")
def complete(cluster, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose features this machine has computed without Ray."""
    folder = tmp_path_factory.mktemp("world")
    write_weights("vgg16", "random-conv", folder / "vgg16.weights.h5")
    write_archive(folder / "pictures.tar", list(range(PICTURES)))
    write_split(folder / "splits", "0", list(range(PICTURES)))
    world = World(folder, cluster.environment)
    assert world.run("local") == (str(PICTURES), "")
    return world


@pytest.fixture
def world(complete, tmp_path: Path) -> World:
    for path in complete.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return World(tmp_path, complete.environment)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.2:1", "RAY_ADDRESS: no cluster answers at 127.0.0.2:1 (Connection refused); "),
        ("ray://127.0.0.2:1", "RAY_ADDRESS: ray://127.0.0.2:1 is an address of Ray Client; give "),
    ],
)
def test_an_address_without_a_cluster_is_one_sentence(
    monkeypatch, address: str, sentence: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # what the pool sets is taken back
    for name in ("RAY_BACKEND_LOG_LEVEL", "RAY_worker_niceness"):
        monkeypatch.setenv(name, "0")
    with ray.opened() as pool, pytest.raises(ray.ComputeError) as caught:
        next(pool.map(nullcontext, [1]))
    assert str(caught.value).startswith(sentence)


def test_a_node_that_is_killed_costs_no_byte(world, cluster) -> None:
    driver = world.start("ray")
    assert world.await_chunks("ray", 3, driver) < PICTURES // CHUNK - 6
    cluster.kill_last()
    out, err = driver.communicate()
    assert (out, err, driver.returncode) == (f"{PICTURES}\n", "", 0)
    assert world.files("ray") == world.files("local")
    cluster.start_worker()


def test_a_driver_that_is_killed_goes_on_where_it_was(world, cluster) -> None:
    driver = world.start("ray")
    world.await_chunks("ray", 3, driver)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    computed, _ = world.run("ray")
    assert 0 < int(computed) <= PICTURES - 3 * CHUNK
    assert world.files("ray") == world.files("local")


def test_a_picture_that_has_changed_is_one_sentence_from_the_worker(world) -> None:
    archive = world.folder / "pictures.tar"
    content = archive.read_bytes().replace(picture(7), picture(7)[:-1] + b"!")
    archive.unlink()
    archive.write_bytes(content)
    driver = world.start("ray")
    _, err = driver.communicate()
    assert err == (f"{archive}: p/007.png is not the picture that was split; run dvc repro\n")
    assert driver.returncode == 1
    assert not (world.folder / "ray" / "d").exists()


def test_a_study_on_ray_writes_the_bytes_of_the_local_way(cluster, trained, tmp_path: Path) -> None:
    workspace = trained.copy(tmp_path / "workspace")
    outs = [path("few") for path in (workspace.layout.heads, workspace.layout.record)]
    for out in outs:
        shutil.rmtree(out)
    done = subprocess.run(
        [sys.executable, "-m", "vgg16_transfer", "train", "few", "--ray"],
        cwd=workspace.root,
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.splitlines() == [
        "not run by dvc repro, so nothing is logged to MLflow: there is no lineage"
    ]
    for out in outs:
        assert content(out) == content(trained.root / out.relative_to(workspace.root))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
