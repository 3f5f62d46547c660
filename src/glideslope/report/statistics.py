"""Statistics: which differences between schedules are more than seed noise. Paired by seed throughout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from glideslope.report.panel import (
    Direction,
    Estimate,
    as_losses,
    chunks,
    panel,
    resample_cells,
    resample_seed_means,
)
from glideslope.report.results import Cell

MINIMUM_TASKS = 5
"""Fewer tasks carry no test over tasks: with 4, Nemenyi's critical difference for 8 schedules is 5.2 of 7 ranks."""

OUTLIER_LEVEL = 0.01
"""Level of the test that takes a schedule's variance out of the pool."""


@dataclass(frozen=True)
class Variation:
    """Seed noise of one layout schedule by seed, after the part all schedules share is removed.

    Args:
        std: residual standard deviation of one run, in the score's unit; NaN if it cannot be estimated.
        degrees_of_freedom: (num_schedules - 1) (num_seeds - 1).
    """

    std: float
    degrees_of_freedom: int


def residual_variation(scores: NDArray[np.float64]) -> Variation:
    """Pooled residual standard deviation of the additive layout score = schedule + seed + residual.

    scores: (num_schedules, num_seeds), finite. Runs with one seed share initialisation and data order, so a seed may be
    easy or hard for all schedules; that part is removed, because differences paired by seed do not contain it.

    >>> residual_variation(np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])).std
    0.0

    Source: Montgomery, "Design and Analysis of Experiments", Section 4.1 (randomized complete block design).
    """
    num_schedules, num_seeds = scores.shape
    freedom = (num_schedules - 1) * (num_seeds - 1)
    if freedom < 1 or not np.isfinite(scores).all():
        return Variation(math.nan, max(freedom, 0))
    return Variation(float(np.sqrt((_residuals(scores) ** 2).sum() / freedom)), freedom)


def _residuals(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    residuals: NDArray[np.float64] = scores - scores.mean(axis=1, keepdims=True)
    residuals = residuals - residuals.mean(axis=0, keepdims=True)
    # Rounding leaves about 1e-16 of the score where the true residual is 0, which would make a zero variance testable.
    residuals[np.abs(residuals) < 1e-13 * np.abs(scores).max(initial=0.0)] = 0.0
    return residuals


def homogeneous(scores: NDArray[np.float64], level: float = OUTLIER_LEVEL) -> NDArray[np.bool_]:
    """Which schedules may share one residual variance: all but grossly noisy ones.

    One schedule on the brink of divergence can have a hundred times the variance of the others; pooled, it would make
    everything look tied. Cochran's test removes the largest variance while it is an outlier. With 3 seeds and 8
    schedules that takes a variance about eleven times the others' mean, so ordinary unevenness stays pooled: that is
    deliberate, because an unpooled test on 3 seeds has 2 degrees of freedom and next to no power.

    scores: (num_schedules, num_seeds), finite. Returns: (num_schedules,) mask.

    Source: Cochran, "The distribution of the largest of a set of estimated variances as a fraction of their total",
    Annals of Eugenics 11, 1941.
    """
    num_schedules, num_seeds = scores.shape
    keep = np.ones(num_schedules, dtype=np.bool_)
    # Two schedules have equal residual variances by construction: there is nothing to compare.
    while keep.sum() > 2 and num_seeds > 1:
        count = int(keep.sum())
        variances = (_residuals(scores[keep]) ** 2).sum(axis=1)
        total = float(variances.sum())
        quantile = float(special.fdtri(num_seeds - 1, (count - 1) * (num_seeds - 1), 1 - level / count))
        if total == 0 or variances.max() / total <= 1 / (1 + (count - 1) / quantile):
            break
        keep[np.flatnonzero(keep)[int(variances.argmax())]] = False
    return keep


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p-values of several comparisons so that the chance of any false finding stays below the level.

    p_values: (num_comparisons,). Returns: adjusted values of the same shape.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted


@dataclass(frozen=True)
class TiedSet:
    """Which schedules cannot be told from the best.

    Args:
        best: index of the best mean; -1 if every schedule diverged.
        tied: (num_schedules,) True for the best and for all that are statistically tied with it. All False if not
            `tested`.
        differences: (num_schedules,) mean loss minus the best's, ≥ 0, in the score's unit; NaN where diverged.
        p_values: (num_schedules,) Holm-adjusted, two-sided; 1 for the best, NaN where not tested.
        pooled: (num_schedules,) True where the variance is part of the pool.
        variation: the pool's residual noise.
        num_seeds: seeds per schedule.
        tested: whether there was anything to test with.
        reason: why not, or "".
    """

    best: int
    tied: tuple[bool, ...]
    differences: tuple[float, ...]
    p_values: tuple[float, ...]
    pooled: tuple[bool, ...]
    variation: Variation
    num_seeds: int
    tested: bool
    reason: str


def tied_with_best(scores: NDArray[np.float64], higher_is_better: bool = False, alpha: float = 0.05) -> TiedSet:
    """Find the schedules that are statistically tied with the best.

    Differences to the best are paired by seed and tested with t, using the pooled residual variance s² of the layout
    schedule + seed: t = difference / (s √(2/n)), (S' - 1)(n - 1) degrees of freedom, Holm over the comparisons. Rows
    with a score that is not finite diverged: they are left out of the pool, and never tied. S' counts the distinct rows
    left in the pool; a schedule that is grossly noisier than the others (`homogeneous`) is compared by its own paired
    t-test with n - 1 degrees of freedom instead. With 3 seeds that test finds little, so such a schedule may stay tied
    although its mean is far behind: tables flag it.

    What it promises: the truly best schedule is marked with probability ≥ 1 - alpha, as in selecting a subset that
    holds the best. Because the reference is the best of the sample, the chance that *some* one of several exactly equal
    schedules goes unmarked is larger: 10 % measured for 8 schedules and 3 seeds at alpha = 0.05. A mark means "not
    shown to be worse", which with 3 seeds is not much.

    Args:
        scores: (num_schedules, num_seeds).
        higher_is_better: direction of the score.
        alpha: chance of leaving the truly best unmarked, 0..1.

    >>> tied_with_best(np.array([[1.0, 1.1, 0.9], [1.1, 1.0, 1.0], [5.0, 5.1, 5.2]])).tied
    (True, True, False)

    Source: Hsu, "Multiple Comparisons: Theory and Methods", 1996, Chapter 4 (comparisons with the best); Holm 1979;
    Gupta, "On some multiple decision (selection and ranking) rules", Technometrics 7, 1965.
    """
    num_schedules, num_seeds = scores.shape
    losses = as_losses(scores, higher_is_better)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(losses).all(axis=1))
    means = np.where(finite, np.where(finite[:, None], losses, 0.0).mean(axis=1), np.inf)
    best = int(means.argmin()) if finite.any() else -1
    differences = np.where(finite, means - (means[best] if best >= 0 else 0.0), np.nan)
    pooled = np.zeros(num_schedules, dtype=np.bool_)
    pooled[finite], variation = _pool(losses[finite])
    reason = ""
    if best < 0:
        reason = "every schedule diverged"
    elif finite.sum() < 2:
        reason = "fewer than two schedules to compare"
    elif num_seeds < 2:
        reason = "1 seed: differences cannot be told from seed noise"
    p_values = np.full(num_schedules, np.nan)
    tied = np.zeros(num_schedules, dtype=np.bool_)
    if not reason:
        rivals = [index for index in range(num_schedules) if finite[index] and index != best]
        raw = [
            _p_value(float(differences[rival]), variation, num_seeds)
            if pooled[best] and pooled[rival]
            else _p_value(float(differences[rival]), residual_variation(losses[[best, rival]]), num_seeds)
            for rival in rivals
        ]
        p_values[rivals] = holm(np.array(raw))
        p_values[best] = 1.0
        tied = np.nan_to_num(p_values, nan=0.0) > alpha
    return TiedSet(
        best=best,
        tied=tuple(bool(value) for value in tied),
        differences=tuple(float(value) for value in differences),
        p_values=tuple(float(value) for value in p_values),
        pooled=tuple(bool(value) for value in pooled),
        variation=variation,
        num_seeds=num_seeds,
        tested=not reason,
        reason=reason,
    )


def _pool(scores: NDArray[np.float64]) -> tuple[NDArray[np.bool_], Variation]:
    """Which schedules share a variance, and that variance. scores: (num_schedules, num_seeds), finite.

    Schedules with identical scores count once: a plateau schedule that never decayed is the constant one run again, and
    its noise is no further evidence.
    """
    distinct, place = np.unique(scores, axis=0, return_inverse=True)
    keep = homogeneous(distinct)
    return keep[place.reshape(-1)], residual_variation(distinct[keep])


def _p_value(difference: float, variation: Variation, num_seeds: int) -> float:
    if difference == 0:
        return 1.0
    error = variation.std * math.sqrt(2 / num_seeds)
    if error == 0:
        return 0.0
    return float(2 * special.stdtr(variation.degrees_of_freedom, -abs(difference) / error))


@dataclass(frozen=True)
class MeanDifference:
    """Mean difference of two schedules with a t-interval, in the score's unit.

    Args:
        mean: mean of first minus second, paired by seed.
        low, high: ends of the interval.
        degrees_of_freedom: of the t distribution.
    """

    mean: float
    low: float
    high: float
    degrees_of_freedom: int


def paired_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], confidence: float = 0.95
) -> MeanDifference:
    """Classical paired t-interval for the mean of first - second.

    first, second: (num_seeds,), finite, entry k of both from the same seed; at least 2 seeds.

    >>> interval = paired_interval(np.array([1.0, 2.0, 4.0]), np.array([0.0, 1.0, 2.0]))
    >>> round(interval.mean, 3), round(interval.low, 3), round(interval.high, 3)
    (1.333, -0.101, 2.768)
    """
    scores = np.stack([first, second])
    return _interval(scores, (0, 1), residual_variation(scores), confidence)


def pooled_interval(scores: NDArray[np.float64], first: int, second: int, confidence: float = 0.95) -> MeanDifference:
    """Paired t-interval for schedule `first` minus schedule `second`, its variance pooled over all schedules.

    With 3 seeds a pair alone has 2 degrees of freedom and a t quantile of 4.30; pooled over 8 schedules there are 14
    and it is 2.14. The price is the assumption that all schedules have one residual variance.

    scores: (num_schedules, num_seeds), finite.
    """
    return _interval(scores, (first, second), residual_variation(scores), confidence)


def _interval(
    scores: NDArray[np.float64], pair: tuple[int, int], variation: Variation, confidence: float
) -> MeanDifference:
    num_seeds = scores.shape[1]
    if num_seeds < 2:
        raise ValueError("a t-interval needs 2 seeds or more, but there is 1. Run more seeds.")
    if not np.isfinite(scores).all():
        raise ValueError("a t-interval needs finite scores, but a run diverged. Leave its schedule out.")
    mean = float((scores[pair[0]] - scores[pair[1]]).mean())
    quantile = float(special.stdtrit(variation.degrees_of_freedom, (1 + confidence) / 2))
    half = quantile * variation.std * math.sqrt(2 / num_seeds)
    return MeanDifference(mean, mean - half, mean + half, variation.degrees_of_freedom)


def smallest_detectable_difference(
    variation: Variation, num_seeds: int, alpha: float = 0.05, power: float = 0.8
) -> float:
    """The true difference between two schedules that a study of this size finds with probability `power`.

    For one two-sided paired t-test at level `alpha` without correction for other comparisons; a smaller true difference
    more often than not looks like a tie. Solved with the noncentral t distribution. In the score's unit; NaN
    where the noise is not known (one seed).

    >>> round(smallest_detectable_difference(Variation(std=1.0, degrees_of_freedom=14), num_seeds=3), 2)
    2.46

    Source: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, Chapter 2.
    """
    freedom = variation.degrees_of_freedom
    if freedom < 1 or not math.isfinite(variation.std):
        return math.nan
    critical = float(special.stdtrit(freedom, 1 - alpha / 2))

    # The noncentral t as a mixture of normals over 4,000 equally likely values of s: scipy's own turns to NaN at few
    # degrees of freedom.
    midpoints = (np.arange(4000) + 0.5) / 4000
    thresholds = critical * np.sqrt(stats.chi2.ppf(midpoints, freedom) / freedom)

    def shortfall(shift: float) -> float:
        return float(np.mean(stats.norm.sf(thresholds - shift) + stats.norm.cdf(-thresholds - shift))) - power

    shift = float(optimize.brentq(shortfall, 0.0, 10 * critical))
    return shift * variation.std * math.sqrt(2 / num_seeds)


@dataclass(frozen=True)
class Improvement:
    """Probability that a schedule beats a baseline on the same task, optimizer, budget and seed.

    Args:
        schedule: name.
        baseline: name.
        probability: estimate with its interval, 0..1; ties count half.
        confidence: nominal coverage of the interval, 0..1.
        num_cells: cells it was averaged over.
    """

    schedule: str
    baseline: str
    probability: Estimate
    confidence: float
    num_cells: int


def probability_of_improvement(
    cells: Sequence[Cell],
    baseline: str,
    generator: np.random.Generator,
    *,
    schedules: Sequence[str],
    higher_is_better: Direction = False,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[Improvement, ...]:
    """Probability that each schedule beats the baseline, paired by seed, with a hierarchical-bootstrap interval.

    In a cell it is the share of seeds at which the schedule's score is better (ties half; two that diverged tie); over
    cells it is the mean. The interval resamples tasks, then cells within tasks and regimes, then seeds within cells, as
    `ranking.expected_ranking` does, and shares its weakness at few tasks. Unlike Agarwal et al., who compare all pairs
    of runs, only runs of one seed are compared, because they share initialisation and data order.

    Args:
        schedules: those to compare with the baseline.

    Source: Agarwal et al., NeurIPS 2021, Section 4.3 (library rliable).
    """
    rivals = [name for name in schedules if name != baseline]
    data = panel(cells, [baseline, *rivals], higher_is_better)
    reference, others = data.losses[..., :1], data.losses[..., 1:]
    wins = np.where(others == reference, 0.5, (others < reference).astype(np.float64))
    counts = data.design.num_seeds
    real = np.arange(wins.shape[1]) < counts[:, None]
    value = ((wins * real[..., None]).sum(axis=1) / counts[:, None]).mean(axis=0)
    replicates: list[NDArray[np.float64]] = []
    for size in chunks(num_resamples, wins.size):
        slots = resample_cells(data.design, size, generator)
        means = resample_seed_means(wins, counts, slots.cells, generator)
        weight = slots.valid / slots.valid.sum(axis=1, keepdims=True)
        replicates.append(np.einsum("bm,bms->bs", weight, means))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(replicates), (tail, 1 - tail), axis=0)
    return tuple(
        Improvement(name, baseline, Estimate(float(value[i]), float(low[i]), float(high[i])), confidence, len(cells))
        for i, name in enumerate(rivals)
    )


@dataclass(frozen=True)
class Friedman:
    """Test over tasks whether any schedule ranks differently.

    Args:
        statistic: Friedman's chi-square, corrected for ties.
        p_value: probability of at least this if all schedules were alike.
        critical_difference: Nemenyi's: mean ranks further apart than this differ at level `alpha`.
        alpha: level, 0..1.
        num_tasks: tasks the test counts.
    """

    statistic: float
    p_value: float
    critical_difference: float
    alpha: float
    num_tasks: int


@dataclass(frozen=True)
class TooFewTasks:
    """The answer where there are too few tasks to test over.

    Args:
        num_tasks: how many there are.
        needed: how many it takes.
    """

    num_tasks: int
    needed: int = MINIMUM_TASKS

    def __str__(self) -> str:
        return f"too few tasks ({self.num_tasks} < {self.needed})"


def friedman_nemenyi(task_ranks: NDArray[np.float64], alpha: float = 0.05) -> Friedman | TooFewTasks:
    """Test mean ranks over tasks: Friedman's test and Nemenyi's critical difference.

    Cells of one task are not independent, so ranks are averaged inside each task first (`ranking.mean_ranks`) and tasks
    alone are counted. The averages are ranked again within each task for the test.

    task_ranks: (num_tasks, num_schedules). CD = q √(k (k + 1) / (6 N)), q the studentized range's quantile / √2.

    >>> str(friedman_nemenyi(np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]])))
    'too few tasks (2 < 5)'

    Source: Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7, 2006, Section 3.2.2.
    """
    num_tasks, count = task_ranks.shape
    if count < 3:
        raise ValueError(f"Friedman's test compares 3 schedules or more, but there are {count}.")
    if num_tasks < MINIMUM_TASKS:
        return TooFewTasks(num_tasks)
    quantile = float(stats.studentized_range.ppf(1 - alpha, count, np.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(count * (count + 1) / (6 * num_tasks))
    if (task_ranks == task_ranks[:, :1]).all():
        return Friedman(0.0, 1.0, critical, alpha, num_tasks)
    statistic, p_value = stats.friedmanchisquare(*task_ranks.T)
    return Friedman(float(statistic), float(p_value), critical, alpha, num_tasks)


def cell_variation(cell: Cell, schedules: Sequence[str]) -> Variation:
    """Residual noise of a cell, over the schedules that neither diverged nor are grossly noisy."""
    scores = cell.matrix(schedules)
    finite = scores[np.isfinite(scores).all(axis=1)]
    return _pool(finite)[1]
