"""BudgetScheduler: a plan on a PyTorch optimizer, over a budget, steered by a controller if there is one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from glideslope.core.budget import Budget, parse_budget
from glideslope.core.control import Controller, Decision, Observation
from glideslope.core.meter import Meter
from glideslope.core.plan import Plan, for_budget
from glideslope.core.policy import Policy
from glideslope.core.profiles import Multiplier
from glideslope.core.spec import canonical, parse_policy, to_json, to_text
from glideslope.core.value import require, unknown

STATE_VERSION = 1


class BudgetMismatch(ValueError):  # noqa: N818 - it names the fact, as the message does
    """A checkpoint made for one budget is being loaded into another."""


class BudgetScheduler(LRScheduler):
    """Lands the learning rate, and whatever else the plan names, exactly where the budget ends.

    A drop-in for any scheduler of `torch.optim.lr_scheduler`: call `step()` after every `optimizer.step()`. The value
    in force during update k of N is base × gain × multiplier(k/N), from the closed form alone: nothing accumulates.
    After the budget the last value is held. `optimizer.step` is not wrapped.

    Args:
        optimizer: its groups' present learning rates (or their "initial_lr") are the base rates, each its own.
        schedule: a schedule, plan or policy, or the text of one: `Rex()`, `one_cycle()`, "rex + warmup(5%)".
            "momentum" in a plan means `momentum` for SGD and β1 for Adam-like optimizers.
        budget: a budget or its text: `Steps(10_000)`, "10000ba". `Epochs` need their `updates_per_epoch`.
        controller: closes the loop through `observe`; a policy may bring its own.
        clock: monotonic seconds, for wall-clock budgets.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([weight], lr=0.1)
    >>> scheduler = BudgetScheduler(optimizer, "linear", budget="4ba")
    >>> rates = []
    >>> while not scheduler.exhausted:
    ...     rates.append(scheduler.get_last_lr()[0])
    ...     optimizer.step()
    ...     scheduler.step()
    >>> rates, scheduler.get_last_lr()
    ([0.1, 0.07500000000000001, 0.05, 0.025], [0.0])
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: str | Multiplier | Plan | Policy,
        budget: str | Budget,
        controller: Controller | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # LRScheduler.__init__ is left out on purpose: it wraps optimizer.step and takes a step of its own.
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"`optimizer` is a {type(optimizer).__name__}, but must be a torch.optim.Optimizer.")
        policy = parse_policy(schedule)
        if policy.controller is not None and controller is not None:
            raise ValueError(f"{policy} brings its own controller; leave `controller` out or pass the plan alone.")
        self.optimizer = optimizer
        self.budget = parse_budget(budget)
        self.plan = for_budget(policy.plan, self.budget)
        self.controller = controller or policy.controller
        self._meter = Meter(self.budget, clock)
        preamble = self.plan.preamble
        self._preamble = Meter(preamble.length, clock) if preamble else None
        self._bases = [_bases(group, self.plan) for group in optimizer.param_groups]
        self._gain = 1.0
        self._controller_state: Mapping[str, Any] = self.controller.start() if self.controller else {}
        self._unseen_losses: list[float | torch.Tensor] = []
        self.decisions: list[Decision] = []
        self._apply()

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        return 0.0 if self._in_preamble else self._meter.progress

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent: time to leave the loop."""
        return self._meter.exhausted

    @property
    def gain(self) -> float:
        """The controller's factor on the learning rate; 1 without a controller."""
        return self._gain

    @property
    def last_epoch(self) -> int:  # type: ignore[override]
        """Updates counted so far, under the name that `LRScheduler` gives them."""
        return self._meter.updates + (self._preamble.updates if self._preamble else 0)

    @property
    def base_lrs(self) -> list[float | torch.Tensor]:  # type: ignore[override]
        """The base learning rate of each group."""
        return [bases["lr"] for bases in self._bases]

    def step(  # type: ignore[override]
        self,
        epoch: None = None,
        *,
        loss: float | torch.Tensor | None = None,
        samples: int | None = None,
        tokens: int | None = None,
    ) -> None:
        """Count one update and set the values for the next.

        Args:
            epoch: must be left out; the position comes from counting.
            loss: training loss of the update, for the controller. A tensor is kept detached and read only at a
                decision.
            samples: examples in the update, for a budget in samples.
            tokens: tokens in the update, for a budget in tokens.
        """
        if epoch is not None:
            raise ValueError(
                f"step(epoch={epoch!r}): the position in the budget is counted, not set. Call step() once per update."
            )
        meters = [self._meter, *([self._preamble] if self._preamble else [])]
        for name, given in (("samples", samples), ("tokens", tokens)):
            for counted in (meter.budget for meter in meters):
                if counted.unit == name and given is None:
                    raise ValueError(f"the budget {counted} counts {name}: call step({name}=…) with this update's.")
        amounts = (1, 0 if samples is None else samples, 0 if tokens is None else tokens)
        if self._preamble and self._in_preamble:  # as it was when the update began, whatever the clock says by now
            self._preamble.advance(*amounts)
            self._meter.start_clock()  # the preamble's time is not the budget's
        else:
            self._meter.advance(*amounts)
        if self.controller is not None and loss is not None:
            self._unseen_losses.append(loss.detach() if isinstance(loss, torch.Tensor) else float(loss))
        self._apply()

    def observe(self, val_loss: float | None = None) -> Decision | None:
        """Show the controller the losses since the observation before; its gain is in force from now on.

        Args:
            val_loss: validation loss, if there is one; NaN and inf are observations too.

        Returns:
            The decision, also kept in `decisions`; None without a controller.
        """
        if self.controller is None:
            return None
        observation = Observation(
            update=self.last_epoch,
            progress=self.progress,
            rate=float(self._last_lr[0]),
            gain=self._gain,
            train_losses=tuple(float(loss) for loss in self._unseen_losses),
            val_loss=None if val_loss is None else float(val_loss),
        )
        decision, state = self.controller.decide(observation, self._controller_state)
        require(0 < decision.gain < float("inf"), "gain", decision.gain, "0 < gain < inf")
        self._controller_state, self._gain = state, float(decision.gain)
        self._unseen_losses = []
        self.decisions.append(decision)
        self._apply()
        return decision

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rates in force, one per group."""
        return self.get_last_lr()

    def _apply(self) -> None:
        """Write the values in force into the optimizer's groups."""
        self._in_preamble = self._preamble is not None and not self._preamble.exhausted
        progress = self.progress
        for group, bases in zip(self.optimizer.param_groups, self._bases, strict=True):
            for name, course in self.plan.courses:
                value = course.value(progress, bases[name])
                if name == "lr":
                    value *= self._gain
                    if self._in_preamble:
                        value = self.plan.preamble.rate(self._preamble.progress)  # type: ignore[union-attr]
                _write(group, name, value)
        self._last_lr = [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as JSON types. Position and budget are separate entries."""
        return {
            "version": STATE_VERSION,
            "budget": str(self.budget),
            "plan": to_json(self.plan),
            "position": self._meter.state_dict(),
            "preamble_position": self._preamble.state_dict() if self._preamble else None,
            "bases": [dict(bases) for bases in self._bases],
            "gain": self._gain,
            "controller": to_json(self.controller),
            "controller_state": dict(self._controller_state),
            "unseen_losses": [_plain(float(loss)) for loss in self._unseen_losses],
            "decisions": [
                [float(d.gain), d.reason, list(d.probabilities) if d.probabilities else None] for d in self.decisions
            ],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a saved scheduler stood, whether the optimizer's state is loaded before, after or not at all.

        Raises:
            BudgetMismatch: the state belongs to another budget.
            ValueError: the state belongs to another plan, controller, number of groups or file version.
        """
        if state_dict.get("version") != STATE_VERSION:
            raise ValueError(
                f"this state has version {state_dict.get('version')!r}; this glideslope reads version {STATE_VERSION}."
            )
        if state_dict["budget"] != str(self.budget):
            raise BudgetMismatch(
                f"this checkpoint was made for {parse_budget(state_dict['budget'])!r} and is being loaded into "
                f"{self.budget!r}.\n    To go on with the old budget, build the scheduler with "
                f"budget={state_dict['budget']!r}."
            )
        for name, mine in (("plan", self.plan), ("controller", self.controller)):
            if canonical(state_dict[name]) != canonical(to_json(mine)):
                raise ValueError(
                    f"this checkpoint was made with another {name} than {to_text(mine) if mine else 'none'}: "
                    f"{canonical(state_dict[name])}."
                )
        if len(state_dict["bases"]) != len(self.optimizer.param_groups):
            raise ValueError(
                f"this checkpoint has {len(state_dict['bases'])} parameter groups, "
                f"the optimizer {len(self.optimizer.param_groups)}."
            )
        self._meter.load_state_dict(state_dict["position"])
        if self._preamble:
            self._preamble.load_state_dict(state_dict["preamble_position"])
        self._bases = [{name: float(value) for name, value in bases.items()} for bases in state_dict["bases"]]
        self._gain = float(state_dict["gain"])
        self._controller_state = dict(state_dict["controller_state"])
        self._unseen_losses = [float(loss) for loss in state_dict["unseen_losses"]]
        self.decisions = [
            Decision(gain, reason, tuple(probabilities) if probabilities else None)
            for gain, reason, probabilities in state_dict["decisions"]
        ]
        self._apply()


def _bases(group: dict[str, Any], plan: Plan) -> dict[str, float]:
    """The base value of everything the plan schedules in a group, and of the learning rate."""
    # "initial_lr" is what PyTorch's schedulers, Lightning and the Trainer read and write for the same purpose.
    rate = group["lr"]
    initial = group.setdefault("initial_lr", rate.clone() if isinstance(rate, torch.Tensor) else rate)
    bases = {"lr": float(initial)}
    for name, _ in plan.courses:
        if name != "lr":
            bases[name] = float(_read(group, name))
    return bases


def _read(group: dict[str, Any], name: str) -> Any:
    numbers = {
        key: value
        for key, value in group.items()
        if isinstance(value, (int, float, torch.Tensor)) and not isinstance(value, bool) and key != "initial_lr"
    }
    if "betas" in group:
        numbers.setdefault("momentum", group["betas"][0])
    if name not in numbers:
        raise unknown("hyperparameter of this optimizer", name, numbers)
    return numbers[name]


def _plain(loss: float) -> float | str:
    """A loss as JSON has it: there NaN and infinity are words, which `float` reads back."""
    return loss if math.isfinite(loss) else str(loss)


def _write(group: dict[str, Any], name: str, value: float) -> None:
    if name == "momentum" and "betas" in group and "momentum" not in group:
        group["betas"] = (value, *group["betas"][1:])
    elif isinstance(group[name], torch.Tensor):
        group[name].fill_(value)  # in place, for capturable and compiled optimizers
    else:
        group[name] = value
