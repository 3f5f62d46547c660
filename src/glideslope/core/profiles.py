"""Profiles: pure shapes, progress in [0, 1] → multiplier in [0, 1]. One formula each."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from glideslope.core.namespace import Real, clip, cos, exp, sqrt
from glideslope.core.sampling import last_reached
from glideslope.core.value import Value, registered, require


@dataclass(frozen=True)
class Multiplier(Value, ABC):
    """A function from progress to the multiplier of the base value: what every profile and every schedule is.

    The contract, checked over all registered members in `tests/contracts/`:

    1. Defined on progress in [0, 1]; the meter never hands out anything else.
    2. Values lie in [0, 1].
    3. Takes a float, a NumPy array, a torch tensor or a traced JAX array, and returns the same; the computation
       contains no branch on the progress.
    4. At 1 it has the value that is held for ever after.
    """

    kind: ClassVar[str] = "schedule"

    @abstractmethod
    def __call__(self, progress: Real) -> Real:
        """The multiplier in force at `progress`; shape and type of the argument are kept."""

    @property
    def landings(self) -> tuple[float, ...]:
        """Shares of the budget at which a descent is complete and weights can be compared: cycle ends, and 1.

        >>> Linear().landings
        (1.0,)
        """
        return (1.0,)

    def sample(self, num_updates: int) -> NDArray[np.float64]:
        """The multipliers in force during updates 0 … num_updates - 1 of so large a budget: shape (num_updates,).

        >>> Linear().sample(4).tolist()
        [1.0, 0.75, 0.5, 0.25]
        """
        require(num_updates >= 1, "num_updates", num_updates, "num_updates >= 1")
        values: NDArray[np.float64] = self(np.arange(num_updates) / num_updates)
        return values


@dataclass(frozen=True)
class Profile(Multiplier):
    """A pure shape: no steps, no rates, no clocks.

    Class attributes:
        lands: whether the shape ends at 0. Shapes that mean not to say so here.
    """

    kind: ClassVar[str] = "profile"
    lands: ClassVar[bool] = True


@registered("constant")
@dataclass(frozen=True)
class Constant(Profile):
    """Hold the base rate: the "none" of the tables.

    >>> Constant()(0.7)
    1.0
    """

    lands: ClassVar[bool] = False

    def __call__(self, progress: Real) -> Real:
        return 1.0 + 0.0 * progress


@registered("linear")
@dataclass(frozen=True)
class Linear(Profile):
    r"""A straight line to zero: the budget-aware schedule of Li et al., and the safe default.

    .. math:: p(s) = 1 - s

    >>> Linear()(0.25)
    0.75

    Source: Li, Yumer, Ramanan, "Budgeted Training: Rethinking Deep Neural Network Training Under Resource Constraints",
    ICLR 2020, Section 3.3.
    """

    def __call__(self, progress: Real) -> Real:
        return 1 - progress


@registered("cosine")
@dataclass(frozen=True)
class Cosine(Profile):
    r"""Half a cosine to zero.

    .. math:: p(s) = (1 + \cos \pi s) / 2

    >>> Cosine()(0.5)
    0.5

    Source: Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, Equation 5.
    """

    def __call__(self, progress: Real) -> Real:
        return (1 + cos(math.pi * progress)) / 2


@registered("exponential")
@dataclass(frozen=True)
class Exponential(Profile):
    r"""Exponential decay; it ends at :math:`e^\gamma`, not at zero.

    .. math:: p(s) = e^{\gamma s}

    Args:
        gamma: total log-decay over the budget, gamma <= 0. The REX paper uses -3, its Table 2 tunes it (see `catalog`).

    >>> round(Exponential()(1.0), 4)
    0.0498

    Source: Chen, Wolfe, Kyrillidis, MLSys 2022, Section 4 and Appendix A.
    """

    gamma: float = -3.0
    lands: ClassVar[bool] = False

    def _check(self) -> None:
        require(self.gamma <= 0, "gamma", self.gamma, "gamma <= 0")

    def __call__(self, progress: Real) -> Real:
        return exp(self.gamma * progress)


@registered("inverse_power")
@dataclass(frozen=True)
class InversePower(Profile):
    r"""Falls as a power of time, with no end in view: the same rate at the same update, whatever the budget.

    .. math:: p(s) = (1 + t/\tau)^{-\gamma}, \quad t/\tau = s \cdot horizon\_ratio

    A run twice as long has twice the `horizon_ratio`. Averages of the weights replace the end that it does not have.

    Args:
        gamma: exponent, gamma >= 0; 1/2 is the classical inverse square root, 0 is `Constant`.
        horizon_ratio: the budget in units of the time scale τ, horizon_ratio > 0.

    >>> InversePower(0.5, horizon_ratio=3)(1.0)
    0.5

    Source: horizon-free rates with averaging of the weights, arXiv 2602.03702.
    """

    gamma: float
    horizon_ratio: float
    lands: ClassVar[bool] = False

    def _check(self) -> None:
        require(self.gamma >= 0, "gamma", self.gamma, "gamma >= 0")
        require(self.horizon_ratio > 0, "horizon_ratio", self.horizon_ratio, "horizon_ratio > 0")

    def __call__(self, progress: Real) -> Real:
        return (1 + self.horizon_ratio * progress) ** -self.gamma


@registered("rex")
@dataclass(frozen=True)
class Rex(Profile):
    r"""Reflected exponential: holds the rate high, then falls steeply at the end.

    .. math:: p(s) = \frac{1 - s}{1 - \beta s}

    At :math:`\beta = 0` this is `Linear`; as :math:`\beta \to 1` it approaches a hold. At :math:`\beta = 1/2` it is the
    paper's :math:`(1-s)/(1/2 + (1-s)/2)`.

    Args:
        beta: bend of the curve, 0 <= beta < 1. The paper's formula is beta = 1/2; the authors' companion code uses 0.9.

    >>> [round(Rex()(s), 3) for s in (0.0, 0.5, 1.0)]
    [1.0, 0.667, 0.0]

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022,
    Section 4.1.
    """

    beta: float = 0.5

    def _check(self) -> None:
        require(0 <= self.beta < 1, "beta", self.beta, "0 <= beta < 1")

    def __call__(self, progress: Real) -> Real:
        return (1 - progress) / (1 - self.beta * progress)


@registered("polynomial")
@dataclass(frozen=True)
class Polynomial(Profile):
    r"""A power of the straight line: above 1 it falls early, below 1 late.

    .. math:: p(s) = (1 - s)^{power}

    Args:
        power: exponent, power > 0; 1 is `Linear`.

    >>> Polynomial(2)(0.5)
    0.25

    Source: Mishra, Sarawadekar, "Polynomial Learning Rate Policy with Warm Restart for Deep Neural Network",
    TENCON 2019.
    """

    power: float

    def _check(self) -> None:
        require(self.power > 0, "power", self.power, "power > 0")

    def __call__(self, progress: Real) -> Real:
        return (1 - progress) ** self.power


@registered("one_minus_sqrt")
@dataclass(frozen=True)
class OneMinusSqrt(Profile):
    r"""Falls at once, then ever more slowly: the cooldown that serves constant-rate training best.

    .. math:: p(s) = 1 - \sqrt{s}

    >>> OneMinusSqrt()(0.25)
    0.5

    Source: Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024,
    Section 4.
    """

    def __call__(self, progress: Real) -> Real:
        return 1 - sqrt(progress)


@registered("step")
@dataclass(frozen=True)
class Step(Profile):
    r"""The step schedule of the image tables: multiply by `factor` at each milestone.

    .. math:: p(s) = factor^{\#\{m : m \le s\}}

    Args:
        milestones: increasing shares of the budget, strictly between 0 and 1.
        factor: multiplier at each milestone, 0 <= factor <= 1.

    >>> [round(Step()(s), 3) for s in (0.49, 0.5, 0.75)]
    [1.0, 0.1, 0.01]

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; as a budget-aware schedule
    Li et al., ICLR 2020.
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1
    lands: ClassVar[bool] = False

    def _check(self) -> None:
        for share in self.milestones:
            require(0 < share < 1, "milestones", share, "0 < milestone < 1")
        increasing = list(self.milestones) == sorted(set(self.milestones))
        require(increasing, "milestones", self.milestones, "milestones strictly increasing")
        require(0 <= self.factor <= 1, "factor", self.factor, "0 <= factor <= 1")

    def __call__(self, progress: Real) -> Real:
        levels = tuple(self.factor**count for count in range(len(self.milestones) + 1))
        return last_reached(progress, (0.0, *self.milestones), levels)


@registered("knots")
@dataclass(frozen=True, init=False)
class Knots(Profile):
    """Straight lines between given points.

    Args:
        points: (progress, multiplier) pairs; progress strictly increasing from 0 to 1, multipliers in [0, 1].

    >>> Knots((0, 0), (0.2, 1), (1, 0))(0.1)
    0.5
    """

    points: tuple[tuple[float, float], ...]
    variadic: ClassVar[str | None] = "points"
    lands: ClassVar[bool] = False

    def __init__(self, *points: tuple[float, float]) -> None:
        object.__setattr__(self, "points", points)
        self.__post_init__()

    def _check(self) -> None:
        require(len(self.points) >= 2, "points", self.points, "at least two points")
        at = [share for share, _ in self.points]
        require(at[0] == 0 and at[-1] == 1, "points", self.points, "first progress 0, last progress 1")
        require(at == sorted(set(at)), "points", self.points, "progress strictly increasing")
        for _, level in self.points:
            require(0 <= level <= 1, "points", level, "0 <= multiplier <= 1")

    def __call__(self, progress: Real) -> Real:
        starts, levels = zip(*self.points, strict=True)
        widths = tuple(right - left for left, right in pairwise(starts))
        starts = starts[:-1]
        share = (progress - last_reached(progress, starts, starts)) / last_reached(progress, starts, widths)
        # a·(1 − u) + b·u hits both ends exactly; a + (b − a)·u misses the second by an ulp.
        here, there = last_reached(progress, starts, levels[:-1]), last_reached(progress, starts, levels[1:])
        share = clip(share, 0.0, 1.0)
        return here * (1 - share) + there * share


@registered("fractal")
@dataclass(frozen=True)
class Fractal(Profile):
    r"""Chebyshev steps in fractal order: mostly small steps, with a few very large ones that still are stable together.

    With :math:`T = 2^{levels}` plateaus and the Chebyshev nodes
    :math:`\gamma_t = \frac{1+r}{2} - \frac{1-r}{2}\cos\frac{(t-1/2)\pi}{T}`, plateau t has the multiplier
    :math:`\gamma_1 / \gamma_{\sigma(t)}`. The order :math:`\sigma` doubles by interlacing
    :math:`\sigma_T` with :math:`2T + 1 - \sigma_T`. The base rate is thus the largest step, 1/r times the stable one.

    Args:
        levels: the number of plateaus is 2**levels, 1 <= levels <= 10.
        ratio: smallest over largest curvature, 0 < ratio < 1; the default is ours, the paper tunes it.

    >>> [round(Fractal(levels=2)(s), 3) for s in (0.0, 0.25, 0.5, 0.75)]
    [1.0, 0.139, 0.355, 0.186]

    Source: Agarwal, Goel, Zhang, "Acceleration via Fractal Learning Rate Schedules", ICML 2021, Definition 3.
    """

    levels: int = 4
    ratio: float = 0.1
    lands: ClassVar[bool] = False

    def _check(self) -> None:
        require(1 <= self.levels <= 10, "levels", self.levels, "1 <= levels <= 10")
        require(0 < self.ratio < 1, "ratio", self.ratio, "0 < ratio < 1")

    def __call__(self, progress: Real) -> Real:
        return last_reached(progress, *_fractal_plateaus(self.levels, self.ratio))


@cache
def _fractal_plateaus(levels: int, ratio: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Starts and multipliers of the 2**levels plateaus, each of that length."""
    order = [1]
    for _ in range(levels):
        mirror = 2 * len(order) + 1
        order = [index for low in order for index in (low, mirror - low)]
    count = len(order)
    mean, swing = (1 + ratio) / 2, (1 - ratio) / 2
    nodes = [mean - swing * math.cos((t - 0.5) * math.pi / count) for t in range(1, count + 1)]
    return tuple(t / count for t in range(count)), tuple(nodes[0] / nodes[index - 1] for index in order)
