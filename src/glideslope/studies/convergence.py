"""Convergence: does the full gradient vanish with the rate, and does it pay to know the budget? After Li et al."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from glideslope.core.catalog import sgdr
from glideslope.core.plan import Relative
from glideslope.core.profiles import Constant, Cosine, Multiplier
from glideslope.core.schedule import Cycles, Truncated
from glideslope.core.spec import parse_policy, parse_schedule
from glideslope.core.value import require
from glideslope.studies.question import TunedQuestion
from glideslope.studies.setting import Setting
from glideslope.studies.tuning import TunedCell, Tuning
from glideslope.trials.record import Record
from glideslope.trials.task import Metric
from glideslope.trials.trial import TrialSpec

LINEAR, STEP, CONSTANT = "linear", "step", "constant"
SCHEDULES = (LINEAR, "cosine", "rex", "exponential", STEP)
OPTIMIZERS = ("sgdm", "amsgrad", "adam", "rmsprop")
BUDGETS = (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)

AWARE, TRUNCATED, RETUNED = "aware", "truncated", "retuned"
"""Forms of a schedule: stretched over the budget; the run of the full budget, stopped early; the same at a rate that
was tuned for the early stop, which tells what is due to the schedule from what is due to the rate."""

SGDR, SGDR_R1, SGDR_R2 = "SGDR", "SGDR-r1", "SGDR-r2"
FIRST_CYCLE_EPOCHS = 10
CYCLE_GROWTH = 2.0

POINTS = 16
"""At so many moments of a watched run, evenly spaced, the full gradient is measured: each costs about half an epoch."""
PROBES = ("weight_norm", "full_gradient_norm")


@dataclass(frozen=True)
class Question(TunedQuestion):
    """What does Li et al.'s budgeted training look like on these tasks?

    Args:
        settings: the tasks.
        schedules: texts; each in all forms, "linear" among them.
        optimizers: texts; the first one under every schedule, the others at a constant rate.
        budgets: shares of each task's maximum, increasing; the last one is the full budget that truncated schedules
            were made for.
        num_seeds, num_tuning_seeds, precision: as in `compare.Question`.
    """

    settings: tuple[Setting, ...]
    schedules: tuple[str, ...] = SCHEDULES
    optimizers: tuple[str, ...] = OPTIMIZERS
    budgets: tuple[float, ...] = BUDGETS
    num_seeds: int = 3
    num_tuning_seeds: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        self._check("schedules")
        require(LINEAR in self.schedules, "schedules", self.schedules, f"{LINEAR!r} among them: others are held to it")
        for text in self.schedules:
            moves = parse_schedule(text) != Constant()
            require(moves, "schedules", text, "a schedule that moves: a constant rate is always there")


class Place(NamedTuple):
    """Where a cell stands. The restarts of SGDR are no texts of schedules, for their first cycle is in epochs."""

    task: str
    optimizer: str
    schedule: str
    form: str
    budget: float


def cells(question: Question) -> dict[Place, TunedCell]:
    """Every cell of the study; `run_study` calls them to their fixed point."""
    leading = question.optimizers[0]
    full = question.budgets[-1]
    seeds = question.reporting_seeds
    found: dict[Place, TunedCell] = {}
    for setting in question.settings:
        task = setting.task.name

        def tuned(optimizer: str, schedule: Multiplier, budget: float, setting: Setting = setting) -> Tuning:
            base = setting.trial(optimizer, budget, question.precision)
            candidates = (parse_policy(schedule),)
            return Tuning(base, candidates, question.tuning_seeds, setting.metric.higher_is_better)

        for budget in question.budgets:
            aware: dict[tuple[str, str], Multiplier] = {
                (leading, text): parse_schedule(text) for text in question.schedules
            }
            aware |= {(optimizer, CONSTANT): Constant() for optimizer in question.optimizers}
            for (optimizer, text), schedule in aware.items():
                tuning = tuned(optimizer, schedule, budget)
                report = _watched(tuning.base, schedule)
                found[Place(task, optimizer, text, AWARE, budget)] = TunedCell(tuning, seeds, (report,))
            for text, schedule in restarts(setting.epochs(budget)).items():
                tuning = tuned(leading, schedule, budget)
                report = replace(tuning.base, policy=parse_policy(schedule))
                found[Place(task, leading, text, AWARE, budget)] = TunedCell(tuning, seeds, (report,))
            if budget == full:
                continue
            for text in question.schedules:
                schedule = parse_schedule(text)
                cut = Truncated(schedule, of=setting.epochs(full) / setting.epochs(budget))
                report = replace(setting.trial(leading, budget, question.precision), policy=parse_policy(cut))
                for form, tuning in (
                    (TRUNCATED, tuned(leading, schedule, full)),
                    (RETUNED, tuned(leading, cut, budget)),
                ):
                    found[Place(task, leading, text, form, budget)] = TunedCell(tuning, seeds, (report,))
    return found


def restarts(epochs: float) -> dict[str, Multiplier]:
    """SGDR as published, its first cycle of 10 epochs and each next one twice as long, cut off where the budget ends;
    and SGDR-rn: n restarts at even distances, so that the last cycle lands on the budget.

    Args:
        epochs: the budget.

    >>> [round(schedule(1.0), 3) for schedule in restarts(25.0).values()]
    [0.146, 0.0, 0.0]

    Source: Loshchilov, Hutter, ICLR 2017; Li, Yumer, Ramanan, ICLR 2020, Figure B.
    """
    published: Multiplier
    if epochs < FIRST_CYCLE_EPOCHS:
        published = Truncated(Cosine(), of=FIRST_CYCLE_EPOCHS / epochs)
    else:
        published = Cycles(Cosine(), period=FIRST_CYCLE_EPOCHS / epochs, multiplier=CYCLE_GROWTH)
    return {SGDR: published, SGDR_R1: sgdr(1), SGDR_R2: sgdr(2)}


def _watched(base: TrialSpec, schedule: Multiplier) -> TrialSpec:
    """The trial with norms measured on the way."""
    every = math.ceil(base.updates / POINTS)
    return replace(base, policy=parse_policy(schedule), eval_every=every, probes=PROBES)


@dataclass(frozen=True)
class WatchedRun:
    """What was measured during one reported trial, over the share of its budget spent.

    Args:
        seed: of the trial.
        progress: (num_points,) when the full gradient was measured.
        full_gradient_norm: (num_points,).
        rate: (num_points,) the rate that the next update would have had.
        recorded: (num_recorded,) when an update was recorded.
        train_loss: (num_recorded,) of its batch, before the update.
        weight_norm: (num_recorded,) after it.
    """

    seed: int
    progress: tuple[float, ...]
    full_gradient_norm: tuple[float, ...]
    rate: tuple[float, ...]
    recorded: tuple[float, ...]
    train_loss: tuple[float, ...]
    weight_norm: tuple[float, ...]

    @classmethod
    def of(cls, spec: TrialSpec, record: Record) -> WatchedRun:
        """From a whole record: a summary has nothing to watch."""
        course = spec.policy.plan["lr"]
        if not isinstance(course, Relative):
            raise ValueError(f"the rate of a watched trial follows a schedule, but the plan is {spec.policy}.")
        progress = tuple(seen.update / spec.last_update for seen in record.validation)
        return cls(
            spec.seeds.init,
            progress,
            record.measured["full_gradient_norm"],
            tuple(float(course.value(share, spec.rate)) for share in progress),
            tuple(update / spec.last_update for update in record.series.updates),
            record.series.train_loss,
            record.series.probes["weight_norm"],
        )

    @property
    def end_over_largest(self) -> float:
        """The last full-gradient norm as a share of the largest one measured; NaN where it is not finite."""
        largest = max(self.full_gradient_norm)
        return self.full_gradient_norm[-1] / largest if 0 < largest < math.inf else math.nan

    @property
    def correlation(self) -> float:
        """Pearson's correlation of the full-gradient norm with the rate over the run; NaN if one does not move."""
        return _correlation(self.full_gradient_norm, self.rate)

    @property
    def correlation_with_time_left(self) -> float:
        """The same with the share of the budget that is left: what any norm that falls in time has."""
        return _correlation(self.full_gradient_norm, [1 - share for share in self.progress])


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    values = np.array([first, second])
    if len(first) < 3 or not np.isfinite(values).all() or np.ptp(values, axis=1).min() == 0:
        return math.nan
    return float(np.corrcoef(values)[0, 1])


def normalised(score: float, full: float, metric: Metric) -> float:
    """A score as a share of the full budget's: 1 is as good, less is worse.

    A metric in per cent of which less is better is an error: then it is the accuracies that are divided. Of any other
    metric of which less is better, the full budget's is divided by the score; both must be positive, else it is NaN.

    >>> error = Metric("error", unit="%")
    >>> normalised(40.0, 20.0, error), normalised(60.0, 80.0, Metric("accuracy", higher_is_better=True))
    (0.75, 0.75)

    Source: Li, Yumer, Ramanan, ICLR 2020, Figure 1.
    """
    if metric.higher_is_better:
        top, bottom = score, full
    elif metric.unit == "%":
        top, bottom = 100.0 - score, 100.0 - full
    else:
        top, bottom = full, score
    positive = math.isfinite(score) and math.isfinite(full) and bottom > 0 and top >= 0
    return top / bottom if positive else math.nan


@dataclass(frozen=True)
class Answer:
    """What the trials say.

    Args:
        question: what was asked.
        scores: place → the test metric of every reporting seed, in their order; NaN where a run diverged.
        rates: place → the base rate.
        at_limit: places whose rate lies at the end of the grid.
        watched: place → its runs, those that finished.
        num_trials, num_updates, seconds: of all trials, tuning included.
        unfinished: places that lack trials.
        failed: trials that raised an error, as (place, traceback).
    """

    question: Question
    scores: Mapping[Place, tuple[float, ...]]
    rates: Mapping[Place, float]
    at_limit: frozenset[Place]
    watched: Mapping[Place, tuple[WatchedRun, ...]]
    num_trials: int
    num_updates: int
    seconds: float
    unfinished: tuple[Place, ...]
    failed: tuple[tuple[Place, str], ...]

    def normalised(self, place: Place) -> tuple[float, ...]:
        """Scores as shares of those of the same schedule at the full budget, seed by seed; NaN where one diverged."""
        full = place._replace(form=AWARE, budget=self.question.budgets[-1])
        metric = next(setting.metric for setting in self.question.settings if setting.task.name == place.task)
        wholes = self.scores.get(full, (math.nan,) * len(self.scores[place]))
        return tuple(normalised(score, whole, metric) for score, whole in zip(self.scores[place], wholes, strict=True))


def to_watch(question: Question, records: Mapping[str, Record]) -> Iterator[str]:
    """Ids of the trials whose whole records `answer` needs, as far as they are known."""
    for cell in cells(question).values():
        choice = cell.tuning.ask(records)
        if cell.reported[0].probes and not isinstance(choice, list):
            yield from (spec.trial_id for spec in cell.reports(choice) if spec.trial_id in records)


def answer(question: Question, records: Mapping[str, Record]) -> Answer:
    """Read the answer off the records; cells that are not finished yet are left out.

    Args:
        question: what was asked.
        records: whole ones of the trials that `to_watch` names; of the others, summaries are enough.
    """
    scores: dict[Place, tuple[float, ...]] = {}
    rates: dict[Place, float] = {}
    at_limit: set[Place] = set()
    watched: dict[Place, tuple[WatchedRun, ...]] = {}
    unfinished: list[Place] = []
    used: dict[str, tuple[Place, Record]] = {}
    for place, cell in cells(question).items():
        used |= {spec.trial_id: (place, records[spec.trial_id]) for spec in cell.tuning.asked(records)}
        choice = cell.tuning.ask(records)
        if isinstance(choice, list) or cell.next_specs(records):
            unfinished.append(place)
            continue
        reports = [(spec, records[spec.trial_id]) for spec in cell.reports(choice)]
        used |= {spec.trial_id: (place, record) for spec, record in reports}
        scores[place] = tuple(record.test.metric if record.test else math.nan for _, record in reports)
        rates[place] = choice.rate
        if choice.at_limit:
            at_limit.add(place)
        if cell.reported[0].probes:
            watched[place] = tuple(
                WatchedRun.of(spec, record) for spec, record in reports if record.status == "finished"
            )
    costs = [record.cost for _, record in used.values()]
    return Answer(
        question,
        scores,
        rates,
        frozenset(at_limit),
        watched,
        num_trials=len(used),
        num_updates=sum(cost.updates for cost in costs),
        seconds=sum(cost.training_seconds + cost.evaluation_seconds for cost in costs),
        unfinished=tuple(unfinished),
        failed=tuple((place, record.error) for place, record in used.values() if record.status == "failed"),
    )
