"""Plan: which hyperparameter follows which schedule, and over which range."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, TypeVar

from glideslope.core.budget import Budget, Epochs, parse_budget
from glideslope.core.namespace import Real
from glideslope.core.profiles import Multiplier
from glideslope.core.schedule import Truncated
from glideslope.core.value import Value, registered, require


@dataclass(frozen=True)
class Course(Value, ABC):
    """What one hyperparameter does over the budget: base value and progress in, value out."""

    kind: ClassVar[str] = "course"
    schedule: Multiplier

    def value(self, progress: Real, base: float) -> Real:
        """The value in force at `progress` for a group whose base value is `base`."""
        return self.at(self.schedule(progress), base)

    @abstractmethod
    def at(self, multiplier: Real, base: float) -> Real:
        """The value where the schedule has the value `multiplier`."""


@registered("relative")
@dataclass(frozen=True)
class Relative(Course):
    """The schedule multiplies the group's own base value: right for learning rates and weight decay.

    >>> from glideslope.core.profiles import Linear
    >>> Relative(Linear()).value(0.5, base=0.2)
    0.1
    """

    def at(self, multiplier: Real, base: float) -> Real:
        return base * multiplier


@registered("absolute")
@dataclass(frozen=True)
class Absolute(Course):
    """The schedule moves between two given values, whatever the group's base: right for momentum.

    Args:
        schedule: what moves it.
        low: the value where the schedule is 0.
        high: the value where the schedule is 1; may be below `low`, as for the momentum of 1cycle.

    >>> from glideslope.core.profiles import Linear
    >>> Absolute(Linear(), low=0.85, high=0.95).value(1.0, base=0.9)
    0.85
    """

    low: float
    high: float

    def at(self, multiplier: Real, base: float) -> Real:
        return self.low * (1 - multiplier) + self.high * multiplier


@registered("preamble")
@dataclass(frozen=True)
class Preamble(Value):
    """A straight rise of the learning rate between absolute values, before the budget begins to count: YOLO's warmup.

    Args:
        length: how long, a budget of its own or its text; not part of the run's budget.
        start, stop: learning rates at its two ends, >= 0, the same for every group.
    """

    kind: ClassVar[str] = "preamble"
    length: Budget
    start: float
    stop: float

    def __post_init__(self) -> None:
        if isinstance(self.length, str):
            object.__setattr__(self, "length", parse_budget(self.length))
        super().__post_init__()

    def _check(self) -> None:
        require(self.start >= 0, "start", self.start, "start >= 0")
        require(self.stop >= 0, "stop", self.stop, "stop >= 0")

    @property
    def updates(self) -> int:
        """Its length; only of a preamble in updates, or in epochs of known length."""
        return math.ceil(self.length.limit)

    def rate(self, progress: float) -> float:
        """The learning rate at a share of the preamble in [0, 1]."""
        return self.start * (1 - progress) + self.stop * progress


@registered("plan")
@dataclass(frozen=True, init=False)
class Plan(Value):
    """Hyperparameter name → course, sorted by name.

    Names are those of the optimizer's parameter groups; "momentum" also stands for β1 of Adam-like optimizers.

    Args:
        courses: a mapping; a bare schedule counts as `Relative(schedule)`.
        preamble: what comes before the budget, if anything.

    >>> from glideslope.core.profiles import Linear
    >>> Plan({"lr": Linear()}).courses
    (('lr', Relative(schedule=Linear())),)
    """

    kind: ClassVar[str] = "plan"
    courses: tuple[tuple[str, Course], ...]
    preamble: Preamble | None = None

    def __init__(
        self,
        courses: Mapping[str, Course | Multiplier] | tuple[tuple[str, Course | Multiplier], ...],
        preamble: Preamble | None = None,
    ) -> None:
        pairs = courses.items() if isinstance(courses, Mapping) else courses
        entries = ((name, Relative(entry) if isinstance(entry, Multiplier) else entry) for name, entry in pairs)
        object.__setattr__(self, "courses", tuple(sorted(entries, key=lambda pair: pair[0])))
        object.__setattr__(self, "preamble", preamble)
        self.__post_init__()

    def _check(self) -> None:
        require(len(self.courses) > 0, "courses", self.courses, "at least one hyperparameter")
        names = [name for name, _ in self.courses]
        require(len(set(names)) == len(names), "courses", names, "each hyperparameter once")
        for name in names:
            plain = name.isascii() and name.isidentifier() and name != "preamble"
            require(plain, "courses", name, "a hyperparameter's name is an ASCII identifier other than 'preamble'")

    def __getitem__(self, name: str) -> Course:
        return dict(self.courses)[name]

    def __contains__(self, name: str) -> bool:
        return name in dict(self.courses)


V = TypeVar("V", bound=Value)


def for_budget(value: V, budget: Budget) -> V:
    """The same schedule, plan or policy, told the budget of this run wherever it depends on it.

    A `Truncated(…, of=Budget)` becomes a ratio; a preamble in epochs learns how many updates an epoch has.

    >>> from glideslope.core.budget import Steps
    >>> from glideslope.core.profiles import Linear
    >>> for_budget(Truncated(Linear(), of=Steps(1000)), Steps(250))
    Truncated(schedule=Linear(), of=4.0)
    """
    changes = {}
    for field in fields(value):
        before = getattr(value, field.name)
        after = _told(before, budget)
        if after is not before:
            changes[field.name] = after
    if isinstance(value, Truncated) and isinstance(value.of, Budget):
        changes["of"] = value.of.ratio(budget)
    if isinstance(value, Preamble) and isinstance(value.length, Epochs) and isinstance(budget, Epochs):
        changes["length"] = Epochs(value.length.count, budget.updates_per_epoch)
    return replace(value, **changes) if changes else value


def _told(content: object, budget: Budget) -> object:
    if isinstance(content, Value) and not isinstance(content, Budget):
        return for_budget(content, budget)
    if isinstance(content, tuple):
        told = tuple(_told(item, budget) for item in content)
        return content if all(new is old for new, old in zip(told, content, strict=True)) else told
    return content
