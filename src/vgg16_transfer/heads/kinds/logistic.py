"""Logistic regression by scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.linear_model import LogisticRegression

from vgg16_transfer.heads import tuned

if TYPE_CHECKING:
    from vgg16_transfer.heads.base import Data, Fitted
    from vgg16_transfer.params import Trial


def fit(trial: Trial, data: Data) -> Fitted:
    """Trains a head; see :func:`~vgg16_transfer.heads.tuned.fit`."""
    return tuned.fit(trial, data, lambda c: LogisticRegression(C=c, max_iter=1000))
