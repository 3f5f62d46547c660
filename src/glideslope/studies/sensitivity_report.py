"""The report of the sensitivity study: the REX paper's Figure 3, what a wrong rate costs, and every score."""

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
from glideslope.report.results import percent
from glideslope.report.tables import EMPTY, Entry, Table, Value, finite_or_none, how_many
from glideslope.studies.compare import PATIENCES, Row
from glideslope.studies.sensitivity import Answer, Place
from glideslope.studies.setting import Setting
from glideslope.studies.tuning import FACTOR

TITLE = "Sensitivity to the base rate"
TOLERANCE = 0.1
"""A rate is good enough where the mean is at most this share worse than the best of the whole table."""

DIVERGED = 1e9
"""Stands for infinity, in percent, where quartiles interpolate."""

Grid = Mapping[str, Sequence[tuple[float, ...]]]
"""Schedule → for each rate the scores of the seeds, NaN where one diverged; () where they are not known yet."""


def document(answer: Answer, provenance: Mapping[str, str]) -> Document:
    """The figure, and per task, optimizer and budget a summary and a table of all scores.

    Args:
        answer: may be of an unfinished study; what is missing stays empty.
        provenance: facts for the foot of the page.
    """
    question = answer.question
    rows = [Row.parse(text) for text in question.schedules]
    labels = tuple(row.label for row in rows)
    tables: list[Table] = []
    summaries: list[Table] = []
    missed: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
    panels: dict[str, dict[str, figures.Sensitivity]] = {}
    directions: dict[str, bool] = {}
    unfinished = 0
    for setting, optimizer, budget in itertools.product(question.settings, question.optimizers, question.budgets):
        title = f"{setting.task.name} / {optimizer} / {percent(budget)}"
        rates = question.rates(setting, optimizer)
        cell = setting.task.name, optimizer, budget
        grid = {label: [answer.scores.get(Place(*cell, label, rate), ()) for rate in rates] for label in labels}
        unfinished += sum(not scores for row in grid.values() for scores in row)
        sign = -1.0 if setting.metric.higher_is_better else 1.0
        losses = {label: np.array([_loss(sign, scores) for scores in row]) for label, row in grid.items()}
        tables.append(_scores(title, setting, rates, grid, question.num_seeds))
        summaries.append(_summary(title, setting, rates, losses))
        for label, row in losses.items():
            missed[label] += _missed(row)
        panels[title] = {
            label: figures.Sensitivity(rates, [_mean(seeds) for seeds in row], [_std(seeds) for seeds in row])
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
                    "the best rate; a gap is a rate at which a seed diverged, or that is not run yet.",
                )
            ],
        ),
        Section("What a wrong rate costs", [overall, *summaries]),
        Section("Scores at every rate", [*tables]),
    ]
    whole = len(answer.scores) + unfinished
    if unfinished:
        line = f"{unfinished} of {whole} pairs of schedule and rate are not run yet: run the same command again."
        sections.insert(0, Section("Not finished", [line]))
    failed = [f"{' / '.join(map(str, place))}: {error.strip().splitlines()[-1]}" for place, error in answer.failed]
    if failed:
        sections.insert(0, Section("Trials that failed", [*failed]))
    facts = {**provenance, "n": f"{how_many(question.num_seeds, 'seed')} of every rate"}
    command = facts.pop("command", "")
    sections.append(Section("Provenance", [Provenance(facts), *([Command(command)] if command else [])]))
    lead = (
        f"Every schedule at {2 * question.reach + 1} base rates, a factor of {FACTOR:g} apart, "
        f"{how_many(question.num_seeds, 'seed')} each, on the test split at the last step. Nothing is tuned, so the "
        "best rate of a row is chosen by what is reported here: it says how far rates reach, not which schedule wins."
        f"{question.caution}"
    )
    lead += "".join(f' "{row.label}" waits {PATIENCES[0]} epochs.' for row in rows if len(row.candidates) > 1)
    data: dict[str, Any] = {
        "question": question.to_json(),
        "cells": [
            place._asdict() | {"scores": [finite_or_none(score) for score in scores]}
            for place, scores in answer.scores.items()
        ],
        "summary": [table.to_json() for table in (overall, *summaries)],
        "unfinished": unfinished,
        "failed": failed,
        "provenance": dict(provenance),
    }
    return Document(TITLE, lead, sections, data)


def _scores(title: str, setting: Setting, rates: Sequence[float], grid: Grid, num_seeds: int) -> Table:
    rows = tuple(
        (label, *(Value.over_seeds(scores) if scores else EMPTY for scores in row)) for label, row in grid.items()
    )
    note = f"{_metric(setting)}; mean ± std over {how_many(num_seeds, 'seed')}; ‡: of those that did not diverge."
    return Table(title, ("schedule", *(f"{rate:.3g}" for rate in rates)), rows, note)


def _missed(losses: NDArray[np.float64]) -> list[tuple[float, float]]:
    """How much worse than at the best rate it is a step below and a step above, in percent; inf where a seed diverged.

    Nothing where the best rate or a neighbour is not known, where the best lies at an end of the grid, or is 0.
    """
    best = _best(losses)
    if best is None or not 0 < best < len(losses) - 1 or losses[best] == 0:
        return []
    below, above = (losses[[best - 1, best + 1]] - losses[best]) / abs(losses[best]) * 100
    return [] if math.isnan(below + above) else [(float(below), float(above))]


def _overall(missed: Mapping[str, Sequence[tuple[float, float]]]) -> Table:
    """Quartiles over all tasks, optimizers and budgets."""
    rows: list[tuple[Entry, ...]] = []
    for label, pairs in missed.items():
        sides = [_quartiles(side) for side in zip(*pairs, strict=True)] or [EMPTY, EMPTY]
        rows.append((label, *sides, len(pairs)))
    note = (
        "By how much the mean is worse a step away from the row's own best rate: median and quartiles over the tasks, "
        "optimizers and budgets in which that rate is known and has neighbours."
    )
    columns = ("schedule", f"rate / {FACTOR:g}", f"rate × {FACTOR:g}", "cells")
    return Table("All tasks, optimizers and budgets", columns, tuple(rows), note)


def _quartiles(shares: Sequence[float]) -> str:
    low, middle, high = np.quantile(np.minimum(shares, DIVERGED), (0.25, 0.5, 0.75))
    return f"{_percent(middle)} ({_percent(low)} to {_percent(high)})"


def _percent(value: float) -> str:
    return f"{value:+.1f} %" if value < 0.1 * DIVERGED else "diverged"


def _summary(title: str, setting: Setting, rates: Sequence[float], losses: Mapping[str, NDArray[np.float64]]) -> Table:
    """Per schedule the best rate, what it costs to miss it by a factor, and which rates are good enough."""
    best = min((loss for row in losses.values() for loss in row if math.isfinite(loss)), default=math.inf)
    limit = best + TOLERANCE * abs(best)
    sign = -1.0 if setting.metric.higher_is_better else 1.0
    rows = tuple((label, *_reach(sign, row, rates, limit)) for label, row in losses.items())
    note = (
        f"{_metric(setting)}. Good rates: the mean is within {TOLERANCE:.0%} of the best of the table, around the "
        "row's best; open where the grid ends. diverged: at least one seed did."
    )
    columns = ("schedule", "best rate", "there", f"rate / {FACTOR:g}", f"rate × {FACTOR:g}", "good rates", "factor")
    return Table(title, columns, rows, note)


def _reach(sign: float, losses: NDArray[np.float64], rates: Sequence[float], limit: float) -> tuple[Entry, ...]:
    best = _best(losses)
    if best is None:
        return EMPTY, _shown(math.nan if np.isnan(losses).all() else math.inf), EMPTY, EMPTY, EMPTY, EMPTY
    beside = [_shown(sign * losses[at]) if 0 <= at < len(rates) else EMPTY for at in (best - 1, best + 1)]
    found: tuple[Entry, ...] = f"{rates[best]:.3g}", _shown(sign * losses[best]), *beside
    if losses[best] > limit:
        return *found, "none", EMPTY
    low = high = best
    while low > 0 and losses[low - 1] <= limit:
        low -= 1
    while high < len(rates) - 1 and losses[high + 1] <= limit:
        high += 1
    below, above = "≤ " if low == 0 else "", "≥ " if high == len(rates) - 1 else ""
    factor = f"{'≥ ' if below or above else ''}{rates[high] / rates[low]:.3g}"
    return *found, f"{below}{rates[low]:.3g} to {above}{rates[high]:.3g}", factor


def _best(losses: NDArray[np.float64]) -> int | None:
    finite = np.isfinite(losses)
    return int(np.where(finite, losses, np.inf).argmin()) if finite.any() else None


def _metric(setting: Setting) -> str:
    metric = setting.metric
    direction = "higher" if metric.higher_is_better else "lower"
    return f"{metric.name}{f', {metric.unit}' if metric.unit else ''}, {direction} is better"


def _loss(sign: float, scores: Sequence[float]) -> float:
    """Mean over seeds, lower is better: inf where one diverged, NaN where nothing is known."""
    if not scores:
        return math.nan
    mean = _mean(scores)
    return sign * mean if math.isfinite(mean) else math.inf


def _shown(value: float) -> Entry:
    """A score; EMPTY where it is not known, "diverged" where it is infinite."""
    return EMPTY if math.isnan(value) else Value(value if math.isfinite(value) else math.nan)


def _mean(scores: Sequence[float]) -> float:
    """NaN where a seed diverged, or nothing is known."""
    return float(np.mean(scores)) if scores else math.nan


def _std(scores: Sequence[float]) -> float:
    """NaN where a seed diverged, or there are less than two."""
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan
