"""Tradeoff: what every budget buys, estimated cheaply, and how far such curves are from the separate runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from glideslope.core.curve import Band, Curve
from glideslope.core.estimators import Separate, check_budgets
from glideslope.core.spec import parse_estimator
from glideslope.report.fidelity import CurveResult
from glideslope.report.tradeoff_tables import RateScore
from glideslope.studies.estimation import TEST, VALIDATION, Estimation, pace
from glideslope.studies.question import TunedQuestion
from glideslope.studies.setting import Setting
from glideslope.studies.tuning import FACTOR, REACH, TunedCell, Tuning, nearest_best, search
from glideslope.trials.record import Record
from glideslope.trials.trial import Seeds, TrialSpec

REFERENCE = "separate"
ESTIMATORS = (
    REFERENCE,
    "cyclic",
    "wsd_s",
    "cooldown(0.1)",
    "average",
    "anytime",
    "cyclic(profile=linear)",
    "interpolate",
    "raw",
)
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


@dataclass(frozen=True)
class Question(TunedQuestion):
    """What does every budget buy, and who says it most cheaply?

    Args:
        settings: the tasks, each method of training a task of its own: "mnist1d-mlp+mixup".
        estimators: texts; the first one is what the others are measured against.
        optimizers: texts.
        budgets: T_1 < … < T_K as shares of each task's maximum.
        num_seeds: reporting seeds 1 … num_seeds, on the test split.
        num_tuning_seeds: tuning seeds 1001 …, on the validation split.
        precision: of every trial.
    """

    settings: tuple[Setting, ...]
    estimators: tuple[str, ...] = ESTIMATORS
    optimizers: tuple[str, ...] = ("sgdm",)
    budgets: tuple[float, ...] = SHARES
    num_seeds: int = 3
    num_tuning_seeds: int = 1
    precision: str = "float32"

    def __post_init__(self) -> None:
        self._check("estimators")
        for setting in self.settings:
            for text in self.estimators:
                parse_estimator(text).legs(budgets_of(setting, self.budgets))


class Place(NamedTuple):
    """Which curve: task without its methods, optimizer and methods in one text, estimator."""

    task: str
    variant: str
    estimator: str


def budgets_of(setting: Setting, shares: tuple[float, ...]) -> tuple[int, ...]:
    """T_1 < … < T_K in updates."""
    return check_budgets([round(share * setting.maximum_epochs * setting.updates_per_epoch) for share in shares])


def variant(setting: Setting, optimizer: str) -> tuple[str, str]:
    """The task without its methods, and optimizer and methods in one text.

    A task "mnist1d-mlp+mixup" trained with sgdm is ("mnist1d-mlp", "sgdm+mixup").
    """
    name, plus, methods = setting.task.name.partition("+")
    return name, f"{optimizer}{plus}{methods}"


@dataclass(frozen=True)
class CurveCell:
    """One estimator on one problem: one rate for all budgets, tuned, then its curve on fresh seeds.

    A rate is judged by what the estimator says of the largest budget, on tuning seeds and the validation split: that
    is the run one would otherwise make. The chosen rate's whole curve is then made on the tuning seeds too, to see what
    one rate for all budgets loses.

    Args:
        estimation: at the centre of the grid of rates; its seed is replaced.
        tuning_seeds, reporting_seeds: see `Question`.
        higher_is_better: direction of the metric.
    """

    estimation: Estimation
    tuning_seeds: tuple[int, ...]
    reporting_seeds: tuple[int, ...]
    higher_is_better: bool

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        missing: list[TrialSpec] = []
        choice = self._search(records, missing)
        if choice is not None:
            for seed in self.tuning_seeds:
                missing += self.at(choice.rate, seed).next_specs(records, may_fall_back=False)
            for seed in self.reporting_seeds:
                missing += self.at(choice.rate, seed).next_specs(records)
        return missing

    def choice(self, records: Mapping[str, Record]) -> RateChoice | None:
        """The rate, or None while trials are missing."""
        return self._search(records, [])

    def at(self, rate: float, seed: int) -> Estimation:
        """The estimation at a rate and a seed."""
        return replace(self.estimation, base=replace(self.estimation.base, rate=rate, seeds=Seeds.all(seed)))

    def asked(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        """Every tuning trial that is in the records."""
        steps = range(-REACH, REACH + 1)
        every = (spec for step in steps for seed in self.tuning_seeds for spec in self._at_step(step, seed).specs())
        return [spec for spec in every if spec.trial_id in records]

    def _at_step(self, step: int, seed: int) -> Estimation:
        return self.at(self.estimation.base.rate * FACTOR**step, seed)

    def _search(self, records: Mapping[str, Record], missing: list[TrialSpec]) -> RateChoice | None:
        def cost(step: int) -> float | None:
            total, known = 0.0, True
            for seed in self.tuning_seeds:
                estimation = self._at_step(step, seed)
                lacking = [spec for spec in estimation.specs_for_largest() if spec.trial_id not in records]
                missing.extend(lacking)
                if lacking:
                    known = False
                    continue
                end = estimation.largest(records, VALIDATION)
                total += (-end if self.higher_is_better else end) if math.isfinite(end) else math.inf
            return total / len(self.tuning_seeds) if known else None

        costs = search(cost, REACH)
        if costs is None:
            return None
        step = nearest_best(costs)
        rates = tuple((self.estimation.base.rate * FACTOR**step, cost) for step, cost in sorted(costs.items()))
        return RateChoice(self.estimation.base.rate * FACTOR**step, abs(step) == REACH, rates)


@dataclass(frozen=True)
class RateChoice:
    """What tuning found.

    Args:
        rate: the best.
        at_limit: it lies at the end of the grid.
        tried: (rate, cost), by rate; the cost is the mean metric with the sign that makes lower better.
    """

    rate: float
    at_limit: bool
    tried: tuple[tuple[float, float], ...]


def cells(question: Question) -> dict[Place, CurveCell]:
    """Every curve of the study."""
    return {
        Place(*variant(setting, optimizer), text): CurveCell(
            Estimation(
                parse_estimator(text),
                budgets_of(setting, question.budgets),
                setting.trial(optimizer, 1.0, question.precision),
                setting.metric.name,
            ),
            question.tuning_seeds,
            question.reporting_seeds,
            setting.metric.higher_is_better,
        )
        for setting in question.settings
        for optimizer in question.optimizers
        for text in question.estimators
    }


def retuned_cells(question: Question) -> dict[Place, tuple[TunedCell, ...]]:
    """Separate runs as the first estimator makes them, but each budget with a rate of its own: one cell per budget.

    Their trials are those of the first estimator wherever the rates agree.
    """
    found: dict[Place, tuple[TunedCell, ...]] = {}
    for place, cell in cells(question).items():
        if not isinstance(cell.estimation.estimator, Separate):
            continue
        found[place._replace(estimator=f"{place.estimator}, retuned")] = tuple(
            TunedCell(Tuning(spec, (spec.policy,), cell.tuning_seeds, cell.higher_is_better), cell.reporting_seeds)
            for spec in sorted(cell.estimation.specs(), key=lambda spec: spec.updates)
        )
    return found


def every_cell(question: Question) -> list[CurveCell | TunedCell]:
    """What `run_study` calls to its fixed point."""
    return [*cells(question).values(), *(cell for row in retuned_cells(question).values() for cell in row)]


@dataclass(frozen=True)
class Answer:
    """What the trials say.

    Args:
        question: what was asked.
        results: one curve per estimator and seed, of all cells that are finished.
        curves: the same, mean over seeds with a 90 % interval where there are several, and mean training seconds up to
            each budget.
        choices: the rate of each estimator's cell.
        rate_scores: (task, variant) → the validation metric of separate runs at every rate tried for every budget.
        fallbacks: (place, seed) of curves whose self-check failed, so that branches were trained for all budgets.
        num_trials, num_updates, seconds: of all trials, tuning included.
        unfinished: places that lack trials.
        failed: trials that raised an error, as (place, traceback).
    """

    question: Question
    results: tuple[CurveResult, ...]
    curves: Mapping[Place, Curve]
    choices: Mapping[Place, RateChoice]
    rate_scores: Mapping[tuple[str, str], tuple[RateScore, ...]]
    fallbacks: tuple[tuple[Place, int], ...]
    num_trials: int
    num_updates: int
    seconds: float
    unfinished: tuple[Place, ...]
    failed: tuple[tuple[Place, str], ...]


def answer(question: Question, records: Mapping[str, Record]) -> Answer:
    """Read the answer off the records; what is not finished yet is left out."""
    results: list[CurveResult] = []
    choices: dict[Place, RateChoice] = {}
    curves: dict[Place, Curve] = {}
    rate_scores: dict[tuple[str, str], tuple[RateScore, ...]] = {}
    fallbacks: list[tuple[Place, int]] = []
    unfinished: list[Place] = []
    used: dict[str, tuple[Place, Record]] = {}
    for place, cell in cells(question).items():
        used |= {spec.trial_id: (place, records[spec.trial_id]) for spec in cell.asked(records)}
        choice = cell.choice(records)
        if choice is None or cell.next_specs(records):
            unfinished.append(place)
            continue
        choices[place] = choice
        full = _seconds_of_one(cell, choice.rate, records)
        seen: list[Curve] = []
        for seed in cell.reporting_seeds:
            estimation = cell.at(choice.rate, seed)
            fallen = estimation.falls_back(records)
            if fallen:
                fallbacks.append((place, seed))
            used |= {spec.trial_id: (place, records[spec.trial_id]) for spec in estimation.specs(fallen)}
            seen.append(estimation.curve(records, TEST, fallen))
            results.append(_result(place, seed, estimation, seen[-1], estimation.cost(records, fallen), full))
        curves[place] = _mean_curve(str(place.estimator), seen, cell.estimation)
    for place, by_budget in retuned_cells(question).items():
        asks = [cell.tuning.ask(records) for cell in by_budget]
        found = [ask for ask in asks if not isinstance(ask, list)]
        if len(found) < len(asks) or any(cell.next_specs(records) for cell in by_budget):
            unfinished.append(place)
            continue
        rate_scores[place[:2]] = tuple(_scores(by_budget, records))
        reports = [cell.reports(choice) for cell, choice in zip(by_budget, found, strict=True)]
        used |= {spec.trial_id: (place, records[spec.trial_id]) for specs in reports for spec in specs}
        budgets = tuple(specs[0].updates for specs in reports)
        for index, seed in enumerate(question.reporting_seeds):
            ends = [records[specs[index].trial_id].test for specs in reports]
            values = tuple(math.nan if end is None else end.metric for end in ends)
            cost = sum(budgets) / budgets[-1]
            results.append(CurveResult(*place, seed, budgets, values, planned_cost=cost))
    return Answer(
        question,
        tuple(results),
        curves,
        choices,
        rate_scores,
        tuple(fallbacks),
        num_trials=len(used),
        num_updates=sum(record.cost.updates for _, record in used.values()),
        seconds=sum(record.cost.training_seconds + record.cost.evaluation_seconds for _, record in used.values()),
        unfinished=tuple(unfinished),
        failed=tuple((place, record.error) for place, record in used.values() if record.status == "failed"),
    )


def _seconds_of_one(cell: CurveCell, rate: float, records: Mapping[str, Record]) -> float:
    """Training seconds of one update, mean over the reporting seeds' longest trials."""
    paces = []
    for seed in cell.reporting_seeds:
        longest = max(cell.at(rate, seed).specs(), key=lambda spec: spec.updates)
        paces.append(pace(records[longest.trial_id]))
    return sum(paces) / len(paces)


def _result(
    place: Place, seed: int, estimation: Estimation, curve: Curve, cost: tuple[int, float], per_update: float
) -> CurveResult:
    budgets = estimation.budgets
    band = _at(curve, budgets, estimation.metric)
    has_intervals = band.lows != band.values
    updates, seconds = cost
    return CurveResult(
        *place,
        seed,
        budgets,
        band.values,
        band.lows if has_intervals else (),
        band.highs if has_intervals else (),
        planned_cost=updates / budgets[-1],
        measured_cost=seconds / (per_update * budgets[-1]),
    )


def _at(curve: Curve, budgets: tuple[int, ...], metric: str) -> Band:
    """The curve's own points at the budgets; NaN where it has none."""
    band, places = curve.metrics[metric], {round(at): index for index, at in enumerate(curve.updates)}
    parts = (
        tuple(values[places[budget]] if budget in places else math.nan for budget in budgets)
        for values in (band.values, band.lows, band.highs)
    )
    return Band(*parts)


def _mean_curve(name: str, curves: list[Curve], estimation: Estimation) -> Curve:
    """Over seeds, at the budgets; of one seed without intervals."""
    values = np.array([_at(curve, estimation.budgets, estimation.metric).values for curve in curves])
    mean = values.mean(0)
    count = len(values)
    band = Band(tuple(mean))
    if count > 1:
        half = stats.t.ppf(0.95, count - 1) * values.std(0, ddof=1) / math.sqrt(count)
        band = Band(tuple(mean), tuple(mean - half), tuple(mean + half))
    seconds = [dict(zip(map(round, curve.updates), curve.seconds, strict=True)) for curve in curves if curve.seconds]
    paid = [[one.get(budget, math.nan) for budget in estimation.budgets] for one in seconds]
    mean_paid = tuple(np.mean(paid, axis=0)) if paid and np.isfinite(paid).all() else ()
    return Curve(estimation.budgets, {estimation.metric: band}, mean_paid, name)


def _scores(by_budget: Sequence[TunedCell], records: Mapping[str, Record]) -> Iterator[RateScore]:
    """Every tuning run of the separate budgets."""
    for cell in by_budget:
        for spec in cell.tuning.asked(records):
            end = records[spec.trial_id].last_validation
            yield RateScore(spec.updates, spec.rate, spec.seeds.init, math.nan if end is None else end.metric)
