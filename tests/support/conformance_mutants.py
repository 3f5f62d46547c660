"""Our scheduler with one defect seeded, one for each law: what shows that a law can fail.

The mutants reach into the scheduler's own methods. Where one of those is renamed, the mutant is repaired here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from conformance_ours import glideslope
from conformance_runs import Library
from numpy.typing import NDArray

from glideslope import Budget, Constant, Cycles, Plan, Schedule
from glideslope.core.budget import parse_budget
from glideslope.core.meter import Meter
from glideslope.core.profiles import Multiplier
from glideslope.torch import BudgetScheduler
from glideslope.torch.scheduler import BLOCK

Array = NDArray[np.float64]


class Reshaped(BudgetScheduler):
    """The scheduler with another curve: positions are moved before the schedule is read, multipliers bent after it."""

    def moved(self, positions: Array, total: float, warmup: float) -> Array:
        return positions

    def bent(self, values: Array, positions: Array, total: float, warmup: float) -> Array:
        return values

    def _table(self, position: int, schedules: Sequence[Multiplier]) -> Array:
        positions = np.arange(position, position + BLOCK, dtype=np.float64)
        total = self.budget.limit
        columns = []
        for schedule in schedules:
            warmup = schedule.warmup.share * total if isinstance(schedule, Schedule) else 0.0
            progress = self._meter.progress_at(self.moved(positions, total, warmup))
            columns.append(self.bent(schedule(progress), positions, total, warmup))
        return np.stack(columns, axis=1)


class Rebounds(Reshaped):
    def moved(self, positions: Array, total: float, warmup: float) -> Array:
        return total - np.abs(total - positions)


class WarmsUpFromZero(Reshaped):
    def bent(self, values: Array, positions: Array, total: float, warmup: float) -> Array:
        return np.where((positions == 0) & (warmup > 0), 0.0, values)


class LengthenedByWarmup(Reshaped):
    def moved(self, positions: Array, total: float, warmup: float) -> Array:
        return np.where(positions < warmup, positions, warmup + (positions - warmup) * (total - warmup) / total)


class DropsAfterWarmup(Reshaped):
    def bent(self, values: Array, positions: Array, total: float, warmup: float) -> Array:
        after = (warmup > 0) & (positions >= warmup) & (positions < total)
        return np.where(after, values * (1 - warmup / total), values)


class SkipsThePeakOfSmallBudgets(Reshaped):
    def moved(self, positions: Array, total: float, warmup: float) -> Array:
        return positions + 1 if total < 4 else positions


class Undershoots(Reshaped):
    def bent(self, values: Array, positions: Array, total: float, warmup: float) -> Array:
        return np.where((positions == 3) & (total == 7), 0.0, values)


class WarmsUpTwice(Reshaped):
    def bent(self, values: Array, positions: Array, total: float, warmup: float) -> Array:
        return np.where(positions < warmup, values * (0.1 + 0.9 * positions / max(warmup, 1.0)), values)


class AddsUpProgress(Reshaped):
    """Progress grows by 1/N with every update, and so does its rounding."""

    def moved(self, positions: Array, total: float, warmup: float) -> Array:
        added = np.cumsum(np.full(int(positions[-1]), 1 / total))
        return np.concatenate([[0.0], added])[positions.astype(int)] * total


class OneRateForAll(BudgetScheduler):
    def _settle(self) -> None:
        super()._settle()
        for bases in self._bases:
            bases["lr"] = self._bases[0]["lr"]
        super()._settle()


class FloatsForTensors(BudgetScheduler):
    def _short_path(self, in_tensors: bool) -> Callable[[], None]:
        return super()._short_path(in_tensors=False)


class FreezesNewGroups(BudgetScheduler):
    _known: int | None = None

    def _plan_of(self, index: int) -> Plan:
        self._known = self._known or len(self.optimizer.param_groups)
        return super()._plan_of(index) if index < self._known else Plan({"lr": Constant()})


class LosesAnUpdate(BudgetScheduler):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._meter.amounts["updates"] -= 1
        self._settle()


class LeavesTheRateToTheOptimizer(BudgetScheduler):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rates = self.get_last_lr()
        super().load_state_dict(state_dict)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


class TakesThePresentRateForTheBase(BudgetScheduler):
    def __init__(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        for group in optimizer.param_groups:
            group.pop("initial_lr", None)
        super().__init__(optimizer, *args, **kwargs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "bases": [dict(bases) for bases in self._bases]})


class TheOldBudgetWins(BudgetScheduler):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._meter = Meter(parse_budget(state_dict["budget"]))
        super().load_state_dict(state_dict)


class Rescales(BudgetScheduler):
    def rebudget(self, budget: str | Budget, policy: Any = "continuous") -> None:
        super().rebudget(budget, "rescale")


class ForgetsItsCounter(BudgetScheduler):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "controller_state": {**state_dict["controller_state"], "waited": 0}})


class CountsCalls(BudgetScheduler):
    def step(self, epoch: None = None, **amounts: Any) -> None:
        self._count.reported[0] = self._count.seen[0] + 1
        super().step(epoch, **amounts)


class WrapsTheStep(BudgetScheduler):
    def __init__(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        step = optimizer.step
        optimizer.step = lambda *given, **named: step(*given, **named)
        super().__init__(optimizer, *args, **kwargs)


class LetsItsPositionBeSet(BudgetScheduler):
    @property
    def last_epoch(self) -> int:
        return self._meter.updates

    @last_epoch.setter
    def last_epoch(self, value: int) -> None:
        pass


@dataclass(frozen=True)
class LogarithmicCycles(Cycles):
    """Cycles found by a logarithm in floats, as in the code they are mostly copied from."""

    def __call__(self, progress: Any) -> Any:
        growth = self.multiplier
        if growth == 1:
            return super().__call__(progress)
        values = []
        for share in np.atleast_1d(progress) / self.period:
            cycle = int(math.log(share * (growth - 1) + 1, growth))
            start = (growth**cycle - 1) / (growth - 1)
            values.append(self.peak_decay**cycle * self.profile(min((share - start) / growth**cycle, 1.0)))
        return np.reshape(values, np.shape(progress)) if np.ndim(progress) else values[0]


@dataclass(frozen=True)
class SinkingCycles(Cycles):
    """The decay of the peaks pulls the lows along."""

    def __call__(self, progress: Any) -> Any:
        return super().__call__(progress) - 0.02 * (1 - self.peak_decay) * (progress > 0.5)


@dataclass(frozen=True)
class Mutant:
    """A defect and the law it breaks.

    Args:
        defect: what was seeded; the name of a class above.
        law: name of the law that has to catch it.
        also: laws that the same defect breaks by its nature.
        library: builds ours with the defect.
    """

    defect: str
    law: str
    also: tuple[str, ...]
    library: Callable[[], Library]


def _scheduler(scheduler: type[BudgetScheduler], law: str, *also: str) -> Mutant:
    return Mutant(scheduler.__name__, law, also, lambda: glideslope(scheduler))


def _cycles(cycles: type[Cycles], law: str, *also: str) -> Mutant:
    return Mutant(cycles.__name__, law, also, lambda: glideslope(cycles=cycles))


MUTANTS: Mapping[str, Mutant] = {
    mutant.defect: mutant
    for mutant in (
        _scheduler(Rebounds, "lands at T", "new group"),
        _scheduler(WarmsUpFromZero, "first update moves", "composition"),
        _scheduler(LengthenedByWarmup, "warmup inside", "lands at T", "composition"),
        _scheduler(DropsAfterWarmup, "warmup meets the peak", "peak at any T", "composition"),
        _scheduler(SkipsThePeakOfSmallBudgets, "peak at any T"),
        _scheduler(Undershoots, "within bounds"),
        _cycles(LogarithmicCycles, "restarts are exact"),
        _cycles(SinkingCycles, "restarts above the floor"),
        _scheduler(AddsUpProgress, "no drift"),
        _scheduler(OneRateForAll, "groups keep their own"),
        _scheduler(FloatsForTensors, "tensors stay"),
        _scheduler(FreezesNewGroups, "new group"),
        _scheduler(LosesAnUpdate, "resume", "resume of the scheduler alone", "rebuilding"),
        _scheduler(LeavesTheRateToTheOptimizer, "resume of the scheduler alone", "resume", "rebuilding"),
        _scheduler(TakesThePresentRateForTheBase, "rebuilding"),
        _scheduler(TheOldBudgetWins, "another budget"),
        _scheduler(Rescales, "changing the budget"),
        _scheduler(ForgetsItsCounter, "plateau"),
        _scheduler(WarmsUpTwice, "composition"),
        _scheduler(CountsCalls, "only updates count"),
        _scheduler(WrapsTheStep, "optimizer left alone", "in SequentialLR"),
        _scheduler(LetsItsPositionBeSet, "in SequentialLR"),
    )
}
"""Defect → mutant."""
