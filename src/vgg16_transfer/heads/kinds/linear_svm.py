"""A linear support vector machine by scikit-learn, one class against the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.svm import LinearSVC

from vgg16_transfer.heads import tuned

if TYPE_CHECKING:
    from vgg16_transfer.heads.base import Data, Fitted
    from vgg16_transfer.params import Trial


def fit(trial: Trial, data: Data) -> Fitted:
    """Trains a head; see :func:`~vgg16_transfer.heads.tuned.fit`.

    Its margins are taken for logits. So its probabilities mean something only once a temperature
    is fitted; see :mod:`~vgg16_transfer.heads.calibration`.
    """
    return tuned.fit(trial, data, lambda c: LinearSVC(C=c, max_iter=1000, random_state=0))
