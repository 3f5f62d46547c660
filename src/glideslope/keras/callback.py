"""GlideslopeCallback: a schedule over any budget that `fit` can spend, steered by a controller if there is one."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import keras

from glideslope.core.budget import Budget, parse_budget
from glideslope.core.control import Controller, Decision, Observation
from glideslope.core.meter import BudgetExhausted, BudgetMismatch, Clock, Meter, RebudgetPolicy
from glideslope.core.plan import Plan, for_budget
from glideslope.core.policy import Policy
from glideslope.core.profiles import Multiplier
from glideslope.core.spec import canonical, parse_policy, to_json
from glideslope.core.value import require
from glideslope.keras.schedule import without_preamble

STATE_VERSION = 1

_log = logging.getLogger(__name__)


class GlideslopeCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Lands the learning rate where the budget ends, and stops `fit` there.

    For what only the host can count: wall clock, deadlines, samples, and budgets that change on the way. (A number of
    updates that is known beforehand needs no callback: `BudgetSchedule`.) The optimizer's learning rate is the base;
    before every batch it is set to base × gain × multiplier(progress). Updates are those the optimizer made: with
    gradient accumulation and skipped steps of a `LossScaleOptimizer` they are fewer than the batches. With
    `steps_per_execution=k` a rate holds for k updates, and a run may end up to k - 1 updates late. On JAX the trainer's
    state is taken out of the compiled step before every batch, at some 10 µs per variable of model and optimizer.

    Give `fit` more epochs than the budget can hold, and pass the callback in a list. Between `fit`s the clock of a
    `WallClock` stands still. One process: ranks with clocks of their own would leave the loop at different updates.

    Args:
        schedule: a schedule or policy, or its text: "rex + warmup(5%)". Of a plan only the learning rate can be set in
            Keras, which compiles momentum and its like into the step.
        budget: a budget or its text: "45min", "until 18:00", "1e6sp", "10ep", `Steps(10_000)`. Keras counts no tokens.
        controller: sees the losses at the end of every epoch: a mean per batch, and "val_loss" where there is one. A
            policy may bring its own.
        clock: where time comes from.
        pause_evaluation: whether the clock of a `WallClock` stands still during validation; a `Deadline` never waits.

    Attributes:
        decisions: what the controller decided, oldest first.

    >>> callback = GlideslopeCallback("rex + warmup(5%)", "45min reserve 2min")
    >>> # model.fit(x, y, epochs=10**6, callbacks=[callback, save])
    >>> # So that a run that was killed spends only what is left; it begins with `callback.load_state_dict`.
    >>> save = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: keep(model, callback.state_dict()))
    """

    def __init__(
        self,
        schedule: str | Multiplier | Plan | Policy,
        budget: str | Budget,
        controller: Controller | None = None,
        *,
        clock: Clock = Clock(),  # noqa: B008 - a frozen value
        pause_evaluation: bool = False,
    ) -> None:
        super().__init__()
        policy = parse_policy(schedule)
        if policy.controller is not None and controller is not None:
            raise ValueError(f"{policy} brings its own controller; leave `controller` out or pass the plan alone.")
        total = _countable(parse_budget(budget))
        self.controller = controller if controller is not None else policy.controller
        self.plan = for_budget(_rate_alone(policy.plan), total)
        self.decisions: list[Decision] = []
        self._pauses_evaluation = pause_evaluation
        self._meter = Meter(total, clock)
        self._base: float | None = None
        self._gain = 1.0
        self._controller_state: Mapping[str, Any] = self.controller.start() if self.controller else {}
        self._unseen_losses: list[float] = []
        self._evaluation = ExitStack()
        self._rest = ExitStack()
        self._rest.enter_context(self._meter.paused())
        self._in_fit = False
        self._thread = 0
        self._before = _Counts(0, 0.0, 0.0)

    # ------------------------------------------------------------ what is read

    @property
    def budget(self) -> Budget:
        """What may be spent; `Epochs` know their updates once they were learned."""
        return self._meter.budget

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        return self._meter.progress

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent: nothing is left to `fit`."""
        return self._meter.exhausted

    @property
    def updates(self) -> int:
        """Updates counted so far."""
        return self._meter.updates

    @property
    def gain(self) -> float:
        """The controller's factor on the learning rate; 1 without a controller."""
        return self._gain

    # ------------------------------------------------------------ what Keras calls

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        optimizer = self.model.optimizer
        rate = _settable_rate(optimizer)
        if self.exhausted:
            raise BudgetExhausted(
                f"the budget {self.budget} is spent, and `fit` can be stopped only after an update. Ask "
                "`callback.exhausted` first. To train on, give a larger budget and choose where to start again: "
                "callback.rewarm(budget, from_progress=0.5)."
            )
        self._evaluation.close()  # of a `fit` that was broken off
        self._rest.close()
        if self._base is None:
            require(rate > 0, "learning_rate", rate, "learning_rate > 0, so set the peak: it may have landed before")
            self._base = rate
            self._meter.start_clock()
        self._learn_epoch(optimizer)
        self._thread = threading.get_ident()
        self._in_fit = True

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._write()
        self._before = _counts(self.model)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                "Keras runs a callback that is passed alone in a thread beside training, where it can neither count "
                "nor stop. Pass it in a list: fit(…, callbacks=[callback])."
            )
        now, before = _counts(self.model), self._before
        samples = round(now.samples - before.samples)
        if not samples and self.budget.unit == "samples":
            raise ValueError(
                f"the budget {self.budget} counts samples, but the model's own loss metric, which Keras counts them "
                "with, saw none in this batch: its train_step leaves it out. Give Steps or WallClock."
            )
        updates = now.updates - before.updates
        self._meter.advance(updates, samples)
        if self.controller is not None and updates and samples:
            # Keras logs the mean of the epoch so far; the difference of two sums is the batch's own. Once an epoch's
            # sum is NaN it stays so to its end.
            self._unseen_losses.append((now.loss_sum - before.loss_sum) / samples)
        self._stop_if_spent()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        learned = self._meter.end_epoch()
        if learned is not None:
            _log.info("an epoch has %d updates: the budget is %s", learned, self.budget)
        if self.controller is not None:
            self._observe(self.controller, (logs or {}).get("val_loss"))
        self._stop_if_spent()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        if self._pauses_evaluation:
            self._evaluation.enter_context(self._meter.paused())

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._evaluation.close()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        self._in_fit = False
        self._rest.enter_context(self._meter.paused())
        if not self.exhausted:
            _log.info("fit ended at %.0f %% of the budget %s: give it more epochs", 100 * self.progress, self.budget)

    # ------------------------------------------------------------ how the budget changes

    def rebudget(self, budget: str | Budget, policy: RebudgetPolicy = "continuous") -> None:
        """Exchange the budget, between two `fit`s or in another callback, into another unit if you like.

        Args:
            budget: the new total, counted from the beginning of the run.
            policy: "continuous": progress goes on from where it is and runs on to the new end. "rescale": as if the new
                budget had always been; may jump. "keep": the old curve to its end, then hold.

        Raises:
            BudgetExhausted: there is no progress left to continue from; see `rewarm`.
        """
        self._meter.rebudget(_countable(parse_budget(budget)), policy)

    def rewarm(self, budget: str | Budget, from_progress: float) -> None:
        """Train on after the budget is spent: go on at a chosen progress, which then runs on to the new end.

        Args:
            budget: the new total, counted from the beginning of the run.
            from_progress: where on the schedule to go on, 0 <= from_progress < 1.
        """
        self._meter.rewarm(_countable(parse_budget(budget)), from_progress)

    # ------------------------------------------------------------ how it is done

    @property
    def _rate(self) -> float:
        """The learning rate that belongs to the present progress."""
        base = 0.0 if self._base is None else self._base
        return float(self.plan["lr"].value(self.progress, base)) * self._gain

    def _write(self) -> None:
        # Reading `self.model` brings the state of JAX's trainer back into the variables, from which it takes it again
        # before the next batch; what is written without that is overwritten at the end of the epoch, unused.
        self.model.optimizer.learning_rate = self._rate

    def _stop_if_spent(self) -> None:
        if self.exhausted:
            self._write()
            self.model.stop_training = True

    def _observe(self, controller: Controller, val_loss: float | None) -> None:
        observation = Observation(
            update=self.updates,
            progress=self.progress,
            rate=self._rate,
            gain=self._gain,
            train_losses=tuple(self._unseen_losses),
            val_loss=None if val_loss is None else float(val_loss),
        )
        decision, state = controller.decide(observation, self._controller_state)
        require(0 < decision.gain < math.inf, "gain", decision.gain, "0 < gain < inf")
        self._controller_state, self._gain = state, float(decision.gain)
        self._unseen_losses = []
        self.decisions.append(decision)

    def _learn_epoch(self, optimizer: Any) -> None:
        """Tell a budget in epochs how many updates one has, where Keras knows; else the first epoch teaches it."""
        batches = (self.params or {}).get("steps")
        accumulated = _inner(optimizer).gradient_accumulation_steps or 1
        position = self._meter.state_dict()
        if batches and batches % accumulated == 0 and position["position"]["updates_per_epoch"] is None:
            position["position"]["updates_per_epoch"] = batches // accumulated
            self._meter.load_state_dict(position)

    # ------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs beside the saved model, as JSON types. Position and budget are apart."""
        return {
            "version": STATE_VERSION,
            **self._meter.state_dict(),
            "plan": to_json(self.plan),
            "base": self._base,
            "gain": self._gain,
            "controller": to_json(self.controller),
            "controller_state": dict(self._controller_state),
            # JSON has no NaN; `float` reads the words back.
            "unseen_losses": [loss if math.isfinite(loss) else str(loss) for loss in self._unseen_losses],
            "decisions": [
                [float(d.gain), d.reason, list(d.probabilities) if d.probabilities else None] for d in self.decisions
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where a saved callback stood, before `fit`; the learning rate in the loaded model does not matter.

        Raises:
            BudgetMismatch: the state belongs to another budget.
            ValueError: the state belongs to another plan, controller or file version.
        """
        if state_dict.get("version") != STATE_VERSION:
            raise ValueError(
                f"this state has version {state_dict.get('version')!r}; this glideslope reads version {STATE_VERSION}."
            )
        mine, theirs = self._meter.state_dict()["budget"], state_dict["budget"]
        if mine != theirs:
            raise BudgetMismatch(
                f"this checkpoint was made for {parse_budget(theirs)!r} and is being loaded into "
                f"{parse_budget(mine)!r}.\n    To go on with the new budget on purpose, build the callback with "
                f'budget={theirs!r}, load, and call `callback.rebudget({mine!r}, policy="continuous")`.'
            )
        for name, saved, present in (
            ("plan", state_dict["plan"], to_json(self.plan)),
            ("controller", state_dict["controller"], to_json(self.controller)),
        ):
            if canonical(saved) != canonical(present):
                raise ValueError(
                    f"this checkpoint was made with another {name}: "
                    f"{canonical(saved)} there, {canonical(present)} here."
                )
        self._rest.close()  # leaving a pause sets the clock to where it was entered
        self._meter.load_state_dict(state_dict)
        if not self._in_fit:
            self._rest.enter_context(self._meter.paused())
        self._base = None if state_dict["base"] is None else float(state_dict["base"])
        self._gain = float(state_dict["gain"])
        self._controller_state = dict(state_dict["controller_state"])
        self._unseen_losses = [float(loss) for loss in state_dict["unseen_losses"]]
        self.decisions = [
            Decision(gain, reason, tuple(probabilities) if probabilities else None)
            for gain, reason, probabilities in state_dict["decisions"]
        ]


@dataclass(frozen=True)
class _Counts:
    """What Keras has counted.

    Args:
        updates: since the optimizer was made.
        samples, loss_sum: since the epoch began; the loss of each sample in the sum is that of its batch.
    """

    updates: int
    samples: float
    loss_sum: float


def _counts(model: Any) -> _Counts:
    # Not the metric named "loss": a model with a train_step of its own may feed that one batches instead of samples.
    loss = model._loss_tracker
    return _Counts(int(_inner(model.optimizer).iterations), float(loss.count), float(loss.total))


def _inner(optimizer: Any) -> Any:
    """The optimizer that makes the updates: the one inside a `LossScaleOptimizer`."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _settable_rate(optimizer: Any) -> float:
    """The optimizer's learning rate, if it is a number that can be set.

    Raises:
        TypeError: it is something else.
    """
    if hasattr(optimizer, "optimizers"):
        raise TypeError(
            f"a {type(optimizer).__name__} has no learning rate of its own. Give each of its optimizers a schedule: "
            "SGD(learning_rate=BudgetSchedule(…))."
        )
    rate = optimizer.learning_rate
    if not hasattr(rate, "assign"):  # not a variable, but what a schedule or a function returned
        raise TypeError(
            f"the learning rate of this {type(optimizer).__name__} is a schedule or a function, which cannot be set. "
            "Build the optimizer with a number, the peak: SGD(learning_rate=0.1). For a budget of updates "
            "SGD(learning_rate=BudgetSchedule(…)) needs no callback."
        )
    return float(rate)


def _countable(budget: Budget) -> Budget:
    """The budget, if `fit` can spend it.

    Raises:
        ValueError: it is in tokens.
    """
    if budget.unit == "tokens":
        raise ValueError(
            f"{budget} counts tokens, which Keras does not tell apart from padding. Give Samples: the tokens divided "
            "by the length of your sequences."
        )
    return budget


def _rate_alone(plan: Plan) -> Plan:
    """The plan, if it is one that can be set in Keras: for the learning rate, without a preamble.

    Raises:
        ValueError: it is another one.
    """
    others = [name for name, _ in plan.courses if name != "lr"]
    if others:
        alone = f"Take its learning rate alone: {str(Policy(Plan({'lr': plan['lr']})))!r}." if "lr" in plan else ""
        raise ValueError(
            f"this plan moves {' and '.join(others)}, which Keras compiles into its step as constants. {alone}".rstrip()
        )
    return without_preamble(plan)
