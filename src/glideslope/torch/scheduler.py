"""BudgetScheduler: plans on a PyTorch optimizer, over a budget, steered by a controller if there is one."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from glideslope.core.budget import Budget, parse_budget
from glideslope.core.control import Controller, Decision, Observation
from glideslope.core.meter import BudgetMismatch, Clock, Meter, RebudgetPolicy
from glideslope.core.plan import Plan, Relative, for_budget
from glideslope.core.policy import Policy
from glideslope.core.profiles import Multiplier
from glideslope.core.spec import canonical, parse_policy, to_json
from glideslope.core.value import require
from glideslope.torch.distributed import agree_on, is_distributed, sum_of_ranks
from glideslope.torch.groups import read, read_base_rate, write
from glideslope.torch.updates import UpdateCount, innermost

STATE_VERSION = 1
BLOCK = 1024
"""Multipliers are computed this many at a time, as one array: 20 ns each instead of a walk through the schedule."""

_log = logging.getLogger(__name__)

AnySchedule = str | Multiplier | Plan | Policy


class BudgetScheduler(LRScheduler):
    """Lands the learning rate, and whatever else the plan names, exactly where the budget ends.

    A drop-in for any scheduler of `torch.optim.lr_scheduler`: call `step()` after every `optimizer.step()`. The value
    in force during update k of N is base × gain × multiplier(k/N), from the closed form alone: nothing accumulates.
    After the budget the last value is held. `optimizer.step` is not wrapped.

    What counts as an update is what the optimizer did: `step()` advances by the updates that really happened since the
    call before (a hook counts them), so accumulation, skipped AMP steps and repeated calls need no care. If the
    optimizer has never reported an update (a wrapper that hides it, or a loop that only plots), calls count.

    Args:
        optimizer: its groups' present learning rates (or their "initial_lr") are the base rates, each its own.
        schedule: a schedule, plan or policy, or the text of one: `Rex()`, `one_cycle()`, "rex + warmup(5%)"; or a list
            of them, one per parameter group. "momentum" in a plan means `momentum` for SGD and β1 for Adam-like
            optimizers. A group added later follows the last of them from its own learning rate.
        budget: a budget or its text: `Steps(10_000)`, "10000ba", "45min", "until 18:00".
        controller: closes the loop through `observe`; a policy may bring its own.
        clock: where time comes from.

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

    _step_count = 0  # Accelerate adds to it; the position is counted elsewhere

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: AnySchedule | Sequence[AnySchedule],
        budget: str | Budget,
        controller: Controller | None = None,
        *,
        clock: Clock = Clock(),  # noqa: B008 - a frozen value
    ) -> None:
        # LRScheduler.__init__ is left out on purpose: it wraps optimizer.step and takes a step of its own.
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"`optimizer` is a {type(optimizer).__name__}, but must be a torch.optim.Optimizer.")
        entries = [schedule] if isinstance(schedule, (str, Multiplier, Plan, Policy)) else list(schedule)
        policies = [parse_policy(entry) for entry in entries]
        groups = len(optimizer.param_groups)
        if len(policies) not in (1, groups):
            raise ValueError(f"{len(policies)} schedules for {groups} parameter groups: give one, or one per group.")
        brought = list(dict.fromkeys(policy.controller for policy in policies if policy.controller is not None))
        if len(brought) + (controller is not None) > 1:
            raise ValueError(
                f"{policies[0]} brings its own controller; leave `controller` out or pass the plan alone. "
                "There is one controller for all groups."
            )
        self.optimizer = optimizer
        self.controller = controller if controller is not None else next(iter(brought), None)
        total = parse_budget(budget)
        self._plans = [for_budget(policy.plan, total) for policy in policies]
        if len({plan.preamble for plan in self._plans}) > 1:
            raise ValueError("the schedules of the groups have different preambles; there can be only one.")
        preamble = self._plans[0].preamble
        self._meter = Meter(total, clock)
        self._preamble = Meter(preamble.length, clock) if preamble else None
        self._gain = 1.0
        self._controller_state: Mapping[str, Any] = self.controller.start() if self.controller else {}
        self._unseen_losses: list[float | torch.Tensor] = []
        self.decisions: list[Decision] = []
        self._bases: list[dict[str, float]] = []
        self._in_preamble = preamble is not None
        self._agreed: tuple[float, bool] | None = None
        self._agree()
        self._attach()

    # ------------------------------------------------------------ what is read

    @property
    def budget(self) -> Budget:
        """What may be spent; `Epochs` know their updates once they were learned."""
        return self._meter.budget

    @property
    def plan(self) -> Plan:
        """The plan of the first group."""
        return self._plans[0]

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]."""
        if self._in_preamble:
            return 0.0
        return self._agreed[0] if self._agreed else self._meter.progress

    @property
    def exhausted(self) -> bool:
        """Whether the budget is spent: time to leave the loop."""
        if self._in_preamble:
            return False
        spent = self._agreed[1] if self._agreed else self._meter.exhausted
        if spent and self._meter.counts_time:
            self._write()  # the clock has gone on since `step` wrote: the run must not end above the ground
        return spent

    @property
    def gain(self) -> float:
        """The controller's factor on the learning rate; 1 without a controller."""
        return self._gain

    @property
    def last_epoch(self) -> int:
        """Updates counted so far, under the name that `LRScheduler` gives them."""
        return self._meter.updates + (self._preamble.updates if self._preamble else 0)

    @last_epoch.setter
    def last_epoch(self, value: int) -> None:
        raise TypeError(
            "something (SequentialLR does) tries to set the position of a BudgetScheduler, which is counted. Put the "
            "schedules together instead of the schedulers: "
            'BudgetScheduler(optimizer, "sequence((linear, cosine))", …), or "rex + warmup(5%)" for a warmup.'
        )

    @property
    def base_lrs(self) -> list[float | torch.Tensor]:  # type: ignore[override]
        """The base learning rate of each group."""
        return [bases["lr"] for bases in self._bases]

    def get_last_lr(self) -> list[float | torch.Tensor]:
        """The learning rates in force, one number per group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    get_lr = get_last_lr

    @property
    def _last_lr(self) -> list[float | torch.Tensor]:  # type: ignore[override]
        return self.get_last_lr()

    @property
    def _current(self) -> Meter:
        """The meter that counts: the preamble's for an update that began in it."""
        return self._preamble if self._preamble is not None and self._in_preamble else self._meter

    # ------------------------------------------------------------ what is done

    def step(  # type: ignore[override]
        self,
        epoch: None = None,
        *,
        loss: float | torch.Tensor | None = None,
        samples: int | None = None,
        tokens: int | None = None,
    ) -> None:
        """Count the updates since the last call and set the values for the next one.

        Args:
            epoch: must be left out; the position comes from counting.
            loss: training loss of the update, for the controller; see `add_loss`.
            samples: examples in the update, for a budget in samples.
            tokens: tokens in the update, for a budget in tokens. In a distributed run each rank gives its own samples
                or tokens, and their sum over the ranks is counted.
        """
        if epoch is not None:
            raise ValueError(
                f"step(epoch={epoch!r}): the position in the budget is counted, not set. Call step() once per update."
            )
        if samples is not None or tokens is not None:
            samples, tokens = sum_of_ranks([samples or 0, tokens or 0])
            self._current.advance(0, samples, tokens)
        if self._advance is not None:
            self._advance()
            return
        updates = self._count.new()
        if len(self.optimizer.param_groups) != len(self._bases):  # no hook has told of them
            self._settle()
        for name, given in (("samples", samples), ("tokens", tokens)):
            if given is None and self._current.budget.unit == name:
                raise ValueError(
                    f"the budget {self._current.budget} counts {name}: call step({name}=…) with this update's."
                )
        self._current.amounts["updates"] += updates
        if self._in_preamble:
            self._meter.start_clock()  # the preamble's time is not the budget's
        if loss is not None and updates:
            self.add_loss(loss)
        self._agree()
        self._write()

    def add_loss(self, loss: float | torch.Tensor) -> None:
        """Keep a training loss for the controller's next observation, where a framework calls `step` by itself.

        Args:
            loss: a number or a scalar tensor, which is kept detached and read only at a decision.
        """
        if self.controller is not None:
            self._unseen_losses.append(loss.detach() if isinstance(loss, torch.Tensor) else float(loss))

    def observe(self, val_loss: float | None = None) -> Decision | None:
        """Show the controller the losses since the observation before; its gain is in force from now on.

        In a distributed run every rank calls this, rank 0's controller decides, and its gain is in force on all.

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
            rate=float(self.get_last_lr()[0]),
            gain=self._gain,
            train_losses=tuple(float(loss) for loss in self._unseen_losses),
            val_loss=None if val_loss is None else float(val_loss),
        )
        decision, state = self.controller.decide(observation, self._controller_state)
        require(0 < decision.gain < math.inf, "gain", decision.gain, "0 < gain < inf")
        (gain,) = agree_on([float(decision.gain)])
        if gain != decision.gain:
            decision = Decision(gain, "decided by rank 0")
        self._controller_state, self._gain = state, gain
        self._unseen_losses = []
        self.decisions.append(decision)
        self._settle()
        return decision

    def end_epoch(self) -> None:
        """Say that an epoch is over. The first one teaches a budget in epochs how many updates an epoch has."""
        learned = self._meter.end_epoch()
        if learned is not None:
            _log.info("an epoch has %d updates: the budget is %s", learned, self.budget)
            self._settle()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside (evaluation, checkpointing) does not count for `WallClock`; a `Deadline` does not wait.

        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> scheduler = BudgetScheduler(torch.optim.SGD([weight], lr=0.1), "rex", budget="45min")
        >>> with scheduler.paused():
        ...     pass  # evaluate(model)
        """
        with self._meter.paused():
            yield

    def rebudget(self, budget: str | Budget, policy: RebudgetPolicy = "continuous") -> None:
        """Exchange the budget in mid-run, into another unit if you like.

        Args:
            budget: the new total, counted from the beginning of the run.
            policy: "continuous": progress goes on from where it is and runs on to the new end, so nothing jumps, cycles
                and momentum included; a limit already passed exhausts at once. "rescale": as if the new budget had
                always been; may jump. "keep": the old curve to its end, then hold.

        Raises:
            BudgetExhausted: there is no progress left to continue from; see `rewarm`.
        """
        self._meter.rebudget(parse_budget(budget), policy)
        self._rebased()

    def rewarm(self, budget: str | Budget, from_progress: float) -> None:
        """Train on after the budget is spent: go on at a chosen progress, which then runs on to the new end.

        Args:
            budget: the new total, counted from the beginning of the run.
            from_progress: where on the schedule to go on, 0 <= from_progress < 1.
        """
        self._meter.rewarm(parse_budget(budget), from_progress)
        self._rebased()

    def _rebased(self) -> None:
        """After a change of the budget: what ranks agreed on before no longer holds."""
        self._agreed = None
        self._agree()
        self._settle()

    # ------------------------------------------------------------ how values get into the groups

    def _attach(self) -> None:
        """Hook onto the optimizer."""
        self._count = UpdateCount(self.optimizer, self._catch_up)
        settle = weakref.WeakMethod(self._settle)  # the optimizer must not keep a scheduler alive that was dropped

        def loaded(optimizer: Optimizer) -> None:
            if (settle_again := settle()) is not None:
                settle_again()

        handle = innermost(self.optimizer).register_load_state_dict_post_hook(loaded)
        weakref.finalize(self, handle.remove)
        self._settle()

    def _catch_up(self) -> None:
        """Before an update: take back calls that were no updates, take up new groups, and write what is in force."""
        counted = self._current.amounts
        counted["updates"] = max(0, counted["updates"] - self._count.take_back())
        self._settle()

    def _settle(self) -> None:
        """Take up new groups and write the values in force: after whatever may have changed the set-up."""
        groups = self.optimizer.param_groups
        for group in groups[len(self._bases) :]:
            plan = self._plan_of(len(self._bases))
            others = {name: read(group, name) for name, _ in plan.courses if name != "lr"}
            self._bases.append({**others, "lr": read_base_rate(group)})
        self._count.known_groups[0] = len(groups)
        plans = [self._plan_of(index) for index in range(len(groups))]
        self._schedules = list(dict.fromkeys(course.schedule for plan in plans for _, course in plan.courses))
        self._courses = [
            [(name, course, self._schedules.index(course.schedule), bases[name]) for name, course in plan.courses]
            for plan, bases in zip(plans, self._bases, strict=True)
        ]
        self._block: list[list[float]] = []
        self._block_start = 0
        rates_alone = len(self._schedules) == 1 and all(
            name == "lr" and isinstance(course, Relative) for plan in plans for name, course in plan.courses
        )
        plain = rates_alone and self.controller is None and self._preamble is None and self._meter.counts_updates
        in_tensors = {isinstance(group["lr"], torch.Tensor) for group in groups}
        self._advance = self._short_path(in_tensors.pop()) if plain and len(in_tensors) == 1 else None
        self._write()

    def _short_path(self, in_tensors: bool) -> Callable[[], None]:
        """All of `step` for what nearly every run is: one schedule scaling the rates, counted in updates.

        One function over local names takes 1 µs where methods and attributes take 4.
        """
        groups, rates, amounts = (
            self.optimizer.param_groups,
            [bases["lr"] for bases in self._bases],
            self._meter.amounts,
        )
        reported, seen = self._count.reported, self._count.seen
        (schedule,) = self._schedules
        block: list[float] = []
        start = 0

        def advance() -> None:
            nonlocal block, start
            total = reported[0]
            if total:  # as UpdateCount.new, without the call
                position = amounts["updates"] = amounts["updates"] + total - seen[0]
                seen[0] = total
            else:
                position = amounts["updates"] = amounts["updates"] + 1
                seen[0] += 1
                if len(groups) != len(rates):  # no hook has told of them
                    self._settle()
                    return
            if not start <= position < start + len(block):
                start = position
                block = self._table(position, [schedule])[:, 0].tolist()
            multiplier = block[position - start]
            if in_tensors:
                for group, rate in zip(groups, rates):  # noqa: B905 - as below
                    group["lr"].fill_(rate * multiplier)
                return
            for group, rate in zip(groups, rates):  # noqa: B905 - new groups come in through _settle
                group["lr"] = rate * multiplier

        return advance

    def _table(self, position: int, schedules: Sequence[Multiplier]) -> NDArray[np.float64]:
        """Multipliers of the next `BLOCK` positions in updates. Returns: (BLOCK, num_schedules)."""
        progress = self._meter.progress_at(np.arange(position, position + BLOCK, dtype=np.float64))
        return np.stack([schedule(progress) for schedule in schedules], axis=1)

    def _plan_of(self, index: int) -> Plan:
        return self._plans[min(index, len(self._plans) - 1)]

    def _multipliers(self) -> list[float]:
        """The multiplier of each distinct schedule, now."""
        if not self._meter.counts_updates or self._in_preamble:
            progress = self.progress
            return [float(schedule(progress)) for schedule in self._schedules]
        index = self._meter.updates - self._block_start
        if not 0 <= index < len(self._block):
            index, self._block_start = 0, self._meter.updates
            self._block = self._table(self._block_start, self._schedules).tolist()
        return self._block[index]

    def _write(self) -> None:
        """Write the values in force into the optimizer's groups."""
        self._in_preamble = self._preamble is not None and not self._preamble.exhausted
        multipliers = self._multipliers()
        preamble_rate = self._preamble_rate()
        for group, courses in zip(self.optimizer.param_groups, self._courses, strict=True):
            for name, course, index, base in courses:
                value = course.at(multipliers[index], base)
                if name == "lr":
                    value = value * self._gain if preamble_rate is None else preamble_rate
                write(group, name, value)

    def _preamble_rate(self) -> float | None:
        """The learning rate of the preamble, while it lasts."""
        if self._preamble is None or self.plan.preamble is None or not self._in_preamble:
            return None
        return self.plan.preamble.rate(self._preamble.progress)

    def _agree(self) -> None:
        """Rank 0's clock holds on all ranks: else they would leave the loop at different steps."""
        if not is_distributed() or not self._meter.counts_time:
            return
        meter = self._meter
        # In this order: time may run out between two readings of the clock, and who is exhausted has progress 1.
        exhausted, progress, *spending = agree_on([meter.exhausted, meter.progress, *meter.spending()])
        meter.load_spending(spending)
        self._agreed = progress, bool(exhausted)

    # ------------------------------------------------------------ state

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: hooks and the short path belong to this object alone and are made anew."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_advance", "_count")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._attach()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs, as JSON types. Position and budget are separate entries."""
        return {
            "version": STATE_VERSION,
            **self._meter.state_dict(),
            "preamble": self._preamble.state_dict() if self._preamble else None,
            "plans": [to_json(plan) for plan in self._plans],
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
        mine = self._meter.state_dict()["budget"]
        if state_dict["budget"] != mine:
            theirs = state_dict["budget"]
            raise BudgetMismatch(
                f"this checkpoint was made for {parse_budget(theirs)!r} and is being loaded into "
                f"{parse_budget(mine)!r}.\n    To go on with the new budget on purpose, build the scheduler with "
                f'budget={theirs!r}, load, and call `scheduler.rebudget({mine!r}, policy="continuous")`.'
            )
        for name, saved, present in (
            ("plan", state_dict["plans"], [to_json(plan) for plan in self._plans]),
            ("controller", state_dict["controller"], to_json(self.controller)),
        ):
            if canonical(saved) != canonical(present):
                raise ValueError(
                    f"this checkpoint was made with another {name}: "
                    f"{canonical(saved)} there, {canonical(present)} here."
                )
        if len(state_dict["bases"]) != len(self.optimizer.param_groups):
            raise ValueError(
                f"this checkpoint has {len(state_dict['bases'])} parameter groups, "
                f"the optimizer {len(self.optimizer.param_groups)}. Add the groups before loading."
            )
        self._count.skip()
        self._meter.load_state_dict(state_dict)
        if self._preamble:
            self._preamble.load_state_dict(state_dict["preamble"])
        self._bases = [{name: float(value) for name, value in bases.items()} for bases in state_dict["bases"]]
        self._gain = float(state_dict["gain"])
        self._controller_state = dict(state_dict["controller_state"])
        self._unseen_losses = [float(loss) for loss in state_dict["unseen_losses"]]
        self.decisions = [
            Decision(gain, reason, tuple(probabilities) if probabilities else None)
            for gain, reason, probabilities in state_dict["decisions"]
        ]
        self._agree()
        self._settle()


def _plain(loss: float) -> float | str:
    """A loss as JSON has it: there NaN and infinity are words, which `float` reads back."""
    return loss if math.isfinite(loss) else str(loss)
