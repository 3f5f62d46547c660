"""Compare: which schedule is best at which budget? The protocol of the REX paper, made honest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from glideslope.core.policy import Policy
from glideslope.core.spec import parse_policy
from glideslope.report.results import Result
from glideslope.studies.question import StudyQuestion
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
class Question(StudyQuestion):
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
    """

    settings: tuple[Setting, ...]
    schedules: tuple[str, ...] = (*PAPER_SCHEDULES, WARMED_REX)
    optimizers: tuple[str, ...] = ("sgdm", "adam")
    budgets: tuple[float, ...] = PAPER_BUDGETS
    num_seeds: int = 3
    num_tuning_seeds: int = 1
    uncounted: tuple[str, ...] = (WARMED_REX,)
    precision: str = "float32"

    def __post_init__(self) -> None:
        self._check("schedules")
        for text in self.schedules:
            Row.parse(text)


class Place(NamedTuple):
    """Where a cell stands in the tables."""

    task: str
    optimizer: str
    budget: float
    schedule: str


def percent(share: float) -> str:
    """The label of a budget.

    >>> percent(0.01), percent(0.125)
    ('1%', '12.5%')
    """
    return f"{100 * share:.10g}%"


def cells(question: Question) -> dict[Place, TunedCell]:
    """Every cell of the comparison; `run_study` calls them to their fixed point."""
    rows = [Row.parse(text) for text in question.schedules]
    return {
        Place(setting.task.name, optimizer, budget, row.label): TunedCell(
            Tuning(
                base=setting.trial(optimizer, budget, question.precision),
                candidates=tuple(setting.fitted(policy, budget) for policy in row.candidates),
                seeds=question.tuning_seeds,
                higher_is_better=setting.metric.higher_is_better,
            ),
            question.reporting_seeds,
        )
        for setting in question.settings
        for optimizer in question.optimizers
        for budget in question.budgets
        for row in rows
    }


@dataclass(frozen=True)
class Answer:
    """What the trials say.

    Args:
        question: what was asked.
        results: one per reported trial.
        choices: what tuning chose in each cell that is answered.
        num_trials: trials in all, tuning included.
        num_updates: their updates.
        seconds: their training and evaluation time, added up over all workers.
        made_by: executors, methods and library versions that computed them; several if they differ.
        failed: trials that raised an error, as (place, traceback).
    """

    question: Question
    results: tuple[Result, ...]
    choices: Mapping[Place, Choice]
    num_trials: int
    num_updates: int
    seconds: float
    made_by: tuple[str, ...]
    failed: tuple[tuple[Place, str], ...]


def answer(question: Question, records: Mapping[str, Record]) -> Answer:
    """Read the answer off the records; cells that are not finished yet are left out."""
    results: list[Result] = []
    choices: dict[Place, Choice] = {}
    failed: list[tuple[Place, str]] = []
    used: dict[str, Record] = {}
    for place, cell in cells(question).items():
        for spec in cell.tuning.asked(records):
            record = used[spec.trial_id] = records[spec.trial_id]
            if record.status == "failed":
                failed.append((place, record.error))
        choice = cell.tuning.ask(records)
        if isinstance(choice, list):
            continue
        reports = cell.reports(choice)
        if any(spec.trial_id not in records for spec in reports):
            continue
        choices[place] = choice
        for spec in reports:
            record = used[spec.trial_id] = records[spec.trial_id]
            if record.status == "failed":
                failed.append((place, record.error))
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
        num_trials=len(used),
        num_updates=sum(record.cost.updates for record in used.values()),
        seconds=sum(record.cost.training_seconds + record.cost.evaluation_seconds for record in used.values()),
        made_by=tuple(sorted({_made_by(record) for record in used.values() if record.versions})),
        failed=tuple(failed),
    )


def _made_by(record: Record) -> str:
    """Executor, details of its way, and versions of a record, in words."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(record.versions.items()))
    return f"{record.path['executor']}{details(record.path)}, {versions}"
