"""Rank correlation: does one number foretell another? With intervals that resample whom and when."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from glideslope.report.panel import Estimate

Array = NDArray[np.float64]

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST = 3
"""Fewer candidates have no correlation worth the name."""


@dataclass(frozen=True)
class Correlation:
    """How well an offline metric foretells who steers well: 1 if it ranks candidates as their runs do.

    Both are turned so that more is better; a loss that foretells well has a positive correlation, too. Intervals are
    percentiles of a bootstrap over candidates and seeds at once. With few candidates they are wide, as they must be.

    Args:
        metric: its name.
        spearman: of the ranks.
        kendall: tau-b.
        num_candidates: that have the metric and a score. Below `FEWEST` the numbers are NaN.
    """

    metric: str
    spearman: Estimate
    kendall: Estimate
    num_candidates: int


def correlation(
    metric: str, foretold: Array, by_seed: Array, generator: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Correlation:
    """Of a metric of candidates with their mean score.

    Args:
        metric: its name.
        foretold: (num_candidates,), more is better.
        by_seed: (num_candidates, num_runs) scores, more is better.
        generator: of the bootstrap.
        num_resamples: of the bootstrap.
    """
    count, num_runs = by_seed.shape
    if count < FEWEST:
        nothing = Estimate(math.nan, math.nan, math.nan)
        return Correlation(metric, nothing, nothing, count)

    def drawn(of: int) -> NDArray[np.intp]:
        """Everything once, and then resamples."""
        return np.concatenate([np.arange(of)[None], generator.integers(of, size=(num_resamples, of))])

    who, when = drawn(count), drawn(num_runs)
    scores = by_seed[who[:, :, None], when[:, None, :]].mean(axis=2)
    both = foretold[who], scores
    return Correlation(metric, percentiles(spearman(*both)), percentiles(kendall(*both)), count)


def percentiles(values: Array) -> Estimate:
    """The first value, with percentiles of the others; resamples in which nothing varies are left out."""
    known = values[1:][np.isfinite(values[1:])]
    if not (len(known) and math.isfinite(values[0])):
        return Estimate(float(values[0]), math.nan, math.nan)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, (tail, 1 - tail))
    return Estimate(float(values[0]), float(low), float(high))


def spearman(first: Array, second: Array) -> Array:
    """Spearman's rank correlation row by row; NaN where one side does not vary.

    first, second: (rows, n), without NaN. Returns: (rows,).
    """
    ranks = (stats.rankdata(values, axis=1) for values in (first, second))
    return _cosine(*(rank - rank.mean(axis=1, keepdims=True) for rank in ranks))


def kendall(first: Array, second: Array) -> Array:
    """Kendall's tau-b row by row; NaN where one side does not vary.

    first, second: (rows, n), without NaN. Returns: (rows,).
    """
    ranks = (stats.rankdata(values, axis=1) for values in (first, second))  # inf is a place; inf - inf would be NaN
    one, other = np.triu_indices(first.shape[1], k=1)
    return _cosine(*(np.sign(rank[:, one] - rank[:, other]) for rank in ranks))


def _cosine(first: Array, second: Array) -> Array:
    length = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    cosine: Array = np.full_like(length, math.nan)
    np.divide((first * second).sum(axis=1), length, out=cosine, where=length > 0)
    return cosine
