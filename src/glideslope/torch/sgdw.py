"""SGD with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class SGDW(Optimizer):
    r"""SGD with momentum, whose weight decay is taken from the weights, not added to the gradient.

    .. math:: v \leftarrow \mu v + g, \qquad w \leftarrow w - \eta v - \frac{\eta}{\eta_0} \lambda w

    Args:
        params: parameters or groups.
        lr: learning rate :math:`\eta`, >= 0. The first value a group has is its :math:`\eta_0` ("initial_lr" once a
            scheduler is attached), so that the decay follows the schedule and not the size of the rate.
        momentum: :math:`\mu`, 0 <= momentum < 1.
        weight_decay: :math:`\lambda` per update at full rate, >= 0.

    Source: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, Algorithm 1, in the form of
    MosaicML's recipe (SGDW, weight decay 5e-4), "Efficiently Estimating Pareto Frontiers with Cyclic Learning Rate
    Schedules", 2022.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, momentum: float = 0.9, weight_decay: float = 1e-4
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            if value < 0:
                raise ValueError(f"`{name}` is {value!r}, but must satisfy {name} >= 0.")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` is {momentum!r}, but must satisfy 0 <= momentum < 1.")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("initial_lr", float(group["lr"]))  # a copy: a tensor is later filled in place

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate = group["lr"]
            decay = rate / group["initial_lr"] * group["weight_decay"] if group["initial_lr"] else 0.0
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(weight.grad)
                weight.mul_(1 - decay).add_(velocity, alpha=-float(rate))
        return loss
