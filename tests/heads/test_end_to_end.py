"""Pictures of 32 x 32 through random convolutions: three classes, each of a colour, and noise."""

import functools
import hashlib
import io
import tarfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vgg16_transfer.backbones import base
from vgg16_transfer.backbones.features import write_features
from vgg16_transfer.backbones.store import FeatureStore
from vgg16_transfer.backbones.weights import write_weights
from vgg16_transfer.heads import end_to_end, measures, model_files, records
from vgg16_transfer.heads.base import Data, Pictures
from vgg16_transfer.heads.kinds import softmax
from vgg16_transfer.heads.studies import Streamed, train_study
from vgg16_transfer.images import source as source_module
from vgg16_transfer.images.archives import open_archive
from vgg16_transfer.images.manifests import COLUMNS, read_manifest
from vgg16_transfer.images.source import Source
from vgg16_transfer.networks import cached_layer
from vgg16_transfer.params import Backbone, Study, Trial, check_params

SIDE = 32
LAYERS = ["block4_pool", "block5_pool"]
SHAPES = {"block4_pool": (2, 2, 512), "block5_pool": (1, 1, 512)}
CLASSES = ["ant", "bee", "cat"]
ROLES = ["train"] * 4 + ["test"] * 3 + ["validation"]


class Inputs(NamedTuple):
    splits: Path
    features: Path
    archive: Path
    weights: Path


class Trained(NamedTuple):
    head: keras.Model
    history: pd.DataFrame


def picture(label: int, number: int) -> bytes:
    random = np.random.default_rng([label, number])
    pixels = random.integers(0, 256, (40, 48, 3)) // 2 + 90 * np.eye(3, dtype=int)[label]
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """What the stages before wrote, by those stages."""
    folder = tmp_path_factory.mktemp("end_to_end")
    result = Inputs(
        *(folder / name for name in ("splits", "features", "d.tar", "vgg16.weights.h5"))
    )
    rows = []
    with tarfile.open(result.archive, "w") as tar:
        for label, name in enumerate(CLASSES):
            for rank, role in enumerate(ROLES):
                content, path = picture(label, rank), f"{name}/{rank}.png"
                member = tarfile.TarInfo(path)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                sha256 = hashlib.sha256(content).hexdigest()
                rows.append((path, label, name, sha256, role, rank - ROLES.index(role)))
    result.splits.mkdir()
    pd.DataFrame(rows, columns=COLUMNS).to_csv(result.splits / "0.csv", index=False)
    write_weights("vgg16", "random-conv", result.weights)
    backbone = Backbone(weights="random-conv", image_size=SIDE)
    write_features(
        {"vgg16": backbone},
        LAYERS,
        weights={"vgg16": result.weights},
        splits=result.splits,
        source=Source(result.archive),
        outs={"vgg16": result.features},
    )
    return result


@pytest.fixture(scope="module")
def roles(inputs: Inputs) -> Callable[[str], dict[str, Pictures]]:
    store = FeatureStore.open(inputs.features)
    manifest = read_manifest(inputs.splits / "0.csv")

    def of_layer(layer: str) -> dict[str, Pictures]:
        rows = {role: manifest[manifest["role"] == role] for role in dict.fromkeys(ROLES)}
        return {
            role: Pictures(store.rows(layer, chosen["sha256"].tolist()), chosen["label"].to_numpy())
            for role, chosen in rows.items()
        }

    return of_layer


def training_pictures(inputs: Inputs) -> dict[str, str]:
    """Their sha256 by name."""
    manifest = read_manifest(inputs.splits / "0.csv")
    chosen = manifest[manifest["role"] == "train"]
    return dict(zip(chosen["path"], chosen["sha256"], strict=True))


def train_all(study: Study, inputs: Inputs, folder: Path) -> list[str]:
    done = train_study(
        study,
        splits=inputs.splits,
        features={"vgg16": inputs.features},
        streamed=Streamed(Source(inputs.archive), {"vgg16": inputs.weights}),
        heads=folder / "heads",
        results=folder / "results",
    )
    return done.failures


def make_trial(**settings: Any) -> Trial:
    settings = {"epochs": 4, "batch_size": 5, "learning_rate": 0.5} | settings
    return Trial(approach="end_to_end", **settings)


@pytest.fixture(scope="module")
def train(inputs: Inputs, roles: Any) -> Callable[..., Trained]:
    """Trains a head; the same one only once, unless ``again`` says so."""
    sha256s = training_pictures(inputs)
    recipe = {"network": "vgg16", "image_size": SIDE, "resize": "squash"}

    @functools.cache
    def trained(*, again: bool = False, **settings: Any) -> Trained:
        trial = make_trial(**settings)
        cached = roles(cached_layer("vgg16", trial.layer, trial.fine_tune_from))
        result = end_to_end.fit(
            trial,
            inputs.weights,
            Source(inputs.archive),
            sha256s,
            cached,
            len(CLASSES),
            recipe,
        )
        return Trained(result.head.to_keras(), result.history)

    return trained


def by_cache(roles: Any, **settings: Any) -> Trained:
    trial = make_trial(**settings)
    own, shape = roles(trial.layer), SHAPES[trial.layer]
    fitted = softmax.fit(trial, Data(own["train"], own, shape, len(CLASSES)))
    return Trained(fitted.head.to_keras(), fitted.history)


def convolutions(network: keras.Model) -> dict[str, np.ndarray]:
    """Their kernels, by name."""
    return {layer.name: layer.get_weights()[0] for layer in base.convolutions(network)}


ADAM = {"optimizer": "adam", "learning_rate": 0.1}
VARIED = {"fine_tune_from": "block5", "augment": "flip+crop+colour", "epochs": 2}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        ADAM,
        {"weight_decay": 0.1},
        {"normalise": "none", "learning_rate": 1e-6},
        {"layer": "block4_pool", "pooling": "average", "momentum": 0.0},
    ],
    ids=str,
)
def test_without_augmentation_a_head_is_the_one_that_cached_features_give(
    train, roles, settings
) -> None:
    expected, history = by_cache(roles, **settings)
    result = train(**settings)
    for features, _ in roles(make_trial(**settings).layer).values():
        np.testing.assert_allclose(
            model_files.probabilities(result.head, features),
            model_files.probabilities(expected, features),
            atol=1e-3,
        )
    pd.testing.assert_frame_equal(result.history, history, atol=1e-3, check_like=True)


def test_a_head_learns_the_colours(train) -> None:
    assert train(**ADAM).history["test_accuracy"].iloc[-1] == 1


def test_every_epoch_is_measured_on_every_role(train) -> None:
    history = train().history
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    expected = {f"{role}_{measure}" for role in set(ROLES) for measure in measures.EVERY_EPOCH}
    assert set(history.columns) == {"epoch", *expected}


def test_the_head_starts_at_zeros(inputs) -> None:
    network = base.load("vgg16", inputs.weights, SIDE)
    tail = end_to_end.make_tail(make_trial(fine_tune_from="block5"), network, "block4_pool", 3)
    assert not np.any(tail.get_layer("softmax").kernel)
    odds = model_files.probabilities(tail, np.ones((2, 2048), dtype=np.float32))
    np.testing.assert_allclose(odds, 1 / 3, rtol=1e-6)


def test_only_the_blocks_that_are_fine_tuned_change(inputs, roles, monkeypatch) -> None:
    network = base.load("vgg16", inputs.weights, SIDE)
    before = convolutions(network)
    monkeypatch.setattr(end_to_end.base, "load", lambda *_: network)
    cached = roles("block4_pool")
    recipe = {"network": "vgg16", "image_size": SIDE, "resize": "squash"}
    trial = make_trial(fine_tune_from="block5", epochs=2)
    source = Source(inputs.archive)
    fitted = end_to_end.fit(
        trial, inputs.weights, source, training_pictures(inputs), cached, 3, recipe
    )
    changed = [
        name for name, kernel in convolutions(network).items() if (kernel != before[name]).any()
    ]
    assert changed == ["block5_conv1", "block5_conv2", "block5_conv3"]
    assert list(convolutions(fitted.head.to_keras())) == changed
    # So its file holds nothing that is elsewhere.
    assert not fitted.head.to_keras().non_trainable_variables


def test_without_fine_tuning_no_convolution_is_trained(train) -> None:
    assert [layer.name for layer in train().head.layers] == ["unit_length", "softmax"]


def test_an_untrained_tail_gives_what_the_network_gives(inputs, roles) -> None:
    network = base.load("vgg16", inputs.weights, SIDE)
    tail = end_to_end.make_tail(make_trial(fine_tune_from="block5"), network, "block4_pool", 3)
    body = keras.Model(tail.inputs[0], tail.get_layer("unit_length").input)
    result = model_files.probabilities(body, roles("block4_pool")["test"].features)
    # Half precision at the cut.
    np.testing.assert_allclose(result, roles("block5_pool")["test"].features, rtol=0.01, atol=1)


def test_blocks_take_steps_of_their_own_size(inputs, train) -> None:
    original = convolutions(base.load("vgg16", inputs.weights, SIDE))
    # Blocks stand still in the first step, in which the head is zero. The second is the first that
    # they take, and all but its size is then the same.
    moved = []
    for rate in (0.01, 0.1):
        head = train(
            fine_tune_from="block5", fine_tune_learning_rate=rate, epochs=2, batch_size=12
        ).head
        moved.append(
            [np.linalg.norm(kernel - original[name]) for name, kernel in convolutions(head).items()]
        )
    small, large = np.array(moved)
    assert (small > 0).all()
    np.testing.assert_allclose(large / small, 10, rtol=0.05)


def test_fine_tuning_is_measured_on_what_is_fine_tuned(train, roles) -> None:
    head, history = train(**VARIED)
    features, labels = roles("block4_pool")["test"]
    logits = np.log(model_files.probabilities(head, features))
    for name, value in measures.measure(labels, logits, every_epoch=True).items():
        assert history[f"test_{name}"].iloc[-1] == pytest.approx(value, rel=1e-4)


def test_the_same_trial_gives_the_same_bytes(train, tmp_path) -> None:
    for name, again in (("a", False), ("b", True)):
        head, history = train(again=again, **VARIED)
        model_files.save(head, tmp_path / f"{name}.keras")
        history.to_csv(tmp_path / f"{name}.csv")
    for suffix in (".keras", ".csv"):
        first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
        assert first == second


@pytest.mark.parametrize("settings", [{}, VARIED], ids=str)
def test_a_head_that_is_loaded_gives_the_same_probabilities(
    train, roles, tmp_path, settings
) -> None:
    head = train(**settings).head
    model_files.save(head, tmp_path / "a.keras")
    trial = make_trial(**settings)
    features = roles(cached_layer("vgg16", trial.layer, trial.fine_tune_from))["test"].features
    loaded = model_files.load(tmp_path / "a.keras")
    assert [weight.name for weight in loaded.inputs] == ["features"]
    np.testing.assert_array_equal(
        model_files.probabilities(loaded, features), model_files.probabilities(head, features)
    )


def test_augmentation_changes_what_is_learned(train) -> None:
    plain, varied = (
        train(**settings).head.get_weights()[0]
        for settings in ({}, {"augment": "flip+crop+colour"})
    )
    assert not np.allclose(plain, varied, rtol=1e-3)


@pytest.mark.parametrize("fine_tune_from", ["none", "block5"])
def test_a_copy_for_each_epoch_gives_the_head_of_pictures_that_stream(
    train, fine_tune_from: str
) -> None:
    settings = VARIED | {"fine_tune_from": fine_tune_from}
    streamed = train(**settings)
    copied = train(**settings, augment_copies=2)
    for one, other in zip(streamed.head.get_weights(), copied.head.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    pd.testing.assert_frame_equal(streamed.history, copied.history)


def test_without_augmentation_all_copies_are_one(train) -> None:
    streamed, copied = train(), train(augment_copies=3)
    np.testing.assert_array_equal(*(each.head.get_weights()[0] for each in (streamed, copied)))


def test_epochs_take_copies_in_turn_and_each_passes_the_frozen_layers_once(
    train, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = []
    stream = end_to_end.stream

    def counted(trial: Trial, files: Any, labels: Any, orders: Any, *rest: Any) -> Any:
        passed.append(orders.shape)
        return stream(trial, files, labels, orders, *rest)

    monkeypatch.setattr(end_to_end, "stream", counted)
    settings = {"augment": "flip+crop+colour", "epochs": 3}
    one, two = (train(**settings, augment_copies=count) for count in (1, 2))
    assert passed == [(1, 12), (2, 12)]
    again = train(**settings | {"augment": "none"}, augment_copies=1)
    for each, other in ((one, two), (one, again)):
        assert not np.array_equal(each.head.get_weights()[0], other.head.get_weights()[0])


def test_weight_decay_shortens_the_kernel(train) -> None:
    decayed, free = (train(**s).head.get_weights()[0] for s in ({"weight_decay": 0.1}, {}))
    assert np.linalg.norm(decayed) < np.linalg.norm(free)


def test_weight_decay_is_of_the_head_alone(inputs, train) -> None:
    original = convolutions(base.load("vgg16", inputs.weights, SIDE))
    settings = {"fine_tune_from": "block5", "fine_tune_learning_rate": 1e-9, "epochs": 2}
    head = train(weight_decay=1.0, **settings).head
    for name, kernel in convolutions(head).items():
        np.testing.assert_allclose(kernel, original[name], atol=1e-6)


def examples(settings: dict[str, Any], epochs: int = 1) -> list[np.ndarray]:
    """The pictures of some epochs, each in the order of the files."""
    files = [picture(label, number) for label in range(3) for number in range(2)]
    labels = np.repeat(np.arange(3), 2)
    orders = np.array([np.random.default_rng(epoch).permutation(6) for epoch in range(epochs)])
    batches = list(
        end_to_end.stream(
            make_trial(**settings), files, labels, orders, {"image_size": SIDE, "resize": "squash"}
        )
    )
    assert [len(batch) for _, batch in batches] == [5, 1] * epochs
    of_labels = np.concatenate([batch.numpy() for _, batch in batches]).reshape(epochs, 6)
    np.testing.assert_array_equal(of_labels, labels[orders])
    of_pictures = np.concatenate([batch.numpy() for batch, _ in batches])
    return [
        epoch[np.argsort(order)]
        for epoch, order in zip(np.split(of_pictures, epochs), orders, strict=True)
    ]


def test_pictures_stream_as_the_network_is_used_to_see_them() -> None:
    first, second = examples({}, epochs=2)
    np.testing.assert_array_equal(first, second)
    expected = Image.open(io.BytesIO(picture(0, 1))).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(first[1], np.asarray(expected))


def test_a_picture_varies_with_the_epoch_the_seed_and_its_place() -> None:
    settings = {"augment": "crop+colour"}
    first, second = examples(settings, epochs=2)
    (again,) = examples(settings)
    (other,) = examples(settings | {"seed": 1})
    np.testing.assert_array_equal(first, again)
    for varied in (second, other):
        assert all((one != two).any() for one, two in zip(first, varied, strict=True))


def test_a_picture_does_not_depend_on_when_in_an_epoch_it_comes() -> None:
    (batched,) = examples({"augment": "crop+colour"})
    files = [picture(label, number) for label in range(3) for number in range(2)]
    recipe = {"network": "vgg16", "image_size": SIDE, "resize": "squash"}
    trial = make_trial(augment="crop+colour", batch_size=6)
    straight = end_to_end.stream(
        trial, files, np.zeros(6, np.int64), np.arange(6)[np.newaxis], recipe
    )
    np.testing.assert_array_equal(next(iter(straight))[0].numpy(), batched)


def study(**axes: Any) -> Any:
    raw = {
        "backbone": {"weights": "random-conv", "image_size": SIDE},
        "datasets": {
            "d": {
                "source": "d.tar",
                "layers": LAYERS,
                "split": {"seeds": [0], "train_per_class": 4},
            }
        },
        "studies": {"s": {"dataset": "d", "epochs": 3, "samples_per_class": 2} | axes},
    }
    return check_params(raw).studies["s"]


def test_test_pictures_never_pass_the_frozen_network(inputs, tmp_path, monkeypatch) -> None:
    read: list[str] = []

    @contextmanager
    def spied(path: Path, *rest: Any) -> Any:
        with open_archive(path, *rest) as archive:
            honest = archive.read
            archive.read = lambda name: [read.append(name), honest(name)][1]
            yield archive

    monkeypatch.setattr(source_module, "open_archive", spied)
    axes = study(approach="end_to_end", epochs=1)
    assert train_all(axes, inputs, tmp_path) == []
    expected = [f"{name}/{rank}.png" for name in CLASSES for rank in range(2)]
    assert sorted(set(read)) == expected


def test_both_approaches_stand_side_by_side_in_one_study(inputs, tmp_path, capsys) -> None:
    # A temperature has three digits: the last bits of logits can decide between two of them.
    axes = study(approach=["features", "end_to_end"], calibration="none")
    assert train_all(axes, inputs, tmp_path) == []
    trials = records.read(tmp_path / "results").trials.set_index("approach")
    assert trials.index.tolist() == ["features", "end_to_end"]
    for measure in ("accuracy", "loss", "train_accuracy"):
        one, other = trials[measure]
        assert other == pytest.approx(one, abs=1e-3)
    assert len(list((tmp_path / "heads").iterdir())) == 2
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("fine_tune_from", ["none", "block5"])
def test_a_trial_that_diverges_fails_and_the_others_go_on(
    inputs, tmp_path, fine_tune_from: str
) -> None:
    grid = {"normalise": "none", "learning_rate": [1e-9, 1e4], "weight_decay": 1e4}
    failures = train_all(
        study(approach="end_to_end", fine_tune_from=fine_tune_from, epochs=12, **grid),
        inputs,
        tmp_path,
    )
    trials = records.read(tmp_path / "results").trials.set_index("learning_rate")
    assert trials["status"].to_dict() == {1e-9: "finished", 1e4: "failed"}
    assert len(failures) == 1
    assert failures[0].startswith("learning_rate=10000.0: the loss is not finite after epoch ")
    assert [path.name for path in (tmp_path / "heads").iterdir()] == ["learning_rate=1e-09.keras"]
