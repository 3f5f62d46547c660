"""Evaluation: ARC, the published ARC, rules and schedules, from rates too low, right and too high, on unseen tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from glideslope.core.catalog import one_cycle
from glideslope.core.plan import Plan
from glideslope.core.policy import Policy
from glideslope.core.profiles import Cosine, Exponential, Knots
from glideslope.core.sampling import Plateaus
from glideslope.core.schedule import Cycles, Schedule
from glideslope.core.spec import from_json, parse_policy, to_json
from glideslope.core.value import require, unknown
from glideslope.studies.setting import Setting
from glideslope.trials.looks import Look
from glideslope.trials.optimizers import OptimizerSpec
from glideslope.trials.planner import FixedCell
from glideslope.trials.record import Record
from glideslope.trials.trial import Seeds, TrialSpec

TASKS = ("fashion-small", "fashion-autoencoder", "shakespeare-gru")
"""Never seen in collection, nor in selection."""
LANGUAGE = ("shakespeare-gru", "ptb-lstm", "ptb-lstm-arc")
"""Where the source's settings for language hold: exponential 0.96, cyclic cosine from 14 epochs on."""
OPTIMIZER = "adam"
EPOCHS = 30
EVERY = 3
RATE_FACTORS = (0.1, 1.0, 10.0)
EXTENDED_RATE_FACTORS = (0.01, 0.1, 1.0, 10.0, 100.0)

OPEN_LOOP = ("constant", "cosine", "cyclic cosine", "exponential", "rex")
"""Schedules of the initial rate."""
OWN_RATE = ("superconvergence", "line search")
"""These choose their rates themselves: one row for all initial rates."""
RULES = ("greedy", "rex | greedy")
BASELINES = (*OPEN_LOOP, *OWN_RATE, *RULES)

RANGE_TEST_SHARE, RANGE_TEST_UPDATES = 0.4, 5000
"""Of a run, at most so many updates: 5,000 of 11,730 in the source."""
RANGE_TEST_TOP = 100.0
"""Rates are tried up to this multiple of the task's default."""
RANGE_TEST_LOOKS = 30
LARGEST_STEP = 10.0
"""Of the line search."""


@dataclass(frozen=True)
class Question:
    """Who ends best, from which initial rate?

    Args:
        settings: the tasks.
        controllers: name → policy of the learned controllers, as pairs: ("arc", …), ("published arc", …).
        optimizer: text, of all but the line search.
        epochs: length of a run.
        rate_factors: initial rates as multiples of the task's default for the optimizer.
        num_seeds: runs 1 … num_seeds of each.
        baselines: what stands beside the controllers, from `BASELINES`.
        validations_per_epoch: how often a run is validated, and its controller told, >= 1.

    Source: Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021, Section 4.
    """

    settings: tuple[Setting, ...]
    controllers: tuple[tuple[str, Policy], ...] = ()
    optimizer: str = OPTIMIZER
    epochs: int = EPOCHS
    rate_factors: tuple[float, ...] = RATE_FACTORS
    num_seeds: int = 5
    baselines: tuple[str, ...] = BASELINES
    validations_per_epoch: int = 1

    def __post_init__(self) -> None:
        for name in ("settings", "rate_factors"):
            require(len(getattr(self, name)) > 0, name, getattr(self, name), "at least one")
        increasing = list(self.rate_factors) == sorted(set(self.rate_factors)) and min(self.rate_factors) > 0
        require(increasing, "rate_factors", self.rate_factors, "0 < increasing")
        require(self.epochs >= 3, "epochs", self.epochs, "epochs >= 3")
        require(self.num_seeds >= 1, "num_seeds", self.num_seeds, "num_seeds >= 1")
        times = self.validations_per_epoch
        require(times >= 1, "validations_per_epoch", times, "validations_per_epoch >= 1")
        for setting in self.settings:
            updates = setting.updates_per_epoch
            bound = f"a divisor of the {updates} updates in an epoch of {setting.task.name}"
            require(updates % times == 0, "validations_per_epoch", times, bound)
        taken = [name for name, _ in self.controllers if name in BASELINES]
        require(not taken, "controllers", taken, "names that no other system has")
        for name in self.baselines:
            if name not in BASELINES:
                raise unknown("baseline", name, BASELINES)

    @property
    def systems(self) -> tuple[str, ...]:
        """Rows of the tables."""
        return (*self.baselines, *(name for name, _ in self.controllers))

    def to_json(self) -> dict[str, Any]:
        controllers = [[name, to_json(policy.plan), to_json(policy.controller)] for name, policy in self.controllers]
        return {**asdict(replace(self, controllers=())), "controllers": controllers}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        content: dict[str, Any] = dict(data)
        content["rate_factors"] = tuple(data["rate_factors"])
        content["baselines"] = tuple(data["baselines"])
        content["settings"] = tuple(Setting.from_json(setting) for setting in data["settings"])
        content["controllers"] = tuple(
            (name, Policy(from_json(plan), from_json(controller))) for name, plan, controller in data["controllers"]
        )
        return cls(**content)


class Place(NamedTuple):
    """A row and a column.

    `factor` is the initial rate as a multiple of the task's default; 1 for systems that choose rates themselves.
    """

    task: str
    system: str
    factor: float


def policy(system: str, task: str, epochs: int, controllers: Mapping[str, Policy]) -> Policy:
    """What a system does with the initial rate.

    Raises:
        ValueError: there is no such system.
    """
    language = task in LANGUAGE
    texts = {
        "constant": "constant",
        "cosine": "cosine",
        "rex": "rex",
        "line search": "constant",
        "greedy": "constant | greedy",
        "rex | greedy": "rex | greedy",
    }
    if system in texts:
        return parse_policy(texts[system])
    if system == "cyclic cosine":
        # Outside of language the source gives no period; cycles of 10 and 20 epochs end with the run.
        period = 14 / epochs if language else 1 / 3
        return parse_policy(Cycles(Cosine(), period=min(period, 1.0), multiplier=2))
    if system == "exponential":
        by_epoch = math.log(0.96 if language else 0.9)
        return parse_policy(Schedule(Exponential(by_epoch * epochs), Plateaus(epochs)))
    if system in controllers:
        return controllers[system]
    raise unknown("system", system, [*texts, "cyclic cosine", "exponential", *controllers])


@dataclass(frozen=True)
class SuperconvergenceCell:
    """1cycle up to the rate at which a linear range test was best; a range test for every seed.

    Args:
        tests: range tests; the rate rises on a line to the spec's own.
        higher_is_better: direction of the metric that the peak is looked for in.
        run: the run, with the rate to be replaced.

    Source: Dong et al., 2021, Appendix A.3, after Smith and Topin, "Super-Convergence", 2017.
    """

    tests: tuple[TrialSpec, ...]
    higher_is_better: bool
    run: TrialSpec

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        missing = [spec for spec in self.tests if spec.trial_id not in records]
        return missing or [spec for spec in self.reports(records) if spec.trial_id not in records]

    def reports(self, records: Mapping[str, Record]) -> tuple[TrialSpec, ...]:
        """The runs, once the range tests are known."""
        return tuple(
            replace(self.run, rate=self.peak(test, records[test.trial_id]), seeds=test.seeds) for test in self.tests
        )

    def peak(self, test: TrialSpec, record: Record) -> float:
        """The rate at which the test's validation metric was best; a tenth of the highest where nothing is known."""
        seen = [(one.validation.update, one.validation.metric) for one in record.readings]
        seen = [(update, metric) for update, metric in seen if math.isfinite(metric)]
        if not seen:
            return test.rate / 10
        at, _ = (max if self.higher_is_better else min)(seen, key=lambda one: one[1])
        return test.rate * at / test.updates


def cells(question: Question) -> dict[Place, FixedCell | SuperconvergenceCell]:
    """Every cell of the tables."""
    found: dict[Place, FixedCell | SuperconvergenceCell] = {}
    for setting in question.settings:
        for system in question.systems:
            for factor in (1.0,) if system in OWN_RATE else question.rate_factors:
                found[Place(setting.task.name, system, factor)] = _cell(question, setting, system, factor)
    return found


def reported(cell: FixedCell | SuperconvergenceCell, records: Mapping[str, Record]) -> tuple[TrialSpec, ...]:
    """The trials of a cell that are reported; all of them known once `next_specs` is empty."""
    return cell.trials if isinstance(cell, FixedCell) else cell.reports(records)


def _cell(question: Question, setting: Setting, system: str, factor: float) -> FixedCell | SuperconvergenceCell:
    base = setting.trial(question.optimizer, 1.0)
    base = replace(
        base,
        updates=question.epochs * setting.updates_per_epoch,
        rate=base.rate * factor,
        eval_every=setting.updates_per_epoch // question.validations_per_epoch,
    )
    seeds = tuple(Seeds.all(seed) for seed in range(1, question.num_seeds + 1))
    if system == "superconvergence":
        updates = max(RANGE_TEST_LOOKS, min(RANGE_TEST_UPDATES, round(RANGE_TEST_SHARE * base.updates)))
        test = replace(
            base,
            policy=parse_policy(Knots((0.0, 0.0), (1.0, 1.0))),
            rate=base.rate * RANGE_TEST_TOP,
            updates=updates,
            eval_every=updates,
            looks=tuple(Look(updates * look // RANGE_TEST_LOOKS) for look in range(1, RANGE_TEST_LOOKS + 1)),
        )
        plan = Plan({"lr": one_cycle()["lr"]})  # momentum stays: Adam, the default, has none to cycle
        run = replace(base, policy=Policy(plan, None))
        tests = tuple(replace(test, seeds=each) for each in seeds)
        return SuperconvergenceCell(tests, setting.metric.higher_is_better, run)
    if system == "line search":
        base = replace(base, optimizer=OptimizerSpec.parse("sls"), rate=LARGEST_STEP)
    chosen = policy(system, setting.task.name, question.epochs, dict(question.controllers))
    return FixedCell(tuple(replace(base, policy=chosen, seeds=each) for each in seeds))


@dataclass(frozen=True)
class Run:
    """One run, counted in both ways.

    Args:
        seed: of the run.
        rate: at its first update.
        last: test metric at the last step: on a split that nothing was decided by; NaN where the run diverged.
        best: validation metric of the best epoch, on the split that controllers see: the source's way of counting.
        diverged: whether it did.
        updates, rates: of the recorded updates.
        losses: of validation, by epoch.
        decisions: (update, "raise" or "lower"); where nothing is said, the rate was kept.
    """

    seed: int
    rate: float
    last: float
    best: float
    diverged: bool
    updates: tuple[int, ...]
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    decisions: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Answer:
    """What the trials say.

    Args:
        question: what was asked.
        runs: place → its runs, by seed; of finished cells.
        unfinished: places that lack trials.
        failed: (place, traceback).
        num_trials, seconds: of everything, range tests included.
    """

    question: Question
    runs: Mapping[Place, tuple[Run, ...]]
    unfinished: tuple[Place, ...]
    failed: tuple[tuple[Place, str], ...]
    num_trials: int
    seconds: float

    def values(self, place: Place, counting: str) -> np.ndarray:
        """ "last" or "best" of every run: (num_seeds,), lower is better, inf where there is none.

        A run that diverged has no last step, but it keeps the best that it had reached: the source counts so.
        """
        higher = self.higher_is_better(place.task)
        found = np.array([getattr(run, counting) for run in self.runs[place]], dtype=float)
        return np.where(np.isfinite(found), -found if higher else found, math.inf)

    def higher_is_better(self, task: str) -> bool:
        """Direction of a task's metric."""
        return next(s.metric.higher_is_better for s in self.question.settings if s.task.name == task)


def answer(question: Question, records: Mapping[str, Record]) -> Answer:
    """Read the answer off the records; cells that are not finished yet are left out.

    Args:
        question: what was asked.
        records: whole ones (`Store.records`): a summary has one validation alone.

    Raises:
        ValueError: a record is a summary.
    """
    directions = {setting.task.name: setting.metric.higher_is_better for setting in question.settings}
    runs: dict[Place, tuple[Run, ...]] = {}
    unfinished: list[Place] = []
    used: dict[str, tuple[Place, Record]] = {}
    for place, cell in cells(question).items():
        if cell.next_specs(records):
            unfinished.append(place)
            continue
        if isinstance(cell, SuperconvergenceCell):
            used |= {spec.trial_id: (place, records[spec.trial_id]) for spec in cell.tests}
        reports = reported(cell, records)
        used |= {spec.trial_id: (place, records[spec.trial_id]) for spec in reports}
        runs[place] = tuple(_run(spec, records[spec.trial_id], directions[place.task]) for spec in reports)
    costs = [record.cost for _, record in used.values()]
    return Answer(
        question,
        runs,
        tuple(unfinished),
        tuple((place, record.error) for place, record in used.values() if record.status == "failed"),
        len(used),
        sum(cost.training_seconds + cost.evaluation_seconds for cost in costs),
    )


def _run(spec: TrialSpec, record: Record, higher_is_better: bool) -> Run:
    metrics = record.finite_metrics(spec.updates // spec.eval_every)
    best = (max if higher_is_better else min)(metrics) if metrics else math.nan
    gains = [1.0, *(gain for _, gain, _ in record.decisions)]
    decisions = tuple(
        (update, "raise" if after > before else "lower")
        for (update, after, _), before in zip(record.decisions, gains, strict=False)
    )
    return Run(
        spec.seeds.init,
        spec.rate,
        math.nan if record.test is None else record.test.metric,
        best,
        record.status == "diverged",
        record.series.updates,
        record.series.rate,
        tuple(look.loss for look in record.validation),
        decisions,
    )
