"""The probe that scikit-learn's manual leads to: logistic regression on normalised features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

NAME = "scikit-learn, `LogisticRegression`"
SETTINGS = (1.0, 10.0, 100.0)
"""Values of C."""


def fit(
    features: np.ndarray, labels: np.ndarray, setting: float
) -> Callable[[np.ndarray], np.ndarray]:
    """Fits a head. Returns the function that gives labels."""
    model = make_pipeline(Normalizer(), LogisticRegression(C=setting, max_iter=1000))
    predict: Callable[[np.ndarray], np.ndarray] = model.fit(features, labels).predict
    return predict
