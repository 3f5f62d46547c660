"""The report of the evaluation: Dong et al.'s tables and figures, the bars, every run that went wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import plotly.graph_objects as go

from glideslope.core.control import Controller
from glideslope.report import controller_figures as drawn
from glideslope.report import figures
from glideslope.report.controller_bars import (
    Bar,
    bar_table,
    better_than_all,
    not_behind,
    not_worse,
    seed_deviation,
)
from glideslope.report.controller_figures import Course
from glideslope.report.controller_tables import (
    Decisions,
    Failure,
    Ranks,
    Scores,
    decision_table,
    failure_table,
    rank_table,
    ranks,
    rate_table,
    scores_json,
    worst_first,
)
from glideslope.report.document import Document
from glideslope.report.figures import Style
from glideslope.report.page import Block, Command, Figure, Provenance, Section
from glideslope.report.tables import Table, finite_or_none, how_many
from glideslope.studies.arc.evaluation import OPEN_LOOP, OWN_RATE, RULES, Answer, Place, Run, policy
from glideslope.studies.setting import Setting

TITLE = "To raise or not to raise"
OURS, PUBLISHED, BASELINE = "arc", "published arc", "constant"

BOOTSTRAP_SEED = 0
"""Resampling starts here, so that a report of the same runs is the same report."""
WORSE_BY = 3.0
"""Standard deviations over seeds of the constant rate: a run further behind its worst run went wrong."""
LARGEST_GAIN = 1e3
"""A gain beyond it, or below its inverse, has run away if the validation loss rose, too."""
LOSS_ROSE = 0.1
"""From its best, by more than this share of it."""
FAILURES_SHOWN, FAILURES_DRAWN = 6, 8
"""Of each system in the table; of all in figures, where each system has one at most."""
COARSE_RATES = 31
"""Points of a run's rate in the data, at most; figures have four times as many."""


def document(answer: Answer, provenance: Mapping[str, str]) -> Document:
    """Everything the evaluation found; of an unfinished one what is there.

    Args:
        answer: from whole records (`Store.records`), not summaries.
        provenance: facts for the foot of the page.
    """
    question = answer.question
    if not answer.runs:
        return Document(TITLE, "No run is finished yet: run the same command again.", [], {})
    report = _Report(answer)
    columns, told = report.bars(), report.notes()
    sections = [
        Section("Read first", told),
        Section("The bars", [*report.sentences(columns), bar_table(columns)]),
        Section(
            "From rates too low, right and too high",
            [*report.rate_tables(), rank_table(report.ranks), *report.boxes()],
        ),
        Section("Rates and losses over the run", report.courses()),
        Section("What was decided", report.decided()),
        Section("Runs that went wrong", report.gone_wrong()),
        Section("Provenance", _provenance(answer, provenance)),
    ]
    lead = (
        f"{len(report.systems)} systems on {', '.join(setting.task.name for setting in question.settings)}, from "
        f"{', '.join(f'{factor:g}×' for factor in question.rate_factors)} the default rate of {question.optimizer}, "
        f"{question.epochs} epochs, {how_many(question.num_seeds, 'seed')}: {answer.num_trials} trials."
    )
    return Document(TITLE, lead, [s for s in sections if s.blocks], _data(report, columns, told, provenance))


class _Report:
    """What is said about an answer."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.question = answer, answer.question
        self.systems = self.question.systems
        self.learned = tuple(name for name, _ in self.question.controllers)
        # Learned ones first: they take the solid lines.
        self.order = (*self.learned, *RULES, *OWN_RATE, *OPEN_LOOP)
        self.looks = figures.styles(self.order)

    # -------------------------------------------------------- scores

    @cached_property
    def scores(self) -> tuple[tuple[Scores, Scores], ...]:
        """(last, best) of every task."""
        return tuple(
            (self._scores(setting, "last"), self._scores(setting, "best")) for setting in self.question.settings
        )

    @property
    def last(self) -> tuple[Scores, ...]:
        return tuple(last for last, _ in self.scores)

    def _scores(self, setting: Setting, counting: str) -> Scores:
        task, base = setting.task.name, dict(setting.rates)[self.question.optimizer]
        found = {
            (system, factor): self.answer.values(place, counting)
            for factor in self.question.rate_factors
            for system in self.systems
            if (place := self.place(task, system, factor)) in self.answer.runs
        }
        rates = {factor: base * factor for factor in self.question.rate_factors}
        return Scores(task, _metric(setting), setting.metric.higher_is_better, rates, found)

    def place(self, task: str, system: str, factor: float) -> Place:
        """Where the runs stand that a column shows."""
        return Place(task, system, 1.0 if system in OWN_RATE else factor)

    @cached_property
    def ranks(self) -> Ranks:
        return ranks(self.scores, self.systems)

    def rate_tables(self) -> list[Table]:
        """The source's Tables 2 to 4."""
        return [rate_table(last, best, self.systems) for last, best in self.scores]

    def boxes(self) -> list[Figure]:
        """The source's Figures 10 to 12."""

        def draw(last: Scores, best: Scores) -> go.Figure:
            rows = {
                title: {
                    scores.column(factor): {
                        system: [scores.metric_of(loss) for loss in scores.losses[system, factor]]
                        for system in self.order
                        if (system, factor) in scores.losses
                    }
                    for factor in scores.rates
                }
                for title, scores in (("test, last step", last), ("validation, best epoch", best))
            }
            return drawn.box_plots(rows, self.looks, last.metric, last.higher_is_better)

        return [
            Figure(partial(draw, last, best), f"{last.task}: every run, counted in both ways.")
            for last, best in self.scores
        ]

    # -------------------------------------------------------- bars

    def bars(self) -> dict[str, list[Bar]]:
        """Title → that bar of every controller."""
        controllers = (*self.learned, *RULES)
        rivals = [name for name in controllers if name != PUBLISHED] if PUBLISHED in self.learned else []
        return {
            f"not behind {PUBLISHED}": [
                not_behind(self.last, name, PUBLISHED, BASELINE, np.random.default_rng(BOOTSTRAP_SEED))
                for name in rivals
            ],
            f"not worse than {BASELINE}, good rate": [not_worse(self.last, name, BASELINE) for name in controllers],
            "better than every schedule, extreme rates": [
                better_than_all(self.last, name, OPEN_LOOP) for name in controllers
            ],
        }

    def sentences(self, columns: Mapping[str, Sequence[Bar]]) -> list[str]:
        """Of our own controller."""
        if OURS not in self.learned:
            return [f"No controller named {OURS!r} took part; the table has the others."]
        found = [bar.sentence() for bars in columns.values() for bar in bars if bar.controller == OURS]
        if PUBLISHED not in self.learned:
            found.insert(0, f"No controller named {PUBLISHED!r} took part: whether {OURS} is behind it is not known.")
        return found

    # -------------------------------------------------------- runs over time

    def courses(self) -> list[Block]:
        """The source's Figures 3 to 5."""

        def draw(setting: Setting) -> go.Figure:
            columns = {
                f"{factor:g}×": {
                    system: self.course(place, self._median_run(place))
                    for system in self.order
                    if (place := self.place(setting.task.name, system, factor)) in self.answer.runs
                }
                for factor in self.question.rate_factors
            }
            return drawn.courses(columns, self.looks, self.learned)

        figures_of_tasks = [
            Figure(partial(draw, setting), f"{setting.task.name}: the median run of each system.")
            for setting in self.question.settings
        ]
        return [
            "The run whose test metric at the last step is the median of its seeds; a run that diverged ends early. "
            "The rate of the line search is not recorded: it may take any step up to its largest.",
            *figures_of_tasks,
        ]

    def _median_run(self, place: Place) -> Run:
        """The lower one of two."""
        order = np.argsort(self.answer.values(place, "last"), kind="stable")
        return self.answer.runs[place][int(order[(len(order) - 1) // 2])]

    def course(self, place: Place, run: Run) -> Course:
        """What a run did, over shares of its length."""
        length = self.question.epochs * self._setting(place.task).updates_per_epoch
        points = _spread(len(run.updates), 4 * COARSE_RATES) if _has_rates(place.system) else []
        return Course(
            [run.updates[point] / length for point in points],
            [run.rates[point] for point in points],
            [(epoch + 1) / self.question.epochs for epoch in range(len(run.losses))],
            run.losses,
        )

    def _setting(self, task: str) -> Setting:
        return next(setting for setting in self.question.settings if setting.task.name == task)

    # -------------------------------------------------------- decisions

    @cached_property
    def decisions(self) -> tuple[Decisions, ...]:
        """Of the learned controllers, from every initial rate, over all tasks."""
        found = []
        for name, chosen in self.question.controllers:
            every = _every(chosen.controller)
            for factor in self.question.rate_factors:
                actions = [
                    _actions(run, every * self._setting(place.task).updates_per_epoch, len(run.losses) // every)
                    for place, runs in self.answer.runs.items()
                    if (place.system, place.factor) == (name, factor)
                    for run in runs
                ]
                if actions and self.question.epochs >= every:
                    found.append(Decisions(name, factor, self.question.epochs // every, tuple(actions)))
        return tuple(found)

    def decided(self) -> list[Block]:
        if not self.decisions:
            return []

        def draw() -> go.Figure:
            rows: dict[str, dict[str, Any]] = {}
            for line in self.decisions:
                rows.setdefault(line.controller, {})[f"from {line.factor:g}×"] = line.counts(line.planned)
            return drawn.decision_bars(rows)

        return [decision_table(self.decisions), Figure(draw, "Shares of raise, keep and lower, decision by decision.")]

    # -------------------------------------------------------- failures

    @cached_property
    def failures(self) -> tuple[Failure, ...]:
        """Every run that went wrong, by system."""
        broken = {place for place, _ in self.answer.failed}
        limits = {scores.task: _limit(scores) for scores in self.last}
        found = [
            failure
            for place, runs in self.answer.runs.items()
            for run in runs
            if not (place in broken and not run.diverged and math.isnan(run.last))
            if (failure := self._failure(place, run, limits[place.task])) is not None
        ]
        return worst_first(found, self.order)

    def _failure(self, place: Place, run: Run, limit: _Limit) -> Failure | None:
        reasons, severity = [], 0.0
        losses = np.array(run.losses, dtype=np.float64)
        finite = np.flatnonzero(np.isfinite(losses))
        best = int(finite[losses[finite].argmin()]) if finite.size else -1
        loss = -run.last if self.answer.higher_is_better(place.task) else run.last
        if run.diverged or not math.isfinite(loss):
            reasons.append(f"diverged after epoch {len(losses)} of {self.question.epochs}")
            severity = math.inf
        elif loss > limit.worst + WORSE_BY * limit.deviation:
            severity = (loss - limit.worst) / limit.deviation
            reasons.append(f"test {run.last:.3g}, {severity:.1f} sd behind the worst run of {BASELINE}")
        gain = self._last_gain(place, run)
        rose = best >= 0 and not losses[-1] <= losses[best] + LOSS_ROSE * abs(losses[best])
        if not 1 / LARGEST_GAIN <= gain <= LARGEST_GAIN and rose:
            reasons.append(f"rate run away: gain {gain:.1e}")
        if not reasons:
            return None
        ends = (run.rates[0], run.rates[-1]) if run.rates and _has_rates(place.system) else (math.nan, math.nan)
        return Failure(
            place.system,
            place.task,
            None if place.system in OWN_RATE else place.factor,
            run.seed,
            tuple(reasons),
            severity,
            run.last,
            best + 1,
            float(losses[best]) if best >= 0 else math.nan,
            len(losses),
            float(losses[-1]) if losses.size else math.nan,
            *ends,
        )

    def _last_gain(self, place: Place, run: Run) -> float:
        """What the controller had made of the rate by the last recorded update; 1 where there is none."""
        if place.system in (*OPEN_LOOP, *OWN_RATE) or not run.updates:
            return 1.0
        steered = policy(place.system, place.task, self.question.epochs, dict(self.question.controllers))
        length = self.question.epochs * self._setting(place.task).updates_per_epoch
        planned = steered.plan["lr"].value(run.updates[-1] / length, run.rate)
        return run.rates[-1] / planned if planned > 0 else 1.0

    def gone_wrong(self) -> list[Block]:
        note = (
            f"Diverged; or its test metric at the last step more than {WORSE_BY:g} standard deviations over seeds "
            f"behind the worst run of {BASELINE} from the good rate; or its gain beyond {LARGEST_GAIN:g} or its "
            f"inverse while the validation loss rose from its best by more than {LOSS_ROSE:.0%}. At most "
            f"{FAILURES_SHOWN} rows per system, the gravest first."
        )
        blocks: list[Block] = [failure_table(self.failures, FAILURES_SHOWN, note)]
        some = list({one.system: one for one in reversed(self.failures)}.values())[::-1][:FAILURES_DRAWN]
        for first in range(0, len(some), 4):
            caption = f"The gravest of each system, beside the median run of {BASELINE} from the good rate."
            blocks.append(Figure(partial(self._draw_failures, some[first : first + 4]), caption))
        return blocks

    def _draw_failures(self, some: Sequence[Failure]) -> go.Figure:
        reference = f"{BASELINE}, good rate"
        looks = self.looks | {reference: Style(figures.GREY, "dash", "circle")}
        columns: dict[str, dict[str, Course]] = {}
        for one in some:
            good = next(scores.good for scores in self.last if scores.task == one.task)
            lines = {}
            if (beside := self.place(one.task, BASELINE, good)) in self.answer.runs:
                lines[reference] = self.course(beside, self._median_run(beside))
            place = self.place(one.task, one.system, 1.0 if one.factor is None else one.factor)
            (run,) = [run for run in self.answer.runs[place] if run.seed == one.seed]
            lines[one.system] = self.course(place, run)
            columns[one.label] = lines
        return drawn.courses(columns, looks, [one.system for one in some], height=540)

    # -------------------------------------------------------- notes

    def notes(self) -> list[str]:
        """What must be known before anything else is read."""
        missing: dict[tuple[str, str], list[str]] = {}
        for place in self.answer.unfinished:
            at = "own rate" if place.system in OWN_RATE else f"{place.factor:g}×"
            missing.setdefault((place.task, place.system), []).append(at)
        said = []
        if missing:
            lines = "; ".join(f"{task} / {system} ({', '.join(at)})" for (task, system), at in missing.items())
            said.append(f"Not finished, and left out: {lines}. Run the same command again.")
        said += [
            f"Failed: {place.task} / {place.system} / {place.factor:g}×: {error.strip().splitlines()[-1]}"
            for place, error in self.answer.failed
        ]
        if self.question.num_seeds < 2:
            said.append("One seed: nothing can be told from seed noise, and there are no intervals.")
        return said


@dataclass(frozen=True)
class _Limit:
    """Where a run of a task counts as gone wrong.

    Args:
        worst: loss of the baseline's worst run from the good rate that has a number; infinite if none has.
        deviation: the task's yardstick; infinite where it is not known.
    """

    worst: float
    deviation: float


def _limit(scores: Scores) -> _Limit:
    losses = scores.losses.get((BASELINE, scores.good), np.zeros(0))
    finite, deviation = losses[np.isfinite(losses)], seed_deviation(scores, BASELINE)
    return _Limit(float(finite.max()) if finite.size else math.inf, deviation if math.isfinite(deviation) else math.inf)


def _metric(setting: Setting) -> str:
    return f"{setting.metric.name}{f', {setting.metric.unit}' if setting.metric.unit else ''}"


def _has_rates(system: str) -> bool:
    """Of the line search the longest step is recorded, not the one that was taken."""
    return system != "line search"


def _every(controller: Controller | None) -> int:
    """Observations, hence epochs, from one decision to the next: one where the controller says nothing else."""
    inner = getattr(controller, "controller", controller)  # of a clamped one
    return int(getattr(inner, "every", 1))


def _actions(run: Run, updates_between: int, count: int) -> tuple[str, ...]:
    """Every decision of a run, the ones to keep included."""
    said = dict(run.decisions)
    return tuple(said.get(updates_between * (index + 1), "keep") for index in range(count))


def _spread(length: int, most: int) -> list[int]:
    """At most so many indices, evenly spread, the first and the last among them.

    >>> _spread(5, 3), _spread(2, 3)
    ([0, 2, 4], [0, 1])
    """
    return sorted({round(index) for index in np.linspace(0, length - 1, min(length, most))}) if length else []


def _provenance(answer: Answer, provenance: Mapping[str, str]) -> list[Block]:
    facts = {
        **{name: fact for name, fact in provenance.items() if name != "command"},
        "trials": f"{answer.num_trials}, range tests included",
        "work": f"{answer.seconds:.0f} s of one core, training and evaluation",
        "n": how_many(answer.question.num_seeds, "seed"),
        "source": 'Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021, Section 4',
    }
    return [Provenance(facts), *([Command(provenance["command"])] if "command" in provenance else [])]


def _data(
    report: _Report, columns: Mapping[str, Sequence[Bar]], told: Sequence[str], provenance: Mapping[str, str]
) -> dict[str, Any]:
    answer = report.answer
    return {
        "question": answer.question.to_json(),
        "bars": {title: [bar.to_json() for bar in bars] for title, bars in columns.items()},
        "scores": [entry for last, best in report.scores for entry in scores_json(last, best, report.systems)],
        "ranks": report.ranks.to_json(),
        "decisions": [line.to_json() for line in report.decisions],
        "failures": [one.to_json() for one in report.failures],
        "runs": [_run_json(place, run) for place, runs in answer.runs.items() for run in runs],
        "not_finished": [list(place) for place in answer.unfinished],
        "failed": [[*place, error.strip().splitlines()[-1]] for place, error in answer.failed],
        "notes": list(told),
        "trials": answer.num_trials,
        "seconds_of_work": answer.seconds,
        "provenance": dict(provenance),
    }


def _run_json(place: Place, run: Run) -> dict[str, Any]:
    points = _spread(len(run.updates), COARSE_RATES) if _has_rates(place.system) else []
    return {
        "task": place.task,
        "system": place.system,
        "factor": None if place.system in OWN_RATE else place.factor,
        "seed": run.seed,
        "rate": run.rate,
        "last": finite_or_none(run.last),
        "best": finite_or_none(run.best),
        "diverged": run.diverged,
        "losses": [finite_or_none(loss) for loss in run.losses],
        "rates": [[run.updates[point], run.rates[point]] for point in points],
        "decisions": [list(decision) for decision in run.decisions],
    }
