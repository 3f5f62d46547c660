"""Schedules: profiles read through a sampling, with warmup, delay, floor, cycles and sequences.

The endpoint convention of the whole library, stated here only: the value in force during update k (from 0) of N is
`base × multiplier(k / N)`. Update 0 uses multiplier(0). multiplier(1) is reached after the last update and held for
ever after: never negative, never rebounding, never raising.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import ClassVar, Self

from glideslope.core.budget import Budget, parse_budget
from glideslope.core.namespace import Real, clip, floor, where
from glideslope.core.profiles import Multiplier
from glideslope.core.sampling import SLACK, EveryStep, Sampling, last_reached, reached
from glideslope.core.value import Value, registered, require


@registered("warmup")
@dataclass(frozen=True)
class Warmup(Value):
    """A straight rise to the start of the profile, inside the budget.

    Args:
        share: share of the budget, 0 <= share < 1.
        start: multiplier of update 0, 0 <= start <= 1. A tenth, as in one_cycle; 0 would waste the first update.
    """

    kind: ClassVar[str] = "warmup"
    share: float
    start: float = 0.1

    def _check(self) -> None:
        require(0 <= self.share < 1, "share", self.share, "0 <= share < 1")
        require(0 <= self.start <= 1, "start", self.start, "0 <= start <= 1")


@registered("schedule")
@dataclass(frozen=True)
class Schedule(Multiplier):
    r"""A profile read through a sampling, after a warmup and a delay, above a floor.

    With warmup share w and delay d, the profile p and the sampling q give

    .. math:: floor + (1 - floor) \, p(q(u)), \quad u = \frac{s - w - d}{1 - w - d}

    from s = w + d on; p(0) is held between w and w + d; before w the multiplier rises from `warmup.start` to it.

    Args:
        profile: any profile, or any schedule (then `sampling` reads that).
        sampling: when the profile is read.
        warmup: a `Warmup`, or its share of the budget. The warmup is inside the budget.
        delay: share of the budget for which the start is held: "Linear delayed X %".
        floor: what the profile's 0 becomes, as a share of the base value.

    >>> from glideslope.core.profiles import Linear
    >>> half = Schedule(Linear(), warmup=0.1, delay=0.4)
    >>> [round(half(s), 3) for s in (0.0, 0.1, 0.5, 0.75, 1.0)]
    [0.1, 1.0, 1.0, 0.5, 0.0]

    Source: sampling and delay: Chen, Wolfe, Kyrillidis, MLSys 2022, Sections 3 and 4; warmup + delay + decay is
    warmup-stable-decay, Hu et al., "MiniCPM", 2024.
    """

    profile: Multiplier
    sampling: Sampling = EveryStep()  # noqa: RUF009 - a frozen value, safe to share
    warmup: Warmup = Warmup(0.0)
    delay: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.warmup, (float, int)) and not isinstance(self.warmup, bool):
            object.__setattr__(self, "warmup", Warmup(self.warmup))
        super().__post_init__()

    def _check(self) -> None:
        require(0 <= self.delay < 1, "delay", self.delay, "0 <= delay < 1")
        require(0 <= self.floor <= 1, "floor", self.floor, "0 <= floor <= 1")
        held = self.warmup.share + self.delay
        require(held < 1, "warmup + delay", held, "warmup + delay < 1")

    def __call__(self, progress: Real) -> Real:
        held = self.warmup.share + self.delay
        inner = clip((progress - held) / (1 - held), 0.0, 1.0)
        after = self.floor + (1 - self.floor) * self.profile(self.sampling(inner))
        if self.warmup.share == 0:
            return after
        share = clip(progress / self.warmup.share, 0.0, 1.0)
        rise = self.warmup.start * (1 - share) + share
        return where(reached(progress, self.warmup.share), after, rise * after)

    @property
    def landings(self) -> tuple[float, ...]:
        """The profile's, after warmup and delay."""
        held = self.warmup.share + self.delay
        return tuple(held + (1 - held) * landing for landing in self.profile.landings)


MOST_CYCLES = 1000
"""Growing cycles are unrolled into one expression; this many are still cheap to build."""


@cache
def _cycle_starts(period: float, multiplier: float) -> tuple[float, ...]:
    """Where cycles start, walked in exact fractions, up to the first that would start at the end of the budget."""
    length, growth = Fraction(period), Fraction(multiplier)
    start = Fraction(0)
    starts: list[float] = []
    while start < 1 - Fraction(SLACK) and len(starts) <= MOST_CYCLES:
        starts.append(float(start))
        # Lengths are rounded to doubles as they grow: exact powers would double their digits with every cycle.
        start, length = start + length, Fraction(float(length * growth))
    return tuple(starts)


@registered("cycles")
@dataclass(frozen=True)
class Cycles(Multiplier):
    """Warm restarts: the profile again and again, each cycle `multiplier` times as long as the one before.

    Cycle k starts at period × (1 + multiplier + … + multiplier^(k-1)), walked in exact fractions, so that a restart
    falls on its very update. A re-warmup is a warmup of the profile: `Cycles(Schedule(Cosine(), warmup=0.1), 0.25)`.

    Args:
        profile: the shape of one cycle.
        period: length of the first cycle as a share of the budget, 0 < period <= 1. T_0 of 10 epochs in a budget of
            200: 10/200.
        multiplier: ratio of neighbouring cycle lengths, > 0; fractions too. Below 1 the cycles must still fill the
            budget.
        peak_decay: factor on the peak at each restart, 0 < peak_decay <= 1.

    >>> from glideslope.core.profiles import Cosine
    >>> sgdr = Cycles(Cosine(), period=0.25)
    >>> [round(sgdr(s), 3) for s in (0.0, 0.125, 0.25, 1.0)]
    [1.0, 0.5, 1.0, 0.0]

    Source: Loshchilov, Hutter, ICLR 2017. `Cycles.evenly` is Li et al.'s (ICLR 2020) budget-aware SGDR-rn.
    """

    profile: Multiplier
    period: float
    multiplier: float = 1.0
    peak_decay: float = 1.0

    @classmethod
    def evenly(cls, profile: Multiplier, restarts: int, peak_decay: float = 1.0) -> Self:
        """`restarts` restarts at even distances inside the budget, hence restarts + 1 equal cycles that end on it."""
        whole = isinstance(restarts, int) and not isinstance(restarts, bool)
        require(whole and restarts >= 0, "restarts", restarts, "restarts is a whole number >= 0")
        return cls(profile, period=1 / (restarts + 1), peak_decay=peak_decay)

    def _check(self) -> None:
        require(0 < self.period <= 1, "period", self.period, "0 < period <= 1 (a share of the budget)")
        require(self.multiplier > 0, "multiplier", self.multiplier, "multiplier > 0")
        require(0 < self.peak_decay <= 1, "peak_decay", self.peak_decay, "0 < peak_decay <= 1")
        if self.multiplier < 1:
            total = self.period / (1 - self.multiplier)
            require(
                total > 1, "period / (1 - multiplier)", total, "sum of all cycles > 1, or they end before the budget"
            )
        if self.multiplier != 1:
            require(
                len(_cycle_starts(self.period, self.multiplier)) <= MOST_CYCLES,
                "multiplier",
                self.multiplier,
                f"at most {MOST_CYCLES} cycles a budget",
            )

    def __call__(self, progress: Real) -> Real:
        if self.multiplier == 1:
            last = -floor(-(1 / self.period - SLACK)) - 1
            index = clip(floor(progress / self.period + SLACK), 0.0, last)
            return self.peak_decay**index * self.profile(_within_cycle(progress / self.period - index))
        starts = _cycle_starts(self.period, self.multiplier)
        lengths = tuple(self.period * self.multiplier**index for index in range(len(starts)))
        peaks = tuple(self.peak_decay**index for index in range(len(starts)))
        inner = (progress - last_reached(progress, starts, starts)) / last_reached(progress, starts, lengths)
        return last_reached(progress, starts, peaks) * self.profile(_within_cycle(inner))

    @property
    def landings(self) -> tuple[float, ...]:
        """The end of every cycle; the last is cut off by the end of the budget.

        >>> from glideslope.core.profiles import Cosine
        >>> Cycles(Cosine(), period=0.2, multiplier=3.0).landings
        (0.2, 0.8, 1.0)
        """
        return (*_cycle_starts(self.period, self.multiplier)[1:], 1.0)


def _within_cycle(share: Real) -> Real:
    """The share of a cycle that is spent, in [0, 1]; its end is exactly 1, so that a decay lands there."""
    # A cycle that ends with the budget may have spent 0.9999999999999998 of its length at progress 1.
    return where(reached(share, 1.0), 1.0 + 0.0 * share, clip(share, 0.0, 1.0))


@registered("sequence")
@dataclass(frozen=True)
class Sequence(Multiplier):
    """One schedule after another, each stretched over its own part of the budget.

    Args:
        parts: the schedules, in order; at least two.
        at: increasing shares of the budget at which part 2, 3, … begins: one fewer than the parts. Left empty: equal
            parts.

    >>> from glideslope.core.profiles import Linear
    >>> up_and_down = Sequence((Reflected(Linear()), Linear()))
    >>> [up_and_down(s) for s in (0.0, 0.25, 0.5, 1.0)]
    [0.0, 0.5, 1.0, 0.0]
    """

    parts: tuple[Multiplier, ...]
    at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.at and hasattr(self.parts, "__len__"):  # a lone schedule is refused below, by its type
            count = len(self.parts)
            object.__setattr__(self, "at", tuple(index / count for index in range(1, count)))
        super().__post_init__()

    def _check(self) -> None:
        require(len(self.parts) >= 2, "parts", self.parts, "at least two parts")
        require(len(self.at) == len(self.parts) - 1, "at", self.at, f"{len(self.parts) - 1} boundaries")
        for share in self.at:
            require(0 < share < 1, "at", share, "0 < boundary < 1")
        require(list(self.at) == sorted(set(self.at)), "at", self.at, "boundaries strictly increasing")

    def __call__(self, progress: Real) -> Real:
        edges = (0.0, *self.at, 1.0)
        result = self.parts[0](clip(progress / edges[1], 0.0, 1.0))
        for part, start, stop in zip(self.parts[1:], edges[1:], edges[2:], strict=False):
            value = part(clip((progress - start) / (stop - start), 0.0, 1.0))
            result = where(reached(progress, start), value, result)
        return result

    @property
    def landings(self) -> tuple[float, ...]:
        """Those of every part, in its own share of the budget; the end of a part counts if the rate rises from there.

        >>> from glideslope.core.profiles import Linear
        >>> Sequence((Reflected(Linear()), Linear(), Cycles(Linear(), period=0.5)), at=(0.2, 0.6)).landings
        (0.6, 0.8, 1.0)
        """
        edges = (0.0, *self.at, 1.0)
        found: list[float] = []
        for part, after, start, stop in zip(self.parts, (*self.parts[1:], None), edges, edges[1:], strict=False):
            rises = after is None or after(0.001) > part(1.0)
            inner = part.landings if rises else part.landings[:-1]
            found += [start + (stop - start) * landing for landing in inner]
        return tuple(found)


@registered("scaled")
@dataclass(frozen=True)
class Scaled(Multiplier):
    """The schedule times a number: a cycle with a lower peak, a stretch that begins where another ended.

    Args:
        schedule: what is scaled.
        factor: 0 <= factor <= 1.

    >>> from glideslope.core.profiles import Linear
    >>> Scaled(Linear(), 0.5)(0.5)
    0.25
    """

    schedule: Multiplier
    factor: float

    def _check(self) -> None:
        require(0 <= self.factor <= 1, "factor", self.factor, "0 <= factor <= 1")

    def __call__(self, progress: Real) -> Real:
        return self.factor * self.schedule(progress)

    @property
    def landings(self) -> tuple[float, ...]:
        """The schedule's own."""
        return self.schedule.landings


@registered("reflected")
@dataclass(frozen=True)
class Reflected(Multiplier):
    """The schedule backwards in time: a decay becomes a growth.

    >>> from glideslope.core.profiles import Linear
    >>> Reflected(Linear())(0.25)
    0.25
    """

    schedule: Multiplier

    def __call__(self, progress: Real) -> Real:
        return self.schedule(1 - progress)


@registered("truncated")
@dataclass(frozen=True)
class Truncated(Multiplier):
    """A schedule made for a larger budget, cut off where this one ends: what budget-unaware training amounts to.

    Args:
        schedule: the schedule as designed.
        of: the budget it was designed for: a `Budget` or its text, or how many times this run's budget it is, >= 1.
            `plan.for_budget`, which the scheduler and the studies call, turns a `Budget` into that number.

    >>> from glideslope.core.profiles import Linear
    >>> Truncated(Linear(), of=4.0)(1.0)
    0.75

    Source: Li, Yumer, Ramanan, ICLR 2020, Section 3 and Figure 1.
    """

    schedule: Multiplier
    of: float | Budget

    def __post_init__(self) -> None:
        if isinstance(self.of, str):
            object.__setattr__(self, "of", parse_budget(self.of))
        super().__post_init__()

    def _check(self) -> None:
        if isinstance(self.of, float):
            require(self.of >= 1, "of", self.of, "of >= 1 (the full budget in units of this run's)")

    def __call__(self, progress: Real) -> Real:
        if isinstance(self.of, Budget):
            raise ValueError(
                f"{self} was made for {self.of} and does not know the budget of this run. "
                "Call `for_budget(schedule, budget)` first."
            )
        return self.schedule(progress / self.of)

    @property
    def landings(self) -> tuple[float, ...]:
        """Those that come before the cut, and the cut."""
        if isinstance(self.of, Budget):
            raise ValueError(f"{self} does not know the budget of this run. Call `for_budget(schedule, budget)` first.")
        return (*(self.of * landing for landing in self.schedule.landings if self.of * landing < 1), 1.0)
