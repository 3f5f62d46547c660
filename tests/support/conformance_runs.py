"""What a law may ask of a library: schedulers on offer, and training runs under them as their user sees them."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch


class NotApplicable(Exception):  # noqa: N818 - it names the fact
    """The library has nothing of that kind; the message says why."""


@dataclass(frozen=True)
class Ask:
    """What a user wants of a schedule.

    Args:
        updates: the budget: updates 0 … updates - 1 are made.
        warmup: updates of linear warmup.
        floor: lowest rate, as a share of the base rate.
        bases: base learning rate of each parameter group.
        in_tensors: whether the groups hold their rates as tensors.
    """

    updates: int = 20
    warmup: int = 0
    floor: float = 0.0
    bases: tuple[float, ...] = (0.1,)
    in_tensors: bool = False


@dataclass(frozen=True)
class Cycles(Ask):
    """What a user wants of warm restarts.

    Args:
        first: updates of the first cycle.
        growth: each cycle has this many times the updates of the one before.
        peak_decay: factor on the peak at each restart.
    """

    first: int = 10
    growth: int = 1
    peak_decay: float = 1.0

    def restarts(self) -> list[int]:
        """The updates at which a cycle begins, 0 included, in whole numbers."""
        starts, length = [0], self.first
        while starts[-1] + length < self.updates:
            starts.append(starts[-1] + length)
            length *= self.growth
        return starts


class Run(ABC):
    """One training run. Rates are those in force for the next update."""

    ask: Ask

    @abstractmethod
    def rates(self) -> tuple[float, ...]:
        """The learning rate of each group."""

    @abstractmethod
    def advance(self, updates: int = 1) -> None:
        """Make this many updates, and after each whatever the library's documentation tells its user to call."""

    @abstractmethod
    def skip(self, updates: int) -> None:
        """Go to a position far away, from the start of the run: what the optimizer does there is of no interest."""

    @abstractmethod
    def another(self, updates: int | None = None) -> Run:
        """A run from the start, asked the same; with a budget of its own if `updates` says so."""

    @abstractmethod
    def state(self) -> Any:
        """A checkpoint of what the library saves."""

    @abstractmethod
    def resume(self, state: Any) -> None:
        """Load a checkpoint as the documentation says."""

    @property
    def rate(self) -> float:
        """The learning rate of the first group."""
        return self.rates()[0]

    def curve(self, updates: int) -> list[float]:
        """The first group's rates during the next `updates` updates."""
        rates = []
        for _ in range(updates):
            rates.append(self.rate)
            self.advance()
        return rates


class CountedRun(Run):
    """A run under a function from the update count to the rate, as JAX and Keras have them.

    Args:
        ask: what was asked.
        make: ask → function from counts, shape (num_counts,), to their rates, same shape.
        block: rates are computed this many at a time; JAX traces a shape once.
    """

    def __init__(self, ask: Ask, make: Callable[[Any], Callable[[np.ndarray], np.ndarray]], block: int = 64) -> None:
        if len(ask.bases) > 1:
            raise NotApplicable("a schedule is a function of the count; groups are none of its business")
        if ask.in_tensors:
            raise NotApplicable("a schedule returns arrays; there is no tensor to keep")
        self.ask, self._make, self._block = ask, make, block
        self._at = make(ask)
        self._table: dict[int, np.ndarray] = {}
        self.count = 0

    def rates(self) -> tuple[float, ...]:
        block, place = divmod(self.count, self._block)
        if block not in self._table:
            self._table[block] = np.asarray(self._at(np.arange(block * self._block, (block + 1) * self._block)))
        return (float(self._table[block][place]),)

    def advance(self, updates: int = 1) -> None:
        self.count += updates

    skip = advance

    def another(self, updates: int | None = None) -> CountedRun:
        ask = self.ask if updates is None else replace(self.ask, updates=updates)
        return CountedRun(ask, self._make, self._block)

    def state(self) -> int:
        return self.count

    def resume(self, state: int) -> None:
        self.count = state

    def follow(self, at: Callable[[np.ndarray], np.ndarray]) -> None:
        """Go on under another function of the count."""
        self._at, self._table = at, {}

    def exchange(self, updates: int) -> None:
        """Go on under the schedule for another budget: what changing the code and keeping the count amounts to."""
        self.follow(self._make(replace(self.ask, updates=updates)))


Maker = Callable[..., Any]
"""(optimizer, ask) → scheduler; with a third argument `last_epoch` where the library's schedulers have one."""


class TorchRun(Run):
    """A run of a PyTorch optimizer under a scheduler: `optimizer.step()`, then `scheduler.step()`.

    Args:
        ask: what was asked.
        make: builds the scheduler.
    """

    def __init__(self, ask: Ask, make: Maker) -> None:
        self.ask, self._make = ask, make
        groups = [
            {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.tensor(base) if ask.in_tensors else base}
            for base in ask.bases
        ]
        self.optimizer = torch.optim.SGD(groups, lr=ask.bases[0], momentum=0.9)
        self.scheduler = make(self.optimizer, ask)
        self.updates = 0

    def rates(self) -> tuple[float, ...]:
        return tuple(float(group["lr"]) for group in self.optimizer.param_groups)

    def advance(self, updates: int = 1) -> None:
        for _ in range(updates):
            self.optimizer.step()
            self.updates += 1
            self.call()

    def call(self) -> None:
        """What the library's user calls after an update."""
        self.scheduler.step()

    def skip(self, updates: int) -> None:
        for _ in range(updates):
            self.call()

    def another(self, updates: int | None = None) -> TorchRun:
        return type(self)(self.ask if updates is None else replace(self.ask, updates=updates), self._make)

    def state(self) -> dict[str, Any]:
        return copy.deepcopy({"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()})

    def resume(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.resume_scheduler(state)

    def resume_scheduler(self, state: dict[str, Any]) -> None:
        """Load the scheduler's part alone; the optimizer starts afresh."""
        self.scheduler.load_state_dict(copy.deepcopy(state["scheduler"]))

    def build(self, optimizer: torch.optim.Optimizer) -> Any:
        """A scheduler as this run has, on a given optimizer."""
        return self._make(optimizer, self.ask)

    def rebuild(self) -> None:
        """Build the scheduler again on the optimizer in use, as after a break: `last_epoch` says where it stood."""
        self.scheduler = self._make(self.optimizer, self.ask, last_epoch=self.updates - 1)

    def add_group(self, base: float) -> None:
        self.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": base})


class PlateauRun(ABC):
    """A run whose rate a rule lowers when a loss has stopped falling."""

    @property
    @abstractmethod
    def rate(self) -> float:
        """The learning rate in force."""

    @abstractmethod
    def observe(self, loss: float) -> None:
        """Show the rule a validation loss."""

    @abstractmethod
    def saved_and_resumed(self) -> PlateauRun:
        """A new run that goes on from this one's checkpoint."""


@dataclass(frozen=True)
class Offer:
    """One scheduler of a library, ready to be asked.

    Args:
        name: as the library calls it.
        run: ask → run.
        end: where it says it ends, as a share of the base, when no floor is asked.
        has_floor: whether a floor can be asked for.
        floor_is_absolute: whether that floor is one rate for all groups; else a share of each group's base.
        exact: the formula, mpmath in and out: progress → multiplier; None where the library states none.
        rebudget: run, new number of updates → None: how its user changes the budget in mid-run; None where the
            library knows no way.
        start_is_asked: whether the caller must say at which rate a warmup starts.
        epsilon: precision of the numbers handed out, as a share of the peak.
    """

    name: str
    run: Callable[[Any], Any]
    end: float = 0.0
    has_floor: bool = True
    floor_is_absolute: bool = True
    exact: Callable[[Any], Any] | None = None
    rebudget: Callable[[Any, int], None] | None = None
    start_is_asked: bool = False
    epsilon: float = 2.3e-16

    def ends(self, ask: Ask) -> tuple[float, ...]:
        """Where each group is to land."""
        share = ask.floor if ask.floor else self.end
        return tuple((ask.bases[0] if self.floor_is_absolute and ask.floor else base) * share for base in ask.bases)


@dataclass(frozen=True)
class Composed:
    """A composition of schedules and what its parts, each applied once, make of the base rate.

    Args:
        name: as its user writes it.
        run: () → run.
        expected: update → rate.
        updates: for how many it is compared.
    """

    name: str
    run: Callable[[], Run]
    expected: Callable[[int], float]
    updates: int = 20


@dataclass(frozen=True)
class Plateaued:
    """A rule that lowers the rate to half after three losses that did not fall.

    Args:
        name: as the library calls it.
        run: () → run.
    """

    name: str
    run: Callable[[], PlateauRun]


@dataclass(frozen=True)
class Library:
    """What a library offers, sorted by kind. Where a kind is empty, `lacks` says why.

    Args:
        name: the distribution that is installed.
        version: the installed version; None where it is not installed.
        decays: from the base rate down, landing at update T.
        steps: decays that mean not to land at T: by steps, exponential.
        warmups: a linear rise over `ask.warmup` updates, then a decay that lands at T.
        one_cycles: up and down, the rise a share of the budget.
        restarts: take `Cycles`.
        compositions: put together from parts.
        plateaus: rules that watch a loss.
        lacks: kind → reason.
        quiet: beginnings of the warnings that a law provokes on purpose.
    """

    name: str
    version: str | None
    decays: tuple[Offer, ...] = ()
    steps: tuple[Offer, ...] = ()
    warmups: tuple[Offer, ...] = ()
    one_cycles: tuple[Offer, ...] = ()
    restarts: tuple[Offer, ...] = ()
    compositions: tuple[Composed, ...] = ()
    plateaus: tuple[Plateaued, ...] = ()
    lacks: dict[str, str] = field(default_factory=dict)
    quiet: tuple[str, ...] = ()

    @contextmanager
    def hushed(self) -> Iterator[None]:
        """Without the warnings listed in `quiet`."""
        with warnings.catch_warnings():
            for beginning in self.quiet:
                warnings.filterwarnings("ignore", message=beginning)
            yield


def exact_shapes() -> dict[str, Callable[[Any], Any]]:
    """The formulas that libraries share, for `Offer.exact`."""
    import mpmath

    return {
        "linear": lambda s: 1 - s,
        "cosine": lambda s: (1 + mpmath.cos(mpmath.pi * s)) / 2,
        "rex": lambda s: (1 - s) / (1 - s / 2),
        "square": lambda s: (1 - s) ** 2,
    }


def cosine_at(progress: float) -> float:
    """Half a cosine to zero, in plain floats: for expected values of compositions."""
    return float((1 + np.cos(np.pi * min(progress, 1.0))) / 2)


def warmed(start: float, warmup: int) -> Callable[[int], float]:
    """The factor of a linear warmup from `start` over `warmup` updates."""
    return lambda update: start + (1 - start) * min(update / warmup, 1.0)
