"""The report of a comparison: the paper's tables, honest statistics beside them, and the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glideslope.core.policy import Policy
from glideslope.core.spec import to_text
from glideslope.report import figures, published
from glideslope.report.coverage import Coverage, measure_coverage
from glideslope.report.document import Document
from glideslope.report.page import Command, Figure, Provenance, Section
from glideslope.report.ranking import NONE, ExpectedRanking, expected_ranking, mean_ranks, nominal_ranking
from glideslope.report.results import Cell, complete_part, group, percent
from glideslope.report.statistics import probability_of_improvement
from glideslope.report.study_tables import (
    detectable_table,
    difference_tables,
    expected_json,
    expected_table,
    improvement_table,
    mean_ranks_table,
    ranking_table,
    scores_table,
)
from glideslope.report.tables import Entry, Table, finite_or_none, how_many
from glideslope.studies.compare import PAPER_SCHEDULES, PATIENCES, Answer, Place, Question, Row
from glideslope.studies.tuning import Choice

BOOTSTRAP_SEED = 0
"""Resampling starts here, so that a report of the same trials is the same report."""

MERGE = {"step": ("step", "plateau")}
"""The paper's Table 1 counts decay on plateau as a step schedule, by the better score."""
MERGED = "Plateau is merged into step by the better score, as in the paper."
APART = "Where it never fell, its run is that of none, and counts there alone."

SHAPE_POINTS = 401
PAGE_TITLE = "Schedules compared"


def document(answer: Answer, provenance: Mapping[str, str], baseline: str = "linear") -> Document:
    """Everything the comparison found.

    Args:
        answer: may be of an unfinished study; tables then say what is missing.
        provenance: facts for the foot of the page.
        baseline: schedule that the others are compared with; the first one if it is not among them.
    """
    question = answer.question
    schedules = tuple(Row.parse(text).label for text in question.schedules)
    cells = group(answer.results)
    if not cells:
        return Document(PAGE_TITLE, "No cell is finished yet: run the same command again.", [], {})
    counted = tuple(name for name in schedules if name not in question.uncounted)
    complete = complete_part(cells, counted)
    directions = {setting.task.name: setting.metric.higher_is_better for setting in question.settings}
    metrics = {setting.task.name: _metric(setting.metric.name, setting.metric.unit) for setting in question.settings}
    scores = _score_tables(answer, cells, schedules, directions, metrics)
    by_label = {cell.label: cell for cell in cells}
    sections = [Section("Scores at the last step, on the test split", [*_budget_notes(question), *scores])]
    data: dict[str, Any] = {
        "question": question.to_json(),
        "cells": [
            _cell_json(place, choice, answer.policies[place], by_label[_label(place)].scores[place.schedule])
            for place, choice in answer.choices.items()
        ],
        "provenance": dict(provenance),
        "trials": answer.num_trials,
        "updates": answer.num_updates,
        "seconds_of_work": answer.seconds,
        "computed_by": list(answer.made_by),
        "scores": [table.to_json() for table in scores],
        "sensitivity": [table.to_json() for table in _sensitivity_tables(answer, metrics)],
        "not_finished": list(complete.omitted),
    }
    if complete.omitted:
        sections.append(Section("Not finished", [f"Left out of the counts: {line}." for line in complete.omitted]))
    if complete.cells:
        ranked, extra = _ranking_sections(complete.cells, counted, directions, metrics, question, baseline)
        sections += ranked
        data |= extra
    if beside := _beside_the_paper(cells, complete.cells, counted, directions, metrics):
        sections.append(Section("Beside the paper", [*beside]))
        data["beside_the_paper"] = [table.to_json() for table in beside]
    looks = figures.styles(schedules)
    sections += [
        Section(
            "Learning-rate sensitivity",
            [
                "Validation metric of the tuning seeds at every base rate tried. "
                "The rate is chosen here and reported elsewhere.",
                *_sensitivity_tables(answer, metrics),
                Figure(
                    lambda: figures.rate_sensitivity(
                        _sensitivity(answer), looks, "", _panel_directions(answer, directions)
                    ),
                    "One line per schedule; the ring is the chosen rate.",
                ),
            ],
        ),
        Section("Every seed", [Figure(lambda: figures.seed_strips(cells, looks, schedules, metrics, directions))]),
        Section(
            "The schedules",
            [Figure(lambda: _shapes(question, schedules, looks), "Multiplier of the base rate over the budget.")],
        ),
    ]
    lost = [setting.task.name for setting in question.settings if _nothing_finite(answer, setting.task.name)]
    if lost:
        lines = [
            f"{name}: every run diverged or failed, at every rate tried. Check the task: its loss, its data, its "
            "default rates."
            for name in lost
        ]
        sections.insert(0, Section("Nothing to compare", lines))
        data["nothing_finite"] = lost
    if answer.failed:
        lines = [f"{' / '.join(_words(place))}: {error.strip().splitlines()[-1]}" for place, error in answer.failed]
        sections.insert(0, Section("Trials that failed", lines))
        data["failed"] = lines
    facts = {
        **{name: fact for name, fact in provenance.items() if name != "versions"},
        "computed by": "; ".join(answer.made_by),
        "trials": f"{answer.num_trials} (tuning and reporting), {answer.num_updates:,} updates",
        "work": f"{answer.seconds:.0f} s of one core, training and evaluation",
        "n": question.seeds_in_words,
    }
    command = facts.pop("command", "")
    sections.append(Section("Provenance", [Provenance(facts), *([Command(command)] if command else [])]))
    return Document(PAGE_TITLE, _lead(answer), sections, data)


def _nothing_finite(answer: Answer, task: str) -> bool:
    scores = [result.score for result in answer.results if result.task == task]
    return bool(scores) and not any(map(math.isfinite, scores))


def _lead(answer: Answer) -> str:
    question = answer.question
    tasks = ", ".join(setting.task.name for setting in question.settings)
    at = question.tune_at
    reused = "" if at is None else f" at {percent(at)} of the maximum and reused at every budget"
    rows = [Row.parse(text) for text in question.schedules]
    if at is not None and any(len(row.candidates) > 1 for row in rows):
        reused += f" (plateau's patience too; {PATIENCES[0]} epochs where none can fall there)"
    return (
        f"{how_many(len(question.schedules), 'schedule')} × {how_many(len(question.optimizers), 'optimizer')} × "
        f"{how_many(len(question.budgets), 'budget')} on {tasks}: {answer.num_trials} trials, "
        f"{answer.num_updates:,} updates. "
        f"Rates tuned in multiples of 3 on {how_many(question.num_tuning_seeds, 'tuning seed')} by validation{reused}, "
        f"reported on {how_many(question.num_seeds, 'fresh seed')} and the test split at the last step."
        f"{question.caution}"
    )


def _budget_notes(question: Question) -> list[str]:
    rounding = {True: "are rounded up to whole epochs", False: "may be fractions of an epoch"}
    return [
        f"{setting.task.name}: 100 % is {setting.maximum_epochs} epochs of {setting.updates_per_epoch} updates; "
        f"budgets {rounding[setting.whole_epochs]}."
        for setting in question.settings
    ]


def _metric(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def _score_tables(
    answer: Answer,
    cells: Sequence[Cell],
    schedules: tuple[str, ...],
    directions: Mapping[str, bool],
    metrics: Mapping[str, str],
) -> list[Table]:
    tables = []
    for task, optimizer in dict.fromkeys((cell.task, cell.optimizer) for cell in cells):
        limits = [
            (place.schedule, percent(place.budget))
            for place, choice in answer.choices.items()
            if choice.at_limit and (place.task, place.optimizer) == (task, optimizer)
        ]
        mine = [cell for cell in cells if (cell.task, cell.optimizer) == (task, optimizer)]
        tables.append(
            scores_table(
                mine,
                schedules=schedules,
                metric=metrics[task],
                higher_is_better=directions[task],
                at_limit=limits,
            )
        )
    return tables


def _against(
    cells: Sequence[Cell], counted: tuple[str, ...], directions: Mapping[str, bool], baseline: str
) -> tuple[list[Table], dict[str, Any]]:
    """Every schedule beside the baseline: how often it is better, and by how much."""
    improvement = improvement_table(
        probability_of_improvement(
            cells, baseline, np.random.default_rng(BOOTSTRAP_SEED), schedules=counted, higher_is_better=directions
        )
    )
    differences = difference_tables(cells, counted, baseline)
    facts = {"improvement": improvement.to_json(), "differences": [table.to_json() for table in differences]}
    return [improvement, *differences], facts


def _ranking_sections(
    cells: Sequence[Cell],
    counted: tuple[str, ...],
    directions: Mapping[str, bool],
    metrics: Mapping[str, str],
    question: Question,
    baseline: str,
) -> tuple[list[Section], dict[str, Any]]:
    merge = {name: members for name, members in MERGE.items() if set(members) <= set(counted)}
    nominal = nominal_ranking(cells, higher_is_better=directions, merge=merge)
    ranks = mean_ranks_table(mean_ranks(cells, higher_is_better=directions, merge=merge))
    top = [ranking_table(nominal)]
    paired: list[Any] = [ranks]
    data: dict[str, Any] = {"ranking": nominal.to_json(), "mean_ranks": ranks.to_json()}
    if question.num_seeds < 2:
        paired.append("One reporting seed: nothing is tested, and no interval or expected Top-k is given.")
    else:
        expected, coverage = _expected(cells, directions, merge)
        top.append(expected_table(expected, coverage))
        data["expected"] = expected_json(expected, coverage)
        if len(counted) > 1:
            tables, facts = _against(cells, counted, directions, baseline if baseline in counted else counted[0])
            paired += tables
            data |= facts
        detectable = detectable_table(cells, schedules=counted, metrics=metrics)
        paired.append(detectable)
        data["detectable"] = detectable.to_json()
    outside = f" Outside the count: {', '.join(question.uncounted)}." if question.uncounted else ""
    merged = f" {MERGED}{f' {APART}' if NONE in counted else ''}" if merge else ""
    note = f"The form of the REX paper's Table 1.{merged}{outside}"
    return [Section("Who wins", [note, *top]), Section("By how much, and how sure", paired)], data


def _beside_the_paper(
    cells: Sequence[Cell],
    complete: Sequence[Cell],
    counted: tuple[str, ...],
    directions: Mapping[str, bool],
    metrics: Mapping[str, str],
) -> list[Table]:
    """Our cells that the paper has, too; and its Table 1, where all the schedules of it were compared."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    tables = [found.to_table(metrics[found.cell.task]) for found in published.agreements(cells, generator)]
    if complete and set(PAPER_SCHEDULES) <= set(counted):
        nominal = nominal_ranking(complete, higher_is_better=directions, merge=MERGE)
        expected = None
        if min(len(scores) for cell in complete for scores in cell.scores.values()) >= 2:
            expected = expected_ranking(complete, generator, higher_is_better=directions, merge=MERGE)
        tables.append(published.top_table(nominal, expected))
    return tables


def _expected(
    cells: Sequence[Cell], directions: Mapping[str, bool], merge: Mapping[str, Sequence[str]]
) -> tuple[ExpectedRanking, Coverage]:
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    expected = expected_ranking(cells, generator, higher_is_better=directions, merge=merge)
    return expected, measure_coverage(cells, generator, higher_is_better=directions, merge=merge)


def _tuned(answer: Answer) -> dict[Place, Choice]:
    """What tuning chose, by where it tuned: once for all budgets that share it."""
    at = answer.question.tune_at
    return {place if at is None else place._replace(budget=at): choice for place, choice in answer.choices.items()}


def _sensitivity(answer: Answer) -> dict[str, dict[str, figures.Sensitivity]]:
    """Label of a cell → schedule → what tuning tried; among several candidates the chosen policy's line."""
    panels: dict[str, dict[str, figures.Sensitivity]] = {}
    for place, choice in _tuned(answer).items():
        line = [(rate, score) for policy, rate, score in choice.tried if policy == choice.policy]
        rates, scores = zip(*line, strict=True)
        panels.setdefault(_label(place), {})[place.schedule] = figures.Sensitivity(rates, scores)
    return panels


def _sensitivity_tables(answer: Answer, metrics: Mapping[str, str]) -> list[Table]:
    """One table per task and optimizer, at the largest budget tuned at: schedule × rate."""
    tuned = _tuned(answer)
    largest = max((place.budget for place in tuned), default=math.nan)
    tables = []
    for task, optimizer in dict.fromkeys((place.task, place.optimizer) for place in tuned):
        rows: dict[str, dict[float, float]] = {}
        for place, choice in tuned.items():
            if place[:3] == (task, optimizer, largest):
                rows[place.schedule] = {r: score for policy, r, score in choice.tried if policy == choice.policy}
        rates = sorted({rate for row in rows.values() for rate in row})
        body: tuple[tuple[Entry, ...], ...] = tuple(
            (name, *(row.get(rate, math.nan) for rate in rates)) for name, row in rows.items()
        )
        columns = ("schedule", *(f"{rate:.3g}" for rate in rates))
        note = f"Validation {metrics[task]}, by base rate; empty: not tried, or diverged."
        tables.append(Table(f"{task}, {optimizer}, {percent(largest)}", columns, body, note))
    return tables


def _panel_directions(answer: Answer, directions: Mapping[str, bool]) -> dict[str, bool]:
    return {_label(place): directions[place.task] for place in _tuned(answer)}


def _words(place: Place) -> tuple[str, str, str, str]:
    return place.task, place.optimizer, percent(place.budget), place.schedule


def _label(place: Place) -> str:
    return " / ".join(_words(place)[:3])


def _shapes(question: Question, schedules: tuple[str, ...], looks: Mapping[str, figures.Style]) -> Any:
    progress = np.linspace(0.0, 1.0, SHAPE_POINTS)
    multipliers: dict[str, figures.Curve] = {}
    momenta: dict[str, figures.Curve] = {}
    for label in schedules:
        plan = question.settings[0].fitted(Row.parse(label).candidates[0], max(question.budgets)).plan
        if "lr" in plan:
            multipliers[label] = figures.Curve(progress, plan["lr"].value(progress, base=1.0))
        if "momentum" in plan:
            momenta[label] = figures.Curve(progress, plan["momentum"].value(progress, base=math.nan))
    return figures.schedule_shapes(multipliers, looks, momenta or None)


def _cell_json(place: Place, choice: Choice, policy: Policy, scores: Mapping[int | None, float]) -> dict[str, Any]:
    return {
        "task": place.task,
        "optimizer": place.optimizer,
        "budget": place.budget,
        "schedule": place.schedule,
        "policy": to_text(policy),
        "rate": choice.rate,
        "rate_at_limit": choice.at_limit,
        "tried": [[to_text(policy), rate, finite_or_none(score)] for policy, rate, score in choice.tried],
        "scores": {str(seed): finite_or_none(score) for seed, score in scores.items()},
    }
