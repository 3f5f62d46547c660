"""Samplings: when a profile is read. The only place that handles floating-point boundaries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from glideslope.core.namespace import Real, floor, where
from glideslope.core.value import Value, registered, require

SLACK = 1e-9
"""How far below a boundary progress may lie and still count as there.

15/22*22 is 14.999999999999998, which would put update 15 in plateau 14: a plain floor misplaces 2 to 4 % of the
boundaries, an ulp nudge still some once a warmup is inside, this slack none as long as a budget has fewer than 10^9
units.
"""


def reached(progress: Real, boundary: float) -> Real:
    """Whether progress has arrived at a boundary, forgiving rounding."""
    return progress + SLACK >= boundary


def last_reached(progress: Real, starts: tuple[float, ...], values: tuple[float, ...]) -> Real:
    """`values[i]` for the last `i` whose start has been reached; `values[0]` before any. `starts` increase."""
    result = values[0] + 0.0 * progress
    for start, value in zip(starts[1:], values[1:], strict=True):
        result = where(reached(progress, start), value + 0.0 * progress, result)
    return result


@dataclass(frozen=True)
class Sampling(Value, ABC):
    """Maps progress to the progress at which the profile is read.

    The contract: values lie in [0, 1] and never exceed the progress (up to rounding); reading twice changes nothing
    (idempotent); a boundary at share b is crossed by update k of N exactly when k/N >= b, for every N.
    """

    kind: ClassVar[str] = "sampling"

    @abstractmethod
    def __call__(self, progress: Real) -> Real:
        """Progress in, progress of the last reading out; shape and type are kept."""


@registered("every_step")
@dataclass(frozen=True)
class EveryStep(Sampling):
    """Read the profile at every update: the paper's "every iteration".

    >>> EveryStep()(0.37)
    0.37
    """

    def __call__(self, progress: Real) -> Real:
        return progress


@registered("plateaus")
@dataclass(frozen=True)
class Plateaus(Sampling):
    r"""Read the profile `n` times at equal distances and hold it in between.

    .. math:: \lfloor s n \rfloor / n

    Args:
        n: number of readings in [0, 1), n >= 1. The paper's "10-10" is 10, "5-25" (every 5 %) is 20, "1-100" is 100.

    >>> [Plateaus(4)(s) for s in (0.0, 0.24, 0.25, 1.0)]
    [0.0, 0.0, 0.25, 1.0]

    Source: Chen, Wolfe, Kyrillidis, MLSys 2022, Section 3 and Table 2.
    """

    n: int

    def _check(self) -> None:
        require(self.n >= 1, "n", self.n, "n >= 1")

    def __call__(self, progress: Real) -> Real:
        return floor(progress * self.n + SLACK) / self.n


@registered("milestones")
@dataclass(frozen=True, init=False)
class Milestones(Sampling):
    """Read the profile at the start and at the given shares of the budget, and hold it in between.

    Args:
        at: increasing shares of the budget, each strictly between 0 and 1. The paper's "50-75" is
            `Milestones(0.5, 0.75)`.

    >>> [Milestones(0.5, 0.75)(s) for s in (0.4, 0.5, 0.8)]
    [0.0, 0.5, 0.75]

    Source: Chen, Wolfe, Kyrillidis, MLSys 2022, Table 2.
    """

    at: tuple[float, ...]
    variadic: ClassVar[str | None] = "at"

    def __init__(self, *at: float) -> None:
        object.__setattr__(self, "at", at)
        self.__post_init__()

    def _check(self) -> None:
        require(len(self.at) > 0, "at", self.at, "at least one milestone")
        for share in self.at:
            require(0 < share < 1, "at", share, "0 < milestone < 1")
        require(list(self.at) == sorted(set(self.at)), "at", self.at, "milestones strictly increasing")

    def __call__(self, progress: Real) -> Real:
        starts = (0.0, *self.at)
        return last_reached(progress, starts, starts)
