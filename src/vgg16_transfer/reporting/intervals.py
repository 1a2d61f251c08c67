"""Intervals of means over splits, which know how many test pictures the splits share.

Two splits that share test pictures agree more than two independent ones. The standard error of the
mean of J values is therefore not s / √J. Nadeau & Bengio 2003 (Inference for the generalization
error, eq. 8) correct it for test sets that are drawn at random, n₂ of n pictures:

    s² (1/J + ρ / (1 - ρ)),  ρ = n₂ / n

There, ρ is the share of its test pictures that a split has in common with another one, on average.
Here, ρ is that share as it is. Without any shared picture, this is the ordinary t interval.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from scipy.special import stdtrit

from vgg16_transfer.heads import records
from vgg16_transfer.images.cards import overlap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vgg16_transfer.heads.records import Record
    from vgg16_transfer.params import Study

    TestSets = Mapping[int, frozenset[str]]
    """Test pictures of each split, by seed."""

CONFIDENCE = 0.95
_SAME = 0.999


class Interval(NamedTuple):
    """A mean over splits.

    Attributes:
        mean: The mean.
        std: Standard deviation of the sample, or None for one split.
        low: Lower end of the 95 % interval of the mean, or None for one split.
        high: Its upper end.
        splits: Number of splits.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None
    splits: int

    def of_shares(self) -> Interval:
        """The interval of a mean of shares, such as accuracies: none is below 0 or above 1.

        A t interval does not know that.
        """
        if self.low is None or self.high is None:
            return self
        return self._replace(low=max(0.0, self.low), high=min(1.0, self.high))


def over_splits(by_seed: pd.Series, tests: TestSets) -> Interval:
    """The mean over splits, and its interval.

    Args:
        by_seed: One value per split, by seed.
        tests: Test pictures of each split. A split that is missing shares none.
    """
    values, count = by_seed.to_numpy(float), len(by_seed)
    mean = float(values.mean())
    if count == 1:
        return Interval(mean, None, None, None, count)
    std = float(values.std(ddof=1))
    rho = shared(tests, by_seed.index)
    # With one test set for all splits, the interval is about other training pictures only.
    correlated = 0.0 if rho > _SAME else rho / (1 - rho)
    error = std * math.sqrt(1 / count + correlated)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
    return Interval(mean, std, mean - half, mean + half, count)


def shared(tests: TestSets, seeds: Iterable[int]) -> float:
    """Share of its test pictures that a split has in common with another one, on average."""
    return overlap(tests[seed] for seed in seeds if tests.get(seed)) or 0.0


def test_sets(record: Record) -> dict[int, frozenset[str]]:
    """Test pictures of each split of a study, from the predictions of its heads."""
    seeds = dict(zip(record.trials["trial"], record.trials["seed"], strict=True))
    paths = record.predictions.groupby("trial")["path"].agg(frozenset)
    return {int(seeds[trial]): pictures for trial, pictures in paths.items() if trial in seeds}


def summarise(study: Study, record: Record) -> pd.DataFrame:
    """The summary of :func:`~vgg16_transfer.heads.records.summarise`, with three more columns.

    Returns:
        Beside the others: ``accuracy_low`` and ``accuracy_high``, the interval of the mean accuracy
        over the splits, and ``test_pictures``, the number of distinct test pictures of the point.
    """
    summary, tests = records.summarise(study, record.trials), test_sets(record)
    done = record.trials[~records.has_failed(record.trials)]
    axes = list(study.compared)
    intervals, pictures = {}, {}
    for key, rows in done.groupby(axes, sort=False):
        by_seed = rows.groupby("seed")["accuracy"].mean()
        intervals[key] = over_splits(by_seed, tests).of_shares()
        sets = [tests.get(int(seed), frozenset[str]()) for seed in by_seed.index]
        pictures[key] = len(frozenset[str]().union(*sets))
    keys = list(summary[axes].itertuples(index=False, name=None))
    none = Interval(math.nan, None, None, None, 0)
    found = [intervals.get(key, none) for key in keys]
    return summary.assign(
        accuracy_low=pd.Series([one.low for one in found], dtype=float),
        accuracy_high=pd.Series([one.high for one in found], dtype=float),
        test_pictures=[pictures.get(key, 0) for key in keys],
    )
