"""Every row of MEASURES has a known answer: 6 pictures of 3 classes, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss

from vgg16_transfer.heads import measures
from vgg16_transfer.heads.measures import MEASURES, measure

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
}


@pytest.mark.parametrize("name", measures.NAMES)
def test_a_measure_gives_the_known_answer(name: str) -> None:
    assert measure(LABELS, LOGITS)[name] == pytest.approx(KNOWN[name], rel=1e-5)


def test_mean_class_recall_is_sklearns_balanced_accuracy() -> None:
    odd = np.where(np.arange(6) % 2, LABELS, 0)  # right for half of the pictures
    logits = np.eye(3, dtype=np.float32)[odd]
    expected = balanced_accuracy_score(LABELS, odd)
    assert measure(LABELS, logits)["mean_class_recall"] == pytest.approx(expected)


def test_what_is_measured_after_every_epoch_is_a_part_of_all() -> None:
    after_epoch = measure(LABELS, LOGITS, every_epoch=True)
    assert tuple(after_epoch) == measures.EVERY_EPOCH
    assert after_epoch.items() <= measure(LABELS, LOGITS).items()


def test_names_are_different() -> None:
    assert len({row.name for row in MEASURES}) == len(MEASURES)
