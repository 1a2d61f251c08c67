"""Linear classifiers of scikit-learn. Their C is chosen without test pictures.

The penalty is the squared length of the weights, so the weights lie in the span of the n training
feature vectors. If n is smaller than the width, the model is fitted on n coordinates per picture:
those in an orthonormal basis Q of that span. The weights are then multiplied by Q. This is exact,
because Q does not change the length of a vector.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold

from vgg16_transfer.heads import base
from vgg16_transfer.heads.base import Pictures
from vgg16_transfer.heads.linear import Linear, front, through
from vgg16_transfer.heads.measures import measure
from vgg16_transfer.heads.rows import Stored, combined, held, products, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy.typing as npt
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    from vgg16_transfer.heads.base import Data, Fitted
    from vgg16_transfer.heads.rows import Features
    from vgg16_transfer.params import Trial

    Numbers = npt.NDArray[Any]

CS = tuple(10.0**power for power in range(-1, 6))
"""The values of C to choose from, strongest penalty first. C is large: features have length 1."""

_WITHOUT_CHOICE = 1000.0
"""C if each class has one picture and there are no validation pictures to choose C with."""

_FOLDS = 5

_INDEPENDENT = 1e-6
"""Share of the largest eigenvalue below which a direction is rounding. A picture that is there
twice makes one."""


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
    steps = front(trial, data.shape)
    x = through(steps, data.training.features)
    behind = {role: through(steps, each.features) for role, each in data.roles.items()}
    own, others, back = _coordinates(x, behind)
    learned = Pictures(own, data.training.labels)
    measured = {role: Pictures(others[role], each.labels) for role, each in data.roles.items()}
    if "validation" in measured:
        rounds = [(learned, measured["validation"])]
    else:
        rounds = list(_folds(learned, trial.seed))
    c = _WITHOUT_CHOICE
    if rounds:
        c = min(CS, key=lambda c: _badness(classifier(c), rounds, data.classes))
    weights, bias = _weights(classifier(c), learned, data.classes)
    logits = {role: (others[role] @ weights + bias).astype(np.float32) for role in measured}
    kernel = back(weights).astype(np.float32)
    head = Linear(trial, data.shape, kernel, bias.astype(np.float32))
    return base.at_once(head, data.roles, logits)


def _coordinates(
    x: Features, others: Mapping[str, Features]
) -> tuple[Numbers, dict[str, Numbers], Callable[[Numbers], Numbers]]:
    """Coordinates of pictures in an orthonormal basis of the span of the training features.

    They are float64: in float32, L-BFGS ends before the minimum where C is large.

    Args:
        x: Training features, shape (n, width).
        others: Features of other pictures.

    Returns:
        Coordinates of the training pictures, those of the others, and a function that makes a
        kernel for features of a kernel for coordinates.
    """
    if isinstance(x, Stored) or any(isinstance(each, Stored) for each in others.values()):
        # X Xᵀ = V Λ Vᵀ, so Λ^(-1/2) Vᵀ X is an orthonormal basis, which nobody needs to hold.
        gram, inner = products(x, others)
        values, vectors = np.linalg.eigh(gram.astype(np.float64))
        kept = values > _INDEPENDENT * values[-1]
        to_basis = vectors[:, kept] / np.sqrt(values[kept])
        coordinates = {role: each @ to_basis for role, each in inner.items()}
        return gram @ to_basis, coordinates, lambda w: combined(x, (to_basis @ w).astype("f4"))
    features, arrays = held(x), {role: held(each) for role, each in others.items()}
    count, width = features.shape
    wide = features.T.astype(np.float64)
    basis: Numbers = np.linalg.qr(wide)[0] if count < width else np.eye(width)
    coordinates = {role: each @ basis for role, each in arrays.items()}
    return features @ basis, coordinates, lambda weights: basis @ weights


def _folds(pictures: Pictures, seed: int) -> Iterator[tuple[Pictures, Pictures]]:
    """Training data without a fold, and the fold. No folds if a class has a single picture."""
    features, labels = pictures
    count = min(_FOLDS, int(np.bincount(labels).min()))
    if count > 1:
        folds = StratifiedKFold(count, shuffle=True, random_state=seed)
        for rest, fold in folds.split(labels, labels):
            yield (
                Pictures(select(features, rest), labels[rest]),
                Pictures(select(features, fold), labels[fold]),
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
        measures = measure(labels, held(features) @ weights + bias)
        wrong += 1 - measures["accuracy"]
        loss += measures["loss"]
    return round(wrong, 9), loss


def _weights(
    model: LogisticRegression | LinearSVC, training: Pictures, classes: int
) -> tuple[Numbers, Numbers]:
    """Fits the model: kernel, shape (width, classes), and bias, shape (classes,)."""
    with warnings.catch_warnings():
        # A large C would need too many steps to converge. Validation decides whether it is good.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(held(training.features), training.labels)
    kernel, bias = model.coef_.T, model.intercept_
    if classes == 2:  # noqa: PLR2004 - scikit-learn has weights of the second class only
        kernel, bias = np.hstack([-kernel, kernel]) / 2, np.hstack([-bias, bias]) / 2
    return kernel, bias
