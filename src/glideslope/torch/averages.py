"""Averages of weights, taken while a model is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from glideslope.core.averages import Coefficients
from glideslope.core.estimators import Leg
from glideslope.torch.snapshot import State


class AveragesInTraining:
    """Averages in the making: one for each budget at which one is read and whose window has begun.

    Each takes as much memory as the model's parameters in float32 (float64 where the parameters are). Windows that
    overlap are several at a time; an `EMA` reaches back to the start, so all of its budgets are.

    Args:
        model: whose parameters are averaged; its buffers are not.
        legs: of an estimator.
    """

    def __init__(self, model: nn.Module, legs: Sequence[Leg]) -> None:
        self._weights = [weight for weight in model.parameters() if weight.is_floating_point() or weight.is_complex()]
        self._means: dict[int, State] = {}
        # For each leg the averages that its weights go into: budget → coefficients.
        self._ahead: list[dict[int, Coefficients]] = [{} for _ in legs]
        for index, leg in enumerate(legs):
            if leg.average is None:
                continue
            wanted = {budget: leg.average.coefficients(budget) for budget in leg.points}
            towards: int | None = index
            while towards is not None:
                self._ahead[towards] |= wanted
                towards = legs[towards].after

    @torch.no_grad()
    def add(self, leg: int, updates: int) -> None:
        """Take the weights after so many updates into every average that counts them."""
        for budget, coefficients in self._ahead[leg].items():
            place = len(coefficients) - 1 - (budget - updates)
            if not 0 <= place < len(coefficients):
                continue
            share = float(coefficients[place])
            mean = self._means.setdefault(budget, {"share": 0.0, "weights": [_wide(w) for w in self._weights]})
            mean["share"] += share
            if mean["share"] > 0:
                # The mean of what has come so far: equal weights stay exactly what they are.
                for kept, weight in zip(mean["weights"], self._weights, strict=True):
                    kept.lerp_(weight.to(kept.dtype), share / mean["share"])

    @torch.no_grad()
    def write(self, budget: int) -> None:
        """Put an average that is complete into the model, and forget it."""
        for kept, weight in zip(self._means.pop(budget)["weights"], self._weights, strict=True):
            weight.copy_(kept)

    def state_dict(self) -> dict[int, State]:
        """A copy of the averages so far."""
        return copy.deepcopy(self._means)

    def load_state_dict(self, state: dict[int, State]) -> None:
        """The inverse of `state_dict`."""
        self._means = copy.deepcopy(state)


def _wide(weight: Tensor) -> Tensor:
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)


def recalibrate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Compute the running statistics of BatchNorm layers again, for weights that were averaged and never trained.

    Args:
        model: its other layers run in training mode too, so dropout draws random numbers.
        batches: inputs, or (inputs, …) tuples; some hundred samples are enough.
    """
    parameter = next(model.parameters(), None)
    update_bn(batches, model, device=None if parameter is None else parameter.device)
