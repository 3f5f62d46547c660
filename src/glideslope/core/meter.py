"""Meter: budget × observed spending → progress. The only mutable thing in core."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from glideslope.core.budget import Budget, Deadline, Epochs, parse_budget
from glideslope.core.namespace import Real, clip
from glideslope.core.value import require, unknown

RebudgetPolicy = Literal["continuous", "rescale", "keep"]
_POLICIES = ("continuous", "rescale", "keep")


class BudgetExhausted(RuntimeError):  # noqa: N818 - it names the fact, as the message does
    """The budget is spent, so there is no progress left to continue from."""


class BudgetMismatch(ValueError):  # noqa: N818 - it names the fact, as the message does
    """A checkpoint made for one budget is being loaded into another."""


@dataclass(frozen=True)
class Clock:
    """Where time comes from, injected so that tests need not sleep.

    Args:
        monotonic: seconds that never run backwards; what is counted while a run is up.
        wall: UNIX time in seconds; read when a run begins and when it is resumed, so that a `Deadline` counts downtime.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


@dataclass(frozen=True)
class Segment:
    """How progress follows from spending: a straight line from (spent, progress) to the budget's limit at progress 1.

    Args:
        budget: what the line ends at; its unit is what it counts.
        spent, progress: where the line begins: (0, 0) unless the budget was changed on the way.
    """

    budget: Budget
    spent: float = 0.0
    progress: float = 0.0

    def at(self, spent: Real, limit: float) -> Real:
        """Progress in [0, 1] at an amount spent: s₀ + (1 − s₀)(t − t₀)/(T − t₀)."""
        if limit <= self.spent:
            return 1.0 + 0.0 * spent
        share = (spent - self.spent) / (limit - self.spent)
        return clip(self.progress + (1 - self.progress) * share, 0.0, 1.0)


class Meter:
    """Counts what is spent and says which share of the budget that is.

    All amounts are counted at all times, so that a budget can be exchanged for one in another unit on the way.

    Args:
        budget: what may be spent. `Epochs` without `updates_per_epoch` learn it from the first `end_epoch`; until then
            progress stays 0.
        clock: where time comes from.

    Attributes:
        amounts: "updates", "samples", "tokens", "epochs" → how many were counted; `advance` counts with checks.

    >>> from glideslope.core.budget import Steps
    >>> meter = Meter(Steps(4))
    >>> meter.advance(); meter.progress
    0.25
    >>> meter.rebudget(Steps(7)); meter.advance(3); meter.progress  # half of what was left
    0.625
    """

    def __init__(self, budget: Budget, clock: Clock = Clock()) -> None:
        self._clock = clock
        self._budget = budget
        self._segment = Segment(budget)
        self.amounts = {"updates": 0, "samples": 0, "tokens": 0, "epochs": 0}
        self._learned: int | None = None
        self._pauses = 0
        self._began = clock.wall()
        self._start(running=0.0, elapsed=0.0)

    def _start(self, running: float, elapsed: float) -> None:
        """Count time on from these two: seconds running, and seconds since the run began."""
        self._running = self._running_before = running
        self._elapsed = self._elapsed_before = elapsed
        self._since = self._up_since = self._clock.monotonic()

    @property
    def budget(self) -> Budget:
        """What may be spent; `Epochs` know their updates once they were learned."""
        return self._known(self._budget)

    @property
    def updates(self) -> int:
        """Updates counted so far."""
        return self.amounts["updates"]

    def advance(self, updates: int = 1, samples: int = 0, tokens: int = 0) -> None:
        """Count what was just spent; all amounts >= 0."""
        for name, amount in (("updates", updates), ("samples", samples), ("tokens", tokens)):
            require(amount >= 0, name, amount, f"{name} >= 0")
            self.amounts[name] += operator.index(amount)  # a plain int, whatever counted it: the state is JSON

    def start_clock(self) -> None:
        """Count time from now on; what ran before is forgotten."""
        self._began = self._clock.wall()
        self._start(running=0.0, elapsed=0.0)

    def spending(self) -> list[float]:
        """All that is counted, as numbers: what ranks of a distributed run exchange."""
        return [*map(float, self.amounts.values()), self.running_seconds, self.elapsed_seconds, self._began]

    def load_spending(self, numbers: list[float]) -> None:
        """Take over another meter's `spending`."""
        *amounts, running, elapsed, self._began = numbers
        self.amounts = {name: int(amount) for name, amount in zip(self.amounts, amounts, strict=True)}
        self._start(running, elapsed)

    def end_epoch(self) -> int | None:
        """Count an epoch; the number of updates in one, if a budget in epochs learned it from this first one."""
        self.amounts["epochs"] += 1
        unknown_length = isinstance(self._budget, Epochs) and self._budget.updates_per_epoch is None
        if unknown_length and self._learned is None:
            require(self.updates >= 1, "updates", self.updates, "at least one update before the first epoch ends")
            self._learned = self.updates
            return self._learned
        return None

    def _known(self, budget: Budget) -> Budget:
        if isinstance(budget, Epochs) and budget.updates_per_epoch is None and self._learned is not None:
            return replace(budget, updates_per_epoch=self._learned)
        return budget

    def _limit(self, budget: Budget) -> float:
        return budget.at - budget.reserve - self._began if isinstance(budget, Deadline) else budget.limit

    def _spent(self, budget: Budget) -> float:
        if budget.unit == "seconds":
            return self.running_seconds
        if budget.unit == "moment":
            return self.elapsed_seconds
        return self.amounts[budget.unit] if budget.unit != "epochs" else 0

    @property
    def running_seconds(self) -> float:
        """Seconds this run was up, pauses left out; never backwards, whatever the clock does."""
        if not self._pauses:
            self._running = max(self._running, self._running_before + self._clock.monotonic() - self._since)
        return self._running

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the run began, pauses and downtime included; never backwards."""
        self._elapsed = max(self._elapsed, self._elapsed_before + self._clock.monotonic() - self._up_since)
        return self._elapsed

    @property
    def spent(self) -> float:
        """What is spent so far, in the unit of the budget."""
        return self._spent(self.budget)

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        budget = self._known(self._segment.budget)
        return float(self._segment.at(self._spent(budget), self._limit(budget)))

    def progress_at(self, updates: Real) -> Real:
        """Progress at a position in updates, for budgets that count them; any shape."""
        budget = self._known(self._segment.budget)
        return self._segment.at(updates, self._limit(budget))

    @property
    def counts_updates(self) -> bool:
        """Whether progress follows from the number of updates alone."""
        return self._known(self._segment.budget).unit == "updates" and self.budget.unit == "updates"

    @property
    def counts_time(self) -> bool:
        """Whether progress or exhaustion follow a clock, which is another one on every rank."""
        return bool({self._segment.budget.unit, self.budget.unit} & {"seconds", "moment"})

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent."""
        budget = self.budget
        return self._spent(budget) >= self._limit(budget)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside does not count for `WallClock`; a `Deadline` does not wait. May be nested."""
        _ = self.running_seconds  # counted up to here
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:  # not from where the pause began: a state may have been loaded inside it
                self._running_before, self._since = self._running, self._clock.monotonic()

    def rebudget(self, budget: Budget, policy: RebudgetPolicy = "continuous") -> None:
        """Exchange the budget on the way.

        Args:
            budget: the new total, counted from the beginning of the run, in any unit.
            policy: "continuous": progress goes on from where it is and runs on to the new end; a limit that is already
                passed exhausts at once. "rescale": as if the new budget had always been; may jump. "keep": the old
                curve to its end, then hold; only `exhausted` follows the new budget.

        Raises:
            BudgetExhausted: there is no progress left to continue from; `rewarm` starts again from a chosen one.
        """
        if policy not in _POLICIES:
            raise unknown("rebudget policy", policy, _POLICIES)
        if policy == "keep":
            self._budget = budget
            return
        progress = self.progress
        if policy == "continuous" and progress >= 1:
            raise BudgetExhausted(
                f"the budget {self.budget} is spent: at progress 1 there is nothing to continue. To train on, choose "
                f"where to start again: rewarm({str(budget)!r}, from_progress=0.5)."
            )
        self._budget = budget
        self._segment = Segment(budget) if policy == "rescale" else Segment(budget, self._spent(self.budget), progress)

    def rewarm(self, budget: Budget, from_progress: float) -> None:
        """Go on after the end (or before it) at a chosen progress, which then runs on to the new budget's end.

        Args:
            budget: the new total, counted from the beginning of the run.
            from_progress: where to go on, 0 <= from_progress < 1.
        """
        require(0 <= from_progress < 1, "from_progress", from_progress, "0 <= from_progress < 1")
        self._budget = budget
        self._segment = Segment(budget, self._spent(self.budget), from_progress)

    def state_dict(self) -> dict[str, Any]:
        """Position and budget, as separate entries of JSON types."""
        return {
            "budget": str(self._budget),
            "segment": [str(self._segment.budget), self._segment.spent, self._segment.progress],
            "position": {
                **self.amounts,
                "running_seconds": self.running_seconds,
                "elapsed_seconds": self.elapsed_seconds,
                "began": self._began,
                "updates_per_epoch": self._learned,
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved position. The budget must be that of the state: whoever loads checks it."""
        position = state["position"]
        self.amounts = {name: int(position[name]) for name in self.amounts}
        self._learned = position["updates_per_epoch"]
        budget, spent, progress = state["segment"]
        self._segment = Segment(parse_budget(budget), float(spent), float(progress))
        self._began = float(position["began"])
        downtime_included = max(float(position["elapsed_seconds"]), self._clock.wall() - self._began)
        self._start(float(position["running_seconds"]), downtime_included)
