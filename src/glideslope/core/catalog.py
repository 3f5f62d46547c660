"""The named schedules of the literature. Each returns a schedule, a plan or a policy, and says where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from glideslope.core.control import Controller
from glideslope.core.plan import Absolute, Plan, Relative
from glideslope.core.policy import Policy
from glideslope.core.profiles import Constant, Cosine, Exponential, Fractal, Knots, Linear, Multiplier, Rex, Step
from glideslope.core.sampling import EveryStep, Milestones, Plateaus, Sampling
from glideslope.core.schedule import Cycles, Reflected, Schedule, Sequence, Warmup
from glideslope.core.value import members, require


def none() -> Multiplier:
    """A constant rate: the "None" rows of the tables."""
    return Constant()


def _controller(name: str, **arguments: Any) -> Controller:
    """A controller by its registered name: the ready-made ones live a floor above core."""
    return cast(Controller, members("controller")[name](**arguments))


def plateau(patience: int = 5, factor: float = 0.1) -> Policy:
    """Decay on plateau: a constant rate, times `factor` when the validation loss stops improving for `patience` epochs.

    Source: Chen, Wolfe, Kyrillidis, MLSys 2022, Section 4 (patience tuned in multiples of 5).
    """
    return Policy(Plan({"lr": Constant()}), _controller("plateau", patience=patience, factor=factor))


def delayed_linear(delay: float = 0.5) -> Multiplier:
    """Hold the base rate for a share of the budget, then a straight line to zero: "Linear delayed X %".

    Source: Chen, Wolfe, Kyrillidis, MLSys 2022, Section 4.1 and Figure 2.
    """
    return Schedule(Linear(), delay=delay)


def triangular() -> Multiplier:
    r"""Up to the base rate at half the budget and down again: :math:`1 - |2s - 1|`.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.
    """
    return Sequence((Reflected(Linear()), Linear()))


def sgdr(restarts: int = 2) -> Multiplier:
    """Cosine cycles with `restarts` restarts at even distances, so that the last cycle ends with the budget.

    Source: Loshchilov, Hutter, ICLR 2017; the budget-aware form SGDR-rn: Li, Yumer, Ramanan, ICLR 2020.
    """
    return Cycles.evenly(Cosine(), restarts)


def wsd(warmup: float = 0.05, decay: float = 0.2) -> Multiplier:
    """Warmup, stable, decay: a linear decay over the last share of the budget.

    Source: Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies",
    2024.
    """
    require(decay > 0, "decay", decay, "decay > 0")
    require(warmup + decay <= 1, "warmup + decay", warmup + decay, "warmup + decay <= 1")
    return Schedule(Linear(), warmup=Warmup(warmup), delay=1 - (warmup + decay))


def one_cycle() -> Plan:
    r"""1cycle as the REX paper means it: the rate rises and falls in a triangle while the momentum falls and rises.

    The rate is :math:`\eta_{min} + (\eta_{max} - \eta_{min})(1 - |2s - 1|)` with
    :math:`\eta_{min} = 0.1\,\eta_{max}`, the momentum :math:`\beta_{max} - (\beta_{max} - \beta_{min})(1 - |2s - 1|)`
    from 0.95 to 0.85 and back. It ends at :math:`\eta_{min}`, not at 0. The formula printed in the paper is
    discontinuous at s = 1/2, a misprint: this is the triangle that its text describes.

    >>> one_cycle()["lr"].value(0.5, base=1.0), one_cycle()["momentum"].value(0.5, base=0.9)
    (1.0, 0.85)

    Source: Chen, Wolfe, Kyrillidis, MLSys 2022, Section 2.
    """
    shape = triangular()
    return Plan({"lr": Relative(Schedule(shape, floor=0.1)), "momentum": Absolute(shape, low=0.95, high=0.85)})


def one_cycle_smith() -> Plan:
    """1cycle with Smith's final annihilation: the triangle over 90 % of the budget, then a straight line from a tenth
    of the peak to a thousandth of it, at the highest momentum.

    Source: Smith, "A disciplined approach to neural network hyper-parameters: Part 1", 2018, Section 4.3.
    """
    rate = Knots((0.0, 0.1), (0.45, 1.0), (0.9, 0.1), (1.0, 0.001))
    swing = Knots((0.0, 0.0), (0.45, 1.0), (0.9, 0.0), (1.0, 0.0))
    return Plan({"lr": Relative(rate), "momentum": Absolute(swing, low=0.95, high=0.85)})


def one_cycle_pytorch() -> Plan:
    """1cycle in PyTorch's cosine form: up from 1/25 of the peak over 30 % of the budget, down to 1/250,000 of it.

    Source: the defaults of `torch.optim.lr_scheduler.OneCycleLR`, without its off-by-one at the end.
    """
    rise = Schedule(Reflected(Cosine()), floor=1 / 25)
    fall = Schedule(Cosine(), floor=1 / 250_000)
    both = Sequence((Reflected(Cosine()), Cosine()), at=(0.3,))
    rate = Sequence((rise, fall), at=(0.3,))
    return Plan({"lr": Relative(rate), "momentum": Absolute(both, low=0.95, high=0.85)})


NAMED: Mapping[str, Callable[..., Multiplier | Plan | Policy]] = {
    "none": none,
    "step": Step,
    "plateau": plateau,
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "one_cycle": one_cycle,
    "rex": Rex,
    "delayed_linear": delayed_linear,
    "triangular": triangular,
    "sgdr": sgdr,
    "wsd": wsd,
    "fractal": Fractal,
    "one_cycle_smith": one_cycle_smith,
    "one_cycle_pytorch": one_cycle_pytorch,
}
"""Name → what makes it. The first eight are the rows of the REX paper's tables, in its order."""

SAMPLING_RATES: Mapping[str, Sampling] = {
    "50-75": Milestones(0.5, 0.75),
    "33-66": Milestones(0.33, 0.66),
    "25-50-75": Milestones(0.25, 0.5, 0.75),
    "10-10": Plateaus(10),
    "5-25": Plateaus(20),
    "1-100": Plateaus(100),
    "every": EveryStep(),
}
"""The seven sampling rates of the REX paper's Table 2, by the names it gives them ("every": every iteration)."""


def step_profile(gamma: float) -> Exponential:
    """The profile of Table 2's "step" column: an exponential whose gamma is tuned so that, read at 50-75, it does best.

    Source: Chen, Wolfe, Kyrillidis, MLSys 2022, Section 3.
    """
    return Exponential(gamma)
