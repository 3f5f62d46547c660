"""Estimators: ways of finding out what every budget buys, as stretches of training. Pure plans; nothing is run here.

Positions are counted in updates from the beginning of training. The endpoint convention of `core/schedule.py` holds
for each leg by itself: its update j (from 0) of L runs at `schedule(j / L)`. So a cycle that begins at T_{k-1} has its
peak in exactly that update, its last update T_k - 1 runs at schedule(1 - 1/L), and schedule(1) is reached after it. The
metric of budget T_k is read there: when T_k updates are done, and before update T_k runs at the next peak.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np

from glideslope.core.averages import LAWA, Troughs, WeightAverage
from glideslope.core.curve import Band, Curve
from glideslope.core.profiles import Constant, Cosine, Knots, Multiplier, OneMinusSqrt
from glideslope.core.schedule import Cycles, Scaled, Schedule, Warmup
from glideslope.core.value import Value, registered, require

FEWEST_UPDATES = 8
"""Of T_1: in fewer, a warmup is one step and a cycle a handful of them."""

RISE = Knots((0.0, Warmup(0.0).start), (1.0, 1.0))
"""A leg of warmup: as inside a schedule, from a tenth of the rate."""

Budgets = Sequence[int]
"""T_1 < … < T_K in updates."""


@dataclass(frozen=True)
class Leg:
    """One stretch of training.

    Args:
        after: index of the leg at whose end it begins; None: from the initial weights.
        begin: position of its first update.
        updates: its length, >= 1.
        schedule: multipliers of the base rate over the leg.
        points: budgets whose metric is read on the way, when so many updates are done; begin < point <= end.
        average: read at the points in place of the weights themselves; it reaches back over the legs before.
        ensemble: positions on the way here whose models are asked as well: at the points, the probabilities of theirs
            and of the model in training are averaged.
        is_fresh: it begins with new initial weights and an empty optimizer, wherever the leg before it ended.
        is_fallback: trained only if the estimator does not trust what was read before.
    """

    after: int | None
    begin: int
    updates: int
    schedule: Multiplier
    points: tuple[int, ...] = ()
    average: WeightAverage | None = None
    ensemble: tuple[int, ...] = ()
    is_fresh: bool = False
    is_fallback: bool = False

    @property
    def end(self) -> int:
        """Position when it is done."""
        return self.begin + self.updates


@dataclass(frozen=True)
class Point:
    """What was read when a budget was spent.

    Args:
        leg: index of the leg it was read on.
        budget: in updates.
        metrics: name → value; NaN where the run diverged.
        seconds: time of the training that led here, evaluation apart; 0: not measured.
    """

    leg: int
    budget: int
    metrics: Mapping[str, float]
    seconds: float = 0.0


@dataclass(frozen=True)
class Estimator(Value, ABC):
    """A way of estimating the curve of metric against budget.

    The contract:

    1. Legs stand in the order in which they are trained, each after one that stands before it. The last of them that is
       no fallback ends at the largest budget, which is one of its points; fallbacks stand behind it.
    2. Which legs are trained does not depend on what is read, but for the fallbacks: all of them or none.
    3. The warmup is the same absolute stretch for all budgets: w = T_1/r updates, r = T_2/T_1. (Those of `Independent`
       warm up over as large a part of their own length.)
    """

    kind: ClassVar[str] = "estimator"

    @abstractmethod
    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        """What to train.

        Raises:
            ValueError: see `check_budgets`.
        """

    def curve(self, budgets: Budgets, points: Sequence[Point]) -> Curve:
        """The curve of what has been read so far: one point or more."""
        return curve_of(points, str(self))

    def trusts(self, budgets: Budgets, points: Sequence[Point]) -> bool:
        """Whether fallbacks can be left out, once all else is read."""
        return True

    def planned_cost(self, budgets: Budgets) -> float:
        """Updates in units of one run of the largest budget; evaluations and fallbacks are not counted.

        >>> round(Separate().planned_cost([16, 32, 64, 128, 256, 512]), 2)
        1.97
        """
        return sum(leg.updates for leg in self.legs(budgets) if not leg.is_fallback) / max(budgets)


def check_budgets(budgets: Budgets) -> tuple[int, ...]:
    """The budgets, if they can be a curve's.

    Raises:
        ValueError: fewer than two, not increasing, or the first too short to warm up in.
    """
    found = tuple(budgets)
    require(len(found) >= 2, "budgets", found, "at least two: T_1 < … < T_K")
    require(all(a < b for a, b in pairwise(found)), "budgets", found, "T_1 < … < T_K: each ratio r above 1")
    require(found[0] >= FEWEST_UPDATES, "budgets", found, f"T_1 >= {FEWEST_UPDATES} updates")
    return found


def warmup_updates(budgets: Budgets) -> int:
    """w = T_1/r in whole updates: at least one, and one less than T_1 at most.

    >>> warmup_updates([16, 32, 64])
    8
    """
    first, second = check_budgets(budgets)[:2]
    return max(1, min(round(first * first / second), first - 1))


class Route:
    """Legs as they are put together."""

    def __init__(self) -> None:
        self.legs: list[Leg] = []

    def go(
        self,
        after: int | None,
        updates: int,
        schedule: Multiplier,
        points: tuple[int, ...] = (),
        average: WeightAverage | None = None,
        ensemble: tuple[int, ...] = (),
        is_fresh: bool = False,
        is_fallback: bool = False,
    ) -> int | None:
        """Add a leg, if it has any updates; the index of the leg at whose end one then stands."""
        if updates == 0:
            return after
        self.legs.append(
            Leg(after, self.end(after), updates, schedule, points, average, ensemble, is_fresh, is_fallback)
        )
        return len(self.legs) - 1

    def end(self, after: int | None) -> int:
        return 0 if after is None else self.legs[after].end


def ordinary(profile: Multiplier, warmup: int, updates: int) -> Schedule:
    """What a run of its own follows."""
    return Schedule(profile, warmup=Warmup(warmup / updates))


@registered("separate")
@dataclass(frozen=True)
class Separate(Estimator):
    """One run per budget from the initial weights, each landing on its own end: the standard curve, and the reference.

    Cost: ρ full runs, see `price_of_separate`.

    Args:
        profile: what each run follows after the warmup.
    """

    profile: Multiplier = Cosine()  # noqa: RUF009 - a frozen value

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        warmup = warmup_updates(budgets)
        return tuple(Leg(None, 0, end, ordinary(self.profile, warmup, end), (end,)) for end in budgets)


@registered("cyclic")
@dataclass(frozen=True)
class Cyclic(Estimator):
    """One run whose cycles end at the budgets: a linear warmup to w, then cycles of T_k − T_{k−1} updates, T_0 = w.

    The rate restarts at once. Cost: one full run.

    Args:
        profile: one cycle: the cosine of the source, or any other; `Linear()` gives sawtooth, `triangular()` triangular
            cycles.
        peak_decay: factor on the peak from cycle to cycle, 0 < peak_decay <= 1.
        rewarmup: share of each later cycle in which the rate rises again, 0 <= rewarmup < 1.
        constant_period: cycles all about as long as the first, T_1 − w, cut so that each budget still ends one; known
            to be bad when short.

    >>> [leg.updates for leg in Cyclic().legs([16, 32, 64, 128])]
    [8, 8, 16, 32, 64]

    Source: MosaicML, "Efficiently Estimating Pareto Frontiers with Cyclic Learning Rate Schedules", 2022.
    """

    profile: Multiplier = Cosine()  # noqa: RUF009 - a frozen value
    peak_decay: float = 1.0
    rewarmup: float = 0.0
    constant_period: bool = False

    def _check(self) -> None:
        require(0 < self.peak_decay <= 1, "peak_decay", self.peak_decay, "0 < peak_decay <= 1")
        require(0 <= self.rewarmup < 1, "rewarmup", self.rewarmup, "0 <= rewarmup < 1")

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        warmup, route = warmup_updates(budgets), Route()
        here = route.go(None, warmup, RISE)
        cycle = 0
        for start, end in pairwise((warmup, *budgets)):
            count = max(1, round((end - start) / (budgets[0] - warmup))) if self.constant_period else 1
            here = route.go(here, end - start, self._cycles(cycle, count), (end,))
            cycle += count
        return tuple(route.legs)

    def _cycles(self, index: int, count: int) -> Multiplier:
        """So many cycles, of which the first is number `index` of the run."""
        shape = Schedule(self.profile, warmup=Warmup(self.rewarmup)) if index and self.rewarmup else self.profile
        several = shape if count == 1 else Cycles.evenly(shape, count - 1, self.peak_decay)
        return several if self.peak_decay == 1 else Scaled(several, self.peak_decay**index)


@registered("wsd_s")
@dataclass(frozen=True)
class WSDS(Estimator):
    """One run at a constant rate that decays in place before each budget, and goes on from there at the full rate.

    Cost: one full run.

    Args:
        fraction: share of T_k that each decay takes, 0 < fraction < 1; at most what there is since the budget before.
        profile: the decay; the source's is the inverse of a straight line, this one is that of `Cooldown`.

    Source: Wen et al., "Understanding Warmup-Stable-Decay Learning Rates: A River Valley Loss Landscape Perspective",
    2024 (WSD-S: the decayed weights are kept).
    """

    fraction: float = 0.1
    profile: Multiplier = OneMinusSqrt()  # noqa: RUF009 - a frozen value

    def _check(self) -> None:
        require(0 < self.fraction < 1, "fraction", self.fraction, "0 < fraction < 1")

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        warmup, route = warmup_updates(budgets), Route()
        here = route.go(None, warmup, RISE)
        for start, end in pairwise((warmup, *budgets)):
            falling = min(in_updates(self.fraction, end), end - start)
            here = route.go(here, end - start - falling, Constant())
            here = route.go(here, falling, self.profile, (end,))
        return tuple(route.legs)


@registered("cooldown")
@dataclass(frozen=True)
class Cooldown(Estimator):
    """A trunk at a constant rate, and from (1 − f)·T_k on a branch of f·T_k updates that lands.

    A branch to T_k is the end of an ordinary run of T_k updates. Cost: (1 − f) + f·ρ full runs.

    Args:
        fraction: f, 0 < fraction < 1; a branch that would begin in the warmup begins after it, and is shorter.
        profile: the branch.

    Source: Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024.
    """

    fraction: float = 0.1
    profile: Multiplier = OneMinusSqrt()  # noqa: RUF009 - a frozen value

    def _check(self) -> None:
        require(0 < self.fraction < 1, "fraction", self.fraction, "0 < fraction < 1")

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        route = Route()
        here = route.go(None, warmup_updates(budgets), RISE)
        for end in budgets:
            fork = max(end - in_updates(self.fraction, end), route.end(here))
            here = route.go(here, fork - route.end(here), Constant())
            route.go(here, end - fork, self.profile, (end,))
        return tuple(route.legs)


@registered("average")
@dataclass(frozen=True)
class Average(Estimator):
    """A trunk at a constant rate, read through averages of its weights: no decay at all.

    Cost: one full run, and the statistics of normalization layers computed again for each reading.

    Args:
        of: which weights count how much: `LAWA()`, `EMA()` or `WSM()`.
    """

    of: WeightAverage = LAWA()  # noqa: RUF009 - a frozen value

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        route = Route()
        warmup, total = warmup_updates(budgets), max(budgets)
        here = route.go(None, warmup, RISE)
        route.go(here, total - warmup, Constant(), tuple(budgets), self.of)
        return tuple(route.legs)


@registered("snapshots")
@dataclass(frozen=True)
class Snapshots(Estimator):
    """A snapshot ensemble at every budget: one run whose cycles end at the budgets, the latest landings asked together.

    Cost: one full run; a prediction costs as many forward passes as there are members.

    Args:
        profile: one cycle.
        most: members at most, the latest ones, >= 2; early snapshots are weak where cycles double.

    >>> [leg.ensemble for leg in Snapshots(most=3).legs([16, 32, 64, 128])]
    [(), (), (16,), (16, 32), (32, 64)]

    Source: Huang et al., "Snapshot Ensembles: Train 1, Get M for Free", ICLR 2017.
    """

    profile: Multiplier = Cosine()  # noqa: RUF009 - a frozen value
    most: int = 3

    def _check(self) -> None:
        require(self.most >= 2, "most", self.most, "most >= 2")

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        warmup, *cycles = Cyclic(self.profile).legs(budgets)
        asked = (tuple(budgets[max(0, index + 1 - self.most) : index]) for index in range(len(cycles)))
        return (warmup, *(replace(leg, ensemble=members) for leg, members in zip(cycles, asked, strict=True)))


@registered("independent")
@dataclass(frozen=True)
class Independent(Estimator):
    """An ensemble of runs that share each budget evenly, from initial weights of their own: the bar for `Snapshots`.

    Cost: ρ full runs, as for `Separate`. Only a study can run it: a loop of your own has one model.

    Args:
        members: how many, >= 2; fewer where the smallest budgets are too short to be shared.
        profile: what each run follows after its warmup, which is 1/r of it.

    Source: Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles", NeurIPS 2017; at a fixed total cost as in Huang et al., ICLR 2017.
    """

    members: int = 2
    profile: Multiplier = Cosine()  # noqa: RUF009 - a frozen value

    def _check(self) -> None:
        require(self.members >= 2, "members", self.members, "members >= 2")

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        warmup, route = warmup_updates(budgets), Route()
        for end in budgets:
            count = max(1, min(self.members, end // FEWEST_UPDATES))
            edges = [end * member // count for member in range(count + 1)]
            here: int | None = None
            for start, stop in pairwise(edges):
                rise = max(1, min(warmup, round((stop - start) * warmup / budgets[0])))
                is_last = stop == end
                here = route.go(
                    here,
                    stop - start,
                    ordinary(self.profile, rise, stop - start),
                    (end,) if is_last else (),
                    ensemble=tuple(edges[1:-1]) if is_last else (),
                    is_fresh=start > 0,
                )
        return tuple(route.legs)


@registered("swa")
@dataclass(frozen=True)
class SWA(Estimator):
    """Stochastic weight averaging at troughs: cycles that end at (1 − f)·T_k, and from there a branch of short ones.

    The branch runs low and fast: `cycles` cycles in f·T_k updates, each from `peak` down to the trough; the weights at
    all troughs are averaged. Cost: (1 − f) + f·ρ full runs, and the statistics of normalization layers computed again.

    Args:
        fraction: f, 0 < fraction < 1; a branch that would begin in the warmup begins after it, and is shorter.
        cycles: of the branch, >= 1.
        peak: of the branch, as a share of the rate, 0 < peak <= 1.
        profile: one cycle of either kind.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018.
    """

    fraction: float = 0.1
    cycles: int = 4
    peak: float = 0.1
    profile: Multiplier = Cosine()  # noqa: RUF009 - a frozen value

    def _check(self) -> None:
        require(0 < self.fraction < 1, "fraction", self.fraction, "0 < fraction < 1")
        require(self.cycles >= 1, "cycles", self.cycles, "cycles >= 1")
        require(0 < self.peak <= 1, "peak", self.peak, "0 < peak <= 1")

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        route = Route()
        here = route.go(None, warmup_updates(budgets), RISE)
        for end in budgets:
            fork = max(end - in_updates(self.fraction, end), route.end(here))
            here = route.go(here, fork - route.end(here), self.profile)
            count = min(self.cycles, end - fork)
            low = self.profile if count == 1 else Cycles.evenly(self.profile, count - 1)
            route.go(here, end - fork, Scaled(low, self.peak), (end,), Troughs((end - fork) / end, count))
        return tuple(route.legs)


@registered("raw")
@dataclass(frozen=True)
class Raw(Estimator):
    """Points read during one ordinary run on its way to the largest budget: a control, for a high rate flatters nobody.

    Cost: one full run.

    Args:
        profile: what the run follows after the warmup.
    """

    profile: Multiplier = Cosine()  # noqa: RUF009 - a frozen value

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        warmup, total = warmup_updates(budgets), max(budgets)
        return (Leg(None, 0, total, ordinary(self.profile, warmup, total), tuple(budgets)),)


@registered("interpolate")
@dataclass(frozen=True)
class Interpolate(Estimator):
    """Three separate runs, of the smallest, the middle and the largest budget, and a power law through them: a control.

    .. math:: metric = a + b \\, t^{-c}

    Where no power law goes through three values (they do not go one way), straight lines over the logarithm of the
    budget do.

    Args:
        profile: what each run follows after the warmup.
    """

    profile: Multiplier = Cosine()  # noqa: RUF009 - a frozen value

    def legs(self, budgets: Budgets) -> tuple[Leg, ...]:
        warmup = warmup_updates(budgets)
        require(len(budgets) >= 3, "budgets", tuple(budgets), "at least three, for a curve through three")
        some = (budgets[0], budgets[len(budgets) // 2], budgets[-1])
        return tuple(Leg(None, 0, end, ordinary(self.profile, warmup, end), (end,)) for end in some)

    def curve(self, budgets: Budgets, points: Sequence[Point]) -> Curve:
        """Through all budgets once three points are read; before, through what there is."""
        read = curve_of(points, str(self))
        if len(read.updates) < 3:
            return read
        metrics = {
            metric: Band(tuple(power_law(read.updates, band.values, budgets))) for metric, band in read.metrics.items()
        }
        seconds = tuple(np.interp(budgets, read.updates, read.seconds)) if read.seconds else ()
        return Curve(tuple(budgets), metrics, seconds, read.name)


def in_updates(fraction: float, updates: int) -> int:
    """A share of a budget in whole updates: at least one."""
    return max(1, round(fraction * updates))


def curve_of(points: Sequence[Point], name: str) -> Curve:
    """The points as they were read, in the order of their budgets; of two readings of a budget the later counts."""
    by_budget = {point.budget: point for point in points}
    ordered = [by_budget[budget] for budget in sorted(by_budget)]
    names = dict.fromkeys(name for point in ordered for name in point.metrics)
    metrics = {metric: Band(tuple(point.metrics.get(metric, math.nan) for point in ordered)) for metric in names}
    seconds = tuple(point.seconds for point in ordered)
    return Curve(tuple(by_budget[b].budget for b in sorted(by_budget)), metrics, seconds if all(seconds) else (), name)


def power_law(at: Sequence[float], values: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Values of a + b·t^−c, laid through three points, at other places; see `Interpolate` for when there is none.

    Args:
        at: (3,) increasing, > 0.
        values: (3,).
        wanted: (num_wanted,) > 0.

    >>> [round(v, 6) for v in power_law([1, 4, 16], [3.0, 2.0, 1.5], [1, 2, 16])]
    [3.0, 2.414214, 1.5]
    """
    logs = np.log(np.asarray(at, dtype=float) / at[0])
    first, middle, last = values
    if not all(map(math.isfinite, values)):
        return [math.nan] * len(wanted)
    if (first - middle) * (middle - last) <= 0:
        return [float(value) for value in np.interp(np.log(np.asarray(wanted) / at[0]), logs, values)]

    def bend(c: float, log: float) -> float:
        """(1 − t^−c)/c, from 0 at t = 1; the logarithm at c = 0."""
        return -math.expm1(-c * log) / c if abs(c) > 1e-9 else log

    # The share of the way that lies behind the middle grows with c.
    share, low, high = (first - middle) / (first - last), -50.0 / logs[2], 50.0 / logs[2]
    for _ in range(100):
        c = (low + high) / 2
        low, high = (c, high) if bend(c, logs[1]) / bend(c, logs[2]) < share else (low, c)
    scale = (last - first) / bend(c, logs[2])
    return [float(first + scale * bend(c, math.log(budget / at[0]))) for budget in wanted]
