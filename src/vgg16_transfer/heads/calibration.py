"""One temperature per head, so that its probabilities mean what they say.

A head divides its logits by T before its softmax (Guo et al. 2017, On calibration of modern neural
networks, section 4.2). T has the smallest cross-entropy on pictures that the head was not trained
on, and that are no test pictures. The predicted classes stay the same.

A few pictures can all be right. The cross-entropy is then smallest for certainty, which they don't
show. So one more picture is assumed, whose class is any one, as in Laplace's rule of succession and
in Platt 1999 (Probabilistic outputs for support vector machines, section 2.2).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from vgg16_transfer.heads import base
from vgg16_transfer.heads.base import Pictures
from vgg16_transfer.heads.loss import log_softmax
from vgg16_transfer.heads.rows import select

if TYPE_CHECKING:
    import numpy.typing as npt

    from vgg16_transfer.heads.base import Data, Floats, Head
    from vgg16_transfer.params import Trial

COLDEST, HOTTEST = 1e-3, 1e3
_FOLDS = 5


def temperature(logits: Floats, labels: npt.NDArray[np.int64]) -> float:
    """The T whose softmax(logits / T) has the smallest cross-entropy, with three digits.

    The target of each of n pictures is 1 - 1 / (n + 1) for its label, and the rest for all classes
    alike.

    Args:
        logits: Shape (n, classes).
        labels: Shape (n,).
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - takes a second

    rows, unknown = np.arange(len(labels)), 1 / (len(labels) + 1)

    def loss(log_inverse: float) -> float:
        # In 1 / T, the cross-entropy is convex: it has one minimum.
        logarithms = log_softmax(logits * np.float32(math.exp(log_inverse)))
        of_labels = logarithms[rows, labels].mean(dtype=np.float64)
        of_all = logarithms.mean(dtype=np.float64)
        return float(-(1 - unknown) * of_labels - unknown * of_all)

    bounds = (-math.log(HOTTEST), -math.log(COLDEST))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(f"{math.exp(-best.x):.3g}")


def of_head(trial: Trial, head: Head, data: Data) -> float | None:
    """The temperature of a trained head, or None if it keeps its probabilities as they are.

    Args:
        trial: The trial's setting. With ``calibration: validation``, the validation pictures
            decide, if there are any. With ``cross_validation``, it is the training pictures: each
            is classified by a head that was trained without it. A class then needs two of them.
        head: The trained head.
        data: What it was trained on.
    """
    if trial.calibration == "none" or not head.scalable:
        return None
    if trial.calibration == "validation":
        if "validation" not in data.roles:
            return None
        features, labels = data.roles["validation"]
        return temperature(head.logits(features), labels)
    features, labels = data.training
    folds = min(_FOLDS, int(np.bincount(labels).min()))
    if folds == 1:
        return None
    from sklearn.model_selection import StratifiedKFold  # noqa: PLC0415 - takes seconds

    logits = np.empty((len(labels), data.classes), np.float32)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=trial.seed)
    for rest, fold in splitter.split(labels, labels):
        training = Pictures(select(features, rest), labels[rest])
        part = data._replace(training=training, roles={"train": training})
        fitted = base.fit_of(trial.head)(trial, part)
        if not fitted.finished:
            return None
        logits[fold] = fitted.head.logits(select(features, fold))
    return temperature(logits, labels)
