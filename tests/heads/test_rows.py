"""Features that stay in their store give what arrays give."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgg16_transfer.backbones import store as stores
from vgg16_transfer.backbones.store import FeaturesError, FeatureStore
from vgg16_transfer.head_kinds import HEAD_KINDS
from vgg16_transfer.heads import base, calibration, rows
from vgg16_transfer.heads.base import Data, Pictures
from vgg16_transfer.heads.rows import Stored
from vgg16_transfer.params import Trial

from .conftest import CLASSES, SHAPE, pictures

WIDE = {"block5_pool": SHAPE, "predictions": (50,)}
ROLES = {"train": pictures(0, 21), "validation": pictures(2, 14), "test": pictures(1, 14)}
ARRAYS = {
    role: Pictures(of.features.astype(np.float16).astype(np.float32), of.labels)
    for role, of in ROLES.items()
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A store of the pictures of all roles, with several pieces in a row of 50 numbers."""
    monkeypatch.setattr(stores, "_PIECE", 32)
    monkeypatch.setattr(rows, "IN_MEMORY", 0)
    monkeypatch.setattr(rows, "AT_ONCE", 4)
    monkeypatch.setattr(rows, "_ROWS", 5)
    created = FeatureStore.create(tmp_path / "features", {"dtype": "float16"}, WIDE)
    for role, of in ARRAYS.items():
        block = of.features.astype(np.float16)
        created.append(ids(role), dict.fromkeys(WIDE, block))
    assert len(created.pieces("block5_pool")) == 4
    return created


def ids(role: str) -> list[str]:
    return [f"{role}-{row}" for row in range(len(ROLES[role].labels))]


def stored(store: FeatureStore, role: str, layer: str = "block5_pool") -> Stored:
    features = rows.of_store(store, layer, ids(role))
    assert isinstance(features, Stored)
    return features


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize("scaled", [False, True])
def test_inner_products_block_by_block_are_the_direct_ones(store, scaled: bool) -> None:
    train, test = stored(store, "train"), stored(store, "test")
    x, y = ARRAYS["train"].features, ARRAYS["test"].features
    if scaled:
        train, test, x, y = train.of_length_one(), test.of_length_one(), unit(x), unit(y)
    gram, others = rows.products(train, {"test": test, "array": y})
    np.testing.assert_allclose(gram, x @ x.T, rtol=2e-6, atol=1e-5)
    np.testing.assert_allclose(others["test"], y @ x.T, rtol=2e-6, atol=1e-5)
    np.testing.assert_allclose(others["array"], y @ x.T, rtol=2e-6, atol=1e-5)
    mixed = rows.products(x, {"test": test})[1]["test"]
    np.testing.assert_allclose(mixed, y @ x.T, rtol=2e-6, atol=1e-5)
    coefficients = np.random.default_rng(0).standard_normal((len(x), 3)).astype(np.float32)
    expected = x.T @ coefficients
    np.testing.assert_allclose(rows.combined(train, coefficients), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(rows.held(train), x, rtol=1e-6)
    np.testing.assert_allclose(rows.times(train, x.T), x @ x.T, rtol=2e-6, atol=1e-5)


def test_inner_products_have_the_same_bits_whether_lengths_are_known_or_not(store) -> None:
    first = rows.products(stored(store, "train").of_length_one(), {})[0]
    again = stored(store, "train").of_length_one()
    expected = 1 / np.linalg.norm(ARRAYS["train"].features, axis=1)
    np.testing.assert_allclose(again.inverse_lengths, expected, rtol=1e-6)
    assert rows.products(again, {})[0].tobytes() == first.tobytes()


def test_each_piece_is_decoded_once_for_all_inner_products(store, monkeypatch) -> None:
    decoded = []
    decode = stores.decode
    monkeypatch.setattr(stores, "decode", lambda *of: decoded.append(of[2]) or decode(*of))
    rows.products(stored(store, "train"), {"test": stored(store, "test")})
    assert sum(decoded) == (21 + 14) * 50


def test_a_row_of_zeros_stays_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(rows, "IN_MEMORY", 0)
    store = FeatureStore.create(tmp_path / "f", {"dtype": "float16"}, {"fc2": (3,)})
    store.append(["a", "b"], {"fc2": np.float16([[0, 0, 0], [3, 4, 0]])})
    features = Stored(store, "fc2", ["a", "b"]).of_length_one()
    np.testing.assert_allclose(rows.products(features, {})[0], [[0, 0], [0, 1]])
    np.testing.assert_allclose(features[:], [[0, 0, 0], [0.6, 0.8, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "chosen", [slice(3, 9), np.array([5, 0, 5]), np.arange(21) % 3 == 0], ids=["slice", "n", "mask"]
)
def test_a_selection_of_rows_is_that_of_the_array(store, chosen: Any) -> None:
    expected = ARRAYS["train"].features[chosen]
    assert rows.held(rows.select(stored(store, "train"), chosen)).tobytes() == expected.tobytes()
    assert rows.select(ARRAYS["train"].features, chosen).tobytes() == expected.tobytes()


def test_small_features_are_an_array(store, monkeypatch) -> None:
    monkeypatch.setattr(rows, "IN_MEMORY", 21 * 50 * 4)
    assert isinstance(rows.of_store(store, "block5_pool", ids("train")), np.ndarray)
    assert isinstance(rows.of_store(store, "block5_pool", ids("train") + ids("test")), Stored)


def test_a_layer_that_the_store_lacks_is_said_before_anything_is_read(store) -> None:
    with pytest.raises(FeaturesError, match="holds no fc2"):
        rows.of_store(store, "fc2", ids("train"))


SETTINGS = [
    {},
    {"normalise": "none", "learning_rate": 0.01},
    {"pooling": "average"},
    {"layer": "predictions", "temperature": 2.0},
    {"optimizer": "adam", "learning_rate": 0.01},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_a_head_of_stored_features_is_that_of_arrays(store, kind: str, settings: Any) -> None:
    if kind != "softmax" and "learning_rate" in settings:
        settings = {}
    trial = Trial(head=kind, epochs=10, batch_size=8, **settings)
    shape = WIDE[trial.layer]
    lazy = {
        role: Pictures(stored(store, role, trial.layer), of.labels) for role, of in ARRAYS.items()
    }
    heads = [
        base.fit_of(kind)(trial, Data(roles["train"], roles, shape, CLASSES))
        for roles in (ARRAYS, lazy)
    ]
    for column in heads[0].history.columns:
        np.testing.assert_allclose(
            heads[1].history[column], heads[0].history[column], rtol=2e-3, atol=1e-4
        )
    results = [head.head.logits(ARRAYS["test"].features) for head in heads]
    centred = [each - each.mean(axis=1, keepdims=True) for each in results]
    np.testing.assert_allclose(*centred, rtol=2e-2, atol=2e-2)
    of_lazy = heads[0].head.logits(lazy["test"].features)
    assert of_lazy.tobytes() == results[0].tobytes()


@pytest.mark.parametrize("kind", ["softmax", "logistic"])
def test_a_temperature_of_stored_features_is_that_of_arrays(store, kind: str) -> None:
    trial = Trial(head=kind, epochs=10, batch_size=8, calibration="cross_validation")
    temperatures = []
    for train in (ARRAYS["train"].features, stored(store, "train")):
        roles = {"train": Pictures(train, ARRAYS["train"].labels)}
        data = Data(roles["train"], roles, SHAPE, CLASSES)
        fitted = base.fit_of(kind)(trial, data)
        temperatures.append(calibration.of_head(trial, fitted.head, data))
    np.testing.assert_allclose(*temperatures, rtol=0.02)


def test_what_is_held_for_inner_products_is_a_piece_and_not_the_layer(
    tmp_path: Path, monkeypatch
) -> None:
    """The layer is 100 pieces wide, and a piece of all pictures is what may be held."""
    monkeypatch.setattr(stores, "_PIECE", 2048)
    count, width = 50, 100 * 1024
    store = FeatureStore.create(tmp_path / "f", {"dtype": "float16"}, {"pool": (width,)})
    block = np.zeros((count, width), np.float16)
    block[np.arange(count), 10 * np.arange(count)] = 1
    names = [str(row) for row in range(count)]
    store.append(names, {"pool": block})
    features = Stored(store, "pool", names).of_length_one()
    tracemalloc.start()
    try:
        gram, _ = rows.products(features, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(gram, np.eye(count))
    assert peak < 4 * count * width / 20  # a twentieth of the layer as float32
