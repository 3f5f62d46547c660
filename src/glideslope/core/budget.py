"""Budgets: what may be spent, as immutable values with a text form."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import InitVar, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import ClassVar, Self

from glideslope.core.value import Value, require


@dataclass(frozen=True)
class Budget(Value, ABC):
    """What a run may spend. The meter compares it with what has been spent; nothing else knows its unit.

    Class attributes:
        unit: what the meter counts for this budget: "updates", "epochs", "samples", "tokens" or "seconds".
    """

    kind: ClassVar[str] = "budget"
    unit: ClassVar[str]

    @property
    @abstractmethod
    def limit(self) -> float:
        """The amount that exhausts the budget, in what the meter counts."""

    @abstractmethod
    def __str__(self) -> str:
        """The text form, which `parse_budget` reads back."""

    def ratio(self, other: Budget) -> float:
        """How many times `other` this budget is; both must count the same thing."""
        if isinstance(self, Epochs) and isinstance(other, Epochs):
            return self.count / other.count
        if self.unit != other.unit:
            raise ValueError(f"{self} counts {self.unit} and {other} counts {other.unit}: they have no ratio.")
        return self.limit / other.limit


@dataclass(frozen=True)
class Counted(Budget, ABC):
    """A whole number of something.

    Class attributes:
        suffix: what its text form puts behind the number.
    """

    count: int
    suffix: ClassVar[str]

    def _check(self) -> None:
        require(self.count >= 1, "count", self.count, "count >= 1")

    @property
    def limit(self) -> float:
        return self.count

    def __str__(self) -> str:
        return f"{self.count}{self.suffix}"


@dataclass(frozen=True)
class Steps(Counted):
    """A number of optimizer updates.

    >>> str(Steps(500))
    '500ba'
    """

    unit: ClassVar[str] = "updates"
    suffix: ClassVar[str] = "ba"

    @classmethod
    def doubling(cls, first: int, upto: int) -> tuple[Self, ...]:
        """Budgets that double, for a tradeoff curve: first, 2·first, 4·first, …, upto.

        Args:
            first: updates of the smallest, >= 1.
            upto: updates of the largest, which all costs are measured by: `first` times a power of two, >= `first`.

        >>> [budget.count for budget in Steps.doubling(500, upto=16_000)]
        [500, 1000, 2000, 4000, 8000, 16000]
        """
        smallest, largest = cls(first), cls(upto)
        require(largest.count >= smallest.count, "upto", upto, f"upto >= first, {first}")
        times = (largest.count // smallest.count).bit_length() - 1
        below = smallest.count * 2**times
        bound = f"a power of two times {first}, such as {below} or {2 * below}"
        require(below == largest.count, "upto", upto, bound)
        return tuple(cls(smallest.count * 2**power) for power in range(times + 1))


@dataclass(frozen=True)
class Samples(Counted):
    """A number of training examples, counted as they are used: `scheduler.step(samples=len(batch))`.

    >>> str(Samples(1_000_000))
    '1000000sp'
    """

    unit: ClassVar[str] = "samples"
    suffix: ClassVar[str] = "sp"


@dataclass(frozen=True)
class Tokens(Counted):
    """A number of tokens, counted as they are used: `scheduler.step(tokens=n)`.

    >>> str(Tokens(2_000))
    '2000tok'
    """

    unit: ClassVar[str] = "tokens"
    suffix: ClassVar[str] = "tok"


@dataclass(frozen=True)
class Epochs(Budget):
    """A number of passes over the training set, fractions allowed.

    Args:
        count: number of epochs, > 0.
        updates_per_epoch: updates in one epoch, usually `len(loader)`. Needed wherever updates are counted.

    >>> str(Epochs(2.5, updates_per_epoch=391))
    '2.5ep*391ba'
    """

    count: float
    updates_per_epoch: int | None = None

    def _check(self) -> None:
        require(self.count > 0, "count", self.count, "count > 0")
        if self.updates_per_epoch is not None:
            require(self.updates_per_epoch >= 1, "updates_per_epoch", self.updates_per_epoch, "updates_per_epoch >= 1")

    @property
    def unit(self) -> str:  # type: ignore[override]
        return "epochs" if self.updates_per_epoch is None else "updates"

    @property
    def limit(self) -> float:
        if self.updates_per_epoch is None:
            return self.count
        updates = self.count * self.updates_per_epoch
        # 0.07 * 100 is 7.000000000000001, which 7 updates would not exhaust.
        return float(round(updates)) if math.isclose(updates, round(updates), rel_tol=1e-12) else updates

    def __str__(self) -> str:
        return f"{_number(self.count)}ep" + ("" if self.updates_per_epoch is None else f"*{self.updates_per_epoch}ba")


@dataclass(frozen=True)
class WallClock(Budget):
    """Time spent running; the arguments add up.

    Args:
        seconds, minutes, hours: parts of the limit; their sum, kept in `seconds`, must be > 0.
        reserve: seconds of it kept back for what comes after training, e.g. the final evaluation; a number or a text
            such as "2min".

    >>> WallClock(hours=1, minutes=30, reserve="2min")
    WallClock(seconds=5400.0, reserve=120.0)
    """

    seconds: float = 0.0
    minutes: InitVar[float] = 0.0
    hours: InitVar[float] = 0.0
    reserve: float = field(default=0.0, kw_only=True)
    unit: ClassVar[str] = "seconds"

    def __post_init__(self, minutes: float, hours: float) -> None:
        object.__setattr__(self, "seconds", self.seconds + 60 * minutes + 3600 * hours)
        object.__setattr__(self, "reserve", _seconds(self.reserve))
        super().__post_init__()

    def _check(self) -> None:
        require(self.seconds > 0, "seconds", self.seconds, "seconds > 0")
        require(0 <= self.reserve < self.seconds, "reserve", self.reserve, "0 <= reserve < seconds")

    @property
    def limit(self) -> float:
        return self.seconds - self.reserve

    def __str__(self) -> str:
        return _duration(self.seconds) + _reserve_text(self.reserve)


@dataclass(frozen=True)
class Deadline(Budget):
    """A moment. Everything until then is spent, downtime and pauses included.

    Args:
        at: UNIX time in seconds, a `datetime`, or its ISO text; without a zone it is local time.
        reserve: seconds kept back before the moment; a number or a text such as "2min".

    >>> Deadline("2026-01-31T18:00:00+00:00", reserve="2min")
    Deadline(at=1769882400.0, reserve=120.0)
    """

    at: float
    reserve: float = 0.0
    unit: ClassVar[str] = "moment"

    def __post_init__(self) -> None:
        at: object = self.at
        if isinstance(at, str):
            at = datetime.fromisoformat(at)
        if isinstance(at, datetime):
            at = at.timestamp()
        object.__setattr__(self, "at", at)
        object.__setattr__(self, "reserve", _seconds(self.reserve))
        super().__post_init__()

    def _check(self) -> None:
        require(self.reserve >= 0, "reserve", self.reserve, "reserve >= 0")

    @property
    def limit(self) -> float:
        """UNIX time at which training ends; the meter counts from when the run began."""
        return self.at - self.reserve

    def __str__(self) -> str:
        return f"until {datetime.fromtimestamp(self.at, UTC).isoformat()}" + _reserve_text(self.reserve)


def _seconds(amount: float | str) -> float:
    """Seconds from a number or the text of a duration."""
    if not isinstance(amount, str):
        return amount
    budget = parse_budget(amount)
    if not isinstance(budget, WallClock):
        raise ValueError(f'`reserve` is {amount!r}, but must be a time such as 120 or "2min".')
    return budget.seconds


def _duration(seconds: float) -> str:
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{_number(seconds)}sec"


def _reserve_text(reserve: float) -> str:
    return f" reserve {_duration(reserve)}" if reserve else ""


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


UNITS = "sec|sp|s|min|m|hours|hour|hr|h|epochs|epoch|ep|ba|tok"
"""Every unit of the text form, as alternatives of a regular expression, longer ones before their beginnings."""

_PART = re.compile(rf"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*({UNITS})\s*", re.IGNORECASE)
_SECONDS = {"sec": 1, "s": 1, "min": 60, "m": 60, "hours": 3600, "hour": 3600, "hr": 3600, "h": 3600}
_FORMS = (
    '"90ep", "90ep*391ba", "500ba", "1e6sp", "2e9tok", "45min", "1h30m", "3600sec", "until 18:00", "45min reserve 2min"'
)


def parse_budget(budget: str | Budget) -> Budget:
    """The budget of a text; a budget is returned as it is. The inverse of `str`.

    Args:
        budget: "90ep" (epochs), "500ba" (updates, batches), "1e6sp" (samples), "2e9tok" (tokens), "45min", "1h30m",
            "3600sec".

    >>> parse_budget("1h30m")
    WallClock(seconds=5400.0, reserve=0.0)
    >>> parse_budget("2e9tok")
    Tokens(count=2000000000)
    """
    if isinstance(budget, Budget):
        return budget
    text, reserved, kept = budget.strip().partition(" reserve ")
    if reserved:
        whole = parse_budget(text)
        if not isinstance(whole, (WallClock, Deadline)):
            raise ValueError(f"cannot read the budget {budget!r}: only a time can have a reserve.")
        return replace(whole, reserve=_seconds(kept))
    if text.lower().startswith("until "):
        return Deadline(_moment(text[6:].strip(), budget))
    head, star, tail = text.partition("*")
    if star:
        epochs, steps = parse_budget(head), parse_budget(tail)
        if isinstance(epochs, Epochs) and isinstance(steps, Steps):
            return Epochs(epochs.count, updates_per_epoch=steps.count)
        raise _unreadable(budget)
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text):
        raise _unreadable(budget)
    amounts = []
    for number, unit in parts:
        try:
            amounts.append((Decimal(number), unit.lower()))
        except InvalidOperation:
            raise _unreadable(budget) from None
    if all(unit in _SECONDS for _, unit in amounts):
        return WallClock(seconds=float(sum(amount * _SECONDS[unit] for amount, unit in amounts)))
    if len(amounts) > 1:
        raise _unreadable(budget)
    amount, unit = amounts[0]
    if unit.startswith("ep"):
        return Epochs(float(amount))
    require(amount == amount.to_integral_value(), "budget", budget, "a whole number of updates, samples or tokens")
    kinds: tuple[type[Counted], ...] = (Steps, Samples, Tokens)
    return next(kind for kind in kinds if kind.suffix == unit)(int(amount))


def _moment(text: str, budget: str) -> float:
    """UNIX time of an ISO moment, or of the next time a clock shows "18:00" here."""
    try:
        if not re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", text):
            return datetime.fromisoformat(text).timestamp()
        hour, minute, *second = map(int, text.split(":"))
        now = datetime.now()
        moment = now.replace(hour=hour, minute=minute, second=second[0] if second else 0, microsecond=0)
    except ValueError:
        raise _unreadable(budget) from None
    return (moment if moment > now else moment + timedelta(days=1)).timestamp()


def _unreadable(text: str) -> ValueError:
    return ValueError(f"cannot read the budget {text!r}. Write one of {_FORMS}.")
