"""Glideslope as the laws see it: its scheduler (or a mutant of it) and its optax schedule."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from conformance_runs import (
    Ask,
    Composed,
    CountedRun,
    Cycles,
    Library,
    Maker,
    Offer,
    Plateaued,
    PlateauRun,
    TorchRun,
    cosine_at,
    exact_shapes,
    warmed,
)

from glideslope import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    Meter,
    OneMinusSqrt,
    Plan,
    Policy,
    Polynomial,
    Rex,
    Schedule,
    Sequence,
    Step,
    Steps,
    Warmup,
    one_cycle,
)
from glideslope import Cycles as Restarts
from glideslope.controller import Plateau
from glideslope.core.catalog import one_cycle_pytorch, one_cycle_smith
from glideslope.core.profiles import Multiplier
from glideslope.torch import BudgetScheduler

_SHAPES: dict[Multiplier, str] = {
    Linear(): "linear",
    Cosine(): "cosine",
    Rex(): "rex",
    Polynomial(2): "square",
    OneMinusSqrt(): "",
}
"""Profile → its formula in `exact_shapes`."""
_HELD = {Step((0.25, 0.5, 0.75), 0.5): 0.125, Exponential(-1.0): float(np.exp(-1.0))}
"""Profile that means not to land at 0 → where it ends."""
_ONE_CYCLES = {one_cycle: 0.1, one_cycle_smith: 0.001, one_cycle_pytorch: 1 / 250_000}
"""One-cycle plan → where its rate ends."""


class OurRun(TorchRun):
    """A run under `BudgetScheduler`."""

    def rebuild(self) -> None:
        """The position is in the scheduler's state, and nowhere else."""
        state = self.scheduler.state_dict()
        self.scheduler = self._make(self.optimizer, self.ask)
        self.scheduler.load_state_dict(state)


class OurPlateau(PlateauRun):
    def __init__(self, make: Callable[..., BudgetScheduler]) -> None:
        self._make = make
        self._run = OurRun(Ask(), lambda optimizer, ask: make(optimizer, _PLATEAU, Steps(ask.updates)))

    @property
    def rate(self) -> float:
        return self._run.rate

    def observe(self, loss: float) -> None:
        self._run.advance()
        self._run.scheduler.observe(val_loss=loss)

    def saved_and_resumed(self) -> OurPlateau:
        resumed = OurPlateau(self._make)
        resumed._run.resume(self._run.state())
        return resumed


_PLATEAU = Policy(Plan({"lr": Constant()}), Plateau(patience=2, factor=0.5))


def _asked(profile: Multiplier, ask: Ask) -> Multiplier:
    if not ask.warmup and not ask.floor:
        return profile
    return Schedule(profile, warmup=Warmup(ask.warmup / ask.updates), floor=ask.floor)


def _cycles(ask: Cycles, cycles: type[Restarts]) -> Multiplier:
    restarts = cycles(Cosine(), ask.first / ask.updates, float(ask.growth), ask.peak_decay)
    return Schedule(restarts, floor=ask.floor)


def _scheduled(scheduler: Callable[..., BudgetScheduler], schedule: Callable[[Any], Any]) -> Callable[[Any], OurRun]:
    """Ask → run, from what makes a scheduler and what makes its schedule."""
    make: Maker = lambda optimizer, ask: scheduler(optimizer, schedule(ask), Steps(ask.updates))  # noqa: E731
    return lambda ask: OurRun(ask, make)


def _rebudget(run: TorchRun, updates: int) -> None:
    run.scheduler.rebudget(Steps(updates))


def glideslope(
    scheduler: Callable[..., BudgetScheduler] = BudgetScheduler,
    cycles: type[Restarts] = Restarts,
) -> Library:
    """Our scheduler, or a mutant in its place."""
    exact = exact_shapes()

    def offer(profile: Multiplier, **more: Any) -> Offer:
        run = _scheduled(scheduler, lambda ask: _asked(profile, ask))
        return Offer(str(profile), run, floor_is_absolute=False, rebudget=_rebudget, **more)

    def composed(name: str, schedule: Multiplier, expected: Callable[[int], float]) -> Composed:
        run = _scheduled(scheduler, lambda ask: schedule)
        return Composed(name, lambda: run(Ask()), lambda update: 0.1 * expected(update))

    rise = warmed(0.1, 5)
    return Library(
        "glideslope",
        version("glideslope"),
        decays=tuple(offer(profile, exact=exact.get(formula)) for profile, formula in _SHAPES.items()),
        steps=tuple(offer(profile, end=end, has_floor=False) for profile, end in _HELD.items()),
        warmups=tuple(offer(profile) for profile in _SHAPES),
        one_cycles=tuple(
            Offer(plan.__name__, _scheduled(scheduler, lambda ask, plan=plan: plan()), end, has_floor=False)
            for plan, end in _ONE_CYCLES.items()
        ),
        restarts=(Offer("cycles", _scheduled(scheduler, lambda ask: _cycles(ask, cycles)), floor_is_absolute=False),),
        compositions=(
            composed(
                "warmup + cosine",
                Schedule(Cosine(), warmup=0.25),
                lambda k: rise(k) * (cosine_at((k - 5) / 15) if k >= 5 else 1),
            ),
            composed(
                "warmup + linear above a floor",
                Schedule(Schedule(Linear(), floor=0.5), warmup=0.25),
                lambda k: rise(k) * (1 - 0.5 * max(0, k - 5) / 15),
            ),
            composed(
                "linear, then cosine",
                Sequence((Linear(), Cosine())),
                lambda k: 1 - k / 10 if k < 10 else cosine_at((k - 10) / 10),
            ),
        ),
        plateaus=(Plateaued("plateau", lambda: OurPlateau(scheduler)),),
    )


# ---------------------------------------------------------------- functions of the count


Schedules = Callable[[Any, int, float], Callable[[np.ndarray], np.ndarray]]
"""(schedule, updates, peak) → function from counts to rates."""


def _counted(
    name: str, label: str, schedules: Schedules, block: int, rebudget: Callable[[Any, Multiplier, int], None] | None
) -> Library:
    """What our schedules offer as functions of the update count."""
    exact = exact_shapes()

    def counted(schedule: Callable[[Any], Any]) -> Callable[[Any], CountedRun]:
        make = lambda ask: schedules(schedule(ask), ask.updates, ask.bases[0])  # noqa: E731
        return lambda ask: CountedRun(ask, make, block)

    def offer(profile: Multiplier, **more: Any) -> Offer:
        return Offer(
            str(profile),
            counted(lambda ask: _asked(profile, ask)),
            floor_is_absolute=False,
            rebudget=None if rebudget is None else lambda run, updates: rebudget(run, profile, updates),
            epsilon=1.2e-7,
            **more,
        )

    return Library(
        name,
        label,
        decays=tuple(offer(profile, exact=exact.get(formula)) for profile, formula in _SHAPES.items()),
        steps=tuple(offer(profile, end=end, has_floor=False) for profile, end in _HELD.items()),
        warmups=tuple(offer(profile) for profile in _SHAPES),
        one_cycles=tuple(
            Offer(plan.__name__, counted(lambda ask, plan=plan: plan()), end, has_floor=False)
            for plan, end in _ONE_CYCLES.items()
        ),
        restarts=(Offer("cycles", counted(lambda ask: _cycles(ask, Restarts)), floor_is_absolute=False),),
        compositions=(
            Composed(
                "warmup + cosine",
                lambda: counted(lambda ask: Schedule(Cosine(), warmup=0.25))(Ask()),
                lambda k: 0.1 * warmed(0.1, 5)(k) * (cosine_at((k - 5) / 15) if k >= 5 else 1),
            ),
        ),
        lacks={"plateaus": "optax and Keras bring their own"},
    )


def glideslope_jax() -> Library:
    """Our schedule for optax."""
    if importlib.util.find_spec("jax") is None:
        return Library("glideslope.jax", None)

    def schedules(schedule: Any, updates: int, peak: float) -> Callable[[np.ndarray], np.ndarray]:
        from glideslope.jax import optax_schedule

        at = optax_schedule(schedule, Steps(updates), peak)
        return lambda counts: np.asarray(at(counts))

    label = f"{version('glideslope')} (jax {version('jax')})"
    return _counted("glideslope.jax", label, schedules, 64, _exchange_by_meter)


def _exchange_by_meter(run: CountedRun, profile: Multiplier, updates: int) -> None:
    """A meter counts on the host and hands its progress in, as the documentation says for budgets that change."""
    from glideslope.jax import progress_schedule

    meter = Meter(Steps(run.ask.updates))
    meter.advance(run.count)
    meter.rebudget(Steps(updates))
    at = progress_schedule(_asked(profile, run.ask), Steps(updates), run.ask.bases[0])
    run.follow(lambda counts: np.asarray(at(meter.progress_at(counts.astype(np.float64)))))


def glideslope_keras() -> Library:
    """Our schedule for Keras, on the backend that the process has chosen."""
    if importlib.util.find_spec("keras") is None:
        return Library("glideslope.keras", None)
    import keras

    from glideslope.keras import BudgetSchedule

    def schedules(schedule: Any, updates: int, peak: float) -> Callable[[np.ndarray], np.ndarray]:
        at = BudgetSchedule(schedule, Steps(updates), peak)
        return lambda counts: np.array([float(at(int(count))) for count in counts])

    label = f"{version('glideslope')} (keras {version('keras')}, {keras.config.backend()})"
    return _counted("glideslope.keras", label, schedules, 1, None)
