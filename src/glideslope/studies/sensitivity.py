"""Sensitivity: what does a wrong learning rate cost? Figure 3 of the REX paper: schedule × base rate, nothing tuned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from glideslope.core.value import require
from glideslope.studies.compare import PAPER_SCHEDULES, Row
from glideslope.studies.question import StudyQuestion
from glideslope.studies.setting import Setting
from glideslope.studies.tuning import FACTOR, REACH
from glideslope.trials.planner import FixedCell
from glideslope.trials.record import Record
from glideslope.trials.trial import Seeds

BUDGETS = (0.05, 0.25)


@dataclass(frozen=True)
class Question(StudyQuestion):
    """How does the score at the last step depend on the base rate?

    Args:
        settings: the tasks; each optimizer's default rate there is the centre of the grid.
        schedules: texts; of several candidates ("plateau") the first stands for all.
        optimizers: texts.
        budgets: shares of each task's maximum, increasing, each > 0.
        reach: rates on either side of the centre, a factor of 3 apart, 1 <= reach <= 5.
        num_seeds: seeds 1 … num_seeds of every rate, on the test split.
        precision: of every trial.
    """

    settings: tuple[Setting, ...]
    schedules: tuple[str, ...] = PAPER_SCHEDULES
    optimizers: tuple[str, ...] = ("sgdm", "adam")
    budgets: tuple[float, ...] = BUDGETS
    reach: int = 3
    num_seeds: int = 3
    precision: str = "float32"

    def __post_init__(self) -> None:
        self._check("schedules")
        require(1 <= self.reach <= REACH, "reach", self.reach, f"1 <= reach <= {REACH}")
        for text in self.schedules:
            Row.parse(text)

    def rates(self, setting: Setting, optimizer: str) -> tuple[float, ...]:
        """The grid, (2 * reach + 1,), increasing."""
        centre = dict(setting.rates)[optimizer]
        return tuple(centre * FACTOR**step for step in range(-self.reach, self.reach + 1))


class Place(NamedTuple):
    """Where a cell stands."""

    task: str
    optimizer: str
    budget: float
    schedule: str
    rate: float


def cells(question: Question) -> dict[Place, FixedCell]:
    """Every cell: one schedule at one rate, all seeds."""
    found: dict[Place, FixedCell] = {}
    rows = [Row.parse(text) for text in question.schedules]
    for setting, optimizer, budget, row in itertools.product(
        question.settings, question.optimizers, question.budgets, rows
    ):
        base = setting.trial(optimizer, budget, question.precision)
        steered = replace(base, policy=setting.fitted(row.candidates[0], budget))
        for rate in question.rates(setting, optimizer):
            trials = tuple(replace(steered, rate=rate, seeds=Seeds.all(seed)) for seed in question.reporting_seeds)
            found[Place(setting.task.name, optimizer, budget, row.label, rate)] = FixedCell(trials)
    return found


@dataclass(frozen=True)
class Answer:
    """What the trials say.

    Args:
        question: what was asked.
        scores: place → the test metric of every seed; NaN where a run diverged. Unfinished places are left out.
        failed: trials that raised an error, as (place, traceback).
    """

    question: Question
    scores: Mapping[Place, tuple[float, ...]]
    failed: tuple[tuple[Place, str], ...]


def answer(question: Question, records: Mapping[str, Record]) -> Answer:
    """Read the answer off the records; cells that are not finished yet are left out."""
    scores: dict[Place, tuple[float, ...]] = {}
    failed: list[tuple[Place, str]] = []
    for place, cell in cells(question).items():
        found = [records[spec.trial_id] for spec in cell.trials if spec.trial_id in records]
        failed += [(place, record.error) for record in found if record.status == "failed"]
        if len(found) == len(cell.trials):
            scores[place] = tuple(_score(record) for record in found)
    return Answer(question, scores, tuple(failed))


def _score(record: Record) -> float:
    found = record.test.metric if record.test is not None else math.nan
    return found if math.isfinite(found) else math.nan
