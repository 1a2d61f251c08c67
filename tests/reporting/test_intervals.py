"""Intervals over splits are those of Nadeau & Bengio, and hold what they promise."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vgg16_transfer.reporting import intervals

SEEDS = range(10)


def series(values: list[float]) -> pd.Series:
    return pd.Series(values, index=range(len(values)))


def test_without_shared_pictures_it_is_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.05, 10)
    apart = {seed: frozenset({f"{seed}.jpg"}) for seed in SEEDS}
    result = intervals.over_splits(series(list(values)), apart)
    low, high = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert (result.mean, result.std) == (
        pytest.approx(values.mean()),
        pytest.approx(values.std(ddof=1)),
    )
    assert (result.low, result.high) == (pytest.approx(low), pytest.approx(high))


def test_test_sets_drawn_at_random_have_nadeau_and_bengios_correction() -> None:
    """Their eq. 8 has the factor 1/J + n₂/n₁, for n₂ test pictures of n₁ + n₂."""
    tests, pictures, splits = 30, 120, 200
    random = np.random.default_rng(0)
    sets = {
        seed: frozenset(map(str, random.choice(pictures, tests, replace=False)))
        for seed in range(splits)
    }
    values = random.normal(0.7, 0.05, splits)
    result = intervals.over_splits(series(list(values)), sets)
    error = values.std(ddof=1) * math.sqrt(1 / splits + tests / (pictures - tests))
    half = stats.t.ppf(0.975, splits - 1) * error
    assert (result.high or 0) - result.mean == pytest.approx(half, rel=0.02)


def test_the_mean_share_of_two_test_sets() -> None:
    sets = {0: frozenset("abcd"), 1: frozenset("cdef"), 2: frozenset("efgh")}
    assert intervals.shared(sets, [0, 1, 2]) == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert intervals.shared(sets, [0]) == 0
    assert intervals.shared({}, [0, 1]) == 0


def test_one_split_has_no_interval() -> None:
    assert intervals.over_splits(series([0.5]), {}) == (0.5, None, None, None, 1)


def test_one_test_set_for_all_splits_leaves_the_spread_of_the_training_pictures() -> None:
    one = dict.fromkeys(SEEDS, frozenset("abc"))
    values = series(list(np.linspace(0.5, 0.6, 10)))
    assert intervals.over_splits(values, one) == intervals.over_splits(values, {})


def test_an_interval_of_accuracies_ends_at_1() -> None:
    near = intervals.over_splits(pd.Series([1.0, 1.0, 0.9]), {})
    assert near.high is not None
    assert near.high > 1
    assert near.of_shares() == near._replace(high=1.0)
    assert intervals.over_splits(pd.Series([0.0, 0.05]), {}).of_shares().low == 0
    single = intervals.over_splits(pd.Series([0.5]), {})
    assert single.of_shares() == single


def test_an_interval_that_knows_the_overlap_holds_the_true_mean_as_often_as_it_says() -> None:
    """A classifier is right on each picture with some probability; splits share test pictures.

    Each split's accuracy is the mean over its test pictures of whether they are classified rightly,
    and the same picture is so in every split. The plain t interval then holds the mean far too
    seldom.
    """
    random = np.random.default_rng(1)
    pictures, tests, splits, rounds, truth = 60, 30, 10, 400, 0.6
    held, plain = 0, 0
    for _ in range(rounds):
        right = random.random(pictures) < truth
        chosen = [random.choice(pictures, tests, replace=False) for _ in range(splits)]
        values = series([right[rows].mean() for rows in chosen])
        sets = {seed: frozenset(map(str, rows)) for seed, rows in enumerate(chosen)}
        result = intervals.over_splits(values, sets)
        held += bool((result.low or 0) <= truth <= (result.high or 0))
        low, high = stats.t.interval(0.95, splits - 1, values.mean(), stats.sem(values))
        plain += bool(low <= truth <= high)
    assert held / rounds > 0.9
    assert plain / rounds < 0.7
