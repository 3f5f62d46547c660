"""The report of the sensitivity study: the REX paper's Figure 3, a table of it, and what a wrong rate costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glideslope.report import figures
from glideslope.report.document import Document
from glideslope.report.page import Command, Figure, Provenance, Section
from glideslope.report.tables import EMPTY, Entry, Table, Value, finite_or_none
from glideslope.studies.compare import Row, percent
from glideslope.studies.sensitivity import Answer, Place
from glideslope.studies.setting import Setting
from glideslope.studies.tuning import FACTOR

TITLE = "Sensitivity to the base rate"
TOLERANCE = 0.1
"""A rate is good enough where the mean is at most this share worse than the best of the whole table."""


def document(answer: Answer, provenance: Mapping[str, str]) -> Document:
    """A table, a summary and a panel of the figure per task, optimizer and budget."""
    question = answer.question
    labels = tuple(Row.parse(text).label for text in question.schedules)
    tables: list[Table] = []
    summaries: list[Table] = []
    missed: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
    panels: dict[str, dict[str, figures.Sensitivity]] = {}
    directions: dict[str, bool] = {}
    for setting, optimizer, budget in itertools.product(question.settings, question.optimizers, question.budgets):
        title = f"{setting.task.name} / {optimizer} / {percent(budget)}"
        rates = question.rates(setting, optimizer)
        places = {
            label: [Place(setting.task.name, optimizer, budget, label, rate) for rate in rates] for label in labels
        }
        grid = {label: [answer.scores.get(place, ()) for place in row] for label, row in places.items()}
        tables.append(_scores(title, setting, rates, grid, question.num_seeds))
        losses = _losses(setting, grid)
        summaries.append(_summary(title, setting, rates, losses))
        for label, row in losses.items():
            missed[label] += _missed(row)
        panels[title] = {
            label: figures.Sensitivity(rates, list(map(_mean, row)), list(map(_std, row)))
            for label, row in grid.items()
        }
        directions[title] = setting.metric.higher_is_better
    overall = _overall(missed)
    looks = figures.styles(labels)
    sections = [
        Section(
            "Scores by base rate",
            [
                Figure(
                    lambda: figures.rate_sensitivity(panels, looks, "", directions),
                    "Mean over seeds on the test split, with standard deviations. One line per schedule; the ring is "
                    "the best rate; a gap is a rate at which a seed diverged.",
                )
            ],
        ),
        Section("What a wrong rate costs", [overall, *summaries]),
        Section("Scores at every rate", [*tables]),
    ]
    failed = [f"{' / '.join(map(str, place))}: {error.strip().splitlines()[-1]}" for place, error in answer.failed]
    if failed:
        sections.insert(0, Section("Trials that failed", [*failed]))
    facts = {**provenance, "n": f"{question.num_seeds} seeds of every rate"}
    command = facts.pop("command", "")
    sections.append(Section("Provenance", [Provenance(facts), *([Command(command)] if command else [])]))
    lead = (
        f"Every schedule at {2 * question.steps + 1} base rates, a factor of {FACTOR:g} apart, {question.num_seeds} "
        "seed(s) each, on the test split at the last step. Nothing is tuned, so the best rate of a row is chosen by "
        f"what is reported here: it says how far rates reach, not which schedule wins.{question.caution}"
    )
    data: dict[str, Any] = {
        "question": question.to_json(),
        "cells": [
            place._asdict() | {"scores": [finite_or_none(score) for score in scores]}
            for place, scores in answer.scores.items()
        ],
        "summary": [table.to_json() for table in (overall, *summaries)],
        "failed": failed,
        "provenance": dict(provenance),
    }
    return Document(TITLE, lead, sections, data)


Grid = Mapping[str, Sequence[tuple[float, ...]]]
"""Schedule → for each rate the scores of the seeds; () where they are not known yet."""


def _scores(title: str, setting: Setting, rates: Sequence[float], grid: Grid, num_seeds: int) -> Table:
    rows = tuple((label, *(_entry(scores) for scores in row)) for label, row in grid.items())
    note = f"{_metric(setting)}; mean ± std over {num_seeds} seed(s); ‡: of those that did not diverge."
    return Table(title, ("schedule", *(f"{rate:.3g}" for rate in rates)), rows, note)


def _losses(setting: Setting, grid: Grid) -> dict[str, NDArray[np.float64]]:
    """Schedule → mean of each rate, (num_rates,), lower is better; NaN where a seed diverged or nothing is known."""
    sign = -1.0 if setting.metric.higher_is_better else 1.0
    return {label: np.array([sign * _mean(scores) for scores in row]) for label, row in grid.items()}


def _missed(losses: NDArray[np.float64]) -> list[tuple[float, float]]:
    """How much worse than at the best rate it is a step below and a step above, in percent; inf where a seed diverged.

    Nothing where the best rate is not known, or lies at an end of the grid.
    """
    finite = np.isfinite(losses)
    best = int(np.where(finite, losses, np.inf).argmin())
    if not finite.any() or best in (0, len(losses) - 1):
        return []
    below, above = (
        100 * (float(losses[index]) - float(losses[best])) / abs(float(losses[best])) if finite[index] else math.inf
        for index in (best - 1, best + 1)
    )
    return [(below, above)]


def _overall(missed: Mapping[str, Sequence[tuple[float, float]]]) -> Table:
    """Medians over all tasks, optimizers and budgets."""
    rows: list[tuple[Entry, ...]] = []
    for label, pairs in missed.items():
        sides = [_percent(float(np.median(side))) for side in zip(*pairs, strict=True)] or [EMPTY, EMPTY]
        rows.append((label, *sides, len(pairs)))
    note = (
        "By how much the mean is worse a step away from the row's own best rate; medians over the tasks, optimizers "
        "and budgets in which that rate is known and has neighbours."
    )
    columns = ("schedule", f"rate / {FACTOR:g}", f"rate × {FACTOR:g}", "cells")
    return Table("All tasks, optimizers and budgets", columns, tuple(rows), note)


def _percent(value: float) -> str:
    return f"{value:+.1f} %" if math.isfinite(value) else "diverged"


def _summary(title: str, setting: Setting, rates: Sequence[float], losses: Mapping[str, NDArray[np.float64]]) -> Table:
    """Per schedule the best rate, what it costs to miss it by a factor, and which rates are good enough."""
    known = [loss[np.isfinite(loss)].min() for loss in losses.values() if np.isfinite(loss).any()]
    limit = min(known) + TOLERANCE * abs(min(known)) if known else -math.inf
    sign = -1.0 if setting.metric.higher_is_better else 1.0
    rows = tuple((label, *_reach(sign, loss, rates, limit)) for label, loss in losses.items())
    note = (
        f"{_metric(setting)}. Good rates: the mean is within {TOLERANCE:.0%} of the best of the table, around the "
        "row's best; open where the grid ends. diverged: at least one seed did."
    )
    columns = ("schedule", "best rate", "there", f"rate / {FACTOR:g}", f"rate × {FACTOR:g}", "good rates", "factor")
    return Table(title, columns, rows, note)


def _reach(sign: float, losses: NDArray[np.float64], rates: Sequence[float], limit: float) -> tuple[Entry, ...]:
    finite = np.isfinite(losses)
    if not finite.any():
        return EMPTY, Value(math.nan), EMPTY, EMPTY, EMPTY, EMPTY
    best = int(np.where(finite, losses, np.inf).argmin())
    beside = [
        Value(float(sign * losses[index])) if 0 <= index < len(rates) else EMPTY for index in (best - 1, best + 1)
    ]
    low = high = best
    if losses[best] > limit:
        return f"{rates[best]:.3g}", Value(float(sign * losses[best])), *beside, "none", EMPTY
    while low > 0 and losses[low - 1] <= limit:
        low -= 1
    while high < len(rates) - 1 and losses[high + 1] <= limit:
        high += 1
    ends = f"{'≤ ' if low == 0 else ''}{rates[low]:.3g} to {'≥ ' if high == len(rates) - 1 else ''}{rates[high]:.3g}"
    factor = f"{'≥ ' if low == 0 or high == len(rates) - 1 else ''}{rates[high] / rates[low]:.3g}"
    return f"{rates[best]:.3g}", Value(float(sign * losses[best])), *beside, ends, factor


def _metric(setting: Setting) -> str:
    metric = setting.metric
    direction = "higher" if metric.higher_is_better else "lower"
    return f"{metric.name}{f', {metric.unit}' if metric.unit else ''}, {direction} is better"


def _mean(scores: Sequence[float]) -> float:
    """NaN where a seed diverged, or nothing is known."""
    return float(np.mean(scores)) if scores and all(map(math.isfinite, scores)) else math.nan


def _std(scores: Sequence[float]) -> float:
    return float(np.std(scores, ddof=1)) if len(scores) > 1 and all(map(math.isfinite, scores)) else math.nan


def _entry(scores: Sequence[float]) -> Entry:
    finite = [score for score in scores if math.isfinite(score)]
    if not scores:
        return EMPTY
    if not finite:
        return Value(math.nan)
    return Value(float(np.mean(finite)), _std(finite), flags=("diverged",) if len(finite) < len(scores) else ())
