"""Plans of a population: every member follows its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from glideslope.core.plan import Course
from glideslope.core.profiles import Multiplier
from glideslope.trials.batched.optimizers import Values
from glideslope.trials.trial import TrialSpec


class MemberPlans:
    """What every member's plan says for every update, but for the gain.

    Args:
        numbers: the optimizer's own.
        specs: of the members.
    """

    def __init__(self, numbers: Mapping[str, float], specs: Sequence[TrialSpec]) -> None:
        self.courses: dict[str, list[NDArray[np.float64] | float]] = {}
        for name, constant in numbers.items():
            self.courses[name] = []
            for spec in specs:
                base = spec.rate if name in ("lr", "initial_lr") else constant
                course = dict(spec.policy.plan.courses).get(name)
                self.courses[name].append(base if course is None else _course_values(course, base, spec.updates))

    def between(self, start: int, stop: int, members: Sequence[int]) -> Values:
        """(updates, members) for updates start … stop - 1; a plan that has ended holds its last value."""
        values: Values = {}
        for name, courses in self.courses.items():
            block = np.empty((stop - start, len(members)))
            for column, member in enumerate(members):
                course = courses[member]
                block[:, column] = course if isinstance(course, float | int) else _held(course, start, stop)
            values[name] = block
        return values


def _held(course: NDArray[np.float64], start: int, stop: int) -> NDArray[np.float64]:
    if stop <= len(course):
        return course[start:stop]
    return course[np.minimum(np.arange(start, stop), len(course) - 1)]


def _course_values(course: Course, base: float, updates: int) -> NDArray[np.float64]:
    """`course.value(k / updates, base)` for k = 0 … updates, as `BudgetScheduler` computes it: (updates + 1,)."""
    # Members differ in their rates more often than in their schedules, which cost 3 µs a value: so each schedule is
    # read once, in plain floats, and the course is computed from what was read.
    read = copy.copy(course)
    object.__setattr__(read, "schedule", lambda progress: _shares(course.schedule, updates))
    values: NDArray[np.float64] = read.value(0.0, base)
    return values


@lru_cache(maxsize=256)
def _shares(schedule: Multiplier, updates: int) -> NDArray[np.float64]:
    return np.array([float(schedule(min(update / updates, 1.0))) for update in range(updates + 1)])
