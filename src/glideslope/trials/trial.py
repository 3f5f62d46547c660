"""TrialSpec: what one training run is. Everything it computes follows from this value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

from glideslope.core.plan import Absolute, Plan, Relative
from glideslope.core.policy import Policy
from glideslope.core.spec import canonical, from_json, identity_json, to_json
from glideslope.core.value import require, unknown
from glideslope.trials.looks import Look
from glideslope.trials.optimizers import OptimizerSpec

SCHEMA = 1
UPDATE_PROBES = ("gradient_norm", "weight_norm")
"""Measured at the recorded updates."""
VALIDATION_PROBES = ("full_gradient_norm",)
"""Measured at the validations, for they cost as much as an epoch."""
PROBES = UPDATE_PROBES + VALIDATION_PROBES
PRECISIONS = ("float32", "bfloat16")
"""The first is plain PyTorch. The second is autocast: not exact, and slower on processors that have to emulate it."""


@dataclass(frozen=True)
class TaskRef:
    """A task by name, with the fingerprint of its data.

    Args:
        name: registered name or import path.
        version: the task's version.
        params: canonical JSON of the task's fields.
        data_sha256: fingerprint of its splits; a trial refuses to run on other data.
    """

    name: str
    version: int
    params: str
    data_sha256: str


@dataclass(frozen=True)
class Seeds:
    """Where randomness starts: initial weights, order of the data with augmentation, and noise in the loss."""

    init: int
    data: int
    noise: int

    @classmethod
    def all(cls, seed: int) -> Seeds:
        return cls(seed, seed, seed)


@dataclass(frozen=True)
class TrialSpec:
    """One training run. Equal specs have equal ids and equal outcomes.

    Args:
        task: what is trained.
        seeds: see `Seeds`.
        optimizer: how.
        policy: plan and controller.
        rate: base learning rate, > 0 and finite.
        updates: length of the run and span of its schedule; a preamble comes before it.
        eval_every: updates between validations; the last update is always validated.
        probes: names from `PROBES`: of updates where they are recorded, of validations where they take place.
        looks: when and how the model is judged on the way, in order of their updates.
        restarts: updates at which training begins anew, with other initial weights and an empty optimizer, in order.
        precision: of the forward pass and the loss, from `PRECISIONS`; weights and optimizer are float32 in all.
    """

    task: TaskRef
    seeds: Seeds
    optimizer: OptimizerSpec
    policy: Policy
    rate: float
    updates: int
    eval_every: int
    probes: tuple[str, ...] = ()
    precision: str = "float32"
    looks: tuple[Look, ...] = ()
    restarts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", float(self.rate))  # 1 and 1.0 are one rate, and must be one text in the ids
        require(0 < self.rate < float("inf"), "rate", self.rate, "0 < rate < inf")
        require(self.updates >= 1, "updates", self.updates, "updates >= 1")
        require(self.eval_every >= 1, "eval_every", self.eval_every, "eval_every >= 1")
        if not set(self.probes) <= set(PROBES):
            require(False, "probes", self.probes, f"names from {PROBES}")
        if self.looks:  # most trials have none, and planning makes 100,000
            ats = [look.update for look in self.looks]
            bound = f"updates from 1 to {self.last_update}, in order, and each look once"
            in_order = ats == sorted(ats) and len(set(self.looks)) == len(ats)
            require(in_order and all(1 <= at <= self.last_update for at in ats), "looks", ats, bound)
            for look in self.looks:
                earlier = all(1 <= at < look.update for at in look.ensemble)
                require(earlier, "ensemble", look.ensemble, f"updates from 1 to {look.update - 1}")
        if self.restarts:
            rising = all(a < b for a, b in pairwise((0, *self.restarts, self.last_update)))
            require(rising, "restarts", self.restarts, f"updates from 1 to {self.last_update - 1}, rising")
        preamble = self.policy.plan.preamble
        if preamble is not None and preamble.length.unit != "updates":
            raise ValueError(
                f"the plan's preamble takes {preamble.length}, but a trial counts updates: give it in updates, or in "
                "epochs of known length."
            )
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)

    @property
    def last_update(self) -> int:
        """All updates that are made: those of the plan's preamble, which are no part of the budget, and `updates`."""
        preamble = self.policy.plan.preamble
        return self.updates + (preamble.updates if preamble is not None else 0)

    @property
    def trajectory(self) -> dict[str, Any]:
        """What decides every number of the training: plain data, hashed into `trajectory_id`."""
        return {
            "schema": SCHEMA,
            "task": _task_to_json(self.task),
            "seeds": {"init": self.seeds.init, "data": self.seeds.data, "noise": self.seeds.noise},
            "optimizer": _optimizer_to_json(self.optimizer),
            "plan": _plan_to_json(self.policy.plan, self.rate),
            "preamble": to_json(self.policy.plan.preamble),
            "controller": identity_json(self.policy.controller),
            "updates": self.updates,
            "precision": self.precision,
            "start": None,
            **({"restarts": list(self.restarts)} if self.restarts else {}),
        }

    @property
    def measure(self) -> dict[str, Any]:
        """What is looked at on the way: plain data, hashed together with the trajectory into the trial's id."""
        return _measure_to_json(self.eval_every, self.probes, self.looks)

    @cached_property
    def trajectory_id(self) -> str:
        return _hash(self._trajectory_text)

    @cached_property
    def trial_id(self) -> str:
        return _hash(
            f'{{"measure":{_measure_text(self.eval_every, self.probes, self.looks)},'
            f'"trajectory":{self._trajectory_text}}}'
        )

    @cached_property
    def _trajectory_text(self) -> str:
        """`canonical(trajectory)`, put together from texts that thousands of trials share: five times as fast."""
        before_rate, after_rate, preamble, controller = _policy_texts(self.policy)
        seeds = f'{{"data":{self.seeds.data},"init":{self.seeds.init},"noise":{self.seeds.noise}}}'
        restarts = f'"restarts":{canonical(list(self.restarts))},' if self.restarts else ""
        return (
            f'{{"controller":{controller},"optimizer":{_optimizer_text(self.optimizer)},'
            f'"plan":{before_rate}{self.rate!r}{after_rate},"preamble":{preamble},'
            f'"precision":"{self.precision}",{restarts}"schema":{SCHEMA},"seeds":{seeds},"start":null,'
            f'"task":{_task_text(self.task)},"updates":{self.updates}}}'
        )

    def to_json(self) -> dict[str, Any]:
        trajectory = {**self.trajectory, "controller": to_json(self.policy.controller)}
        return {"trajectory": trajectory, "measure": self.measure}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialSpec:
        """The inverse of `to_json`.

        Raises:
            ValueError: the spec was written by another version of the schema.
        """
        trajectory, measure = data["trajectory"], data["measure"]
        if trajectory["schema"] != SCHEMA:
            raise ValueError(f"this trial has schema {trajectory['schema']}; this glideslope runs schema {SCHEMA}.")
        task, seeds, optimizer = trajectory["task"], trajectory["seeds"], trajectory["optimizer"]
        plan, rate = _plan_from_json(trajectory["plan"], from_json(trajectory["preamble"]))
        return cls(
            task=TaskRef(task["name"], task["version"], canonical(task["params"]), task["data_sha256"]),
            seeds=Seeds(seeds["init"], seeds["data"], seeds["noise"]),
            optimizer=OptimizerSpec(optimizer["name"], canonical(optimizer["params"])),
            policy=Policy(plan, from_json(trajectory["controller"])),
            rate=rate,
            updates=trajectory["updates"],
            eval_every=measure["eval_every"],
            probes=tuple(measure["probes"]),
            precision=trajectory["precision"],
            looks=tuple(Look.from_json(look) for look in measure.get("looks", ())),
            restarts=tuple(trajectory.get("restarts", ())),
        )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _task_to_json(task: TaskRef) -> dict[str, Any]:
    return {
        "name": task.name,
        "version": task.version,
        "params": json.loads(task.params),
        "data_sha256": task.data_sha256,
    }


def _optimizer_to_json(optimizer: OptimizerSpec) -> dict[str, Any]:
    return {"name": optimizer.name, "params": json.loads(optimizer.settings)}


def _measure_to_json(eval_every: int, probes: tuple[str, ...], looks: tuple[Look, ...]) -> dict[str, Any]:
    seen = {"looks": [look.to_json() for look in looks]} if looks else {}
    return {"eval_every": eval_every, "splits": ["validation", "test"], "probes": list(probes), **seen}


@cache
def _task_text(task: TaskRef) -> str:
    return canonical(_task_to_json(task))


@cache
def _optimizer_text(optimizer: OptimizerSpec) -> str:
    return canonical(_optimizer_to_json(optimizer))


@cache
def _measure_text(eval_every: int, probes: tuple[str, ...], looks: tuple[Look, ...]) -> str:
    return canonical(_measure_to_json(eval_every, probes, looks))


RATE_SLOT = 1.2345678901234567e-300
"""Stands in for a rate in a text; nobody trains with it."""


@cache
def _policy_texts(policy: Policy) -> tuple[str, str, str, str]:
    """The plan's text before and after the rate, the preamble's, the controller's."""
    before, after = canonical(_plan_to_json(policy.plan, RATE_SLOT)).split(canonical(RATE_SLOT))
    return before, after, canonical(to_json(policy.plan.preamble)), canonical(identity_json(policy.controller))


def _plan_to_json(plan: Plan, rate: float) -> dict[str, Any]:
    """{hyperparameter: {"schedule", "range" if absolute, "base" for the rate}}; other bases are the optimizer's own."""
    entries: dict[str, Any] = {}
    for name, course in plan.courses:
        entry: dict[str, Any] = {"schedule": to_json(course.schedule)}
        if isinstance(course, Absolute):
            entry["range"] = [course.low, course.high]
        if name == "lr":
            entry["base"] = rate
        entries[name] = entry
    entries.setdefault("lr", {"base": rate, "schedule": None})
    return entries


def _plan_from_json(entries: Mapping[str, Any], preamble: Any) -> tuple[Plan, float]:
    courses: dict[str, Any] = {}
    for name, entry in entries.items():
        schedule = from_json(entry["schedule"])
        if "range" in entry:
            courses[name] = Absolute(schedule, *entry["range"])
        elif schedule is not None:
            courses[name] = Relative(schedule)
    return Plan(courses, preamble), float(entries["lr"]["base"])
