"""The report of the convergence study: Li et al.'s figures, with tables, and what is found in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from glideslope.report import convergence_figures as figures
from glideslope.report.convergence_figures import Band
from glideslope.report.document import Document
from glideslope.report.figures import COLORS, DASHES, SYMBOLS, Style, styles
from glideslope.report.page import Block, Command, Figure, Provenance, Section
from glideslope.report.panel import Estimate
from glideslope.report.results import percent
from glideslope.report.statistics import pooled_interval
from glideslope.report.tables import (
    EMPTY,
    Entry,
    Table,
    Value,
    estimate_json,
    explained_flags,
    finite_or_none,
    how_many,
)
from glideslope.studies.convergence import (
    AWARE,
    CONSTANT,
    LINEAR,
    POINTS,
    RETUNED,
    SGDR,
    SGDR_R1,
    SGDR_R2,
    STEP,
    TRUNCATED,
    Answer,
    Place,
    WatchedRun,
    restarts,
)
from glideslope.studies.setting import Setting

TITLE = "Budgeted convergence"
CONFIDENCE = 0.95
SHAPE_POINTS = 401
_TIME_LEFT = "constant, with the time left"
SMOOTHED = 9
"""The training loss of single batches is drawn as a running mean of so many recorded updates."""

Line = tuple[str, str, str]
"""Optimizer, schedule, form: a place without its task and its budget."""


@dataclass(frozen=True)
class Differences:
    """Differences of lines to others, at every budget, paired by seed. All their intervals hold at once.

    Args:
        estimates: (line, budget) → mean difference and interval; left out where a run diverged, or with one seed.
        higher_is_better: direction of what is subtracted.
    """

    estimates: Mapping[tuple[str, float], Estimate]
    higher_is_better: bool

    @classmethod
    def of(
        cls, values: Mapping[str, Mapping[float, Sequence[float]]], pairs: Mapping[str, str], higher_is_better: bool
    ) -> Differences:
        """Mean differences with t-intervals; at each budget the variance is pooled over all lines.

        Args:
            values: line → budget → value of every seed.
            pairs: line → the one that is subtracted from it.
            higher_is_better: see above.
        """
        wanted = [(name, budget) for name in pairs for budget in values[name] if budget in values[pairs[name]]]
        found: dict[tuple[str, float], Estimate] = {}
        for name, budget in wanted:
            block = {line: by_budget[budget] for line, by_budget in values.items() if budget in by_budget}
            finite = [line for line, row in block.items() if len(row) > 1 and np.isfinite(row).all()]
            if name in finite and pairs[name] in finite:
                scores = np.array([block[line] for line in finite])
                # Bonferroni's: each at 1 - 0.05/m, so that all m hold with 95 %.
                confidence = 1 - (1 - CONFIDENCE) / len(wanted)
                mean = pooled_interval(scores, finite.index(name), finite.index(pairs[name]), confidence)
                found[name, budget] = Estimate(mean.mean, mean.low, mean.high)
        return cls(found, higher_is_better)

    def better(self, name: str) -> list[float]:
        """Budgets at which a line is better than the other, beyond the interval."""
        sign = 1 if self.higher_is_better else -1
        return [b for (line, b), e in self.estimates.items() if line == name and min(sign * e.low, sign * e.high) > 0]

    def worse(self, name: str) -> list[float]:
        """Budgets at which it is worse."""
        return Differences(self.estimates, not self.higher_is_better).better(name)

    def verdict(self, name: str) -> str:
        """Where a line is better and where worse, in words, with the differences."""
        if not any(line == name for line, _ in self.estimates):
            return "nothing can be said"
        sides = (("better", self.better(name)), ("worse", self.worse(name)))
        said = [
            f"{word} at {_listed(f'{percent(at)} ({_shown(self.estimates[name, at])})' for at in budgets)}"
            for word, budgets in sides
            if budgets
        ]
        return " and ".join(said) if said else "not told apart at any budget"


def document(answer: Answer, provenance: Mapping[str, str]) -> Document:
    """Everything that was found; of an unfinished study what is there."""
    question = answer.question
    if not answer.scores:
        return Document(TITLE, "No cell is finished yet: run the same command again.", [], {})
    parts = [_Part(answer, setting) for setting in question.settings]
    sections = [
        Section("What is found", [line for part in parts for line in part.findings()]),
        Section(
            "Does the full gradient vanish with the rate?",
            [
                "‖g*‖ is the norm of the gradient of the training loss over the whole training set, in evaluation mode "
                "and at fixed draws of augmentation and noise: a function of the weights alone. It is measured at "
                f"{POINTS} moments of a run at most, of which the last is the end. Figures 3, 5 and D of the paper.",
                *(block for part in parts for block in part.gradients()),
            ],
        ),
        *_optional(
            "Adaptive optimizers at a constant rate",
            "Figures 4 and A of the paper: what adapts its steps by itself, at a constant rate, against the first "
            "optimizer under the linear schedule of each budget. Every rate is tuned at every budget.",
            [block for part in parts for block in part.adaptive()],
        ),
        Section(
            "SGDR and SGDR-rn",
            [
                "Figure B of the paper. SGDR restarts after 10 epochs, then after 20, 40, … whatever the budget; "
                "SGDR-rn restarts n times at even distances, so that the last cycle lands on the budget.",
                *(block for part in parts for block in part.restarts()),
            ],
        ),
        *_optional(
            "Knowing the budget",
            "Figure 1 of the paper. Aware: the schedule is stretched over each budget, its rate tuned there. "
            "Truncated: the very run of the full budget, stopped early. Retuned: the truncated schedule at "
            "a rate tuned for the early stop. The difference that is left between aware and retuned is due to the "
            "schedule alone.",
            [block for part in parts for block in part.forms()],
        ),
        *_optional(
            "Step decay against linear, over the run",
            "Figure C of the paper.",
            [block for part in parts for block in part.step_and_linear()],
        ),
        Section("Base rates", [table for part in parts for table in part.rates()]),
    ]
    data: dict[str, Any] = {
        "question": question.to_json(),
        "cells": [_cell_json(answer, place) for place in answer.scores],
        "comparisons": [entry for part in parts for entry in part.comparisons()],
        "findings": [line for part in parts for line in part.findings()],
        "trials": answer.num_trials,
        "updates": answer.num_updates,
        "seconds_of_work": answer.seconds,
        "not_finished": [" / ".join(_words(place)) for place in answer.unfinished],
        "provenance": dict(provenance),
    }
    if answer.unfinished:
        lines = [f"Left out: {' / '.join(_words(place))}." for place in answer.unfinished]
        sections.append(Section("Not finished", lines))
    if answer.failed:
        lines = [f"{' / '.join(_words(place))}: {error.strip().splitlines()[-1]}" for place, error in answer.failed]
        sections.insert(0, Section("Trials that failed", lines))
        data["failed"] = lines
    facts = {
        **{name: fact for name, fact in provenance.items() if name != "command"},
        "trials": f"{answer.num_trials} (tuning and reporting), {answer.num_updates:,} updates",
        "work": f"{answer.seconds:.0f} s of one core, training and evaluation",
        "n": question.seeds_in_words,
    }
    command = [Command(provenance["command"])] if "command" in provenance else []
    sections.append(Section("Provenance", [Provenance(facts), *command]))
    return Document(TITLE, _lead(answer), sections, data)


def _lead(answer: Answer) -> str:
    question = answer.question
    return (
        f"{', '.join(setting.task.name for setting in question.settings)}: {answer.num_trials} trials, "
        f"{answer.num_updates:,} updates. Rates tuned in multiples of 3 on "
        f"{how_many(question.num_tuning_seeds, 'tuning seed')} by validation, reported on "
        f"{how_many(question.num_seeds, 'fresh seed')} and the test split at the last step. Intervals of "
        f"differences hold with 95 % for all entries of their table at once.{question.caution}"
    )


def _optional(title: str, note: str, blocks: Sequence[Block]) -> list[Section]:
    return [Section(title, [note, *blocks])] if blocks else []


class _Part:
    """What is said about one task."""

    def __init__(self, answer: Answer, setting: Setting) -> None:
        self.answer, self.setting = answer, setting
        question = answer.question
        self.task, self.higher = setting.task.name, setting.metric.higher_is_better
        self.metric = f"{setting.metric.name}{f', {setting.metric.unit}' if setting.metric.unit else ''}"
        self.budgets, self.full = question.budgets, question.budgets[-1]
        self.leading = question.optimizers[0]
        self.note = f"{self.metric}; mean ± std over {how_many(question.num_seeds, 'seed')}."
        self.linear: Line = (self.leading, LINEAR, AWARE)
        self.schedules: dict[str, Line] = {
            name: (self.leading, name, AWARE) for name in (*question.schedules, CONSTANT)
        }
        self.adaptives: dict[str, Line] = {
            f"{optimizer}, constant": (optimizer, CONSTANT, AWARE) for optimizer in question.optimizers[1:]
        }
        self.cycles: dict[str, Line] = {name: (self.leading, name, AWARE) for name in (SGDR, SGDR_R1, SGDR_R2)}

    # -------------------------------------------------------- values by line and budget

    def _values(
        self, lines: Mapping[str, Line], read: Callable[[Place], Sequence[float]], known: Iterable[Place]
    ) -> dict[str, dict[float, Sequence[float]]]:
        there = set(known)
        return {
            name: {
                budget: read(place) for budget in self.budgets if (place := Place(self.task, *line, budget)) in there
            }
            for name, line in lines.items()
        }

    def _scores(self, lines: Mapping[str, Line]) -> dict[str, dict[float, Sequence[float]]]:
        return self._values(lines, self.answer.scores.__getitem__, self.answer.scores)

    def _seen(
        self, lines: Mapping[str, Line], read: Callable[[WatchedRun], float]
    ) -> dict[str, dict[float, Sequence[float]]]:
        """Of runs that finished; a place where some did not counts as diverged."""
        count = self.answer.question.num_seeds

        def values(place: Place) -> Sequence[float]:
            found = [read(run) for run in self.answer.watched[place]]
            return found + [math.nan] * (count - len(found))

        return self._values(lines, values, self.answer.watched)

    # -------------------------------------------------------- differences

    @cached_property
    def end_ratios(self) -> Differences:
        """Of the decimal logarithm of the last ‖g*‖: schedules to a constant rate."""
        ends = self._seen(self.schedules, lambda run: _log10(run.full_gradient_norm[-1]))
        return Differences.of(ends, dict.fromkeys(self.answer.question.schedules, CONSTANT), higher_is_better=False)

    @cached_property
    def to_linear(self) -> Differences:
        """Adaptive optimizers at a constant rate, to the first one under the linear schedule."""
        scores = self._scores({LINEAR: self.linear, **self.adaptives})
        return Differences.of(scores, dict.fromkeys(self.adaptives, LINEAR), self.higher)

    @cached_property
    def to_sgdr(self) -> Differences:
        scores = self._scores({LINEAR: self.linear, **self.cycles})
        return Differences.of(scores, dict.fromkeys((SGDR_R1, SGDR_R2, LINEAR), SGDR), self.higher)

    @cached_property
    def to_aware(self) -> Differences:
        """Truncated forms to the aware one of the same schedule; lines by `_form`."""
        names = self.answer.question.schedules
        forms = (AWARE, TRUNCATED, RETUNED)
        lines: dict[str, Line] = {_form(name, form): (self.leading, name, form) for name in names for form in forms}
        pairs = {_form(name, form): _form(name, AWARE) for name in names for form in (TRUNCATED, RETUNED)}
        early = {
            line: {budget: row for budget, row in by_budget.items() if budget != self.full}
            for line, by_budget in self._scores(lines).items()
        }
        return Differences.of(early, pairs, self.higher)

    @cached_property
    def step_to_linear(self) -> Differences:
        return Differences.of(self._scores(self.schedules), {STEP: LINEAR}, self.higher)

    @property
    def _pair(self) -> dict[str, Line]:
        return {name: self.schedules[name] for name in (LINEAR, STEP) if name in self.schedules}

    # -------------------------------------------------------- in words

    def findings(self) -> list[str]:
        """What the numbers say, and no more."""
        found = [self._vanishing(), self._correlating()]
        if self.adaptives:
            verdicts = [f"{name}: {self.to_linear.verdict(name)}" for name in self.adaptives]
            found.append(f"against {self.leading} under the linear schedule ({self.metric}), {'; '.join(verdicts)}.")
        verdicts = [f"{name}: {self.to_sgdr.verdict(name)}" for name in (SGDR_R1, SGDR_R2, LINEAR)]
        found.append(f"against SGDR with its first cycle of 10 epochs ({self.metric}), {'; '.join(verdicts)}.")
        if len(self.budgets) > 1:
            for form in (TRUNCATED, RETUNED):
                lines = [_form(name, form) for name in self.answer.question.schedules]
                pairs = sum(name in lines for name, _ in self.to_aware.estimates)
                worse = sum(len(self.to_aware.worse(line)) for line in lines)
                better = sum(len(self.to_aware.better(line)) for line in lines)
                found.append(
                    f"{form} against aware, same schedule and budget: worse in {worse} of {pairs} pairs, better in "
                    f"{better}, not told apart in {pairs - worse - better}."
                )
        if len(self._pair) > 1:
            found.append(f"step against linear ({self.metric}): {self.step_to_linear.verdict(STEP)}.")
        return [f"{self.task}: {line}" for line in found if line]

    def _vanishing(self) -> str:
        """Where the last ‖g*‖ stands, at the full budget and in all."""
        lines = self._seen(self.schedules, lambda run: run.end_over_largest)
        shares = {name: by_budget[self.full] for name, by_budget in lines.items() if self.full in by_budget}
        ends = ", ".join(f"{np.mean(row):.2f} {_under(name)}" for name, row in shares.items() if np.isfinite(row).all())
        if not ends:
            return ""
        ratios = self.end_ratios
        multiples = [
            f"{_shown(_powers(ratios.estimates[name, self.full]))} {_under(name)}"
            for name in self.answer.question.schedules
            if (name, self.full) in ratios.estimates
        ]
        if not multiples:
            return f"at {percent(self.full)}, ‖g*‖ ends at this share of the largest measured in its run: {ends}."
        below = sum(len(ratios.better(name)) for name in self.answer.question.schedules)
        above = sum(len(ratios.worse(name)) for name in self.answer.question.schedules)
        return (
            f"at {percent(self.full)}, ‖g*‖ ends at this share of the largest measured in its run: {ends}. As a "
            f"multiple of where it ends at a constant rate that is {', '.join(multiples)}. Over all budgets it ends "
            f"below the constant rate's in {below} of {len(ratios.estimates)} pairs of schedule and budget, above in "
            f"{above}."
        )

    def _correlating(self) -> str:
        lines = self._correlations()
        known = {
            name: [float(np.mean(row)) for row in by_budget.values() if np.isfinite(row).all()]
            for name, by_budget in lines.items()
        }
        said = [f"{name} {_span(values)}" for name, values in known.items() if values and name != _TIME_LEFT]
        if not said:
            return ""
        still = known.get(_TIME_LEFT, ())
        control = f" At a constant rate, with the time that is left: {_span(still)}." if still else ""
        return f"correlation of ‖g*‖ with the rate during a run, from budget to budget: {', '.join(said)}.{control}"

    def _correlations(self) -> dict[str, dict[float, Sequence[float]]]:
        """Of ‖g*‖ with the rate; at a constant rate, to compare, with the time that is left."""
        moving = {name: line for name, line in self.schedules.items() if name != CONSTANT}
        still = {_TIME_LEFT: self.schedules[CONSTANT]}
        return self._seen(moving, lambda run: run.correlation) | self._seen(
            still, lambda run: run.correlation_with_time_left
        )

    # -------------------------------------------------------- tables and figures

    def gradients(self) -> list[Block]:
        watched = {**self.schedules, **self.adaptives}
        lines = self._seen(watched, lambda run: run.end_over_largest)
        weights = self._seen(watched, lambda run: run.weight_norm[-1])
        ratios = {pair: _powers(estimate) for pair, estimate in self.end_ratios.estimates.items()}
        note = f"Mean ± std over {how_many(self.answer.question.num_seeds, 'seed')}."
        return [
            self._table("last ‖g*‖ as a share of the largest of its run", lines, note),
            self._differences(
                "last ‖g*‖ as a multiple of that at a constant rate, same budget",
                ratios,
                "the schedules",
                "Geometric mean [interval], paired by seed; t-intervals of logarithms.",
            ),
            self._table(
                "correlation of ‖g*‖ with the rate, over a run",
                self._correlations(),
                f"Pearson's. {note} What falls in time goes with any rate that does: the last line says how much.",
            ),
            self._table("last ‖w‖", weights, note),
            Figure(
                self._courses,
                f"{self.task}: rate as a share of its largest, ‖g*‖ and ‖w‖ over the run; mean and range over seeds.",
            ),
        ]

    def adaptive(self) -> list[Block]:
        if not self.adaptives:
            return []
        lines = {f"{self.leading}, linear": self.linear, **self.adaptives}
        looks = _looks(lines)
        return [
            self._table(f"{self.metric} at the last step", self._scores(lines), self.note, lines),
            self._differences(f"difference to {self.leading}, linear", self.to_linear.estimates),
            Figure(
                lambda: figures.over_budgets({"": self._bands(lines)}, looks, self.metric),
                f"{self.task}: {self.metric} at the last step; mean ± std over seeds.",
            ),
            Figure(
                lambda: figures.lines_over_run(self._norms(lines), looks, ("‖g*‖",)),
                f"{self.task}, {percent(self.full)}: training loss (running mean) and ‖g*‖; mean and range over seeds.",
            ),
        ]

    def restarts(self) -> list[Block]:
        lines = {**self.cycles, LINEAR: self.linear}
        looks = _looks(lines)
        return [
            self._table(f"{self.metric} at the last step", self._scores(lines), self.note, lines),
            self._differences("difference to SGDR", self.to_sgdr.estimates),
            Figure(
                lambda: figures.lines_over_run({"multiplier of the rate": self._shapes()}, looks),
                f"{self.task}, {percent(self.full)}: what lands on the budget, and what is cut off.",
            ),
            Figure(
                lambda: figures.over_budgets({"": self._bands(lines)}, looks, self.metric),
                f"{self.task}: {self.metric} at the last step; mean ± std over seeds.",
            ),
        ]

    def forms(self) -> list[Block]:
        if len(self.budgets) == 1:
            return []
        names, forms = self.answer.question.schedules, (AWARE, TRUNCATED, RETUNED)
        lines: dict[str, Line] = {_form(name, form): (self.leading, name, form) for name in names for form in forms}
        shares = self._values(lines, self.answer.normalised, self.answer.scores)
        looks = {form: Style(COLORS[i], DASHES[i], SYMBOLS[i]) for i, form in enumerate((AWARE, TRUNCATED, RETUNED))}
        for name in names:  # all forms end in the same runs
            whole = shares[_form(name, AWARE)].get(self.full)
            if whole is not None:
                for form in (TRUNCATED, RETUNED):
                    shares[_form(name, form)][self.full] = whole
        panels = {
            name: {form: self._band(shares[_form(name, form)]) for form in forms if shares[_form(name, form)]}
            for name in names
        }
        what = self._normalised
        scale = f"{what[0].upper()}{what[1:]}, same schedule and seed; mean ± std over seeds. 1 is as good."
        return [
            self._table("normalised by the full budget", shares, scale, lines),
            self._differences(f"difference to the aware form, {self.metric}", self.to_aware.estimates),
            Figure(
                lambda: figures.over_budgets(panels, looks, what),
                f"{self.task}: {what}; mean ± std over seeds.",
            ),
        ]

    @property
    def _normalised(self) -> str:
        """What `normalised` divides."""
        if self.higher:
            return f"{self.setting.metric.name} over that of the full budget"
        if self.setting.metric.unit == "%":
            return "accuracy over that of the full budget"
        return f"{self.setting.metric.name} of the full budget over {self.setting.metric.name}"

    def step_and_linear(self) -> list[Block]:
        if len(self._pair) < 2:
            return []
        looks = styles(list(self._pair))
        losses = self._seen(self._pair, lambda run: float(np.mean(run.train_loss[-SMOOTHED:])))
        return [
            self._table(
                "training loss at the end",
                losses,
                f"Mean of the last {SMOOTHED} recorded batches; mean ± std over seeds.",
            ),
            self._table(f"{self.metric} at the last step", self._scores(self._pair), self.note, self._pair),
            self._differences("step minus linear", self.step_to_linear.estimates, "all schedules"),
            Figure(
                lambda: figures.lines_over_run(self._norms(self._pair), looks, ("‖g*‖",)),
                f"{self.task}, {percent(self.full)}: training loss (running mean) and ‖g*‖; mean and range over seeds.",
            ),
        ]

    def rates(self) -> list[Table]:
        """The tuned rate of every cell."""
        rows: dict[tuple[str, ...], dict[float, str]] = {}
        for place, rate in self.answer.rates.items():
            if place.task == self.task:
                mark = "†" if place in self.answer.at_limit else ""
                rows.setdefault(_words(place)[1:-1], {})[place.budget] = f"{rate:.2g}{mark}"
        body = tuple(
            (", ".join(words), *(by_budget.get(budget, EMPTY) for budget in self.budgets))
            for words, by_budget in rows.items()
        )
        limit = " † at a hard limit of the grid." if any("†" in str(row) for row in body) else ""
        note = f"A truncated schedule keeps the rate of the full budget.{limit}"
        return [Table(f"{self.task}: base rates", ("", *map(percent, self.budgets)), body, note)]

    def comparisons(self) -> list[dict[str, Any]]:
        """Every difference, as plain data."""
        kinds = {
            "log10 of the last full gradient norm, to a constant rate": self.end_ratios,
            "to the linear schedule": self.to_linear,
            "to SGDR": self.to_sgdr,
            "to the aware form": self.to_aware,
            "step to linear": self.step_to_linear if len(self._pair) > 1 else Differences({}, self.higher),
        }
        return [
            {"task": self.task, "kind": kind, "line": name, "budget": budget, **estimate_json(estimate)}
            for kind, differences in kinds.items()
            for (name, budget), estimate in differences.estimates.items()
        ]

    def _table(
        self,
        title: str,
        values: Mapping[str, Mapping[float, Sequence[float]]],
        note: str,
        lines: Mapping[str, Line] | None = None,
    ) -> Table:
        """Means over seeds: a row per line, a column per budget. With `lines` given, rates at limits are marked."""

        def entry(name: str, budget: float) -> Entry:
            if budget not in values[name]:
                return EMPTY
            place = Place(self.task, *lines[name], budget) if lines else None
            return Value.over_seeds(values[name][budget], flags=("at_limit",) if place in self.answer.at_limit else ())

        rows = tuple((name, *(entry(name, budget) for budget in self.budgets)) for name in values)
        return Table(f"{self.task}: {title}", ("", *map(percent, self.budgets)), rows, note + explained_flags(rows))

    def _differences(
        self,
        title: str,
        estimates: Mapping[tuple[str, float], Estimate],
        pooled: str = "the lines of the table above",
        how: str = "Mean difference [interval], paired by seed; t-intervals.",
    ) -> Block:
        if not estimates:
            return f"{self.task}: no {title}. It takes two reporting seeds or more, none of which diverged."
        names = list(dict.fromkeys(name for name, _ in estimates))
        budgets = [budget for budget in self.budgets if any(at == budget for _, at in estimates)]
        rows: tuple[tuple[Entry, ...], ...] = tuple(
            (name, *(estimates.get((name, budget), EMPTY) for budget in budgets)) for name in names
        )
        note = (
            f"{how} The variance at a budget is pooled over {pooled}; the {len(estimates)} intervals hold with 95 % "
            "all at once (Bonferroni)."
        )
        return Table(f"{self.task}: {title}", ("", *map(percent, budgets)), rows, note)

    def _bands(self, lines: Mapping[str, Line]) -> dict[str, Band]:
        return {name: self._band(by_budget) for name, by_budget in self._scores(lines).items() if by_budget}

    def _band(self, by_budget: Mapping[float, Sequence[float]]) -> Band:
        """Mean ± std over seeds, by budget."""
        rows = [np.array(by_budget[budget], dtype=np.float64) for budget in self.budgets if budget in by_budget]
        finite = [row[np.isfinite(row)] for row in rows]
        means = [row.mean() if row.size else math.nan for row in finite]
        spreads = [row.std(ddof=1) if row.size > 1 else 0.0 for row in finite]
        budgets = [budget for budget in self.budgets if budget in by_budget]
        return Band(budgets, means, np.subtract(means, spreads), np.add(means, spreads))

    def _courses(self) -> Any:
        """Rate, ‖g*‖ and ‖w‖: columns are schedules, colours are budgets."""
        rows: dict[str, dict[str, dict[str, Band]]] = {"rate": {}, "‖g*‖": {}, "‖w‖": {}}
        for name, line in self.schedules.items():
            for quantity in rows.values():
                quantity[name] = {}
            for budget in self.budgets:
                runs = self.answer.watched.get(Place(self.task, *line, budget), ())
                if not runs:
                    continue
                label = percent(budget)
                shares = np.array(runs[0].rate) / self.answer.rates[Place(self.task, *line, budget)]
                rows["rate"][name][label] = Band(runs[0].progress, shares)
                rows["‖g*‖"][name][label] = _over(runs, lambda run: (run.progress, run.full_gradient_norm))
                rows["‖w‖"][name][label] = _over(runs, lambda run: (run.recorded, run.weight_norm))
        return figures.courses(rows, ("‖g*‖",))

    def _norms(self, lines: Mapping[str, Line]) -> dict[str, dict[str, Band]]:
        """Training loss and ‖g*‖ over the runs of the full budget."""
        runs = {name: self.answer.watched.get(Place(self.task, *line, self.full), ()) for name, line in lines.items()}
        return {
            "training loss": {
                name: _over(found, lambda run: (_smooth(run.recorded), _smooth(run.train_loss)))
                for name, found in runs.items()
                if found
            },
            "‖g*‖": {
                name: _over(found, lambda run: (run.progress, run.full_gradient_norm))
                for name, found in runs.items()
                if found
            },
        }

    def _shapes(self) -> dict[str, Band]:
        progress = np.linspace(0.0, 1.0, SHAPE_POINTS)
        shapes = restarts(self.setting.epochs(self.full))
        return {name: Band(progress, shape(progress)) for name, shape in shapes.items()}


def _form(schedule: str, form: str) -> str:
    return f"{schedule}, {form}"


def _under(schedule: str) -> str:
    return "at a constant rate" if schedule == CONSTANT else f"under {schedule}"


def _shown(estimate: Estimate) -> str:
    """An estimate as text.

    >>> _shown(Estimate(3.04159, 0.12, 5.8))
    '3.04 [0.12, 5.8]'
    """
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _listed(words: Iterable[str]) -> str:
    """With commas, and "and" before the last.

    >>> _listed(["1%", "5%", "10%"])
    '1%, 5% and 10%'
    """
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def _span(values: Sequence[float]) -> str:
    """Least and greatest.

    >>> _span([0.52, 0.98]), _span([0.5])
    ('0.52 to 0.98', '0.50')
    """
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _log10(norm: float) -> float:
    return math.log10(norm) if 0 < norm < math.inf else math.nan


def _powers(estimate: Estimate) -> Estimate:
    return Estimate(*(10.0**end for end in (estimate.value, estimate.low, estimate.high)))


def _over(runs: Sequence[WatchedRun], read: Callable[[WatchedRun], tuple[Sequence[float], Sequence[float]]]) -> Band:
    """Mean and range over the runs of a cell, which all measure at the same moments."""
    return Band.over_seeds(read(runs[0])[0], [read(run)[1] for run in runs])


def _smooth(values: Sequence[float]) -> Sequence[float]:
    """The running mean, of fewer values where there are fewer."""
    width = min(SMOOTHED, len(values))
    found: list[float] = np.convolve(values, np.full(width, 1 / width), "valid").tolist()
    return found


def _looks(names: Iterable[str]) -> dict[str, Style]:
    return {name: Style(COLORS[place], DASHES[place % 4], SYMBOLS[place % 4]) for place, name in enumerate(names)}


def _words(place: Place) -> tuple[str, ...]:
    return (place.task, place.optimizer, place.schedule, place.form, percent(place.budget))


def _cell_json(answer: Answer, place: Place) -> dict[str, Any]:
    """A cell, with what was measured on the way."""
    data: dict[str, Any] = place._asdict() | {
        "scores": [finite_or_none(score) for score in answer.scores[place]],
        "normalised": [finite_or_none(share) for share in answer.normalised(place)],
        "rate": answer.rates[place],
        "rate_at_limit": place in answer.at_limit,
    }
    if place in answer.watched:
        data["runs"] = [
            {
                "seed": run.seed,
                "progress": list(run.progress),
                "rate": list(run.rate),
                "full_gradient_norm": [finite_or_none(norm) for norm in run.full_gradient_norm],
                "last_weight_norm": finite_or_none(run.weight_norm[-1]),
                "correlation": finite_or_none(run.correlation),
            }
            for run in answer.watched[place]
        ]
    return data
