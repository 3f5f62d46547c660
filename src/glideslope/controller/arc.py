"""ARC, the autonomous rate controller: a network looks at the last cycles and raises, keeps or lowers the gain."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

from glideslope.controller.features import MAX_CYCLES, VARIANTS, Cycle, features
from glideslope.controller.network import Network
from glideslope.controller.rules import bounded
from glideslope.core.budget import Budget, Epochs, parse_budget
from glideslope.core.control import Controller, Decision, Observation, State
from glideslope.core.value import registered, require, unknown

FACTORS = (1.618, 1.0, 0.618)
"""What the gain is multiplied with, in the order of the network's probabilities."""
ACTIONS = ("raise", "keep", "lower")
RAISE, KEEP, LOWER = range(3)
"""Positions in both."""

PRETRAINED = Path(__file__).parent / "weights" / "arc.safetensors"
"""The weights that come with the library."""


def fingerprint(path: str | Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


PRETRAINED_SHA256 = fingerprint(PRETRAINED) if PRETRAINED.is_file() else ""
"""Read at import, so that it is a default like any other: a pretrained controller's text is short, its JSON whole."""


@registered("arc")
@dataclass(frozen=True)
class Arc(Controller):
    """A network that has watched many trainings decides: gain × 1.618, as it is, or × 0.618.

    It decides at the end of every cycle of observations, from the losses and rates of the last three cycles, or of as
    many as there are. Only their shape counts: losses are standardized, rates relative. It works without validation
    losses, and takes losses that are not finite for a jump upward.

    Make one with `Arc.pretrained()` or `Arc.from_file(path)`.

    Args:
        every: observations in a cycle, >= 1. An observation is the end of an epoch (that is when `observe` is called),
            so `Epochs(3)` and "3ep" mean 3.
        variant: how histories become the network's input, a name in `glideslope.controller.features.VARIANTS`. It must
            be the one that the weights were trained with.
        weights: "pretrained", or the path of a file that `Network.from_file` reads.
        sha256: fingerprint of that file, which a trial's identity depends on. Filled in where it is left out; where it
            is given the file is read when it is needed, and refused if it is another one.

    Source: Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021, Section 3.
    """

    whereabouts: ClassVar[tuple[str, ...]] = ("weights",)

    every: int = 3
    variant: str = "code"
    weights: str = "pretrained"
    sha256: str = PRETRAINED_SHA256

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", _observations(self.every))
        super().__post_init__()
        # Beside a path, the fingerprint of the pretrained weights is the default and means that none was given.
        if not self.sha256 or (self.weights != "pretrained" and self.sha256 == PRETRAINED_SHA256):
            object.__setattr__(self, "sha256", fingerprint(_path(self.weights)))
            self.network  # noqa: B018 - a file that holds no network is refused here and not in the middle of a training

    def _check(self) -> None:
        require(self.every >= 1, "every", self.every, "every >= 1")
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        whole = re.fullmatch("([0-9a-f]{64})?", self.sha256) is not None
        require(whole, "sha256", self.sha256, "sha256 is 64 hexadecimal digits, or empty")

    @classmethod
    def pretrained(cls, every: int | str | Budget = "3ep") -> Self:
        """The controller with the weights that come with the library."""
        return cls(_observations(every))

    @classmethod
    def from_file(cls, path: str | Path, every: int | str | Budget = "1ep", variant: str = "code") -> Self:
        """The controller with weights of your own, `.safetensors` or `.npz`; `glideslope arc train` makes them."""
        return cls(_observations(every), variant, str(path), sha256="")

    @property
    def network(self) -> Network:
        """What decides; read once per process.

        Raises:
            FileNotFoundError: the weights are not there.
            ValueError: the file is not the one that this controller was made with, or is no network.
        """
        return _network(self.weights, self.sha256)

    def start(self) -> State:
        return {"cycles": [], "observations": 0, "train_losses": [], "val_losses": []}

    def decide(self, observation: Observation, state: State) -> tuple[Decision, State]:
        observations = state["observations"] + 1
        train_losses = state["train_losses"] + _saved(observation.train_losses)
        val_losses = state["val_losses"]
        if observation.val_loss is not None:
            val_losses = val_losses + _saved([observation.val_loss])
        if observations < self.every:
            making = {"observations": observations, "train_losses": train_losses, "val_losses": val_losses}
            return Decision(observation.gain), {**state, **making}
        (rate,) = _saved([observation.rate])
        cycle = {"train_losses": train_losses, "val_losses": val_losses, "rate": rate}
        cycles = [*state["cycles"], cycle][-MAX_CYCLES:]
        seen = features([_read(each) for each in cycles], self.variant)
        up, stay, down = self.network(seen[None])[0].tolist()
        # The first of equals: the network's order, and the same on every machine.
        action = max(range(3), key=(up, stay, down).__getitem__)
        gain = bounded(observation.gain * FACTORS[action])
        return Decision(gain, ACTIONS[action], (up, stay, down)), {**self.start(), "cycles": cycles}


def _observations(every: int | str | Budget) -> int:
    """3, "3", "3ep" and Epochs(3) alike."""
    if isinstance(every, str):
        text = every.strip()
        every = int(text) if text.isdecimal() else parse_budget(text)
    if isinstance(every, Budget):
        if not isinstance(every, Epochs) or not every.count.is_integer():
            raise ValueError(
                f"`every` is {str(every)!r}, but must be whole epochs or a number of observations, such as '3ep' or 3: "
                "ARC is shown losses once per epoch, by `scheduler.observe`."
            )
        return int(every.count)
    return every


def _path(weights: str) -> Path:
    path = PRETRAINED if weights == "pretrained" else Path(weights)
    if path.is_file():
        return path
    way_out = "train some with `glideslope arc train` and use them with `Arc.from_file(path)`"
    if weights == "pretrained":
        raise FileNotFoundError(f"this installation has no pretrained weights for ARC: {way_out}.")
    raise FileNotFoundError(
        f"there are no weights for ARC at {weights!r}. Say 'pretrained', or name a file; {way_out}."
    )


@lru_cache(maxsize=16)
def _network(weights: str, sha256: str) -> Network:
    path = _path(weights)
    found = fingerprint(path)
    if found != sha256:
        raise ValueError(
            f"the weights {weights!r} have the SHA-256 {found}, but this controller was made with {sha256}. "
            "To resume or repeat a run, bring back the file it was made with; for a run of its own, make a new "
            "controller with `Arc.from_file(path)` or `Arc.pretrained()`."
        )
    return Network.from_file(path)


def _saved(numbers: Sequence[float]) -> list[float | str]:
    """Numbers as JSON has them: NaN and infinity, which it has not, as texts."""
    if math.isfinite(sum(numbers)):  # then each of them is
        return list(numbers)
    return [number if math.isfinite(number) else repr(float(number)) for number in numbers]


def _read(cycle: Mapping[str, Any]) -> Cycle:
    train_losses, val_losses = (tuple(map(float, cycle[name])) for name in ("train_losses", "val_losses"))
    return Cycle(train_losses, val_losses, float(cycle["rate"]))
