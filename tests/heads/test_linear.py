import re
import time
import zipfile

import keras
import numpy as np
import pytest

from vgg16_transfer.heads import model_files
from vgg16_transfer.heads.base import linear
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
    result = model_files.probabilities(linear(Trial(), SHAPE, KERNEL, BIAS), FEATURES)
    np.testing.assert_allclose(result, by_hand(unit @ KERNEL + BIAS), rtol=1e-5)


def test_features_can_be_left_as_they_are() -> None:
    head = linear(Trial(normalise="none"), SHAPE, KERNEL, BIAS)
    expected = by_hand(FEATURES @ KERNEL + BIAS)
    np.testing.assert_allclose(model_files.probabilities(head, FEATURES), expected, rtol=1e-5)


def test_average_pooling_drops_the_positions() -> None:
    trial = Trial(pooling="average", normalise="none")
    head = linear(trial, SHAPE, KERNEL[:3], BIAS)
    means = FEATURES.reshape(5, 2, 3).mean(axis=1)
    expected = by_hand(means @ KERNEL[:3] + BIAS)
    np.testing.assert_allclose(model_files.probabilities(head, FEATURES), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 16.0])
def test_predictions_are_softened_by_the_temperature(temperature: float) -> None:
    trial = Trial(layer="predictions", normalise="none", temperature=temperature)
    soft = by_hand(FEATURES / temperature)
    result = model_files.probabilities(linear(trial, (6,), KERNEL, BIAS), FEATURES)
    np.testing.assert_allclose(result, by_hand(soft @ KERNEL + BIAS), rtol=1e-5)


def test_the_same_head_gives_the_same_bytes_at_any_time_and_place(tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    paths = [tmp_path / "a.keras", tmp_path / "elsewhere" / "b.keras"]
    model_files.save(linear(Trial(), SHAPE, KERNEL, BIAS), paths[0])
    time.sleep(2.1)  # zip files count in steps of two seconds
    keras.layers.Dense(3)  # moves Keras's counter of layers on
    model_files.save(linear(Trial(), SHAPE, KERNEL, BIAS), paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keras", "elsewhere"]


def test_a_saved_head_holds_no_time_stamp(tmp_path) -> None:
    model_files.save(linear(Trial(), SHAPE, KERNEL, BIAS), tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


def test_a_saved_head_holds_no_address_in_memory(tmp_path) -> None:
    model_files.save(linear(Trial(), SHAPE, KERNEL, BIAS), tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        config = archive.read("config.json").decode()
    ids = [int(result) for result in re.findall(r'"shared_object_id": (\d+)', config)]
    assert ids
    assert set(ids) == set(range(1, max(ids) + 1))


def test_a_head_that_is_loaded_gives_the_same_probabilities(tmp_path) -> None:
    head = linear(Trial(layer="predictions", temperature=4.0), (6,), KERNEL, BIAS)
    model_files.save(head, tmp_path / "a.keras")
    loaded = model_files.load(tmp_path / "a.keras")
    expected = model_files.probabilities(head, FEATURES)
    np.testing.assert_array_equal(model_files.probabilities(loaded, FEATURES), expected)
