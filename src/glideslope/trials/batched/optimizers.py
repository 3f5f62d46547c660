"""Flat optimizers: the update of all members of a population, over one block (members, weights) of all their weights.

Each class repeats the arithmetic of one class of `torch.optim` (or of `SGDW`) in its order. Hyperparameters come as
columns (members, 1), so that each member follows its own plan. One block makes an update three to ten operations,
however many layers there are: 1 µs a member and update for SGD with 2,698 weights, 4 µs for Adam.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from glideslope.torch.sgdw import SGDW
from glideslope.trials.optimizers import OptimizerSpec

Columns = Mapping[str, Tensor]
"""Hyperparameter or a factor derived from them → (members, 1)."""
Values = dict[str, NDArray[np.float64]]
"""The same for several updates, (updates, members), in double precision as in PyTorch's Python code."""

_IMPLEMENTATION = {"foreach", "fused", "capturable", "differentiable"}
"""Settings of how, not of what: they choose between implementations of one formula."""


class FlatOptimizer(ABC):
    """One kind of optimizer for a whole population.

    Args:
        weights: (members, weights); changed in place.
        flags: settings that are no numbers, the same for all members.
    """

    numbers: ClassVar[tuple[str, ...]]
    """Hyperparameters that are numbers, under the names of a plan: "lr", "momentum" (β1 for Adam), …"""
    flags: ClassVar[tuple[str, ...]] = ()
    buffers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, weights: Tensor, flags: Mapping[str, bool]) -> None:
        self.weights = weights
        self.flagged = dict(flags)
        self.state = {name: torch.zeros_like(weights) for name in self.buffers}

    def derive(self, values: Values, first: int) -> Values:
        """Factors that the formula needs, from the numbers of updates `first`, `first` + 1, …"""
        return values

    @abstractmethod
    def step(self, gradient: Tensor, at: Columns, is_first: bool) -> None:
        """One update. `gradient` (members, weights) may be overwritten."""

    def keep(self, members: Tensor) -> None:
        """Go on with some of the members, given by their positions."""
        self.weights = self.weights[members]
        self.state = {name: buffer[members] for name, buffer in self.state.items()}


class _FlatSGD(FlatOptimizer):
    numbers = ("lr", "momentum", "dampening", "weight_decay")
    flags = ("nesterov",)
    buffers = ("velocity",)

    def derive(self, values: Values, first: int) -> Values:
        return {**values, "undamped": 1 - values["dampening"]}

    def step(self, gradient: Tensor, at: Columns, is_first: bool) -> None:
        velocity = self.state["velocity"]
        if "weight_decay" in at:
            gradient.addcmul_(self.weights, at["weight_decay"])
        if is_first:
            velocity.copy_(gradient)  # dampening does not act on the first gradient
        elif "dampening" in at:
            velocity.mul_(at["momentum"]).addcmul_(gradient, at["undamped"])
        else:
            velocity.mul_(at["momentum"]).add_(gradient)
        direction = gradient.addcmul_(velocity, at["momentum"]) if self.flagged["nesterov"] else velocity
        self.weights.addcmul_(direction, at["lr"], value=-1)


class _FlatSGDW(FlatOptimizer):
    numbers = ("lr", "momentum", "weight_decay", "initial_lr")
    buffers = ("velocity",)

    def derive(self, values: Values, first: int) -> Values:
        return {**values, "kept": 1 - values["lr"] / values["initial_lr"] * values["weight_decay"]}

    def step(self, gradient: Tensor, at: Columns, is_first: bool) -> None:
        velocity = self.state["velocity"].mul_(at["momentum"]).add_(gradient)
        self.weights.mul_(at["kept"]).addcmul_(velocity, at["lr"], value=-1)


class _FlatAdam(FlatOptimizer):
    numbers = ("lr", "momentum", "beta2", "eps", "weight_decay")
    flags = ("amsgrad",)
    buffers = ("average", "square", "largest")
    decoupled: ClassVar[bool] = False

    def __init__(self, weights: Tensor, flags: Mapping[str, bool]) -> None:
        super().__init__(weights, flags)
        if not flags["amsgrad"]:
            del self.state["largest"]

    def derive(self, values: Values, first: int) -> Values:
        # The power is of the β1 in force, as in PyTorch, also where a plan moves it.
        count = np.arange(first + 1, first + 1 + len(values["lr"]), dtype=np.float64)[:, None]
        return {
            **values,
            "fresh": 1 - values["momentum"],
            "fresh_square": 1 - values["beta2"],
            "step_size": values["lr"] / (1 - values["momentum"] ** count),
            "root": np.sqrt(1 - values["beta2"] ** count),
            "kept": 1 - values["lr"] * values["weight_decay"],
        }

    def step(self, gradient: Tensor, at: Columns, is_first: bool) -> None:
        if "weight_decay" in at:
            if self.decoupled:
                self.weights.mul_(at["kept"])
            else:
                gradient.addcmul_(self.weights, at["weight_decay"])
        average = self.state["average"].lerp_(gradient, at["fresh"])
        square = self.state["square"].mul_(at["beta2"])
        if self.flagged["amsgrad"]:
            square.addcmul_(gradient.mul_(gradient), at["fresh_square"])
            square = torch.maximum(self.state["largest"], square, out=self.state["largest"])
        else:
            square.addcmul_(gradient.mul_(gradient), at["fresh_square"])
        scale = square.sqrt().div_(at["root"]).add_(at["eps"])
        self.weights.addcmul_(torch.div(average, scale, out=scale), at["step_size"], value=-1)


class _FlatAdamW(_FlatAdam):
    decoupled = True


class _FlatRMSprop(FlatOptimizer):
    numbers = ("lr", "momentum", "alpha", "eps", "weight_decay")
    flags = ("centered",)
    buffers = ("square", "average", "velocity")

    def __init__(self, weights: Tensor, flags: Mapping[str, bool]) -> None:
        super().__init__(weights, flags)
        if not flags["centered"]:
            del self.state["average"]

    def derive(self, values: Values, first: int) -> Values:
        return {**values, "fresh": 1 - values["alpha"]}

    def step(self, gradient: Tensor, at: Columns, is_first: bool) -> None:
        if "weight_decay" in at:
            gradient.addcmul_(self.weights, at["weight_decay"])
        square = self.state["square"].mul_(at["alpha"]).addcmul_(gradient * gradient, at["fresh"])
        if self.flagged["centered"]:
            average = self.state["average"].lerp_(gradient, at["fresh"])
            scale = square.addcmul(average, average, value=-1).sqrt_()
        else:
            scale = square.sqrt()
        velocity = self.state["velocity"].mul_(at["momentum"]).add_(gradient.div_(scale.add_(at["eps"])))
        self.weights.addcmul_(velocity, at["lr"], value=-1)


_FLAT: Mapping[Callable[..., Optimizer], type[FlatOptimizer]] = {
    SGD: _FlatSGD,
    SGDW: _FlatSGDW,
    Adam: _FlatAdam,
    AdamW: _FlatAdamW,
    RMSprop: _FlatRMSprop,
}


@dataclass(frozen=True)
class FlatForm:
    """An optimizer for a whole population, with its settings.

    Args:
        kind: the class.
        numbers: hyperparameter → value where no plan schedules it.
        flags: settings that are no numbers.
    """

    kind: type[FlatOptimizer]
    numbers: Mapping[str, float]
    flags: Mapping[str, bool]


def flat_form(spec: OptimizerSpec) -> FlatForm | None:
    """What computes an optimizer for a whole population; None if nothing here does.

    Raises:
        Exception: whatever the optimizer raises at its settings.
    """
    kind = _FLAT.get(spec.maker)
    if kind is None:
        return None
    settings = spec.arguments
    if json.loads(spec.settings):
        # Building checks what the user has set. Defaults need no check, and the first optimizer that a process builds
        # imports torch._dynamo: 2.7 s.
        settings = spec.build([torch.nn.Parameter(torch.zeros(1))], 1.0).param_groups[0]
    implied = {"decoupled_weight_decay"} if kind is _FlatAdamW else set()
    known = {*kind.numbers, *kind.flags, "params", "betas", "initial_lr", *_IMPLEMENTATION, *implied}
    found: dict[str, Any] = {"initial_lr": settings["lr"], **settings}
    if "betas" in found:
        found["momentum"], found["beta2"] = found["betas"]
    numbers = {name: found[name] for name in kind.numbers}
    unknown = any(value for name, value in found.items() if name not in known)
    if unknown or not all(type(value) in (int, float) for value in numbers.values()):
        return None
    return FlatForm(kind, numbers, {name: bool(found[name]) for name in kind.flags})


@cache
def form_of(spec: OptimizerSpec) -> FlatForm | None:
    """The flat form of an optimizer; None if it has none, or cannot be built at all."""
    try:
        return flat_form(spec)
    except Exception:  # wrong settings and failed imports: the trial alone will record the traceback
        return None
