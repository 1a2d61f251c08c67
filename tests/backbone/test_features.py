import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgg16_transfer.backbone import features, vgg16
from vgg16_transfer.backbone.features import OverflowInFeaturesError, write_features
from vgg16_transfer.backbone.store import CHUNK, FeaturesError, FeatureStore
from vgg16_transfer.backbone.vgg16 import Tapped
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.manifests import ManifestError, read_manifests
from vgg16_transfer.params import Backbone

from .conftest import write_archive, write_split

LAYERS = ["block4_pool", "block5_pool"]
PICTURES = 2 * CHUNK + 7


class Killed(BaseException):
    """Stands in for a SIGKILL: nothing in the package may catch it."""


class World:
    """A dataset on disk, and what the stage makes of it."""

    def __init__(self, folder: Path, weights: Path, backbone: Backbone) -> None:
        self.weights = weights
        self.backbone = backbone
        self.splits = folder / "splits"
        self.archive = write_archive(folder / "pictures.tar", list(range(PICTURES + 5)))
        self.out = folder / "features" / "d"
        self.split(PICTURES)

    def split(self, pictures: int) -> None:
        """Two seeds that share most of their pictures."""
        write_split(self.splits, "0", list(range(pictures - 5)))
        write_split(self.splits, "1", list(range(5, pictures)))

    def run(self, layers: list[str] = LAYERS, **changes: Any) -> int:
        backbone = self.backbone.model_copy(update=changes)
        return write_features(backbone, layers, self.weights, self.splits, self.archive, self.out)

    def files(self) -> dict[str, bytes]:
        """Every file of the store."""
        paths = [path for path in self.out.rglob("*") if path.is_file()]
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in paths}

    def beside(self) -> list[str]:
        """What lies beside the store."""
        return [path.name for path in self.out.parent.iterdir() if path != self.out]


@pytest.fixture
def world(tmp_path: Path, random_weights: Path, backbone: Backbone) -> World:
    return World(tmp_path, random_weights, backbone)


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per picture that goes through the network."""
    seen: list[int] = []
    forward = Tapped.forward

    def counted(self: Tapped, pictures: Any) -> Any:
        seen.extend(range(len(pictures)))
        return forward(self, pictures)

    monkeypatch.setattr(Tapped, "forward", counted)
    return seen


def kill_after(monkeypatch: pytest.MonkeyPatch, pictures: int) -> None:
    """Kills the stage when it asks for one picture more."""
    left = iter(range(pictures))
    forward = Tapped.forward

    def mortal(self: Tapped, batch: Any) -> Any:
        if next(left, None) is None:
            raise Killed
        return forward(self, batch)

    monkeypatch.setattr(Tapped, "forward", mortal)


def test_every_distinct_picture_goes_through_the_network_once(world, forwarded) -> None:
    assert world.run() == PICTURES
    assert len(forwarded) == PICTURES


def test_rows_are_what_the_network_gives_found_by_content(world) -> None:
    world.run()
    store = FeatureStore.open(world.out)
    assert store is not None
    tapped = vgg16.tap(vgg16.load(world.weights, world.backbone.image_size), ["block5_pool"])
    manifest = read_manifests(world.splits)[1].iloc[[9, 3]]
    with open_archive(world.archive) as archive:
        squares = [features.decode(archive.read(p), world.backbone) for p in manifest["path"]]
    expected = [tapped.forward(s[np.newaxis])["block5_pool"].reshape(-1) for s in squares]
    found = store.rows("block5_pool", manifest["sha256"].tolist())
    np.testing.assert_array_equal(found, np.float32(np.float16(expected)))


def test_a_second_run_computes_nothing_and_changes_no_byte(world, forwarded) -> None:
    world.run()
    before = world.files()
    forwarded.clear()
    assert world.run() == 0
    assert not forwarded
    assert world.files() == before


@pytest.mark.parametrize("pictures", [0, 1, CHUNK, CHUNK + 5, PICTURES - 1])
def test_a_killed_run_is_continued_and_ends_in_the_same_bytes(
    world, tmp_path, random_weights, backbone, monkeypatch, pictures: int
) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, pictures)
        with pytest.raises(Killed):
            world.run()
    assert not world.out.exists()
    lost = pictures % CHUNK
    assert world.run() == PICTURES - pictures + lost
    (tmp_path / "unkilled").mkdir()
    unkilled = World(tmp_path / "unkilled", random_weights, backbone)
    unkilled.run()
    assert world.files() == unkilled.files()
    assert world.beside() == []


def test_killed_while_publishing_the_next_run_computes_nothing(world, monkeypatch) -> None:
    world.run()
    before = world.files()
    world.split(PICTURES - 3)
    rename = Path.rename

    def mortal(self: Path, target: Path) -> Path:
        if target == world.out:
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", mortal)
        with pytest.raises(Killed):
            world.run()
    assert world.run() == 0
    assert world.files() != before
    assert world.beside() == []


def test_new_pictures_cost_only_themselves(world, tmp_path, random_weights, backbone) -> None:
    world.run()
    world.split(PICTURES + 5)
    assert world.run() == 5
    (tmp_path / "fresh").mkdir()
    fresh = World(tmp_path / "fresh", random_weights, backbone)
    fresh.split(PICTURES + 5)
    fresh.run()
    assert world.files() == fresh.files()


def test_fewer_pictures_cost_nothing_and_leave_no_trace(world, tmp_path, random_weights, backbone):
    world.run()
    world.split(PICTURES - 20)
    assert world.run() == 0
    (tmp_path / "fresh").mkdir()
    fresh = World(tmp_path / "fresh", random_weights, backbone)
    fresh.split(PICTURES - 20)
    fresh.run()
    assert world.files() == fresh.files()


def test_work_begun_for_another_split_is_not_lost(world, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, CHUNK)
        with pytest.raises(Killed):
            world.run()
    world.split(PICTURES + 5)
    assert world.run() == PICTURES + 5 - CHUNK


def test_dropping_a_layer_costs_nothing_and_adding_one_a_pass(world) -> None:
    world.run()
    assert world.run(["block5_pool"]) == 0
    assert world.run() == PICTURES


@pytest.mark.parametrize(
    "change", [{"resize": "crop"}, {"dtype": "float32"}, {"image_size": 48}], ids=str
)
def test_rows_of_another_recipe_are_never_used(world, change: dict[str, Any]) -> None:
    world.run()
    assert world.run(**change) == PICTURES


def test_rows_of_other_weights_are_never_used(world, tmp_path) -> None:
    world.run()
    network = vgg16.load(world.weights, 32)
    layer = network.get_layer("block1_conv1")
    layer.set_weights([2 * values for values in layer.get_weights()])
    world.weights = tmp_path / "other.weights.h5"
    network.save_weights(world.weights)
    assert world.run() == PICTURES


def test_rows_of_other_code_are_never_used(world, monkeypatch, tmp_path) -> None:
    world.run()
    edited = tmp_path / "vgg16.py"
    edited.write_bytes(Path(str(vgg16.__file__)).read_bytes() + b"# an edit\n")
    monkeypatch.setattr(vgg16, "__file__", str(edited))
    assert world.run() == PICTURES


def test_a_damaged_chunk_is_named_when_read_and_computed_again(world) -> None:
    world.run()
    before = world.files()
    chunk = world.out / "block5_pool" / "c" / "1" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(content)
    store = FeatureStore.open(world.out)
    assert store is not None
    with pytest.raises(FeaturesError, match="rows 32 to 64 of block5_pool are damaged"):
        store.rows("block5_pool", store.ids)
    assert world.run() == CHUNK
    assert world.files() == before


def test_a_value_beyond_float16_names_the_layer_and_the_remedy(world, tmp_path) -> None:
    network = vgg16.load(world.weights, 32)
    layer = network.get_layer("block4_conv3")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, bias + 1e5])
    world.weights = tmp_path / "hot.weights.h5"
    network.save_weights(world.weights)
    with pytest.raises(
        OverflowInFeaturesError,
        match=r"float16 ends at 65,504, but block4_pool reaches .*; set backbone.dtype: float32",
    ) as caught:
        world.run()
    assert caught.value.layer == "block4_pool"
    assert not world.out.exists()
    assert world.run(dtype="float32") == PICTURES


def test_no_room_on_the_disk_is_said_and_what_is_computed_is_kept(world, monkeypatch) -> None:
    fill = FeatureStore.fill
    calls = iter(range(2))

    def full(self: FeatureStore, *arguments: Any) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fill(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "fill", full)
        with pytest.raises(FeaturesError, match=r"features/d: no room .* run this again"):
            world.run()
    assert not world.out.exists()
    assert world.run() == PICTURES - CHUNK


def test_a_store_says_what_it_lacks(world) -> None:
    world.run(["block5_pool"])
    store = FeatureStore.open(world.out)
    assert store is not None
    with pytest.raises(FeaturesError, match="holds no fc2, only block5_pool"):
        store.rows("fc2", store.ids)
    with pytest.raises(FeaturesError, match="lacks 1 pictures, 00"):
        store.rows("block5_pool", ["00" * 32])


def test_splits_that_are_not_there_are_named(world) -> None:
    for path in world.splits.iterdir():
        path.unlink()
    with pytest.raises(ManifestError, match="splits: holds no splits; run dvc repro"):
        world.run()
    assert not world.out.exists()


def test_a_picture_that_the_archive_has_not_got_is_named(world) -> None:
    write_split(world.splits, "1", [PICTURES + 50])
    with pytest.raises(FeaturesError, match=rf"names p/{PICTURES + 50:03}.png, which the archive"):
        world.run()
    assert not world.out.exists()
