"""timm: a budget in the shape of timm's schedulers, for its training script and those modelled on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch.optim import Optimizer

from glideslope.core.budget import Budget, Epochs
from glideslope.core.control import Controller
from glideslope.core.meter import Clock
from glideslope.torch.scheduler import AnySchedule, BudgetScheduler


@final
class TimmBudgetScheduler:
    """A `BudgetScheduler` that is called as timm's training script calls its schedulers. Does not need timm.

    In the script, in place of `create_scheduler_v2`, which returns the scheduler and the number of epochs::

        budget = Epochs(args.epochs, updates_per_epoch)
        lr_scheduler, num_epochs = TimmBudgetScheduler(optimizer, "rex + warmup(5%)", budget), args.epochs

    It is at home in updates. The script calls `step_update` after each, and `step` after each epoch, which sets no
    rates but ends the epoch and shows the controller the metric. For a budget that is no whole number of epochs, add
    `if lr_scheduler.exhausted: break` to the script's loop over batches.

    timm's script saves no scheduler state: it resumes by saying how many updates or epochs are done. That is enough for
    budgets in updates, or in epochs of known length, without a controller or preamble. All others have to be saved:
    put `lr_scheduler.state_dict()` into a checkpoint that is written after `step`, and load it before the script says
    where it is.

    Groups that carry timm's "lr_scale" (layer-wise decay) have it in their base rate.

    Args:
        optimizer: its groups' learning rates are the base rates.
        schedule: as for `BudgetScheduler`: a schedule, plan or policy, or the text of one.
        budget: a budget or its text: `Epochs(300, updates_per_epoch)`, "500ba", "45min".
        controller: closes the loop; it is shown the metric that `step` gets.
        clock: where time comes from.

    Attributes:
        scheduler: the `BudgetScheduler` itself.
        t_in_epochs: False: the rate changes with every update. timm's script reads it for its log.

    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> lr_scheduler = TimmBudgetScheduler(optimizer, "linear", Epochs(2, updates_per_epoch=2))
    >>> rates = []
    >>> for epoch in range(2):
    ...     for batch in range(2):
    ...         rates += lr_scheduler.get_last_lr()
    ...         optimizer.step()
    ...         lr_scheduler.step_update(num_updates=2 * epoch + batch + 1)
    ...     lr_scheduler.step(epoch + 1)
    >>> rates, lr_scheduler.exhausted
    ([0.1, 0.07500000000000001, 0.05, 0.025], True)

    Source: https://github.com/huggingface/pytorch-image-models, train.py and timm/scheduler/scheduler.py
    """

    t_in_epochs: ClassVar[bool] = False

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: AnySchedule | Sequence[AnySchedule],
        budget: str | Budget,
        controller: Controller | None = None,
        *,
        clock: Clock = Clock(),  # noqa: B008 - a frozen value
    ) -> None:
        # timm's Lookahead has no hooks; the optimizer inside has them, makes every update, and shares its groups.
        optimizer = getattr(optimizer, "_base_optimizer", optimizer)
        for group in optimizer.param_groups:
            # A resumed optimizer has "initial_lr" already, scaled when the run began.
            if "lr_scale" in group and "initial_lr" not in group:
                group["initial_lr"] = group["lr"] * group["lr_scale"]
        self.scheduler = BudgetScheduler(optimizer, schedule, budget, controller, clock=clock)
        self._num_updates = 0
        self._epochs = 0

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        return self.scheduler.progress

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent: time to leave the loop."""
        return self.scheduler.exhausted

    def get_last_lr(self) -> list[float | torch.Tensor]:
        """The learning rates in force, one number per group."""
        return self.scheduler.get_last_lr()

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        """An update is done: set the rates for the next one.

        Args:
            num_updates: updates done since the run began, this one included. It tells a resumed run where it is; what
                is counted is what the optimizer did.
            metric: left alone. timm gives the epoch's running mean, which is no update's training loss; call
                `scheduler.add_loss` for a controller that wants them.
        """
        if num_updates == self._num_updates:
            return  # a resumed script says what the loaded state knows
        if num_updates > 1 and self.scheduler.last_epoch == 0:
            self._resume_at(num_updates)
        else:
            self.scheduler.step()
        self._num_updates = num_updates

    def step(self, epoch: int, metric: float | None = None) -> None:
        """An epoch is over.

        Args:
            epoch: epochs done since the run began, this one included.
            metric: what validation found, for the controller. It must be a loss (`--eval-metric loss`): smaller is
                better.
        """
        if epoch == self._epochs:
            return  # a resumed script says what the loaded state knows
        if self.scheduler.last_epoch == 0:
            budget = self.scheduler.budget
            per_epoch = budget.updates_per_epoch if isinstance(budget, Epochs) else None
            self._resume_at(None if per_epoch is None else epoch * per_epoch)
        else:
            self.scheduler.end_epoch()
            if metric is not None:
                self.scheduler.observe(val_loss=metric)
        self._epochs = epoch

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as JSON types."""
        return {"scheduler": self.scheduler.state_dict(), "num_updates": self._num_updates, "epochs": self._epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a saved scheduler stood; see `BudgetScheduler.load_state_dict`."""
        self.scheduler.load_state_dict(state_dict["scheduler"])
        self._num_updates, self._epochs = state_dict["num_updates"], state_dict["epochs"]

    def _resume_at(self, num_updates: int | None) -> None:
        """Take the word of a script that saved no state."""
        state = self.scheduler.state_dict()
        follows_updates = self.scheduler.budget.unit == "updates" and state["preamble"] is None
        if num_updates is None or not follows_updates or self.scheduler.controller is not None:
            raise ValueError(
                f"the script resumes without the scheduler's state, but for the budget {self.scheduler.budget} the "
                "number of updates or epochs does not tell where it stood. Save `lr_scheduler.state_dict()` in the "
                "checkpoint and load it first; or give the budget as Epochs(epochs, updates_per_epoch)."
            )
        state["position"]["updates"] = num_updates
        self.scheduler.load_state_dict(state)
