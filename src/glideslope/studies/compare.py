"""Compare: which schedule is best at which budget? The protocol of the REX paper, made honest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from glideslope.core.policy import Policy
from glideslope.core.spec import parse_policy
from glideslope.core.value import require
from glideslope.report.results import Result, percent
from glideslope.studies.question import TunedQuestion
from glideslope.studies.setting import Setting
from glideslope.studies.tuning import Choice, TunedCell, Tuning
from glideslope.trials.record import Record, details

PAPER_SCHEDULES = ("none", "step", "plateau", "linear", "cosine", "exponential", "one_cycle", "rex")
PAPER_BUDGETS = (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)
WARMED_REX = "rex+warmup(10%)"

PATIENCES = (5, 10)
"""Plateau's patience is tuned among these, in epochs: the paper tunes it in multiples of 5."""


@dataclass(frozen=True)
class Row:
    """One row of the table: a label and the policies among which tuning chooses, usually one."""

    label: str
    candidates: tuple[Policy, ...]

    @classmethod
    def parse(cls, text: str) -> Row:
        """From a schedule's text; "plateau" without a patience stands for all of `PATIENCES`."""
        label = text.strip()
        name, plus, modifiers = label.partition("+")
        if name.strip() == "plateau":
            texts = [f"plateau(patience={patience}){plus}{modifiers}" for patience in PATIENCES]
            return cls(label, tuple(parse_policy(candidate) for candidate in texts))
        return cls(label, (parse_policy(label),))


@dataclass(frozen=True)
class Question(TunedQuestion):
    """Which schedule is best, where?

    Args:
        settings: the tasks.
        schedules: texts, one per row.
        optimizers: texts.
        budgets: shares of each task's maximum, increasing, each > 0.
        num_seeds: reporting seeds 1 … num_seeds, on the test split.
        num_tuning_seeds: tuning seeds 1001 …, on the validation split.
        uncounted: rows outside the Top-k count.
        precision: of every trial.
        tune_at: share of the maximum at which every rate is tuned, to be reused at all budgets, > 0; None tunes at
            each budget.
    """

    settings: tuple[Setting, ...]
    schedules: tuple[str, ...] = (*PAPER_SCHEDULES, WARMED_REX)
    optimizers: tuple[str, ...] = ("sgdm", "adam")
    budgets: tuple[float, ...] = PAPER_BUDGETS
    num_seeds: int = 3
    num_tuning_seeds: int = 1
    uncounted: tuple[str, ...] = (WARMED_REX,)
    precision: str = "float32"
    tune_at: float | None = None

    def __post_init__(self) -> None:
        self._check("schedules")
        for text in self.schedules:
            Row.parse(text)
        if self.tune_at is not None:
            require(0 < self.tune_at < math.inf, "tune_at", self.tune_at, "tune_at > 0 (a share of the task's maximum)")

    def to_json(self) -> dict[str, Any]:
        """Plain data for the store; `tune_at` is left out where rates are tuned at each budget, as in older stores."""
        data = super().to_json()
        if self.tune_at is None:
            del data["tune_at"]
        return data


class Place(NamedTuple):
    """Where a cell stands in the tables."""

    task: str
    optimizer: str
    budget: float
    schedule: str


def cells(question: Question) -> dict[Place, TunedCell]:
    """Every cell of the comparison; `run_study` calls them to their fixed point."""
    return {
        Place(setting.task.name, optimizer, budget, row.label): _cell(question, setting, optimizer, budget, row)
        for setting in question.settings
        for optimizer in question.optimizers
        for budget in question.budgets
        for row in map(Row.parse, question.schedules)
    }


def _cell(question: Question, setting: Setting, optimizer: str, budget: float, row: Row) -> TunedCell:
    tuned_at = budget if question.tune_at is None else question.tune_at
    fitted: dict[Policy, Policy] = {}
    for policy in row.candidates:  # of several that are one at the budget of tuning, the first stands for all
        fitted.setdefault(setting.fitted(policy, tuned_at), setting.fitted(policy, budget))
    tuning = Tuning(
        base=setting.trial(optimizer, tuned_at, question.precision),
        candidates=tuple(fitted),
        seeds=question.tuning_seeds,
        higher_is_better=setting.metric.higher_is_better,
    )
    reported = setting.trial(optimizer, budget, question.precision)
    policies = tuple(replace(reported, policy=policy) for policy in fitted.values())
    return TunedCell(tuning, question.reporting_seeds, policies)


@dataclass(frozen=True)
class Answer:
    """What the trials say.

    Args:
        question: what was asked.
        results: one per reported trial.
        choices: what tuning chose in each cell that is answered.
        policies: what was reported there; other than the choice's where a rate is reused at another budget.
        num_trials: trials in all, tuning included.
        num_updates: their updates.
        seconds: their training and evaluation time, added up over all workers.
        made_by: executors, methods and library versions that computed them; several if they differ.
        failed: trials that raised an error, as (place, traceback): where they were tuned, or reported first.
    """

    question: Question
    results: tuple[Result, ...]
    choices: Mapping[Place, Choice]
    policies: Mapping[Place, Policy]
    num_trials: int
    num_updates: int
    seconds: float
    made_by: tuple[str, ...]
    failed: tuple[tuple[Place, str], ...]


def answer(question: Question, records: Mapping[str, Record]) -> Answer:
    """Read the answer off the records; cells that are not finished yet are left out."""
    results: list[Result] = []
    choices: dict[Place, Choice] = {}
    policies: dict[Place, Policy] = {}
    failed: dict[str, tuple[Place, str]] = {}
    used: dict[str, Record] = {}
    for place, cell in cells(question).items():
        tuned = place if question.tune_at is None else place._replace(budget=question.tune_at)
        for spec in cell.tuning.asked(records):
            record = used[spec.trial_id] = records[spec.trial_id]
            if record.status == "failed":
                failed.setdefault(spec.trial_id, (tuned, record.error))
        choice = cell.tuning.ask(records)
        if isinstance(choice, list):
            continue
        reports = cell.reports(choice)
        if any(spec.trial_id not in records for spec in reports):
            continue
        choices[place], policies[place] = choice, reports[0].policy
        for spec in reports:
            record = used[spec.trial_id] = records[spec.trial_id]
            if record.status == "failed":
                failed.setdefault(spec.trial_id, (place, record.error))
            score = record.test.metric if record.test is not None else math.nan
            results.append(
                Result(
                    place.task,
                    place.optimizer,
                    percent(place.budget),
                    place.budget,
                    place.schedule,
                    spec.seeds.init,
                    score,
                )
            )
    return Answer(
        question,
        tuple(results),
        choices,
        policies,
        num_trials=len(used),
        num_updates=sum(record.cost.updates for record in used.values()),
        seconds=sum(record.cost.training_seconds + record.cost.evaluation_seconds for record in used.values()),
        made_by=tuple(sorted({_made_by(record) for record in used.values() if record.versions})),
        failed=tuple(failed.values()),
    )


def _made_by(record: Record) -> str:
    """Executor, details of its way, and versions of a record, in words."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))
    return f"{record.path['executor']}{details(record.path)}, {versions}"
