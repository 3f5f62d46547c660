"""Tables of controllers beside schedules: scores from every initial rate, ranks, decisions, failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glideslope.report.ranking import cell_ranks
from glideslope.report.statistics import TiedSet, tied_with_best
from glideslope.report.tables import EMPTY, FLAGS, Entry, Table, Value, finite_or_none, how_many

Array = NDArray[np.float64]

COUNTINGS = ("last", "best")
"""The test metric at the last step, on a split that nothing was decided by; the validation metric of the best epoch, on
the split that controllers see, which is how the source counts."""

ACTIONS = ("raise", "keep", "lower")
THIRDS = ("first third", "second third", "last third")

HUGE = 1e300
"""Stands for infinity where numbers are averaged: ∞ − ∞ would be NaN, this is 0."""


@dataclass(frozen=True)
class Scores:
    """Every run of one task, counted in one way. Runs are paired by seed.

    Args:
        task: name.
        metric: name and unit, such as "error, %".
        higher_is_better: direction of the metric.
        rates: factor → initial rate, by increasing factor.
        losses: (system, factor) → (num_seeds,): the metric, its sign turned where higher is better, so that lower is
            better; +inf where a run has no number. A system that chooses its rates itself has the same at every
            factor. What is not finished yet is absent.
    """

    task: str
    metric: str
    higher_is_better: bool
    rates: Mapping[float, float]
    losses: Mapping[tuple[str, float], Array]

    @property
    def extremes(self) -> tuple[float, ...]:
        """The lowest factor and the highest."""
        return tuple(dict.fromkeys((min(self.rates), max(self.rates))))

    @property
    def good(self) -> float:
        """The factor nearest to 1."""
        return min(self.rates, key=lambda factor: abs(math.log(factor)))

    def median(self, system: str, factor: float) -> float:
        """Of the losses; infinite where half of the runs or more have no number."""
        return median(self.losses[system, factor])

    def metric_of(self, loss: float) -> float:
        """The metric of a loss: the sign is turned back."""
        return -loss if self.higher_is_better else loss

    def shown(self, loss: float) -> str:
        """The metric in words."""
        return f"{self.metric_of(loss):.4g}" if math.isfinite(loss) else "diverged"

    def column(self, factor: float) -> str:
        """What a column is called: the factor and the rate itself."""
        return f"{factor:g}× = {self.rates[factor]:.3g}"

    def tied(self, factor: float) -> tuple[tuple[str, ...], TiedSet] | None:
        """Who is there at one rate, and which of them are tied with the best; None if nobody is."""
        systems = tuple(system for system, at in self.losses if at == factor)
        if not systems:
            return None
        return systems, tied_with_best(np.stack([self.losses[system, factor] for system in systems]))


def median(values: Array) -> float:
    """The median of numbers of which some are infinite; halfway between −∞ and ∞ is 0.

    >>> median(np.array([1.0, 2.0, math.inf])), median(np.array([1.0, math.inf]))
    (2.0, inf)
    """
    return unbounded(float(np.median(np.clip(values, -HUGE, HUGE))))


def unbounded(value: float) -> float:
    """A number that was made of `HUGE` ones, as the infinity that it stands for."""
    return math.copysign(math.inf, value) if abs(value) > HUGE / 1e3 else value


def rate_table(last: Scores, best: Scores, systems: Sequence[str]) -> Table:
    """One task: a row per system, two columns per initial rate, one for each way of counting; medians over the runs.

    Args:
        last, best: the same runs, counted in both ways.
        systems: rows, in order.
    """
    columns = ["system"]
    entries: dict[str, list[Entry]] = {system: [] for system in systems}
    ties = []
    for factor in last.rates:
        for counting, scores in zip(COUNTINGS, (last, best), strict=True):
            columns.append(f"{scores.column(factor)}, {counting}")
            tie = scores.tied(factor)
            ties += [tie[1]] if tie else []
            for system in systems:
                entries[system].append(_entry(scores, system, factor, tie))
    lost = {system: _lost(last, system) for system in systems}
    rows = tuple((system, *entries[system], lost[system]) for system in systems)
    return Table(
        f"{last.task}: {last.metric}", (*columns, "without a number"), rows, _rate_note(last, best, rows, ties)
    )


def _entry(scores: Scores, system: str, factor: float, tie: tuple[tuple[str, ...], TiedSet] | None) -> Entry:
    if tie is None or system not in tie[0]:
        return EMPTY
    losses, place, (_, found) = scores.losses[system, factor], tie[0].index(system), tie
    low, high = (unbounded(float(q)) for q in np.quantile(np.clip(losses, -HUGE, HUGE), (0.25, 0.75)))
    all_finite = bool(np.isfinite(losses).all())
    flags = {
        "noisy": found.tested and all_finite and not found.pooled[place],
        "diverged": not all_finite and math.isfinite(median(losses)),
    }
    return Value(
        mean=scores.metric_of(median(losses)),
        std=(high - low) / 2 if losses.size > 1 and math.isfinite(high - low) else math.nan,
        tied=found.tied[place],
        flags=tuple(flag for flag, raised in flags.items() if raised),
    )


def _lost(scores: Scores, system: str) -> str:
    """How many runs have no number, by initial rate."""
    counts = [int(np.isinf(scores.losses[system, f]).sum()) for f in scores.rates if (system, f) in scores.losses]
    return " ".join(map(str, counts)) or EMPTY


def _rate_note(last: Scores, best: Scores, rows: Sequence[Sequence[Entry]], ties: Sequence[TiedSet]) -> str:
    flags = {flag for row in rows for entry in row if isinstance(entry, Value) for flag in entry.flags}
    sizes = {losses.size for losses in (*last.losses.values(), *best.losses.values())}
    said = [
        f"Median ± half the distance between the quartiles of {how_many(max(sizes, default=0), 'run')}; "
        f"{'higher' if last.higher_is_better else 'lower'} is better. Initial rates as multiples of the task's "
        "default. last: test metric at the last step. best: validation metric of the best epoch, on the split that "
        "controllers see; of a run that diverged, up to there. Systems that choose their rates themselves have one "
        "number, shown at every rate. Without a number: runs that diverged or failed, by initial rate.",
        "* tied with the best of its column: means paired by seed, t-test, Holm, 5 %.",
    ]
    said += sorted({f"Not tested: {tie.reason}." for tie in ties if not tie.tested})
    if "diverged" in flags:
        said.append("‡ some runs diverged; they count as worse than all others, and are never tied.")
    if "noisy" in flags:
        said.append(f"{FLAGS['noisy'][0]} {FLAGS['noisy'][1]}.")
    return " ".join(said)


def scores_json(last: Scores, best: Scores, systems: Sequence[str]) -> list[dict[str, Any]]:
    """What `rate_table` shows as plain data for strict JSON."""
    found = []
    for counting, scores in zip(COUNTINGS, (last, best), strict=True):
        for factor in scores.rates:
            tie = scores.tied(factor)
            for system in systems:
                if tie is None or system not in tie[0]:
                    continue
                losses = scores.losses[system, factor]
                found.append(
                    {
                        "task": scores.task,
                        "system": system,
                        "factor": factor,
                        "rate": scores.rates[factor],
                        "counting": counting,
                        "median": finite_or_none(scores.metric_of(median(losses))),
                        "tied": tie[1].tied[tie[0].index(system)],
                        "num_runs": int(losses.size),
                        "num_without_number": int(np.isinf(losses).sum()),
                    }
                )
    return found


@dataclass(frozen=True)
class Ranks:
    """Mean rank of every system, 1 is best, by the medians of cells: a cell is a task at an initial rate.

    Args:
        systems: num_systems of them.
        columns: num_columns titles of groups of cells.
        means: counting → (num_systems, num_columns); NaN where a group has no cell.
        num_cells: (num_columns,) cells in which every system has all its runs; others are left out.
    """

    systems: tuple[str, ...]
    columns: tuple[str, ...]
    means: Mapping[str, Array]
    num_cells: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for strict JSON."""
        return {
            "cells": dict(zip(self.columns, self.num_cells, strict=True)),
            **{
                counting: {
                    system: dict(zip(self.columns, map(finite_or_none, row), strict=True))
                    for system, row in zip(self.systems, means.tolist(), strict=True)
                }
                for counting, means in self.means.items()
            },
        }


def ranks(tasks: Sequence[tuple[Scores, Scores]], systems: Sequence[str]) -> Ranks:
    """From the lowest rate, the one in the middle, the highest, and over all rates.

    Args:
        tasks: (last, best) of each.
        systems: what is ranked.
    """
    first = tasks[0][0]
    chosen = sorted({*first.extremes, first.good})
    cells = [
        (task, factor)
        for task in range(len(tasks))
        for factor in first.rates
        if all((system, factor) in scores.losses for system in systems for scores in tasks[task])
    ]
    groups = {f"{factor:g}×": [at == factor for _, at in cells] for factor in chosen}
    groups["all rates"] = [True] * len(cells)
    means = {}
    for index, counting in enumerate(COUNTINGS):
        medians = [[tasks[task][index].median(system, factor) for system in systems] for task, factor in cells]
        by_cell = cell_ranks(np.array(medians).reshape(len(cells), len(systems)))
        means[counting] = np.array(
            [by_cell[mask].mean(axis=0) if any(mask) else np.full(len(systems), np.nan) for mask in groups.values()]
        ).T
    return Ranks(tuple(systems), tuple(groups), means, tuple(sum(mask) for mask in groups.values()))


def rank_table(found: Ranks) -> Table:
    """A row per system, two columns per group of cells."""
    columns = [f"{title}, {counting}" for title in found.columns for counting in COUNTINGS]
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (system, *(float(found.means[c][row, k]) for k in range(len(found.columns)) for c in COUNTINGS))
        for row, system in enumerate(found.systems)
    )
    counts = ", ".join(f"{title}: {count}" for title, count in zip(found.columns, found.num_cells, strict=True))
    return Table(
        "Mean rank over tasks",
        ("system", *columns),
        rows,
        f"1 is best of {len(found.systems)}; by medians over the runs, ties share their ranks. Tasks and rates that "
        f"count, because every system has finished there: {counts}.",
    )


@dataclass(frozen=True)
class Decisions:
    """What a controller decided, from one initial rate.

    Args:
        controller: its name.
        factor: initial rate as a multiple of the task's default.
        planned: decisions of a run that gets to its end.
        actions: run by run, "raise", "keep" or "lower" for every decision, in order; fewer where a run diverged.
    """

    controller: str
    factor: float
    planned: int
    actions: tuple[tuple[str, ...], ...]

    def counts(self, num_parts: int) -> NDArray[np.int_]:
        """How often each of `ACTIONS` was decided in each part of the run: (num_parts, 3).

        >>> Decisions("arc", 1.0, 4, (("raise", "keep", "keep", "lower"), ("raise", "raise"))).counts(2).tolist()
        [[3, 1, 0], [0, 1, 1]]
        """
        found = np.zeros((num_parts, len(ACTIONS)), dtype=np.int_)
        for run in self.actions:
            for index, action in enumerate(run):
                found[num_parts * index // self.planned, ACTIONS.index(action)] += 1
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data: counts by decision."""
        return {
            "controller": self.controller,
            "factor": self.factor,
            "actions": list(ACTIONS),
            "counts_by_decision": self.counts(self.planned).tolist(),
        }


def decision_table(lines: Sequence[Decisions]) -> Table:
    """How often rates were raised, kept and lowered in each third of the course: a row per controller and rate."""
    rows = []
    for line in lines:
        parts = line.counts(len(THIRDS))
        rows.append(
            (
                line.controller,
                f"{line.factor:g}×",
                *map(_shares, parts),
                _shares(parts.sum(axis=0)),
                str(int(parts.sum())),
            )
        )
    return Table(
        "Decisions over the course of training",
        ("controller", "from", *THIRDS, "all", "decisions"),
        tuple(rows),
        "Raised / kept / lowered, in % of the decisions of all tasks and seeds. The last decision of a run comes after "
        "its last update.",
    )


def _shares(counts: NDArray[np.int_]) -> str:
    return " / ".join(f"{100 * count / counts.sum():.0f}" for count in counts) if counts.sum() else EMPTY


@dataclass(frozen=True)
class Failure:
    """One run that went wrong.

    Args:
        system, task: names.
        factor: initial rate as a multiple of the task's default; None where the system chooses its rates itself.
        seed: of the run.
        reasons: what went wrong, in words.
        severity: infinite where it diverged; else by how much it is worse, in the task's yardstick.
        end: test metric at the last step; NaN where there is none.
        best_epoch: counted from 1; 0 if there is none.
        best_loss, last_epoch, last_loss: of validation.
        first_rate, last_rate: NaN where they are not known.
    """

    system: str
    task: str
    factor: float | None
    seed: int
    reasons: tuple[str, ...]
    severity: float
    end: float
    best_epoch: int
    best_loss: float
    last_epoch: int
    last_loss: float
    first_rate: float
    last_rate: float

    @property
    def label(self) -> str:
        """Which run, in three lines."""
        start = "own rate" if self.factor is None else f"from {self.factor:g}×"
        return f"{self.system}\n{self.task}\n{start}, seed {self.seed}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for strict JSON."""
        numbers = ("severity", "end", "best_loss", "last_loss", "first_rate", "last_rate")
        return {
            "system": self.system,
            "task": self.task,
            "factor": self.factor,
            "seed": self.seed,
            "reasons": list(self.reasons),
            "best_epoch": self.best_epoch,
            "last_epoch": self.last_epoch,
            **{name: finite_or_none(getattr(self, name)) for name in numbers},
        }


def worst_first(failures: Sequence[Failure], systems: Sequence[str]) -> tuple[Failure, ...]:
    """By system in the given order, and in each the gravest first."""
    return tuple(sorted(failures, key=lambda one: (systems.index(one.system), -one.severity)))


def failure_table(failures: Sequence[Failure], most: int, note: str) -> Table:
    """Runs that went wrong, one by one, but of each system the first `most` at most; the note counts the rest.

    Args:
        failures: in order.
        most: rows per system.
        note: what counts as going wrong.
    """
    by_system: dict[str, list[Failure]] = {}
    for one in failures:
        by_system.setdefault(one.system, []).append(one)
    rows: list[tuple[Entry, ...]] = []
    for found in by_system.values():
        rows += [_failure_row(one) for one in found[:most]]
    left = [f"{len(found) - most} of {name}" for name, found in by_system.items() if len(found) > most]
    counts = ", ".join(f"{name} {len(found)}" for name, found in by_system.items()) or "none"
    rest = f" Not shown, less grave: {', '.join(left)}." if left else ""
    return Table(
        "One by one",
        ("system", "task", "from", "seed", "best epoch", "last epoch", "first rate", "last rate", "what went wrong"),
        tuple(rows),
        f"{note} Epochs with their validation loss. All in all: {counts}.{rest}",
    )


def _failure_row(one: Failure) -> tuple[Entry, ...]:
    return (
        one.system,
        one.task,
        "own rate" if one.factor is None else f"{one.factor:g}×",
        str(one.seed),
        f"{one.best_epoch}: {one.best_loss:.3g}" if one.best_epoch else EMPTY,
        f"{one.last_epoch}: {one.last_loss:.3g}" if one.last_epoch else EMPTY,
        *(f"{rate:.2g}" if math.isfinite(rate) else EMPTY for rate in (one.first_rate, one.last_rate)),
        "; ".join(one.reasons),
    )
