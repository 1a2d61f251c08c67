"""Learning curves: a power law of the test error, and what it expects of twice as many pictures.

The law is err(n) = a · n^-b for n training pictures per class. Cortes et al. 1994 ("Learning
curves: asymptotic values and rate of convergence") model the test error as a + b / l^α, and
Hestness et al. 2017 ("Deep learning scaling is predictable, empirically") as α · m^β + γ. Both have
a third parameter: the error that remains with any number of pictures. Here it is 0, since four
sizes do not determine three parameters of noisy errors. So the law expects too much of a curve that
flattens. The check shows how much: a law that is fitted without the largest size predicts it.

log err = log a - b · log n is a straight line. It is fitted by least squares on log err, for each
split by itself. The law of all splits has their means of log a and of b. These are the least
squares through all points, too. Only splits that finished at every size are used. As a mean of
logarithms is a geometric mean, the law lies above mean accuracies by a fraction of their spread.

The interval is Student's prediction interval for one further split. With one prediction z of
log err for each of S splits, it is mean(z) ± t(0.975, S - 1) · std(z) · √(1 + 1/S). The points of a
split are not independent, since they share pictures: only splits count as observations. That needs
no assumption about the noise within a split, and it costs width: with three splits t is 4.3, with
ten it is 2.3. The interval holds differences between splits, and not that the curve may leave the
law. The tests measure how many further splits it holds, on simulated and on real curves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from vgg16_transfer.reporting.failures import finished
from vgg16_transfer.rounding import percent, signed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

AXIS = "samples_per_class"

_FEWEST_SIZES = 3  # two points lie on every law
_FEWEST_SPLITS = 3  # with two, t is 12.7
_COVERED = 0.95
_EQUAL = 1e-9
_DRAWN_POINTS = 49  # a law that is a straight line in log err is bent in accuracy


class Law(NamedTuple):
    """The power law err(n) = a · n^-b.

    Attributes:
        a: Error with one training picture per class, as a share.
        b: How fast the error falls; below 0 if it rises.
    """

    a: float
    b: float

    def accuracy(self, n: float) -> float:
        """Accuracy from 0 to 1 with n training pictures per class."""
        return max(float(1 - self.a * n**-self.b), 0.0)


class Expected(NamedTuple):
    """What a law expects, as accuracies from 0 to 1.

    Attributes:
        accuracy: Accuracy by the law of all splits.
        low: Lower end of the 95 % prediction interval for one further split, or None.
        high: Its upper end, or None.
    """

    accuracy: float
    low: float | None
    high: float | None


class Check(NamedTuple):
    """The point at the largest size, compared with a law that was fitted without it.

    Attributes:
        predicted: Accuracy that the law of the smaller sizes predicts, from 0 to 1.
        measured: Mean accuracy of the same splits.
    """

    predicted: float
    measured: float

    @property
    def points(self) -> float:
        """Measured minus predicted accuracy, in percentage points."""
        return 100 * (self.measured - self.predicted)


@dataclass(frozen=True)
class LearningCurve:
    """A fitted learning curve.

    Attributes:
        sizes: Training pictures per class, rising.
        splits: One law per split.
        check: The largest size, left out and predicted.
        zeros: Number of errors of 0, which were taken for half a test picture.
    """

    sizes: tuple[int, ...]
    splits: tuple[Law, ...]
    check: Check
    zeros: int = 0

    @property
    def law(self) -> Law:
        """The law of all splits: the least squares through all points."""
        return _mean(self.splits)

    @property
    def twice(self) -> int:
        """Twice the largest size."""
        return 2 * self.sizes[-1]

    def expected(self, n: float) -> Expected:
        """What the law expects with n training pictures per class.

        There is no interval with fewer than three splits, or if all splits have the same law.
        """
        accuracy, count = self.law.accuracy(n), len(self.splits)
        logs = np.array([np.log(one.a) - one.b * np.log(n) for one in self.splits])
        if count < _FEWEST_SPLITS or np.ptp(logs) < _EQUAL:
            return Expected(accuracy, None, None)
        t = float(stdtrit(count - 1, (1 + _COVERED) / 2))
        half = t * logs.std(ddof=1) * np.sqrt(1 + 1 / count)
        low, high = (float(1 - np.exp(logs.mean() + side)) for side in (half, -half))
        return Expected(accuracy, max(low, 0.0), max(high, 0.0))


def fit(trials: pd.DataFrame, test_pictures: int | None = None) -> LearningCurve | None:
    """Fits the power law to the trials of one curve.

    Args:
        trials: Rows of ``trials.csv`` with ``samples_per_class``, ``seed`` and ``accuracy``: one
            row per size and seed. Trials that failed are left out.
        test_pictures: Number of test pictures of a split. An error of 0 has no logarithm; it is
            taken for half a test picture. Without this number, a curve with such an error is not
            fitted.

    Returns:
        None if fewer than three sizes have finished trials, if no split finished at every size, or
        if the curve is at its end: no split has an error at the largest size.

    Raises:
        ValueError: A size and a seed have two rows.
    """
    table = _accuracies(trials)
    if not _has_points(table) or _is_at_its_end(table, test_pictures):
        return None
    sizes = tuple(int(size) for size in table.columns)
    errors = 1 - table.to_numpy(dtype=np.float64)
    zeros = errors <= 0
    if test_pictures is not None:
        errors[zeros] = 0.5 / test_pictures
    predicted = _mean(_laws(sizes[:-1], errors[:, :-1])).accuracy(sizes[-1])
    measured = float(table.iloc[:, -1].mean())
    check = Check(predicted, measured)
    return LearningCurve(sizes, _laws(sizes, errors), check, int(zeros.sum()))


def sentences(trials: pd.DataFrame, test_pictures: int | None = None) -> list[str]:
    """Sentences about the law, twice as many pictures, and the check. None with too few points.

    Args:
        trials: As for :func:`fit`.
        test_pictures: As for :func:`fit`.
    """
    curve = fit(trials, test_pictures)
    if curve is None:
        table = _accuracies(trials)
        if not _has_points(table):
            return []
        return ["Test accuracy reaches 100 %: the curve is at its end, and no power law is fitted."]
    texts = [_expectation(curve), _interval(curve), _comparison(curve)]
    return [*texts, "An error of 0 counts as half a test picture."] if curve.zeros else texts


def drawn(curve: LearningCurve) -> pd.DataFrame:
    """The law as points to draw, from the smallest size to twice the largest one.

    Returns:
        Rows of ``samples_per_class``, ``accuracy``, ``low`` and ``high``, by rising size. Low and
        high are the interval, beyond the largest size only; they are missing elsewhere, and
        everywhere if there is no interval.
    """
    measured = np.geomspace(curve.sizes[0], curve.sizes[-1], _DRAWN_POINTS)[:-1]
    beyond = np.geomspace(curve.sizes[-1], curve.twice, _DRAWN_POINTS)
    rows = [(n, Expected(curve.law.accuracy(n), None, None)) for n in measured.tolist()]
    rows += [(n, curve.expected(n)) for n in beyond.tolist()]
    columns = [AXIS, *Expected._fields]
    return pd.DataFrame([(n, *one) for n, one in rows], columns=columns, dtype=np.float64)


def _accuracies(trials: pd.DataFrame) -> pd.DataFrame:
    """Accuracies by seed (rows) and size (columns), of the seeds that finished at every size."""
    done = finished(trials).dropna(subset="accuracy")
    return done.pivot(index="seed", columns=AXIS, values="accuracy").dropna()  # noqa: PD010


def _has_points(table: pd.DataFrame) -> bool:
    return len(table) > 0 and len(table.columns) >= _FEWEST_SIZES


def _is_at_its_end(table: pd.DataFrame, test_pictures: int | None) -> bool:
    whole = table >= 1
    return bool(whole.iloc[:, -1].all() or (test_pictures is None and whole.to_numpy().any()))


def _laws(sizes: tuple[int, ...], errors: Floats) -> tuple[Law, ...]:
    """Least squares on the logarithms: one law per row of ``errors``, (splits, sizes)."""
    x, logs = np.log(np.array(sizes, dtype=np.float64)), np.log(errors)
    centred = x - x.mean()
    slopes = logs @ centred / (centred @ centred)
    levels = logs.mean(axis=1) - slopes * x.mean()
    return tuple(
        Law(float(np.exp(level)), float(-slope))
        for level, slope in zip(levels, slopes, strict=True)
    )


def _mean(laws: tuple[Law, ...]) -> Law:
    a, b = np.array(laws).T
    return Law(float(np.exp(np.log(a).mean())), float(b.mean()))


def _expectation(curve: LearningCurve) -> str:
    exponent = f"{_unsigned_zero(-curve.law.b, 3):.3f}".replace("-", "−")
    return (
        f"A power law through these points (error {curve.law.a:.3g} · n^{exponent}) expects "
        f"{percent(curve.law.accuracy(curve.twice))} % with {curve.twice} training pictures per "
        f"class, twice as many."
    )


def _interval(curve: LearningCurve) -> str:
    splits, expected = len(curve.splits), curve.expected(curve.twice)
    if splits < _FEWEST_SPLITS:
        count = "One split is" if splits == 1 else f"{splits} splits are"
        return f"{count} too few for an interval."
    if expected.low is None or expected.high is None:
        return "There is no interval, since the splits do not differ."
    return (
        f"If the curve keeps to the law, the 95 % prediction interval for one further split, from "
        f"{splits} splits, is {percent(expected.low)} to {percent(expected.high)} %."
    )


def _comparison(curve: LearningCurve) -> str:
    return (
        f"Fitted without the point at {curve.sizes[-1]}, the law predicts "
        f"{percent(curve.check.predicted)} % there; measured is "
        f"{percent(curve.check.measured)} % ({signed(curve.check.points / 100)} points)."
    )


def _unsigned_zero(number: float, digits: int) -> float:
    """The number, rounded; a small negative one is not written as −0."""
    return round(number, digits) + 0.0
