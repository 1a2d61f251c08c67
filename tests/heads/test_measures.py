"""Every row of MEASURES has a known answer: 6 pictures of 3 classes, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

from vgg16_transfer.heads import measures
from vgg16_transfer.heads.base import Epochs, Pictures, measure_roles
from vgg16_transfer.heads.measures import MEASURES, measure, measure_epochs

LABELS = np.array([0, 0, 0, 1, 1, 2])
LOGITS = np.random.default_rng(0).standard_normal((6, 7)).astype(np.float32)
ODDS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
PREDICTED = LOGITS.argmax(axis=1)
BEST_FIVE = np.argsort(-LOGITS, axis=1)[:, :5]

KNOWN = {
    "accuracy": (PREDICTED == LABELS).mean(),
    "mean_class_recall": np.mean([(PREDICTED[c == LABELS] == c).mean() for c in range(3)]),
    "top5_accuracy": (LABELS[:, np.newaxis] == BEST_FIVE).any(axis=1).mean(),
    "loss": log_loss(LABELS, ODDS, labels=range(7)),
    "brier_score": np.mean([((ODDS[n] - np.eye(7)[LABELS[n]]) ** 2).sum() for n in range(6)]),
    # With fewer pictures than bins, each picture is a bin.
    "calibration_error": np.abs(ODDS.max(axis=1) - (PREDICTED == LABELS)).mean(),
    "accuracy_above_chance": ((PREDICTED == LABELS).mean() - 1 / 7) / (6 / 7),
}


@pytest.mark.parametrize("name", measures.NAMES)
def test_a_measure_gives_the_known_answer(name: str) -> None:
    assert measure(LABELS, LOGITS)[name] == pytest.approx(KNOWN[name], rel=1e-5)


def test_mean_class_recall_is_sklearns_balanced_accuracy() -> None:
    odd = np.where(np.arange(6) % 2, LABELS, 0)  # right for half of the pictures
    logits = np.eye(3, dtype=np.float32)[odd]
    expected = balanced_accuracy_score(LABELS, odd)
    assert measure(LABELS, logits)["mean_class_recall"] == pytest.approx(expected)


@pytest.mark.parametrize(("rank", "expected"), [(0, 1), (4, 1), (5, 0), (6, 0)])
def test_the_fifth_is_among_five_and_the_sixth_is_not(rank: int, expected: float) -> None:
    logits = -np.arange(7, dtype=np.float32)[np.newaxis]
    assert measure(np.array([rank]), logits)["top5_accuracy"] == expected


def test_classes_without_a_vote_are_not_all_among_five() -> None:
    """One class of ten has every vote; of the others, the first four make five with it."""
    logits = np.where(np.arange(10) == 7, 0.0, -50.0)[np.newaxis].astype(np.float32)
    hits = [measure(np.array([label]), logits)["top5_accuracy"] for label in range(10)]
    assert hits == [1, 1, 1, 1, 0, 0, 0, 1, 0, 0]


def test_the_calibration_error_is_that_of_bins_of_equally_many_pictures() -> None:
    """Fifteen bins of ten pictures; in each, confidence and share of right ones are known."""
    confidence = np.repeat(np.linspace(0.55, 0.97, 15), 10)
    right = np.concatenate([np.arange(10) < hits for hits in ([5, 6, 7, 8, 9] * 3)])
    labels = np.where(right, 0, 1)
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1)).astype(np.float32)
    gaps = np.abs(np.linspace(0.55, 0.97, 15) - np.array([0.5, 0.6, 0.7, 0.8, 0.9] * 3))
    shuffled = np.random.default_rng(0).permutation(150)
    result = measure(labels[shuffled], logits[shuffled])["calibration_error"]
    assert result == pytest.approx(gaps.mean(), rel=1e-5)


def test_a_head_that_is_sure_and_right_has_no_error() -> None:
    labels = np.arange(20) % 3
    sure = measure(labels, 1000 * np.eye(3, dtype=np.float32)[labels])
    assert (sure["calibration_error"], sure["brier_score"], sure["accuracy_above_chance"]) == (
        pytest.approx(0, abs=1e-9),
        pytest.approx(0, abs=1e-9),
        1,
    )


def test_what_is_measured_after_every_epoch_is_a_part_of_all() -> None:
    after_epoch = measure(LABELS, LOGITS, every_epoch=True)
    assert tuple(after_epoch) == measures.EVERY_EPOCH
    assert after_epoch.items() <= measure(LABELS, LOGITS).items()


def test_names_are_different() -> None:
    assert len({row.name for row in MEASURES}) == len(MEASURES)


@pytest.mark.parametrize("pictures", [1, 7, 300])
def test_several_epochs_at_once_are_measured_to_the_bit(pictures: int) -> None:
    random = np.random.default_rng(pictures)
    labels = random.integers(0, 16, pictures)
    logits = random.normal(0, 9, (30, pictures, 16)).astype(np.float32)
    one_by_one = [measure(labels, epoch, every_epoch=True) for epoch in logits]
    assert measure_epochs(labels, logits) == one_by_one
    assert {row.name for row in MEASURES if row.together} == set(measures.EVERY_EPOCH)


def test_a_measure_that_takes_one_epoch_is_asked_for_each(monkeypatch) -> None:
    alone = [row._replace(together=False) for row in MEASURES]
    logits = np.stack([LOGITS, 2 * LOGITS])
    expected = measure_epochs(LABELS, logits)
    monkeypatch.setattr(measures, "MEASURES", alone)
    assert measure_epochs(LABELS, logits) == expected


@pytest.mark.parametrize("at_once", [1, 4, 5, 100])
def test_epochs_end_before_a_loss_that_is_not_finite(monkeypatch, at_once: int) -> None:
    labels = np.array([0, 1, 2])
    roles = {"train": Pictures(labels, labels), "test": Pictures(labels, labels)}
    monkeypatch.setattr("vgg16_transfer.heads.base._NUMBERS", at_once * 2 * 3 * 3)
    logits = np.random.default_rng(0).normal(0, 1, (10, 3, 3)).astype(np.float32)
    broken = logits.copy()
    broken[6:] = np.nan
    epochs = Epochs(roles, 3)
    for train, test in zip(logits, broken, strict=True):
        epochs.add({"train": train, "test": test})
        if not epochs.finite:
            break
    epochs.measure()
    assert not epochs.finite
    assert epochs.rows == [measure_roles(roles, {"train": row, "test": row}) for row in logits[:6]]
