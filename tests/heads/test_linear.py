import json
import re
import time
import zipfile

import keras
import numpy as np
import pytest

from vgg16_transfer.heads import model_files
from vgg16_transfer.heads.linear import Linear
from vgg16_transfer.params import Trial

KERNEL = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
BIAS = np.array([0.5, -0.5, 0.0], dtype=np.float32)
SHAPE = (1, 2, 3)
FEATURES = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)


def by_hand(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_a_head_is_a_softmax_of_features_of_length_one() -> None:
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    result = Linear(Trial(), SHAPE, KERNEL, BIAS).probabilities(FEATURES)
    np.testing.assert_allclose(result, by_hand(unit @ KERNEL + BIAS), rtol=1e-5)


def test_features_can_be_left_as_they_are() -> None:
    head = Linear(Trial(normalise="none"), SHAPE, KERNEL, BIAS)
    expected = by_hand(FEATURES @ KERNEL + BIAS)
    np.testing.assert_allclose(head.probabilities(FEATURES), expected, rtol=1e-5)


def test_average_pooling_drops_the_positions() -> None:
    trial = Trial(pooling="average", normalise="none")
    head = Linear(trial, SHAPE, KERNEL[:3], BIAS)
    means = FEATURES.reshape(5, 2, 3).mean(axis=1)
    expected = by_hand(means @ KERNEL[:3] + BIAS)
    np.testing.assert_allclose(head.probabilities(FEATURES), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 16.0])
def test_predictions_are_softened_by_the_temperature(temperature: float) -> None:
    trial = Trial(layer="predictions", normalise="none", temperature=temperature)
    soft = by_hand(FEATURES / temperature)
    result = Linear(trial, (6,), KERNEL, BIAS).probabilities(FEATURES)
    np.testing.assert_allclose(result, by_hand(soft @ KERNEL + BIAS), rtol=1e-5)


def test_the_same_head_gives_the_same_bytes_at_any_time_and_place(tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    paths = [tmp_path / "a.keras", tmp_path / "elsewhere" / "b.keras"]
    Linear(Trial(), SHAPE, KERNEL, BIAS).save(paths[0])
    time.sleep(2.1)  # zip files count in steps of two seconds
    keras.layers.Dense(3)  # moves Keras's counter of layers on
    Linear(Trial(), SHAPE, KERNEL, BIAS).save(paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keras", "elsewhere"]


def test_a_saved_head_holds_no_time_stamp(tmp_path) -> None:
    Linear(Trial(), SHAPE, KERNEL, BIAS).save(tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


FRONTS = {
    "none": (Trial(normalise="none"), SHAPE, []),
    "l2": (Trial(), SHAPE, [keras.layers.UnitNormalization(name="unit_length")]),
    "average": (
        Trial(pooling="average"),
        (2, 1, 3),
        [
            keras.layers.Reshape((2, 1, 3), name="positions"),
            keras.layers.GlobalAveragePooling2D(name="average"),
            keras.layers.UnitNormalization(name="unit_length"),
        ],
    ),
    "temperature": (
        Trial(layer="predictions", temperature=4.0, normalise="none"),
        (6,),
        [
            keras.layers.Rescaling(0.25, name="temperature"),
            keras.layers.Softmax(name="source_softmax"),
        ],
    ),
}


@pytest.mark.parametrize("name", FRONTS)
def test_the_file_is_the_model_that_keras_would_build(name: str, tmp_path) -> None:
    """The file is written without Keras, and must not differ from what Keras reads and writes."""
    trial, shape, layers = FRONTS[name]
    kernel = KERNEL[:3] if trial.pooling == "average" else KERNEL
    Linear(trial, shape, kernel, BIAS).save(tmp_path / "a.keras")
    expected = keras.Sequential(
        [
            keras.Input((6,), name="features"),
            *layers,
            keras.layers.Dense(3, activation="softmax", name="softmax"),
        ],
        name="head",
    )
    loaded = keras.saving.load_model(tmp_path / "a.keras", compile=False, safe_mode=True)
    assert loaded.get_config() == expected.get_config()
    for weights, own in zip(loaded.get_weights(), [kernel, BIAS], strict=True):
        np.testing.assert_array_equal(weights, own)
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        metadata = json.loads(archive.read("metadata.json"))
    assert metadata["keras_version"] == keras.__version__


def test_a_model_that_is_saved_holds_no_address_in_memory(tmp_path) -> None:
    layers = [keras.Input((6,)), *(keras.layers.Dense(3) for _ in range(2))]
    model_files.save(keras.Sequential(layers), tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        config = archive.read("config.json").decode()
    ids = [int(result) for result in re.findall(r'"shared_object_id": (\d+)', config)]
    assert ids
    assert set(ids) == set(range(1, max(ids) + 1))


def test_a_head_that_is_loaded_gives_the_same_probabilities(tmp_path) -> None:
    head = Linear(Trial(layer="predictions", temperature=4.0), (6,), KERNEL, BIAS)
    model_files.save(head, tmp_path / "a.keras")
    loaded = model_files.load(tmp_path / "a.keras")
    expected = head.probabilities(FEATURES)
    result = model_files.probabilities(loaded, FEATURES)
    np.testing.assert_allclose(result, expected, rtol=1e-5)
