"""Linear classifiers of scikit-learn. Their C is chosen without test pictures.

The penalty is the squared length of the weights, so the weights lie in the span of the n training
feature vectors. If n is smaller than the width, the model is fitted on n coordinates per picture:
those in an orthonormal basis Q of that span. The weights are then multiplied by Q. This is exact,
because Q does not change the length of a vector.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold

from vgg16_transfer.heads import base
from vgg16_transfer.heads.base import Pictures
from vgg16_transfer.heads.measures import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    from vgg16_transfer.heads.base import Data, Fitted, Floats
    from vgg16_transfer.params import Trial

CS = tuple(10.0**power for power in range(-1, 6))
"""The values of C to choose from, strongest penalty first. C is large: features have length 1."""

_WITHOUT_CHOICE = 1000.0
"""C if each class has one picture and there are no validation pictures to choose C with."""

_FOLDS = 5


def fit(
    trial: Trial, data: Data, classifier: Callable[[float], LogisticRegression | LinearSVC]
) -> Fitted:
    """Trains a head; see :class:`~vgg16_transfer.heads.base.Fit`.

    The chosen C has the highest accuracy on ``roles["validation"]``. If there is no such role, it
    has the highest accuracy in 5-fold cross-validation on the training data. Ties are broken by
    loss, then by the smaller C.

    Args:
        trial: The trial's setting.
        data: What to train and measure it on.
        classifier: Returns a classifier that is not fitted yet, for a value of C.
    """
    layers = base.front(trial, data.shape)
    x = base.through(layers, data.training.features)
    basis: Floats
    basis = np.linalg.qr(x.T)[0] if len(x) < x.shape[1] else np.eye(x.shape[1], dtype=np.float32)
    learned = Pictures(x @ basis, data.training.labels)
    measured = {
        role: Pictures(base.through(layers, features) @ basis, labels)
        for role, (features, labels) in data.roles.items()
    }
    if "validation" in measured:
        rounds = [(learned, measured["validation"])]
    else:
        rounds = list(_folds(learned, trial.seed))
    c = _WITHOUT_CHOICE
    if rounds:
        c = min(CS, key=lambda c: _badness(classifier(c), rounds, data.classes))
    weights, bias = _weights(classifier(c), learned, data.classes)
    logits = {role: pictures.features @ weights + bias for role, pictures in measured.items()}
    kernel = (basis @ weights).astype(np.float32)
    model = base.linear(trial, data.shape, kernel, bias.astype(np.float32))
    return base.at_once(model, data.roles, logits)


def _folds(pictures: Pictures, seed: int) -> Iterator[tuple[Pictures, Pictures]]:
    """Training data without a fold, and the fold. No folds if a class has a single picture."""
    features, labels = pictures
    count = min(_FOLDS, int(np.bincount(labels).min()))
    if count > 1:
        folds = StratifiedKFold(count, shuffle=True, random_state=seed)
        for rest, fold in folds.split(features, labels):
            yield (
                Pictures(features[rest], labels[rest]),
                Pictures(features[fold], labels[fold]),
            )


def _badness(
    model: LogisticRegression | LinearSVC,
    rounds: Sequence[tuple[Pictures, Pictures]],
    classes: int,
) -> tuple[float, float]:
    """Sort key of C: the rate of wrong predictions, then the loss; each summed over the rounds."""
    wrong, loss = 0.0, 0.0
    for training, (features, labels) in rounds:
        weights, bias = _weights(model, training, classes)
        measures = measure(labels, features @ weights + bias)
        wrong += 1 - measures["accuracy"]
        loss += measures["loss"]
    return round(wrong, 9), loss


def _weights(
    model: LogisticRegression | LinearSVC, training: Pictures, classes: int
) -> tuple[Floats, Floats]:
    """Fits the model: kernel, shape (width, classes), and bias, shape (classes,)."""
    with warnings.catch_warnings():
        # A large C would need too many steps to converge. Validation decides whether it is good.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(training.features, training.labels)
    kernel, bias = model.coef_.T, model.intercept_
    if classes == 2:  # noqa: PLR2004 - scikit-learn has weights of the second class only
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.hstack([-bias, bias]) / 2
    return kernel, bias
