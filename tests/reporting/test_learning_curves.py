"""A power law of the error: fitted as others fit it, with an interval that holds what it says."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy import stats
from sklearn.datasets import load_digits

from vgg16_transfer.reporting import learning_curves
from vgg16_transfer.reporting.learning_curves import LearningCurve

SIZES = (2, 4, 8, 16)
NAN = float("nan")

Errors = Sequence[Sequence[float]] | npt.NDArray[np.float64]


def trials(errors: Errors, sizes: Sequence[int] = SIZES) -> pd.DataFrame:
    """Trials with these errors: one row of errors per seed, one error per size."""
    rows = [
        (size, seed, 1 - error)
        for seed, split in enumerate(errors)
        for size, error in zip(sizes, split, strict=True)
    ]
    return pd.DataFrame(rows, columns=["samples_per_class", "seed", "accuracy"])


def law(a: float, b: float, sizes: Sequence[int] = SIZES) -> npt.NDArray[np.float64]:
    return np.array([a * size**-b for size in sizes])


def fitted(errors: Errors, sizes: Sequence[int] = SIZES) -> LearningCurve:
    curve = learning_curves.fit(trials(errors, sizes))
    assert curve is not None
    return curve


def simulated(
    generator: np.random.Generator, splits: int, between: float, within: float
) -> npt.NDArray[np.float64]:
    """Errors at 2 to 16 and at 32, of splits that differ in a and b, with noise at each size."""
    a = 0.6 * np.exp(between * generator.standard_normal((splits, 1)))
    b = 0.3 + between / 4 * generator.standard_normal((splits, 1))
    noise = within * generator.standard_normal((splits, 5))
    return a * np.array([*SIZES, 32]) ** -b * np.exp(noise)


NOISY = simulated(np.random.default_rng(0), 3, between=0.1, within=0.05)[:, :4]


def test_an_exact_law_is_recovered() -> None:
    curve = fitted([law(0.7, 0.3), law(0.7, 0.3)])
    assert curve.law == pytest.approx((0.7, 0.3))
    assert curve.expected(32).accuracy == pytest.approx(1 - 0.7 * 32**-0.3)
    assert curve.check.points == pytest.approx(0, abs=1e-9)


def test_an_error_that_rises_has_a_negative_exponent() -> None:
    assert fitted([law(0.5, -0.1)]).law == pytest.approx((0.5, -0.1))


def test_a_split_is_fitted_by_least_squares_on_the_logarithms() -> None:
    for split, errors in zip(fitted(NOISY).splits, NOISY, strict=True):
        slope, level = np.polyfit(np.log(SIZES), np.log(errors), 1)
        assert split == pytest.approx((math.exp(level), -slope))


def test_the_law_is_the_least_squares_through_the_points_of_all_splits() -> None:
    line = stats.linregress(np.log(np.tile(SIZES, 3)), np.log(NOISY.ravel()))
    assert fitted(NOISY).law == pytest.approx((math.exp(line.intercept), -line.slope))


def test_the_order_of_the_trials_changes_nothing() -> None:
    rows = trials(NOISY)
    mixed = rows.sample(frac=1, random_state=0)
    assert mixed.index.tolist() != rows.index.tolist()
    assert learning_curves.fit(mixed) == learning_curves.fit(rows)


def test_the_interval_is_students_for_one_further_split() -> None:
    curve = fitted([law(a, 0.5) for a in (0.4, 0.5, 0.7)])
    logs = [math.log(a / math.sqrt(32)) for a in (0.4, 0.5, 0.7)]
    t = 4.302652729911275  # 97.5 % of Student's distribution with 2 degrees of freedom, of tables
    half = t * statistics.stdev(logs) * math.sqrt(4 / 3)
    ends = [1 - math.exp(statistics.mean(logs) + side) for side in (half, -half)]
    expected = curve.expected(32)
    assert (expected.low, expected.high) == pytest.approx(ends)
    assert expected.accuracy == pytest.approx(1 - math.exp(statistics.mean(logs)))


def test_an_interval_ends_at_an_accuracy_of_0() -> None:
    expected = fitted([law(a, 0.1) for a in (0.3, 0.5, 0.9)]).expected(32)
    assert expected.low == 0
    assert expected.high is not None
    assert 0 < expected.accuracy < expected.high < 1


def held(errors: npt.NDArray[np.float64], splits: int) -> float:
    """The share of further splits whose error at 32 is in the interval of the sizes before.

    Args:
        errors: One row per split, one column per size, the last of which is 32.
        splits: Number of splits that a law is fitted to. The row after them is the further split.
    """
    inside = []
    for start in range(0, len(errors), splits + 1):
        *known, further = errors[start : start + splits + 1]
        expected = fitted(np.array(known)[:, :-1]).expected(32)
        assert expected.low is not None
        assert expected.high is not None
        inside.append(expected.low <= 1 - further[-1] <= expected.high)
    return float(np.mean(inside))


@pytest.mark.parametrize("splits", [3, 6])
def test_the_interval_holds_95_of_100_further_splits_that_differ_only_in_their_law(
    splits: int,
) -> None:
    generator = np.random.default_rng(1)
    errors = simulated(generator, 500 * (splits + 1), between=0.1, within=0)
    assert 0.92 < held(errors, splits) < 0.98


def test_the_interval_holds_no_fewer_if_every_point_is_noisy() -> None:
    errors = simulated(np.random.default_rng(2), 2000, between=0.03, within=0.1)
    assert 0.93 < held(errors, splits=3) < 0.99


def test_the_interval_holds_further_splits_of_real_curves() -> None:
    """Noisy digits and the nearest class mean; 12 test and 32 nested training pictures a class."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels + 8 * np.random.default_rng(0).standard_normal(pixels.shape)
    errors = np.zeros((400, 5))
    generator = np.random.default_rng(3)
    for split in errors:
        orders = np.array(
            [generator.permutation(np.flatnonzero(labels == k))[:44] for k in range(10)]
        )
        tested, trained = pixels[orders[:, :12]], pixels[orders[:, 12:]]
        for column, size in enumerate((*SIZES, 32)):
            means = trained[:, :size].mean(axis=1)
            distances = np.linalg.norm(tested[:, :, np.newaxis] - means, axis=3)
            split[column] = (distances.argmin(axis=2) != np.arange(10)[:, np.newaxis]).mean()
    assert (np.diff(errors.mean(axis=0)) < 0).all()
    assert held(errors, splits=3) > 0.9
    assert held(errors, splits=9) > 0.9


def test_the_largest_size_is_left_out_and_predicted() -> None:
    curve = fitted([[0.8, 0.4, 0.25]], sizes=(2, 4, 8))  # twice as many halve 0.8, so 0.2 at 8
    assert curve.check == pytest.approx((0.8, 0.75))
    assert curve.check.points == pytest.approx(-5)


def test_the_check_compares_means_of_splits() -> None:
    curve = fitted([[0.8, 0.4, 0.25], [0.2, 0.1, 0.15]], sizes=(2, 4, 8))
    predicted = 1 - math.sqrt(0.2 * 0.05)  # the geometric mean of 0.2 and 0.05
    assert curve.check == pytest.approx((predicted, 0.8))


@pytest.mark.parametrize("splits", [1, 2])
def test_fewer_than_three_splits_have_a_law_and_no_interval(splits: int) -> None:
    curve = fitted(NOISY[:splits])
    assert curve.expected(32)[1:] == (None, None)
    count = "One split is" if splits == 1 else "2 splits are"
    sentences = learning_curves.sentences(trials(NOISY[:splits]))
    assert sentences[1] == f"{count} too few for an interval."


def test_splits_that_do_not_differ_have_no_interval() -> None:
    curve = fitted([law(0.7, 0.3)] * 3)
    assert curve.expected(32)[1:] == (None, None)
    sentences = learning_curves.sentences(trials([law(0.7, 0.3)] * 3))
    assert sentences[1] == "There is no interval, since the splits do not differ."


def test_two_sizes_are_too_few() -> None:
    rows = trials([[0.8, 0.4]] * 3, sizes=(2, 4))
    assert learning_curves.fit(rows) is None
    assert learning_curves.sentences(rows) == []


def test_without_trials_there_is_no_law() -> None:
    rows = trials(NOISY)
    for none in (rows.assign(accuracy=NAN), rows.assign(status="failed"), rows.head(0)):
        assert learning_curves.fit(none) is None
        assert learning_curves.sentences(none) == []


def test_a_split_with_a_failed_trial_is_left_out() -> None:
    rows = trials(NOISY)
    failed = (rows["seed"] == 1) & (rows["samples_per_class"] == 4)
    expected = learning_curves.fit(rows[rows["seed"] != 1])
    assert learning_curves.fit(rows.assign(accuracy=rows["accuracy"].mask(failed))) == expected
    status = failed.map({True: "failed", False: "finished"})
    assert learning_curves.fit(rows.assign(status=status)) == expected


def test_a_size_at_which_every_trial_failed_is_left_out() -> None:
    rows = trials(NOISY)
    failed = rows["accuracy"].mask(rows["samples_per_class"] == 4)
    curve = learning_curves.fit(rows.assign(accuracy=failed))
    assert curve == fitted(NOISY[:, [0, 2, 3]], sizes=(2, 8, 16))


def test_two_trials_of_one_point_are_refused() -> None:
    with pytest.raises(ValueError, match="duplicate"):
        learning_curves.fit(pd.concat([trials(NOISY), trials(NOISY)]))


def test_an_error_of_0_is_half_a_test_picture() -> None:
    rows = trials([[0.4, 0.2, 0.0], [0.4, 0.2, 0.1]], sizes=(2, 4, 8))
    curve = learning_curves.fit(rows, test_pictures=50)
    assert curve is not None
    clipped = fitted([[0.4, 0.2, 0.01], [0.4, 0.2, 0.1]], sizes=(2, 4, 8))
    assert curve.splits == clipped.splits
    assert (curve.zeros, clipped.zeros) == (1, 0)
    assert curve.check.measured == pytest.approx(0.95)  # what was measured is not clipped
    last = learning_curves.sentences(rows, test_pictures=50)[-1]
    assert last == "An error of 0 counts as half a test picture."


@pytest.mark.parametrize(
    ("errors", "test_pictures"),
    [([[0.4, 0.2, 0.0], [0.4, 0.2, 0.1]], None), ([[0.4, 0.2, 0.0], [0.4, 0.1, 0.0]], 50)],
    ids=["unknown test pictures", "no error at all"],
)
def test_a_curve_at_its_end_is_not_fitted(errors: Errors, test_pictures: int | None) -> None:
    rows = trials(errors, sizes=(2, 4, 8))
    assert learning_curves.fit(rows, test_pictures) is None
    assert learning_curves.sentences(rows, test_pictures) == [
        "Test accuracy reaches 100 %: the curve is at its end, and no power law is fitted."
    ]


def test_an_accuracy_of_0_has_a_logarithm() -> None:
    curve = fitted([[1.0, 0.5, 0.25]], sizes=(2, 4, 8))
    assert curve.law == pytest.approx((2, 1))
    assert curve.law.accuracy(1) == 0  # an error of 2 is none


def test_sentences_say_the_law_its_interval_and_its_check() -> None:
    # At 128: 0.8 / √128 = 0.0707, times and by exp(4.303 · log(1.25) · √(4/3)) = 3.03. At 64: 0.1,
    # and (0.08 + 0.1 + 0.125) / 3 = 0.1017.
    sizes = (4, 16, 64)
    errors = [law(a, 0.5, sizes) for a in (0.64, 0.8, 1.0)]
    expectation, interval, check = learning_curves.sentences(trials(errors, sizes))
    assert expectation == (
        "A power law through these points (error 0.8 · n^−0.500) expects 92.9 % with 128 training "
        "pictures per class, twice as many."
    )
    assert interval == (
        "If the curve keeps to the law, the 95 % prediction interval for one further split, from "
        "3 splits, is 78.6 to 97.7 %."
    )
    assert check == (
        "Fitted without the point at 64, the law predicts 90.0 % there; measured is 89.8 % "
        "(−0.2 points)."
    )


def test_no_number_is_minus_nothing() -> None:
    flat = [[0.5, 0.5, 0.5, 0.49999]]
    first, _, check = learning_curves.sentences(trials(flat))
    assert "(error 0.5 · n^0.000) expects 50.0 %" in first
    assert check.endswith("(+0.0 points).")
    check = learning_curves.sentences(trials([[0.5, 0.5, 0.5, 0.50001]]))[-1]
    assert check.endswith("(+0.0 points).")


def test_a_law_is_drawn_to_twice_the_largest_size_with_its_interval_beyond_it() -> None:
    curve = fitted(NOISY)
    points = learning_curves.drawn(curve).set_index("samples_per_class")
    assert points.index.is_monotonic_increasing
    assert points.index.is_unique
    assert (points.index[0], points.index[-1]) == pytest.approx((2, 32))
    assert tuple(points.iloc[-1]) == pytest.approx(curve.expected(32))
    known = points.index[points["low"].notna() & points["high"].notna()]
    assert known.min() == pytest.approx(16)
    assert len(points[points.index > 16]) <= len(known) < len(points)
    a, b = curve.law
    assert points["accuracy"].tolist() == pytest.approx([1 - a * n**-b for n in points.index])


def test_a_law_without_an_interval_is_drawn_without_one() -> None:
    points = learning_curves.drawn(fitted(NOISY[:2]))
    assert points[["low", "high"]].isna().all(axis=None)
    assert points["samples_per_class"].max() == pytest.approx(32)
