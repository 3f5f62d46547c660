"""Sampling: how often should a profile be read? Table 2 of the REX paper: profile × sampling rate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from glideslope.core.catalog import SAMPLING_RATES, step_profile
from glideslope.core.policy import Policy
from glideslope.core.schedule import Schedule
from glideslope.core.spec import parse_policy, parse_schedule
from glideslope.studies.question import TunedQuestion
from glideslope.studies.setting import Setting
from glideslope.studies.tuning import REACH, Choice, TunedCell, Tuning
from glideslope.trials.record import Record
from glideslope.trials.trial import TrialSpec

PROFILES = ("step", "linear", "cosine", "rex")
"""Columns of the table. "step" is the exponential whose gamma is tuned at 50-75, read at every rate."""

BUDGETS = (0.05, 0.25, 1.0)

STEP_GAMMAS = (-1.5, -3.0, -4.5, -6.0, -9.0)
"""Among these the gamma of "step" is tuned; -4.6 would be a tenth at half the budget, as step schedules often have."""


@dataclass(frozen=True)
class Question(TunedQuestion):
    """Which sampling rate is best for which profile?

    Args:
        settings: the tasks.
        optimizers: texts.
        budgets: shares of each task's maximum, increasing.
        profiles: "step", or texts of profiles.
        num_seeds, num_tuning_seeds, precision: as in `compare.Question`.
    """

    settings: tuple[Setting, ...]
    optimizers: tuple[str, ...] = ("sgdm",)
    budgets: tuple[float, ...] = BUDGETS
    profiles: tuple[str, ...] = PROFILES
    num_seeds: int = 3
    num_tuning_seeds: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        self._check("profiles")
        for text in self.profiles:
            if text != "step":
                parse_schedule(text)


class Place(NamedTuple):
    """Where a cell stands: `tuned` tells the variant with a tuned rate from the paper's, where one rate is held."""

    task: str
    optimizer: str
    budget: float
    profile: str
    sampling: str
    tuned: bool


@dataclass(frozen=True)
class SteppedCell:
    """A cell of the "step" column: first gamma is tuned at 50-75, then the profile it gives is read at `sampling`.

    Args:
        gamma: the tuning of gamma at 50-75, the same for the whole column.
        sampling: name of the sampling rate.
        reporting_seeds: as in `TunedCell`.
    """

    gamma: Tuning
    sampling: str
    reporting_seeds: tuple[int, ...]

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        cell = self.resolve(records)
        return (
            [spec for spec in cell if spec.trial_id not in records]
            if isinstance(cell, list)
            else cell.next_specs(records)
        )

    def resolve(self, records: Mapping[str, Record]) -> TunedCell | list[TrialSpec]:
        """The cell of the tuned profile, or the trials that must be known first."""
        choice = self.gamma.ask(records)
        if isinstance(choice, list):
            return choice
        policy = parse_policy(Schedule(step_profile(gamma_of(choice)), SAMPLING_RATES[self.sampling]))
        return TunedCell(replace(self.gamma, candidates=(policy,)), self.reporting_seeds)


def gamma_of(choice: Choice) -> float:
    """The gamma that tuning chose for the "step" profile."""
    return next(gamma for gamma in STEP_GAMMAS if _stepped(gamma) == choice.policy)


def _stepped(gamma: float) -> Policy:
    return parse_policy(Schedule(step_profile(gamma), SAMPLING_RATES["50-75"]))


def cells(question: Question) -> dict[Place, TunedCell | SteppedCell]:
    """Every cell of both tables; a held rate is a grid of one."""
    found: dict[Place, TunedCell | SteppedCell] = {}
    for setting, optimizer, budget, profile, tuned in itertools.product(
        question.settings, question.optimizers, question.budgets, question.profiles, (False, True)
    ):
        stepped = profile == "step"
        tuning = Tuning(
            base=setting.trial(optimizer, budget, question.precision),
            candidates=tuple(_stepped(gamma) for gamma in STEP_GAMMAS) if stepped else (),
            seeds=question.tuning_seeds,
            higher_is_better=setting.metric.higher_is_better,
            reach=REACH if tuned else 0,
        )
        for name, sampling in SAMPLING_RATES.items():
            place = Place(setting.task.name, optimizer, budget, profile, name, tuned)
            if stepped:
                found[place] = SteppedCell(tuning, name, question.reporting_seeds)
            else:
                policy = parse_policy(Schedule(parse_schedule(profile), sampling))
                found[place] = TunedCell(replace(tuning, candidates=(policy,)), question.reporting_seeds)
    return found


@dataclass(frozen=True)
class Answer:
    """What the trials say.

    Args:
        question: what was asked.
        scores: place → the test metric of every reporting seed; NaN where a run diverged.
        gammas: (task, optimizer, budget, tuned) → the gamma of "step".
        held_rates: (task, optimizer) → the rate held throughout.
        at_limit: places whose tuned rate lies at the end of the grid.
        failed: trials that raised an error, as (place, traceback).
    """

    question: Question
    scores: Mapping[Place, tuple[float, ...]]
    gammas: Mapping[tuple[str, str, float, bool], float]
    held_rates: Mapping[tuple[str, str], float]
    at_limit: frozenset[Place]
    failed: tuple[tuple[Place, str], ...]


def answer(question: Question, records: Mapping[str, Record]) -> Answer:
    """Read the answer off the records; cells that are not finished yet are left out."""
    scores: dict[Place, tuple[float, ...]] = {}
    gammas: dict[tuple[str, str, float, bool], float] = {}
    at_limit: set[Place] = set()
    failed: list[tuple[Place, str]] = []
    for place, cell in cells(question).items():
        resolved: TunedCell | list[TrialSpec]
        if isinstance(cell, SteppedCell):
            resolved, tuned_gamma = cell.resolve(records), cell.gamma.ask(records)
            if isinstance(tuned_gamma, Choice):
                gammas[place.task, place.optimizer, place.budget, place.tuned] = gamma_of(tuned_gamma)
        else:
            resolved = cell
        choice: Choice | list[TrialSpec] = []
        if isinstance(resolved, TunedCell):
            tried = [records[spec.trial_id] for spec in resolved.tuning.asked(records)]
            failed += [(place, record.error) for record in tried if record.status == "failed"]
            choice = resolved.tuning.ask(records)
        if isinstance(choice, list) or isinstance(resolved, list):
            continue
        reports = [records.get(spec.trial_id) for spec in resolved.reports(choice)]
        finished = [record for record in reports if record is not None]
        if len(finished) < len(reports):
            continue
        scores[place] = tuple(record.test.metric if record.test else math.nan for record in finished)
        failed += [(place, record.error) for record in finished if record.status == "failed"]
        if choice.at_limit:
            at_limit.add(place)
    return Answer(
        question,
        scores,
        gammas,
        {(setting.task.name, text): rate for setting in question.settings for text, rate in setting.rates},
        frozenset(at_limit),
        tuple(failed),
    )
