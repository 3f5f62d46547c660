"""GlideslopeCallback: schedules and budgets for the Trainer of Hugging Face Transformers."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, get_args

from glideslope.core.budget import Budget, Epochs, Samples, Steps, parse_budget
from glideslope.core.control import Controller
from glideslope.core.meter import BudgetExhausted, BudgetMismatch, Clock, RebudgetPolicy
from glideslope.core.plan import Plan
from glideslope.core.policy import Policy
from glideslope.core.profiles import Multiplier
from glideslope.core.spec import parse_policy
from glideslope.core.value import unknown
from glideslope.integrations.missing import missing
from glideslope.torch.scheduler import AnySchedule, BudgetScheduler

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import ExportableState
    from transformers.trainer_utils import IntervalStrategy, SaveStrategy, has_length
except ModuleNotFoundError as error:
    raise missing("transformers", extra="transformers") from error

_log = logging.getLogger(__name__)

_WAY_ON = "Let the budget end the run: TrainingArguments(max_steps=-1, num_train_epochs=10**6)."


class GlideslopeCallback(TrainerCallback, ExportableState):
    """Lands the learning rate of a `Trainer` where its budget ends, and ends the training there.

    `Trainer(…, callbacks=[GlideslopeCallback("rex + warmup(5%)", budget="45min")])` is all. The Trainer's own
    `lr_scheduler_type` and `warmup_steps` have no effect then: its scheduler still runs, but the rates written last are
    these, and these are what it logs as "learning_rate", each with the update it was in force at.

    The Trainer ends at its `max_steps` or `num_train_epochs` (by default 3) even if the budget is not spent, which is
    logged as a warning. So with a budget in time or tokens, put them out of the way, without having to guess the
    number of updates: `TrainingArguments(num_train_epochs=10**6)`. (A dataset without a length needs `max_steps`
    instead, beyond the budget but not beyond 10**6, since at its end the Trainer still asks it for that many batches.)
    Then write `logging_steps`, `eval_steps` and `save_steps` as numbers of updates; fractions would refer to that end.

    Training ends with the first update (of a time, also evaluation or checkpoint) after which the budget is spent, and
    with the final evaluation and checkpoint that the Trainer makes at `max_steps`. A time begins to count when training
    begins; for what comes at the end, keep something back: "45min reserve 2min".

    Every checkpoint carries the state in its `trainer_state.json`, so `train(resume_from_checkpoint=…)` goes on
    exactly, the time spent included. A run that is resumed with its budget already spent makes one update at the last
    rate, because the Trainer looks whether to stop only after an update.

    Args:
        schedule: a schedule, plan or policy, or the text of one; or a list of them, one per parameter group (by default
            the Trainer makes two: with and without weight decay).
        budget: a budget or its text: "45min", "until 18:00", "500ba", "3ep", "2e9tok"; None means the updates that the
            Trainer is going to make. Epochs are those of the Trainer, the last incomplete accumulation included. Tokens
            are counted by the Trainer, which has to be told to:
            `TrainingArguments(include_num_input_tokens_seen="non_padding")`.
        controller: closes the loop. It observes every evaluation during training: its "eval_loss", and the training
            losses logged since the one before, each the mean of `logging_steps` updates on all ranks. NaN losses are
            kept from it unless `logging_nan_inf_filter=False`.
        rebudget: what to do with a checkpoint made for another budget: None is an error; a policy ("continuous",
            "rescale", "keep") goes on with the new budget; see `BudgetScheduler.rebudget`.
        count_evaluation: False stops the clock of a time budget while the Trainer evaluates and saves; a `Deadline`
            does not wait.
        clock: where time comes from.

    With `restore_callback_states_from_checkpoint=True` the Trainer replaces the callback by one with the arguments of
    the checkpoint (and the default clock), so another budget or a `rebudget` given now has no effect there.

    >>> GlideslopeCallback("rex + warmup(5%)", budget="45min").state()["args"]["schedule"]
    ['rex + warmup(0.05)']
    """

    def __init__(
        self,
        schedule: AnySchedule | Sequence[AnySchedule],
        budget: str | Budget | None = None,
        controller: Controller | None = None,
        *,
        rebudget: RebudgetPolicy | None = None,
        count_evaluation: bool = True,
        clock: Clock = Clock(),  # noqa: B008 - a frozen value
    ) -> None:
        if rebudget is not None and rebudget not in get_args(RebudgetPolicy):
            raise unknown("rebudget policy", str(rebudget), get_args(RebudgetPolicy))
        entries = [schedule] if isinstance(schedule, (str, Multiplier, Plan, Policy)) else schedule
        self.policies = [parse_policy(entry) for entry in entries]
        self.budget = None if budget is None else parse_budget(budget)
        self.controller = controller
        self.rebudget = rebudget
        self.count_evaluation = count_evaluation
        self.clock = clock
        self.saved: dict[str, Any] | None = None  # the scheduler's state in the checkpoint that is resumed
        self._scheduler: BudgetScheduler | None = None
        self._pause = ExitStack()
        self._updating = False
        self._spent = False
        self._tokens_seen = 0

    @property
    def scheduler(self) -> BudgetScheduler:
        """The scheduler of the present or last training.

        Raises:
            RuntimeError: training has not begun.
        """
        if self._scheduler is None:
            raise RuntimeError(
                "there is no scheduler yet: it is made when training begins, on the Trainer's optimizer. Read it "
                "during or after `trainer.train()`; after a resume with `restore_callback_states_from_checkpoint=True` "
                "from the callback that then stands in `trainer.callback_handler.callbacks`."
            )
        return self._scheduler

    # ------------------------------------------------------------ the events of the Trainer

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._refuse_a_second(state)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._refuse_a_second(state)
        _refuse_other_masters(kwargs["lr_scheduler"])
        self._updating = self._spent = False
        self._tokens_seen = state.num_input_tokens_seen
        budget = self._budget(args, state, kwargs["train_dataloader"])
        if state.global_step:
            self._scheduler = self._resumed(kwargs["optimizer"], budget, state)
        else:
            self._scheduler = self._begun(kwargs["optimizer"], budget)
        self._refuse_uncounted(args, state)
        if budget.unit == "updates" and budget.limit > state.max_steps and state.is_world_process_zero:
            _log.warning("the Trainer will end at update %d, before %s are spent. %s", state.max_steps, budget, _WAY_ON)
        self._publish(kwargs["lr_scheduler"])
        self._hold(args.eval_on_start)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._pause.close()
        self._updating = True

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._pause.close()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self.scheduler.step(tokens=self._new_tokens(args, state))
        self._publish(kwargs["lr_scheduler"])
        self._end_if_spent(args, state, control)
        self._hold(control.should_evaluate or control.should_save)
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if not (control.should_training_stop or control.should_epoch_stop):  # else it is not the end of an epoch
            self.scheduler.end_epoch()
            self._publish(kwargs["lr_scheduler"])
            self._end_if_spent(args, state, control)
        self._hold(control.should_evaluate or control.should_save)
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._updating and logs is not None and "loss" in logs:
            self.scheduler.add_loss(logs["loss"])

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        # Not after `eval_on_start`: a resumed run would observe once more than one that was never stopped.
        if self._updating:
            if metrics is not None and "eval_loss" in metrics:
                self.scheduler.observe(metrics["eval_loss"])
                self._publish(kwargs["lr_scheduler"])
            if self._time_is_up(kwargs["lr_scheduler"], control) and args.save_strategy == SaveStrategy.STEPS:
                control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._time_is_up(kwargs["lr_scheduler"], control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        scheduler = self.scheduler
        self._updating = False
        self._pause.enter_context(scheduler.paused())  # what is read from now on is what training spent
        if not state.is_world_process_zero:
            return
        if not self._spent:
            _log.warning(
                "training ended after %d updates at progress %.3g: the budget %s is not spent and the learning rate "
                "has not landed. %s",
                scheduler.last_epoch,
                scheduler.progress,
                scheduler.budget,
                _WAY_ON,
            )
        if scheduler.controller is not None and not scheduler.decisions:
            _log.warning(
                "the controller %s has observed nothing: it needs evaluations during training, "
                'TrainingArguments(eval_strategy="epoch"), of one set with labels, which give an "eval_loss".',
                scheduler.controller,
            )

    # ------------------------------------------------------------ beginning and going on

    def state(self) -> dict[str, Any]:
        """What the Trainer puts into the checkpoint: arguments that make this callback anew, and how far it is."""
        first, *others = self.policies
        if self.controller is not None:
            first = replace(first, controller=self.controller)
        return {
            "args": {
                "schedule": [str(policy) for policy in (first, *others)],
                "budget": None if self.budget is None else str(self.budget),
                "rebudget": self.rebudget,
                "count_evaluation": self.count_evaluation,
            },
            "attributes": {"saved": self._scheduler.state_dict() if self._scheduler else None},
        }

    def _begun(self, optimizer: Any, budget: Budget) -> BudgetScheduler:
        return BudgetScheduler(optimizer, self.policies, budget, self.controller, clock=self.clock)

    def _resumed(self, optimizer: Any, budget: Budget, state: TrainerState) -> BudgetScheduler:
        """The scheduler where the checkpoint left it, taken over into the present budget if that is asked for."""
        # Read from the checkpoint's own entry: the Trainer restores callbacks only where it is asked to.
        entry = self._entry(state)
        self.saved = entry["attributes"]["saved"] if entry else None
        if self.saved is None:
            raise ValueError(
                f"the checkpoint of step {state.global_step} was made without {type(self).__name__}, so nothing says "
                "how much of the budget is spent. Load its weights into the model and train without "
                "`resume_from_checkpoint`."
            )
        theirs = self.saved["budget"]
        if theirs != str(budget) and self.rebudget is None:
            raise BudgetMismatch(
                f"this checkpoint was made for {parse_budget(theirs)!r} and is being resumed with {budget!r}.\n"
                f'    To go on with the new budget on purpose: {type(self).__name__}(…, rebudget="continuous").'
            )
        scheduler = self._begun(optimizer, parse_budget(theirs))
        scheduler.load_state_dict(self.saved)
        if theirs != str(budget) and self.rebudget is not None:
            try:
                scheduler.rebudget(budget, self.rebudget)
            except BudgetExhausted as error:
                error.add_note("In a Trainer: train the weights on as a new run, without `resume_from_checkpoint`.")
                raise
        return scheduler

    def _budget(self, args: TrainingArguments, state: TrainerState, loader: Any) -> Budget:
        """The budget of this training: epochs know their updates if the loader knows its length."""
        if self.budget is None:
            return Steps(state.max_steps)
        if isinstance(self.budget, Epochs) and self.budget.updates_per_epoch is None and has_length(loader):
            # The Trainer's own rounding: the batches left over at the end of an epoch make an update of their own.
            updates = max(1, math.ceil(len(loader) / args.gradient_accumulation_steps))
            return replace(self.budget, updates_per_epoch=updates)
        return self.budget

    def _entry(self, state: TrainerState) -> Any:
        """What `state` returned at the last save, or a list of that if there are several callbacks of this name."""
        entries: Any = state.stateful_callbacks  # a mapping, whatever the Trainer's annotation says
        return entries.get(type(self).__name__)

    def _refuse_a_second(self, state: TrainerState) -> None:
        if isinstance(self._entry(state), list):
            raise ValueError(
                f"this Trainer has several {type(self).__name__}s, and each would write over the others' rates. "
                "Give it one; it takes a list of schedules, one per parameter group."
            )

    def _refuse_uncounted(self, args: TrainingArguments, state: TrainerState) -> None:
        """A budget in something that the Trainer does not count would never be spent."""
        scheduler = self.scheduler
        preamble = scheduler.plan.preamble
        for budget in (scheduler.budget, *([preamble.length] if preamble else [])):
            if isinstance(budget, Samples):
                batch = (state.train_batch_size or 1) * args.gradient_accumulation_steps * args.world_size
                raise ValueError(
                    f"the budget {budget} counts samples, which the Trainer does not tell its callbacks. Count "
                    f"updates: at {batch} samples an update it is {str(Steps(math.ceil(budget.count / batch)))!r}."
                )
            if budget.unit == "tokens" and args.include_num_input_tokens_seen == "no":
                raise ValueError(
                    f"the budget {budget} counts tokens, which the Trainer does only if it is told to: "
                    'TrainingArguments(include_num_input_tokens_seen="non_padding"), or "all".'
                )

    # ------------------------------------------------------------ from update to update

    def _new_tokens(self, args: TrainingArguments, state: TrainerState) -> int | None:
        """This rank's share in the tokens of the update; None where the Trainer does not count them."""
        if args.include_num_input_tokens_seen == "no":
            return None
        tokens = state.num_input_tokens_seen - self._tokens_seen
        self._tokens_seen = state.num_input_tokens_seen
        if not tokens and self.scheduler.budget.unit == "tokens":
            raise ValueError(
                f"the budget {self.scheduler.budget} counts tokens, but the Trainer saw none in update "
                f"{state.global_step}: the model's `main_input_name` must be the name of its token ids."
            )
        # The Trainer's number is the sum over the ranks already, and `step` sums over the ranks.
        return tokens if state.is_world_process_zero else 0

    def _publish(self, lr_scheduler: Any) -> None:
        """The Trainer logs the rate that its own scheduler remembers, which is the one in force at the next update."""
        while (inner := getattr(lr_scheduler, "scheduler", None)) is not None:
            lr_scheduler = inner
        lr_scheduler._last_lr = self.scheduler.get_last_lr()

    def _end_if_spent(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """End the training, with the same last evaluation and checkpoint as the Trainer's own end at `max_steps`."""
        if not self.scheduler.exhausted:
            return
        self._spent = control.should_training_stop = True
        by_steps = args.eval_strategy == IntervalStrategy.STEPS and args.eval_delay <= state.global_step
        if by_steps and state.global_step % state.eval_steps:
            control.should_evaluate = True
        if args.save_strategy == SaveStrategy.STEPS:
            control.should_save = True

    def _time_is_up(self, lr_scheduler: Any, control: TrainerControl) -> bool:
        """After an evaluation or checkpoint, which takes time: the rates of now; True if just that spent the budget."""
        if self._spent or self.scheduler.budget.unit not in ("seconds", "moment"):
            return False
        self.scheduler.step(tokens=0)  # nothing was trained, so nothing is counted
        self._publish(lr_scheduler)
        if self.scheduler.exhausted:
            self._spent = control.should_training_stop = True
        return self._spent

    def _hold(self, pausing: bool) -> None:
        """Stop the clock for what the Trainer does next, if that is not to count, until the next step or epoch begins.

        Not until the evaluation ends: there may be several, and a checkpoint, and the Trainer never says which is last.
        """
        if pausing and not self.count_evaluation:
            self._pause.enter_context(self.scheduler.paused())


def _refuse_other_masters(lr_scheduler: Any) -> None:
    name = type(lr_scheduler).__name__
    # The Trainer steps these after an evaluation, behind every callback's back. GreedyLR is not in every transformers.
    if name in ("ReduceLROnPlateau", "GreedyLR"):
        raise ValueError(
            f"{name} changes the learning rate after each evaluation, as does this callback after each update. Leave "
            "`lr_scheduler_type` at its default and give the callback a controller: GlideslopeCallback(…, "
            "controller=Plateau(patience=5))."
        )
