"""Meter: budget × observed spending → progress. The only mutable thing in core."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping
from typing import Any

from glideslope.core.budget import Budget, Epochs
from glideslope.core.value import require


class Meter:
    """Counts what is spent and says which share of the budget that is.

    Args:
        budget: what may be spent. `Epochs` must know their `updates_per_epoch`.
        clock: for wall-clock budgets: a monotonic clock in seconds.

    >>> from glideslope.core.budget import Steps
    >>> meter = Meter(Steps(4))
    >>> meter.advance(); meter.progress
    0.25
    """

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        if isinstance(budget, Epochs) and budget.updates_per_epoch is None:
            raise ValueError(
                f"{budget} does not say how many updates an epoch has. "
                f"Write Epochs({budget.count:g}, updates_per_epoch=len(loader))."
            )
        self.budget = budget
        self._clock = clock
        self._amounts = {"updates": 0, "samples": 0, "tokens": 0}
        self.start_clock()

    def start_clock(self) -> None:
        """Count time from now on; what ran before is forgotten."""
        self._resume_clock(0.0)

    def _resume_clock(self, seconds: float) -> None:
        self._seconds = self._seconds_before = seconds
        self._started = self._clock()

    def advance(self, updates: int = 1, samples: int = 0, tokens: int = 0) -> None:
        """Count what was just spent; all amounts >= 0."""
        for name, amount in (("updates", updates), ("samples", samples), ("tokens", tokens)):
            require(amount >= 0, name, amount, f"{name} >= 0")
            self._amounts[name] += operator.index(amount)  # a plain int, whatever counted it: the state is JSON

    @property
    def updates(self) -> int:
        """Updates counted so far."""
        return self._amounts["updates"]

    @property
    def spent(self) -> float:
        """What is spent so far, in the unit of the budget."""
        if self.budget.unit == "seconds":
            # A clock that is set back must not take the progress back with it.
            self._seconds = max(self._seconds, self._seconds_before + self._clock() - self._started)
            return self._seconds
        return self._amounts[self.budget.unit]

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        return min(self.spent / self.budget.limit, 1.0)

    @property
    def exhausted(self) -> bool:
        return self.spent >= self.budget.limit

    def state_dict(self) -> dict[str, Any]:
        """The position alone: JSON types, no budget in it."""
        seconds = self.spent if self.budget.unit == "seconds" else 0.0
        return {**self._amounts, "seconds": seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._amounts = {name: int(state[name]) for name in self._amounts}
        self._resume_clock(float(state["seconds"]))
