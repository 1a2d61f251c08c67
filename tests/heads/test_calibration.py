"""A temperature changes how sure a head is, and nothing else."""

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss

from vgg16_transfer.heads import base, calibration, model_files
from vgg16_transfer.heads.base import Data, Pictures
from vgg16_transfer.heads.measures import measure
from vgg16_transfer.params import Trial

CLASSES, WIDTH = 4, 12
SHAPE = (1, 1, WIDTH)


def pictures(count: int, seed: int) -> Pictures:
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    features = random.standard_normal((count, WIDTH)) + 1.5 * np.eye(CLASSES, WIDTH)[labels]
    return Pictures(features.astype(np.float32), labels)


ROLES = {"train": pictures(40, 0), "validation": pictures(200, 1), "test": pictures(400, 2)}


def fitted(kind: str = "softmax", roles: dict[str, Pictures] = ROLES, **settings: Any):
    trial = Trial(head=kind, epochs=30, **settings)
    data = Data(roles["train"], roles, SHAPE, CLASSES)
    return trial, base.fit_of(kind)(trial, data).head, data


def test_the_temperature_has_the_smallest_cross_entropy_with_one_more_picture_of_any_class() -> (
    None
):
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, 300)
    logits = (6 * (np.eye(CLASSES)[labels] + random.standard_normal((300, CLASSES)))).astype("f")
    best = calibration.temperature(logits, labels)

    def loss(t: float) -> float:
        odds = np.exp(logits / t - (logits / t).max(axis=1, keepdims=True))
        sure = odds / odds.sum(axis=1, keepdims=True)
        all_labels = [
            log_loss(np.full(300, c), sure, labels=range(CLASSES)) for c in range(CLASSES)
        ]
        return (
            300 * log_loss(labels, sure, labels=range(CLASSES)) + float(np.mean(all_labels))
        ) / 301

    # The loss has one minimum in 1 / T, so the best of a coarse grid is next to it.
    coarse = min(np.geomspace(0.01, 100, 50), key=loss)
    near = np.geomspace(0.8, 1.25, 50) * coarse
    assert loss(best) <= min(loss(t) for t in near) + 1e-5
    assert loss(best) < loss(1)


@pytest.mark.parametrize("count", [3, 12, 60])
def test_a_few_pictures_that_are_all_right_show_no_certainty(count: int) -> None:
    labels = np.arange(count) % CLASSES
    logits = np.eye(CLASSES, dtype="f")[labels]
    t = calibration.temperature(logits, labels)
    odds = np.exp(logits / t)
    sure = (odds.max(axis=1) / odds.sum(axis=1)).mean()
    # All of them have the same margin, so this is the share of the labels in the targets.
    assert sure == pytest.approx(1 - (1 - 1 / CLASSES) / (count + 1), abs=2e-3)


def test_a_head_that_is_calibrated_predicts_the_same_classes_and_means_what_it_says() -> None:
    trial, head, data = fitted()
    test = ROLES["test"]
    before = head.logits(test.features)
    t = calibration.of_head(trial, head, data)
    assert t is not None
    head.scale(t)
    after = head.logits(test.features)
    np.testing.assert_allclose(after, before / t, rtol=1e-4, atol=1e-5)
    old, new = measure(test.labels, before), measure(test.labels, after)
    assert new["accuracy"] == old["accuracy"]
    assert new["calibration_error"] < 0.5 * old["calibration_error"]
    assert new["loss"] < old["loss"]


def test_a_calibrated_head_is_what_its_file_holds(tmp_path) -> None:
    trial, head, data = fitted()
    t = calibration.of_head(trial, head, data)
    head.scale(t or 1)
    head.save(tmp_path / "head.keras")
    loaded = model_files.load(tmp_path / "head.keras")
    expected = head.probabilities(ROLES["test"].features)
    result = model_files.probabilities(loaded, ROLES["test"].features)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "logistic", "nearest_mean"])
def test_without_validation_pictures_the_training_pictures_do(kind: str) -> None:
    roles = {role: ROLES[role] for role in ("train", "test")}
    trial, head, data = fitted(kind, roles, calibration="cross_validation")
    t = calibration.of_head(trial, head, data)
    assert t is not None
    test = ROLES["test"]
    before = head.logits(test.features)
    assert measure(test.labels, before / t)["loss"] < measure(test.labels, before)["loss"]
    assert (
        calibration.of_head(trial.model_copy(update={"calibration": "validation"}), head, data)
        is None
    )


def test_test_pictures_decide_nothing() -> None:
    trial, head, data = fitted()
    other = Pictures(ROLES["test"].features[::-1].copy(), ROLES["test"].labels)
    changed = data._replace(roles=ROLES | {"test": other})
    assert calibration.of_head(trial, head, data) == calibration.of_head(trial, head, changed)


def test_votes_are_left_as_they_are() -> None:
    trial, head, data = fitted("nearest_neighbours")
    assert calibration.of_head(trial, head, data) is None


def test_one_picture_of_a_class_can_not_be_left_out() -> None:
    few = Pictures(ROLES["train"].features[:CLASSES], ROLES["train"].labels[:CLASSES])
    trial, head, data = fitted(
        "softmax", {"train": few, "test": ROLES["test"]}, calibration="cross_validation"
    )
    assert calibration.of_head(trial, head, data) is None
