"""Anytime: a dense curve with intervals from one run without a horizon, corrected by a few short cooldowns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glideslope.core.averages import LAWA, WeightAverage
from glideslope.core.curve import Band, Curve
from glideslope.core.estimators import (
    RISE,
    Budgets,
    Estimator,
    Leg,
    Point,
    Route,
    curve_of,
    in_updates,
    ordinary,
    warmup_updates,
)
from glideslope.core.profiles import Cosine, InversePower, Multiplier, OneMinusSqrt
from glideslope.core.schedule import Scaled
from glideslope.core.value import registered, require

T_QUANTILES = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860)
"""Student's t at 0.95 for 1, 2, … degrees of freedom: half-widths of intervals of 90 %."""


@registered("anytime")
@dataclass(frozen=True)
class Anytime(Estimator):
    """A trunk without a horizon, averages of its weights, a few short cooldowns that correct them: a dense curve.

    A separate run of T_1, where there is no anchor, checks the curve that averages and anchors make. If it fails, every
    budget gets a branch.

    Cost: one full run, the anchors' branches, and the separate run: 1.10 with the defaults, for r = 2 and K = 6; the
    branches of all budgets come to that of `Cooldown`.

    Args:
        gamma, horizon_ratio: of the trunk's `InversePower`, from the end of the warmup to T_K.
        average: what is read along the trunk.
        anchors: number of budgets, evenly among T_2 … T_K, at which a branch is decayed as well.
        fraction: share of its budget that a branch takes, 0 < fraction < 1.
        per_doubling: readings while the budget doubles, besides the budgets themselves.
        profile: shape of the branches.
        checked_with: what the separate run of T_1 follows.

    Source: horizon-free rates with averaging, arXiv 2602.03702; anchors as control variates: ours.
    """

    gamma: float = 0.5
    horizon_ratio: float = 8.0
    average: WeightAverage = LAWA()  # noqa: RUF009 - a frozen value
    anchors: int = 3
    fraction: float = 0.05
    per_doubling: int = 4
    profile: Multiplier = OneMinusSqrt()  # noqa: RUF009 - a frozen value
    checked_with: Multiplier = Cosine()  # noqa: RUF009 - a frozen value

    def _check(self) -> None:
        InversePower(self.gamma, self.horizon_ratio)
        require(2 <= self.anchors <= len(T_QUANTILES), "anchors", self.anchors, f"2 <= anchors <= {len(T_QUANTILES)}")
        require(0 < self.fraction < 1, "fraction", self.fraction, "0 < fraction < 1")
        require(self.per_doubling >= 1, "per_doubling", self.per_doubling, "per_doubling >= 1")

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        warmup, total, route = warmup_updates(budgets), max(budgets), Route()
        route.go(None, budgets[0], ordinary(self.checked_with, warmup, budgets[0]), (budgets[0],))
        here = route.go(None, warmup, RISE)
        dense = self._dense(budgets)

        def level(position: int) -> float:
            return 1 + self.horizon_ratio * (position - warmup) / (total - warmup)

        def trunk(after: int | None, stop: int) -> int | None:
            """On to a position: a stretch of a power of time is another such power, scaled."""
            begin = route.end(after)
            if begin == stop:
                return after
            stretch = InversePower(self.gamma, level(stop) / level(begin) - 1)
            shape = Scaled(stretch, level(begin) ** -self.gamma) if begin > warmup else stretch
            points = tuple(budget for budget in dense if begin < budget <= stop)
            return route.go(after, stop - begin, shape, points, self.average)

        def branch(after: int | None, budget: int, is_fallback: bool) -> None:
            fork = route.end(after)
            decay = Scaled(self.profile, level(fork) ** -self.gamma)
            route.go(after, budget - fork, decay, (budget,), is_fallback=is_fallback)

        anchors, others = self._anchors(budgets), []
        for budget in budgets:
            here = trunk(here, max(budget - in_updates(self.fraction, budget), route.end(here)))
            if budget == total:
                trunk(here, total)  # before the branch, so that training ends with weights that have landed
            if budget in anchors:
                branch(here, budget, is_fallback=False)
            else:
                others.append((here, budget))
        for after, budget in others:
            branch(after, budget, is_fallback=True)
        return tuple(route.legs)

    def curve(self, budgets: Budgets, points: Sequence[Point]) -> Curve:
        """Averages plus what anchors and the separate run found missing in them, with an interval of nominally 90 %.

        The correction is a straight line between them over the logarithm of the budget. The interval is made of errors
        that were seen: each of them foretold from its neighbours. An error counts in units of what the curve gains
        there while the budget doubles, for that is how errors and seed noise were seen to shrink along a curve.
        """
        trunk, branches, separate = self._apart(budgets, points)
        if not trunk or not branches:
            return curve_of(points, str(self))
        read = curve_of(trunk, str(self))
        metrics = {}
        for metric, band in read.metrics.items():
            differences = _differences(metric, trunk, [*branches, *separate])
            values = _corrected(read.updates, band.values, differences)
            halves = self._half_widths(read.updates, values, differences)
            metrics[metric] = Band(
                values,
                tuple(value - half for value, half in zip(values, halves, strict=True)),
                tuple(value + half for value, half in zip(values, halves, strict=True)),
            )
        return Curve(read.updates, metrics, read.seconds, read.name)

    def _half_widths(
        self, updates: Sequence[float], values: Sequence[float], differences: Sequence[tuple[int, float]]
    ) -> list[float]:
        """(num_points,) of an interval at every update of the curve; inf where too little was seen."""
        errors = _foretelling(differences)
        if not errors:
            return [math.inf] * len(updates)
        gains = _gains(updates, values, self.per_doubling)
        in_gains = [error / float(np.interp(budget, updates, gains)) for budget, error in errors]
        size = T_QUANTILES[min(len(errors), len(T_QUANTILES)) - 1] * math.sqrt(
            sum(e * e for e in in_gains) / len(errors)
        )
        return [size * gain for gain in gains.tolist()]

    def trusts(self, budgets: Budgets, points: Sequence[Point]) -> bool:
        """Whether the self-check holds for every metric."""
        return all(self.self_check(budgets, points).values())

    def self_check(self, budgets: Budgets, points: Sequence[Point]) -> dict[str, bool]:
        """Metric → whether the separate run lies in the interval that the anchors alone make for it."""
        trunk, branches, separate = self._apart(budgets, points)
        found = {}
        for metric in separate[0].metrics if separate else ():
            read, truth = curve_of(trunk, str(self)), separate[0]
            anchors = _differences(metric, trunk, branches)
            values = _corrected(read.updates, read.metrics[metric].values, anchors)
            halves = self._half_widths(read.updates, values, anchors)
            place = read.updates.index(truth.budget)
            found[metric] = bool(abs(truth.metrics[metric] - values[place]) <= halves[place])  # NaN fails
        return found

    def _dense(self, budgets: Budgets) -> tuple[int, ...]:
        first, total = budgets[0], budgets[-1]
        count = math.ceil(math.log2(total / first) * self.per_doubling)
        between = {round(first * 2 ** (step / self.per_doubling)) for step in range(count)}
        return tuple(sorted(between | set(budgets)))

    def _anchors(self, budgets: Budgets) -> list[int]:
        later = budgets[1:]
        places = np.linspace(len(later) - 1, 0, min(self.anchors, len(later)))  # a lone one is the last
        return [later[int(place)] for place in places]

    def _apart(self, budgets: Budgets, points: Sequence[Point]) -> tuple[list[Point], list[Point], list[Point]]:
        """Readings of the trunk, of the anchors' branches, and of the separate run."""
        legs = self.legs(budgets)
        trunk = [point for point in points if legs[point.leg].average is not None]
        separate = [point for point in points if point.leg == 0]
        return trunk, [point for point in points if point not in trunk and point not in separate], separate


def _differences(metric: str, trunk: Sequence[Point], branches: Sequence[Point]) -> list[tuple[int, float]]:
    """(budget, branch − average) at every anchor where both are numbers, by budget."""
    averages = {point.budget: point.metrics.get(metric, math.nan) for point in trunk}
    found = [
        (point.budget, point.metrics.get(metric, math.nan) - averages.get(point.budget, math.nan)) for point in branches
    ]
    return sorted((budget, difference) for budget, difference in found if math.isfinite(difference))


def _corrected(
    updates: Sequence[float], values: Sequence[float], differences: Sequence[tuple[int, float]]
) -> tuple[float, ...]:
    if not differences:
        return tuple(values)
    at, gaps = zip(*differences, strict=True)
    corrections = np.interp(np.log(updates), np.log(at), gaps)
    return tuple(float(value + correction) for value, correction in zip(values, corrections, strict=True))


def _foretelling(differences: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """(budget, error): each difference less the straight line through the others, held at its ends."""
    if len(differences) < 2:
        return []
    found = []
    for left_out, (budget, difference) in enumerate(differences):
        at, gaps = zip(*(pair for index, pair in enumerate(differences) if index != left_out), strict=True)
        found.append((budget, difference - float(np.interp(math.log(budget), np.log(at), gaps))))
    return found


def _gains(updates: Sequence[float], values: Sequence[float], per_doubling: int) -> NDArray[np.float64]:
    """(num_points,) by how much the curve changes while the budget doubles, mean over a doubling on either side.

    A twentieth of the mean over the whole curve is added: where it is flat, it is not without noise.
    """
    doublings = np.log2(updates)
    slopes = np.abs(np.gradient(np.asarray(values), doublings))
    near = np.abs(doublings[:, None] - doublings) <= 1 + 0.5 / per_doubling
    smooth = np.where(near, slopes, 0.0).sum(1) / near.sum(1)
    return np.asarray(smooth + 0.05 * slopes.mean() + 1e-12)
