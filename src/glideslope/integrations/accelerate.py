"""Accelerate: a budget is counted once, however many processes there are and however often they call `step`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, final

import torch

from glideslope.core.budget import Budget
from glideslope.core.control import Decision
from glideslope.core.meter import RebudgetPolicy
from glideslope.integrations.missing import missing
from glideslope.torch.scheduler import BudgetScheduler

try:
    from accelerate.scheduler import AcceleratedScheduler
    from accelerate.state import GradientState
except ModuleNotFoundError as error:
    raise missing("accelerate", extra="accelerate") from error


@final
class AcceleratedBudgetScheduler:
    """A `BudgetScheduler` as a loop with an `Accelerator` needs it.

    Accelerate's own wrapper, which `prepare` makes, calls the scheduler once per process and update, drops the calls
    while gradients are accumulated, and shows neither `exhausted` nor `observe`. A `BudgetScheduler` counts updates
    rightly even so; samples and tokens it would count as often as it is told of them. Here one call is one call::

        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        scheduler = AcceleratedBudgetScheduler(BudgetScheduler(optimizer, "rex", "2e9tok"))
        accelerator.register_for_checkpointing(scheduler)
        for batch in forever(loader):
            with accelerator.accumulate(model):
                ...
                optimizer.step()
                scheduler.step(tokens=batch["input_ids"].numel())
                optimizer.zero_grad()
            if scheduler.exhausted:
                break

    It need not be prepared; what `prepare` returned for a `BudgetScheduler` is taken as well, with `split_batches` on
    or off. Call `step` after every `optimizer.step`, also where that only accumulates. Every rank calls it, and all
    leave the loop at the same update. `register_for_checkpointing` puts it into `accelerator.save_state` and
    `load_state`.

    Args:
        scheduler: a `BudgetScheduler`, or what `accelerator.prepare` made of it.

    Attributes:
        scheduler: the `BudgetScheduler` itself.

    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> scheduler = AcceleratedBudgetScheduler(BudgetScheduler(optimizer, "linear", "100tok"))
    >>> optimizer.step()
    >>> scheduler.step(tokens=25)
    >>> scheduler.progress, scheduler.get_last_lr()
    (0.25, [0.07500000000000001])

    Source: https://huggingface.co/docs/accelerate/package_reference/torch_wrappers (AcceleratedScheduler) and
    https://huggingface.co/docs/accelerate/usage_guides/checkpoint
    """

    def __init__(self, scheduler: BudgetScheduler | AcceleratedScheduler) -> None:
        inner = scheduler.scheduler if isinstance(scheduler, AcceleratedScheduler) else scheduler
        if not isinstance(inner, BudgetScheduler):
            raise TypeError(
                f"`scheduler` is a {type(inner).__name__}, but must be a BudgetScheduler or what `accelerator.prepare` "
                "returned for one."
            )
        self.scheduler = inner
        self._waiting: dict[str, int] = {}

    def step(
        self,
        *,
        loss: float | torch.Tensor | None = None,
        samples: int | None = None,
        tokens: int | None = None,
    ) -> None:
        """Count what happened since the last call and set the values for the next update.

        Args:
            loss: training loss of the update, for the controller; while gradients are accumulated it is left out.
            samples, tokens: of this rank's batch, for a budget in samples or tokens. They are summed over accumulated
                batches and over the ranks.
        """
        for name, amount in (("samples", samples), ("tokens", tokens)):
            if amount is not None:
                self._waiting[name] = self._waiting.get(name, 0) + amount
        if GradientState().sync_gradients:
            amounts, self._waiting = self._waiting, {}
            self.scheduler.step(loss=loss, samples=amounts.get("samples"), tokens=amounts.get("tokens"))

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        return self.scheduler.progress

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent: time to leave the loop, on every rank at the same update."""
        return self.scheduler.exhausted

    def get_last_lr(self) -> list[float | torch.Tensor]:
        """The learning rates in force, one number per group."""
        return self.scheduler.get_last_lr()

    def add_loss(self, loss: float | torch.Tensor) -> None:
        """As `BudgetScheduler.add_loss`."""
        self.scheduler.add_loss(loss)

    def observe(self, val_loss: float | None = None) -> Decision | None:
        """As `BudgetScheduler.observe`: every rank calls it, rank 0's controller decides."""
        return self.scheduler.observe(val_loss)

    def end_epoch(self) -> None:
        """As `BudgetScheduler.end_epoch`."""
        self.scheduler.end_epoch()

    def paused(self) -> AbstractContextManager[None]:
        """As `BudgetScheduler.paused`."""
        return self.scheduler.paused()

    def rebudget(self, budget: str | Budget, policy: RebudgetPolicy = "continuous") -> None:
        """As `BudgetScheduler.rebudget`."""
        self.scheduler.rebudget(budget, policy)

    def rewarm(self, budget: str | Budget, from_progress: float) -> None:
        """As `BudgetScheduler.rewarm`."""
        self.scheduler.rewarm(budget, from_progress)

    def state_dict(self) -> dict[str, Any]:
        """The state of the `BudgetScheduler`. What accumulates is not in it, just as the gradients are not."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a saved scheduler stood; see `BudgetScheduler.load_state_dict`."""
        self._waiting = {}
        self.scheduler.load_state_dict(state_dict)
