"""Lightning: one line in `configure_optimizers` lands the learning rate, and the run ends with its budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar, final

from glideslope.core.budget import Budget, Epochs, Steps, WallClock, parse_budget
from glideslope.core.control import Controller
from glideslope.core.meter import Clock
from glideslope.integrations.missing import missing
from glideslope.torch.scheduler import AnySchedule, BudgetScheduler

try:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler, Timer
    from lightning.pytorch.trainer.states import TrainerFn
    from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRSchedulerConfig
except ModuleNotFoundError as error:
    raise missing("lightning", extra="lightning") from error

from torch.optim import Optimizer

AnyCallback = TypeVar("AnyCallback", bound=Callback)


def lightning_config(
    optimizer: Optimizer,
    schedule: AnySchedule | Sequence[AnySchedule],
    trainer: Trainer,
    budget: str | Budget | None = None,
    controller: Controller | None = None,
    *,
    clock: Clock = Clock(),  # noqa: B008 - a frozen value
) -> OptimizerLRSchedulerConfig:
    """What `configure_optimizers` returns: the optimizer, and its `BudgetScheduler` stepped after every update.

    ::

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3)
            return lightning_config(optimizer, "rex + warmup(5%)", self.trainer)

    Without a budget the rate lands where the trainer ends by itself. With one the budget ends the run, whichever of
    the two comes first, so give the trainer no limit of its own: `Trainer(max_epochs=-1)`. A `BudgetCallback` is put
    into the trainer if it has none.

    - **Samples and tokens** are known to your module alone. Count them in `training_step` and hand them over in
      Lightning's hook, which is called once per update, however many batches are accumulated::

        def lr_scheduler_step(self, scheduler, metric):
            scheduler.step(tokens=self.tokens)
            self.tokens = 0

    - **Manual optimization, several optimizers.** Only your `training_step` knows how often it updates, so a budget is
      needed, and epochs without their number of updates are learned from the first one. Return one configuration per
      optimizer, `return lightning_config(first, …), lightning_config(second, …)`, and call `step()` of each scheduler
      in `self.lr_schedulers()` after its optimizer's. The run ends when all of them have landed.
    - **A resumed run with another budget** is refused with `BudgetMismatch`. To go on with a new one on purpose, give
      the old budget here, and in `on_train_start` call `self.lr_schedulers().rebudget("20000ba")`. If the old one was
      spent, call `rewarm` instead, and set `self.trainer.should_stop = False`.

    Args:
        optimizer: its groups' learning rates are the base rates.
        schedule: as for `BudgetScheduler`: a schedule, plan or policy, or the text of one.
        trainer: `self.trainer`.
        budget: a budget or its text: "45min", "until 18:00", "3ep", "500ba". `Epochs` are counted in updates if the
            loader's length is known. None: the trainer's number of updates; if that is unlimited, its `Timer`
            (`Trainer(max_time=…)`); if only the loader's length is unknown, its `max_epochs`.
        controller: closes the loop; it is shown what `BudgetCallback` says.
        clock: where time comes from. A wall-clock budget is counted from here on, the sanity check included.

    Raises:
        ValueError: the length of the run cannot be known; the message says what to give.

    Source: https://lightning.ai/docs/pytorch/stable/common/lightning_module.html#configure-optimizers
    """
    total = _length_of(trainer) if budget is None else _in_updates(parse_budget(budget), trainer)
    scheduler = BudgetScheduler(optimizer, schedule, total, controller, clock=clock)
    if not _callbacks_of(trainer, BudgetCallback):
        # First, so that checkpoints, which come last, are written with everything counted and observed.
        trainer.callbacks.insert(0, BudgetCallback())  # type: ignore[attr-defined]
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "frequency": 1}}


@final
class BudgetCallback(Callback):
    """Ends the run when the budget is spent, and shows the controller the losses.

    `lightning_config` adds one by itself. Build it yourself, `Trainer(callbacks=[BudgetCallback(…)])`, to say other
    than the usual:

    - A spent budget sets `trainer.should_stop` after the update, in mid-epoch too; Lightning then validates once more
      (keep a `reserve` for it). The budget also ends a run that is below `min_steps` or `min_epochs`: what may be spent
      is a promise, and with every rate at its end further updates would be in vain.
    - A controller gets the training loss of every update (of accumulated batches their mean; in manual optimization the
      "loss" that `training_step` returns) and, after every validation but the sanity check, the monitored metric. In a
      run without validation it observes at the end of every epoch.

    It has no state, so checkpoints do not depend on it. A resumed run repeats the run that never stopped, with one
    exception that is Lightning's: a checkpoint written between a batch and the validation that follows it is resumed
    without this validation, so a controller misses the observation. Those of `ModelCheckpoint` with a `monitor` are
    written after it.

    Args:
        monitor: name of the logged metric that the controller observes as validation loss; smaller is better.
        count_evaluation: whether the time of validation is spent from a `WallClock`. A `Deadline` does not wait.

    >>> BudgetCallback().state_dict()
    {}
    """

    def __init__(self, monitor: str = "val_loss", count_evaluation: bool = True) -> None:
        self.monitor = monitor
        self.count_evaluation = count_evaluation
        self._pause = ExitStack()
        self._losses: list[Any] = []
        self._updates = 0
        self._minimum: tuple[int | None, int | None] = (None, None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up a resumed run; leave at once if it is finished."""
        self._minimum = trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps
        if trainer.ckpt_path is not None:
            for scheduler in _schedulers(trainer):
                # A checkpoint of an epoch's last batch is from before the epoch's end, which Lightning then leaves out.
                for _ in range(scheduler.state_dict()["position"]["epochs"], trainer.current_epoch):
                    scheduler.end_epoch()
        self._losses = []
        self._updates = _updates(trainer)
        self._stop_if_spent(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Any, batch_idx: int
    ) -> None:
        """Keep the update's loss for the controller; stop if the budget is spent."""
        if isinstance(outputs, Mapping) and "loss" in outputs:
            # Lightning has divided it by the number of batches that are accumulated.
            self._losses.append(outputs["loss"] * trainer.accumulate_grad_batches)
        if (updates := _updates(trainer)) != self._updates:
            for scheduler in _schedulers(trainer):
                if self._losses:
                    scheduler.add_loss(sum(self._losses) / len(self._losses))
            self._updates, self._losses = updates, []
        self._stop_if_spent(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Teach budgets in epochs how long one is; observe if there is no validation to do it after."""
        for scheduler in _schedulers(trainer):
            if trainer.is_last_batch:  # an epoch that was broken off has no length to teach
                scheduler.end_epoch()
            if not trainer.enable_validation:
                scheduler.observe()
        self._stop_if_spent(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hold the clock, if evaluation is not to count."""
        if not self.count_evaluation:
            for scheduler in _schedulers(trainer):
                self._pause.enter_context(scheduler.paused())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock go on, and show the controllers the monitored metric."""
        self._pause.close()
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        for scheduler in _schedulers(trainer):
            if scheduler.controller is not None:
                scheduler.observe(val_loss=self._monitored(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the trainer back the minimum that a spent budget overruled."""
        trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = self._minimum

    def _monitored(self, trainer: Trainer) -> float:
        metrics = trainer.callback_metrics
        if self.monitor not in metrics:
            raise ValueError(
                f"the controller observes {self.monitor!r}, but validation logged {', '.join(metrics) or 'nothing'}. "
                f"Log it with self.log({self.monitor!r}, loss) in `validation_step`, or name another metric: "
                "Trainer(callbacks=[BudgetCallback(monitor=…)])."
            )
        return float(metrics[self.monitor])

    def _stop_if_spent(self, trainer: Trainer) -> None:
        schedulers = _schedulers(trainer)
        # All, not any: one that has landed does no harm, but stopping would leave the others above the ground.
        if schedulers and all(scheduler.exhausted for scheduler in schedulers):
            trainer.fit_loop.min_epochs = 0
            trainer.fit_loop.epoch_loop.min_steps = None
            trainer.should_stop = True


def _schedulers(trainer: Trainer) -> list[BudgetScheduler]:
    """The trainer's schedulers that are ours; a rate finder puts its own in their place for a while."""
    found = [config.scheduler for config in trainer.lr_scheduler_configs]
    return [scheduler for scheduler in found if isinstance(scheduler, BudgetScheduler)]


def _callbacks_of(trainer: Trainer, kind: type[AnyCallback]) -> list[AnyCallback]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def _updates(trainer: Trainer) -> int:
    return sum(scheduler.last_epoch for scheduler in _schedulers(trainer))


def _length_of(trainer: Trainer) -> Budget:
    """The end that the trainer comes to by itself."""
    _check_updates_are_known(trainer, "without a budget the rate cannot land")
    # A second `fit` of one trainer goes on counting where the first one stopped, with a scheduler of its own. When a
    # checkpoint is loaded, the count is overwritten later, and so is the scheduler's.
    done = trainer.global_step if trainer.ckpt_path is None else 0
    updates = trainer.estimated_stepping_batches - done
    if 0 < updates < math.inf:  # Lightning says -1 if it cannot know
        return Steps(int(updates))
    for timer in _callbacks_of(trainer, Timer):
        if (remaining := timer.time_remaining()) is not None:
            # Of a resumed timer a part has elapsed. Durations are whole microseconds.
            return WallClock(round(timer.time_elapsed() + remaining, 6))
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        return Epochs(trainer.max_epochs)
    raise ValueError(
        "this trainer runs without end (max_epochs=-1 and neither max_steps nor max_time), so there is nowhere to land."
        ' Give lightning_config a budget, such as budget="45min", "until 18:00" or "500ba".'
    )


def _in_updates(budget: Budget, trainer: Trainer) -> Budget:
    """A budget in epochs, with the number of updates in one if the trainer knows it."""
    if not isinstance(budget, Epochs) or budget.updates_per_epoch is not None:
        return budget
    if not trainer.lightning_module.automatic_optimization:
        return budget
    _check_updates_are_known(trainer, f"the budget {budget} has no fixed number of updates")
    trainer.fit_loop.setup_data()  # as `estimated_stepping_batches` does, which a trainer without end would not
    batches = trainer.num_training_batches
    if batches == math.inf:
        return budget
    return replace(budget, updates_per_epoch=math.ceil(batches / trainer.accumulate_grad_batches))


def _check_updates_are_known(trainer: Trainer, consequence: str) -> None:
    """Refuse what would make Lightning's own count of updates wrong."""
    reason = None
    if not trainer.lightning_module.automatic_optimization:
        reason = "in manual optimization only your `training_step` knows how often it updates"
    elif _callbacks_of(trainer, GradientAccumulationScheduler):
        reason = "GradientAccumulationScheduler changes the number of updates in an epoch"
    if reason is not None:
        raise ValueError(
            f'{reason}: {consequence}. Give lightning_config a budget in updates ("500ba") or time ("45min").'
        )
