"""The stage ``features``, which runs a hundred times here.

So chunks are smaller than the real ones, and each network is loaded once for all tests.
"""

import errno
import functools
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from vgg16_transfer.artifacts import ArtifactError
from vgg16_transfer.backbones import base, features, store
from vgg16_transfer.backbones.base import Tapped
from vgg16_transfer.backbones.features import Written, write_features
from vgg16_transfer.backbones.narrowing import OverflowInFeaturesError
from vgg16_transfer.backbones.store import INDEX, FeaturesError, FeatureStore
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.manifests import ManifestError, read_manifests
from vgg16_transfer.images.source import Source, SourceError
from vgg16_transfer.params import Backbone

from . import old_store
from .conftest import BACKBONE, picture, write_archive, write_split

LAYERS = ["block4_pool", "block5_pool"]
CHUNK = 8
PICTURES = 2 * CHUNK + 7


@pytest.fixture(scope="module", autouse=True)
def _small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (store, features):
            patch.setattr(module, "CHUNK", CHUNK)
        yield


_load_once = functools.cache(base.load)


@functools.cache
def _tap_once(name: str, network: keras.Model, layers: tuple[str, ...]) -> Tapped:
    return _tap(name, network, layers)


_tap = base.tap


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> Iterator[None]:
    """Networks that were loaded do not outlive the tests of this module."""
    yield
    _load_once.cache_clear()
    _tap_once.cache_clear()


@contextmanager
def networks_loaded_once() -> Iterator[None]:
    """Lets the stage load each file of weights once in all tests, since it changes no network.

    No test changes a file of weights that a stage has read.
    """

    def tap(name: str, network: keras.Model, layers: Sequence[str]) -> Tapped:
        return _tap_once(name, network, tuple(layers))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "load", _load_once)
        patch.setattr(base, "tap", tap)
        yield


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

    def take(self, complete: Path) -> None:
        """Does what the first run does, by copying the store that it would write."""
        shutil.copytree(complete, self.out)

    def run(self, layers: list[str] = LAYERS, **changes: Any) -> int:
        return self.write(layers, **changes).computed

    def write(self, layers: list[str] = LAYERS, **changes: Any) -> Written:
        backbone = self.backbone.model_copy(update=changes)
        with networks_loaded_once():
            (written,) = write_features(
                {"vgg16": backbone},
                layers,
                weights={"vgg16": self.weights},
                splits=self.splits,
                source=Source(self.archive),
                outs={"vgg16": self.out},
            ).values()
        return written

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


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> Path:
    """The store that a run writes: the same bytes in each test, so it is computed once."""
    world = World(tmp_path_factory.mktemp("complete"), random_weights, BACKBONE)
    world.run()
    return world.out


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


def test_rows_are_what_the_network_gives_found_by_content(world, complete) -> None:
    world.take(complete)
    store = FeatureStore.open(world.out)
    tapped = base.tap(
        "vgg16", base.load("vgg16", world.weights, world.backbone.image_size), ["block5_pool"]
    )
    manifest = read_manifests(world.splits)[1].iloc[[9, 3]]
    with open_archive(world.archive) as archive:
        squares = [features.decode(archive.read(p), world.backbone) for p in manifest["path"]]
    expected = [tapped.forward(s[np.newaxis])["block5_pool"].reshape(-1) for s in squares]
    result = store.rows("block5_pool", manifest["sha256"].tolist())
    np.testing.assert_array_equal(result, np.float32(np.float16(expected)))


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


def test_killed_while_publishing_the_next_run_computes_nothing(
    world, complete, monkeypatch
) -> None:
    world.take(complete)
    before = world.files()
    world.split(PICTURES - 3)
    replace = Path.replace

    def mortal(self: Path, target: Path) -> Path:
        if target == world.out:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", mortal)
        with pytest.raises(Killed):
            world.run()
    assert world.run() == 0
    assert world.files() != before
    assert world.beside() == []


def test_new_pictures_cost_only_themselves(
    world, complete, tmp_path, random_weights, backbone
) -> None:
    world.take(complete)
    world.split(PICTURES + 5)
    assert world.run() == 5
    (tmp_path / "fresh").mkdir()
    fresh = World(tmp_path / "fresh", random_weights, backbone)
    fresh.split(PICTURES + 5)
    fresh.run()
    assert world.files() == fresh.files()


def test_fewer_pictures_cost_nothing_and_leave_no_trace(
    world, complete, tmp_path, random_weights, backbone
):
    world.take(complete)
    world.split(PICTURES - 12)
    assert world.run() == 0
    (tmp_path / "fresh").mkdir()
    fresh = World(tmp_path / "fresh", random_weights, backbone)
    fresh.split(PICTURES - 12)
    fresh.run()
    assert world.files() == fresh.files()


def test_work_begun_for_another_split_is_not_lost(world, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, CHUNK)
        with pytest.raises(Killed):
            world.run()
    world.split(PICTURES + 5)
    assert world.run() == PICTURES + 5 - CHUNK


def test_dropping_a_layer_costs_nothing_and_adding_one_a_pass(world, complete) -> None:
    world.take(complete)
    assert world.run(["block5_pool"]) == 0
    assert world.run() == PICTURES


@pytest.mark.parametrize(
    "change", [{"resize": "crop"}, {"dtype": "float32"}, {"image_size": 48}], ids=str
)
def test_rows_of_another_recipe_are_never_used(world, complete, change: dict[str, Any]) -> None:
    world.take(complete)
    assert world.run(**change) == PICTURES


def test_rows_of_other_weights_are_never_used(world, complete, tmp_path) -> None:
    world.take(complete)
    network = base.load("vgg16", world.weights, 32)
    layer = network.get_layer("block1_conv1")
    layer.set_weights([2 * values for values in layer.get_weights()])
    world.weights = tmp_path / "other.weights.h5"
    network.save_weights(world.weights)
    assert world.run() == PICTURES


def test_rows_of_other_code_are_never_used(world, complete, monkeypatch, tmp_path) -> None:
    world.take(complete)
    edited = tmp_path / "base.py"
    edited.write_bytes(Path(str(base.__file__)).read_bytes() + b"# an edit\n")
    monkeypatch.setattr(base, "__file__", str(edited))
    assert world.run() == PICTURES


def lose_bytes(world: World) -> None:
    path = world.out / "block5_pool.rows"
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(world: World) -> None:
    chunk = FeatureStore.open(world.out)._chunks[-1].parts["block5_pool"]
    path = world.out / "block5_pool.rows"
    content = bytearray(path.read_bytes())
    content[chunk.start + sum(chunk.lengths) // 2] ^= 1
    path.write_bytes(content)


def remove_a_layer(world: World) -> None:
    (world.out / "block4_pool.rows").unlink()


def empty_a_layer(world: World) -> None:
    (world.out / "block4_pool.rows").write_bytes(b"")


def swap_layers(world: World) -> None:
    names = [world.out / f"{layer}.rows" for layer in LAYERS]
    contents = [path.read_bytes() for path in names]
    for path, content in zip(names, reversed(contents), strict=True):
        path.write_bytes(content)


def edit_index(world: World, edit: Any) -> None:
    path = world.out / INDEX
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    edit(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def swap_chunks(world: World) -> None:
    def edit(lines: Any) -> None:
        lines[1]["parts"], lines[2]["parts"] = lines[2]["parts"], lines[1]["parts"]

    edit_index(world, edit)


def swap_pictures(world: World) -> None:
    edit_index(world, lambda lines: lines[1]["pictures"].reverse())


def edit_dtype(world: World) -> None:
    edit_index(world, lambda lines: lines[0]["recipe"].update(dtype="float32"))


def edit_shape(world: World) -> None:
    edit_index(world, lambda lines: lines[0]["shapes"].update(block5_pool=[2, 2, 128]))


def point_beyond_any_file(world: World) -> None:
    def edit(lines: Any) -> None:
        lines[1]["parts"]["block5_pool"][0] = 10**20
        lines[2]["parts"]["block5_pool"][1][0] = 10**17

    edit_index(world, edit)


def lose_a_line(world: World) -> None:
    edit_index(world, lambda lines: lines.pop(2))


def cut_the_index_off(world: World) -> None:
    path = world.out / INDEX
    path.write_bytes(path.read_bytes()[:-20])


DAMAGES = {
    lose_bytes: 1,
    point_beyond_any_file: 2 * CHUNK,
    flip_a_bit: 1,
    remove_a_layer: PICTURES,
    empty_a_layer: PICTURES,
    swap_layers: PICTURES,
    swap_chunks: 2 * CHUNK,
    swap_pictures: CHUNK,
    edit_dtype: PICTURES,
    edit_shape: PICTURES,
    lose_a_line: CHUNK,
    cut_the_index_off: 7,
}


@pytest.mark.parametrize(("damage", "pictures"), DAMAGES.items(), ids=lambda x: str(x)[:20])
def test_no_row_is_served_whose_bytes_are_not_those_that_were_written(
    world, complete, damage: Any, pictures: int
) -> None:
    world.take(complete)
    right, before = FeatureStore.open(world.out), world.files()
    rows = {
        (layer, sha256): right.rows(layer, [sha256]).tobytes()
        for layer in LAYERS
        for sha256 in right.ids
    }
    damage(world)
    damaged, refused = FeatureStore.open(world.out), 0
    for (layer, sha256), expected in rows.items():
        try:
            result = damaged.rows(layer, [sha256]).tobytes()
        except FeaturesError:
            refused += 1
        else:
            assert result == expected
    assert refused >= pictures
    assert world.run() == pictures
    assert world.files() == before


def test_damage_is_told_and_the_rest_is_kept(world, complete) -> None:
    world.take(complete)
    flip_a_bit(world)
    with pytest.raises(
        FeaturesError, match=r"block5_pool\.rows: the row of picture \w{12} is damaged"
    ):
        FeatureStore.open(world.out).rows("block5_pool", FeatureStore.open(world.out).ids)
    assert world.write() == Written(1, 1)
    assert world.write() == Written(0, 0)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{}\n", b"[1]\n", b'{"format": 2}\n'])
def test_an_index_that_can_not_be_read_is_named_and_all_is_computed_again(
    world, complete, content: bytes
) -> None:
    world.take(complete)
    before = world.files()
    (world.out / INDEX).write_bytes(content)
    with pytest.raises(FeaturesError, match=r"index\.jsonl: is damaged .*; run dvc repro"):
        FeatureStore.open(world.out)
    assert world.write() == Written(PICTURES, None)
    assert world.files() == before


def test_a_store_of_the_old_format_is_rewritten_without_a_forward_pass(
    world, complete, forwarded
) -> None:
    world.take(complete)
    expected = world.files()
    shutil.rmtree(world.out)
    old_store.of_store(FeatureStore.open(complete), world.out, CHUNK)
    assert world.write() == Written(0, 0)
    assert forwarded == []
    assert world.files() == expected


def test_an_unfinished_store_of_the_old_format_is_used(world, complete, tmp_path) -> None:
    old_store.of_store(FeatureStore.open(complete), tmp_path / "old", CHUNK)
    world.out.parent.mkdir()
    (tmp_path / "old").rename(world.out.with_name(f".{world.out.name}.0123456789ab.partial"))
    assert world.run() == 0
    assert world.beside() == []


def test_damage_to_an_unfinished_store_costs_what_comes_behind_it(world, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 2 * CHUNK + 1)
        with pytest.raises(Killed):
            world.run()
    (partial,) = world.out.parent.iterdir()
    content = bytearray((partial / "block4_pool.rows").read_bytes())
    content[len(content) // 2 + 100] ^= 1  # in the second chunk
    (partial / "block4_pool.rows").write_bytes(content)
    assert world.run() == PICTURES - CHUNK


def test_a_picture_that_changed_since_it_was_split_is_named(world) -> None:
    with tarfile.open(world.archive, "w") as tar:
        for seed in range(PICTURES):
            content = picture(seed if seed != 3 else 400)
            member = tarfile.TarInfo(f"p/{seed:03}.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(SourceError, match=r"p/003\.png is not the picture that was split"):
        world.run()
    assert not world.out.exists()


def test_a_value_beyond_float16_names_the_layer_and_the_remedy(world, tmp_path) -> None:
    network = base.load("vgg16", world.weights, 32)
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
    write = FeatureStore.write
    calls = iter(range(2))

    def full(self: FeatureStore, *arguments: Any) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureStore, "write", full)
        with pytest.raises(ArtifactError, match=r"features/d: no room .* is kept: run this again"):
            world.run()
    assert not world.out.exists()
    assert world.run() == PICTURES - CHUNK


def test_a_store_says_what_it_lacks(world) -> None:
    world.run(["block5_pool"])
    store = FeatureStore.open(world.out)
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
    with pytest.raises(SourceError, match=rf"has no p/{PICTURES + 50:03}.png, which the split"):
        world.run()
    assert not world.out.exists()


class Pair(World):
    """A dataset whose pictures go through two networks: the same one at two sizes."""

    def write_both(self, *names: str) -> dict[str, Written]:
        sizes = {"small": 32, "large": 48}
        backbones = {
            name: self.backbone.model_copy(update={"image_size": sizes[name]}) for name in names
        }
        outs = dict(zip(names, [self.out, self.out / names[-1]], strict=False))
        with networks_loaded_once():
            return write_features(
                backbones,
                ["block5_pool", "post_relu"],
                weights=dict.fromkeys(names, self.weights),
                splits=self.splits,
                source=Source(self.archive),
                outs=outs,
            )


@pytest.fixture
def pair(tmp_path: Path, random_weights: Path, backbone: Backbone) -> Pair:
    return Pair(tmp_path, random_weights, backbone)


def test_features_of_each_network_are_computed_once_and_stored_apart(pair) -> None:
    assert pair.write_both("small", "large")["large"].computed == PICTURES
    stores = [FeatureStore.open(path) for path in (pair.out, pair.out / "large")]
    assert [store.recipe["image_size"] for store in stores] == [32, 48]
    assert [store.shapes for store in stores] == [
        {"block5_pool": (1, 1, 512)},  # a layer of another network is none of theirs
        {"block5_pool": (1, 1, 512)},
    ]
    sha256s = stores[0].ids[:3]
    small, large = (store.rows("block5_pool", sha256s) for store in stores)
    assert not np.allclose(small, large)
    before = pair.files()
    assert [each.computed for each in pair.write_both("small", "large").values()] == [0, 0]
    assert pair.files() == before
    assert pair.beside() == []


def test_a_network_that_is_added_costs_no_other_one(pair) -> None:
    pair.write_both("small")
    computed = {name: each.computed for name, each in pair.write_both("small", "large").items()}
    assert computed == {"small": 0, "large": PICTURES}
    assert [each.computed for each in pair.write_both("small").values()] == [0]
    assert not (pair.out / "large").exists()


@pytest.mark.parametrize("pictures", [5, PICTURES, PICTURES + CHUNK])
def test_two_networks_that_are_killed_are_continued(pair, monkeypatch, pictures: int) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, pictures)
        with pytest.raises(Killed):
            pair.write_both("small", "large")
    assert not pair.out.exists()
    computed = [each.computed for each in pair.write_both("small", "large").values()]
    assert sum(computed) == 2 * PICTURES - pictures // CHUNK * CHUNK + (pictures >= PICTURES) * (
        pictures // CHUNK * CHUNK - PICTURES - (pictures - PICTURES) // CHUNK * CHUNK
    )
    assert FeatureStore.open(pair.out / "large").intact(["block5_pool"])
    assert pair.beside() == []


@pytest.mark.parametrize("target", ["small", "large"])
def test_killed_while_publishing_two_networks_nothing_is_computed_again(
    pair, monkeypatch, target: str
) -> None:
    pair.write_both("small", "large")
    pair.split(PICTURES + 5)
    replace = Path.replace

    def mortal(self: Path, path: Path) -> Path:
        if path == pair.out or (target == "large" and path.name == "large"):
            raise Killed
        return replace(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", mortal)
        with pytest.raises(Killed):
            pair.write_both("small", "large")
    assert [each.computed for each in pair.write_both("small", "large").values()] == [0, 0]
    assert len(FeatureStore.open(pair.out / "large").ids) == PICTURES + 5
    assert pair.beside() == []


def test_damage_to_a_network_that_is_not_the_first_names_its_dataset(pair) -> None:
    pair.write_both("small", "large")
    (pair.out / "large" / "block5_pool.rows").write_bytes(b"")
    store = FeatureStore.open(pair.out / "large")
    with pytest.raises(FeaturesError, match=r"large/block5_pool\.rows: .* features@d, which"):
        store.rows("block5_pool", store.ids[:1])
