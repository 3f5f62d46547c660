"""The closed loop: observation → decision → gain. No learned weights, no framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from glideslope.core.value import Value, registered, require

State = Mapping[str, Any]
"""What a controller remembers between observations: JSON types only, so that a run can be saved and resumed exactly."""


@dataclass(frozen=True)
class Observation:
    """What a controller may see. NaN and infinite losses are observations too.

    Args:
        update: number of updates done.
        progress: share of the budget spent, in [0, 1].
        rate: learning rate in force in the first parameter group.
        gain: gain in force.
        train_losses: training loss of every update since the observation before, oldest first.
        val_loss: validation loss, or None where there is none.
    """

    update: int
    progress: float
    rate: float
    gain: float
    train_losses: tuple[float, ...] = ()
    val_loss: float | None = None


@dataclass(frozen=True)
class Decision:
    """What a controller wants: the gain in force from now on.

    Args:
        gain: factor on the learning rate, > 0 and finite.
        reason: one line for the log; empty where there is nothing to say.
        probabilities: of raise, keep and lower, where the controller has them.
    """

    gain: float
    reason: str = ""
    probabilities: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Controller(Value, ABC):
    """Turns observations into decisions: rate = base × gain × multiplier(progress).

    The contract:

    1. A controller is a value. What it remembers is in the state it hands back; it changes nothing in place.
    2. `decide` is a pure function of observation and state, so a member of a population equals the run alone, and a
       resumed run equals one that was never stopped.
    3. Every observation gets a finite gain > 0, whatever the losses are.

    """

    kind: ClassVar[str] = "controller"

    @abstractmethod
    def start(self) -> State:
        """The state before the first observation."""

    @abstractmethod
    def decide(self, observation: Observation, state: State) -> tuple[Decision, State]:
        """One observation in, the gain from now on and the next state out."""


@registered("clamped")
@dataclass(frozen=True)
class Clamped(Controller):
    """Any controller, with its gain kept between two bounds.

    Args:
        controller: the controller inside.
        low, high: bounds on the gain, 0 < low <= high. A gain that is NaN becomes `low`.
    """

    controller: Controller
    low: float
    high: float

    def _check(self) -> None:
        require(0 < self.low <= self.high, "low, high", (self.low, self.high), "0 < low <= high")

    def start(self) -> State:
        return self.controller.start()

    def decide(self, observation: Observation, state: State) -> tuple[Decision, State]:
        wanted, state = self.controller.decide(observation, state)
        gain = min(max(self.low, wanted.gain), self.high)  # in this order: max(NaN, low) would be NaN
        reason = wanted.reason if gain == wanted.gain else f"{wanted.reason} (clamped from {wanted.gain:g})"
        return Decision(gain, reason, wanted.probabilities), state
