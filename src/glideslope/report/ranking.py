"""Ranking: how often each schedule comes first or among the first three, as in the REX paper's Table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glideslope.report.panel import (
    REGIMES,
    Design,
    Direction,
    Estimate,
    Slots,
    as_losses,
    chunks,
    every_cell,
    is_higher_better,
    panel,
    resample_cells,
    resample_seed_means,
    schedule_names,
)
from glideslope.report.results import Cell

Merge = Mapping[str, Sequence[str]]
"""New name → the schedules it stands for; in each cell it has the better score (mean over seeds) among them."""

NONE = "none"
"""What a comparison calls the constant rate."""

TIE_TOLERANCE = 1e-12
"""Means closer than this, relative to the largest in their cell, tie: (0.1 + 0.5) / 2 must equal (0.2 + 0.4) / 2."""


@dataclass(frozen=True)
class Count:
    """How often one schedule was Top-1 and Top-3 among the cells of one regime.

    Args:
        top1: cells in which no schedule was better; ties at the best count for each of the tied.
        top3: cells in which fewer than three schedules were strictly better.
        num_cells: cells of the regime.
    """

    top1: int
    top3: int
    num_cells: int

    @property
    def top1_percent(self) -> float | None:
        """Share of the regime's cells in percent; None if there are no cells."""
        return 100 * self.top1 / self.num_cells if self.num_cells else None

    @property
    def top3_percent(self) -> float | None:
        """Share of the regime's cells in percent; None if there are no cells."""
        return 100 * self.top3 / self.num_cells if self.num_cells else None

    def to_json(self) -> dict[str, int | float | None]:
        """The counts and percentages as plain data."""
        return {
            "top1": self.top1,
            "top3": self.top3,
            "top1_percent": self.top1_percent,
            "top3_percent": self.top3_percent,
        }


@dataclass(frozen=True)
class Ranking:
    """The paper's Table 1: nominal, that is, taking the means over seeds as they are.

    Args:
        num_cells: regime ("low", "high", "overall") → number of cells.
        counts: schedule → regime → `Count`.
    """

    num_cells: Mapping[str, int]
    counts: Mapping[str, Mapping[str, Count]]

    def to_json(self) -> dict[str, object]:
        """`{"cells": {regime: n}, "schedules": {name: {regime: {"top1": …, "top3": …, "top1_percent": …, …}}}}`."""
        return {
            "cells": dict(self.num_cells),
            "schedules": {
                name: {regime: count.to_json() for regime, count in by_regime.items()}
                for name, by_regime in self.counts.items()
            },
        }


@dataclass(frozen=True)
class Expected:
    """Share of cells, in percent, in which one schedule is Top-1 and Top-3 if seeds are drawn anew.

    Args:
        top1, top3: estimate with its interval, in percent; NaN where the regime has no cell.
    """

    top1: Estimate
    top3: Estimate


@dataclass(frozen=True)
class ExpectedRanking:
    """Expected Top-1 and Top-3 with intervals.

    Args:
        shares: schedule → regime → `Expected`.
        confidence: nominal coverage of the intervals, 0..1.
        num_resamples: bootstrap resamples.
        num_tasks: tasks that the intervals rest on.
    """

    shares: Mapping[str, Mapping[str, Expected]]
    confidence: float
    num_resamples: int
    num_tasks: int


@dataclass(frozen=True)
class Grouping:
    """Which columns compete: schedules, some of them merged.

    Args:
        names: what is ranked, num_groups of them.
        members: per group the schedules it stands for, as indices into the schedules.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    def best(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Loss of each group: its best member's. losses: (..., num_schedules). Returns: (..., num_groups)."""
        if len(self.members) == losses.shape[-1]:
            return losses
        return np.stack([losses[..., list(member)].min(axis=-1) for member in self.members], axis=-1)


def grouping(schedules: Sequence[str], merge: Merge | None = None) -> Grouping:
    """Work out what competes once the merges are applied; a merge stands where its first member stood.

    >>> grouping(["none", "step", "plateau"], {"step": ("step", "plateau")})
    Grouping(names=('none', 'step'), members=((0,), (1, 2)))
    """
    merges = dict(merge or {})
    owner: dict[str, str] = {}
    for name, members in merges.items():
        for member in members:
            if member not in schedules:
                known = ", ".join(schedules)
                raise ValueError(f"merge {name!r} names the unknown schedule {member!r}. Known: {known}.")
            if member in owner:
                raise ValueError(f"schedule {member!r} is merged twice, into {owner[member]!r} and {name!r}.")
            owner[member] = name
        if name in schedules and name not in members:
            raise ValueError(
                f"merge {name!r} has the name of a schedule that is not one of its members. Known: "
                f"{', '.join(schedules)}. Add it to the members or choose another name."
            )
    names = tuple(dict.fromkeys(owner.get(schedule, schedule) for schedule in schedules))
    index = {schedule: position for position, schedule in enumerate(schedules)}
    return Grouping(names, tuple(tuple(index[member] for member in merges.get(name, (name,))) for name in names))


def without_twins(cells: Sequence[Cell], merge: Merge | None = None) -> list[Cell]:
    """Cells in which no run counts twice: under a merged name, and as no schedule.

    A plateau that has no time to fall is the run of no schedule at all. Merged with a step schedule by the better
    score, it would put the step schedule where "none" stands. In such a cell it has the scores of another member
    instead; where all members are that run, or "none" is not compared, nothing is changed.

    >>> from glideslope.report.results import Result, group
    >>> scores = (("none", 1.0), ("step", 2.0), ("plateau", 1.0))
    >>> cells = group(Result("t", "sgdm", "5%", 0.05, name, 0, score) for name, score in scores)
    >>> without_twins(cells, {"step": ("step", "plateau")})[0].scores["plateau"]
    {0: 2.0}
    """
    found = []
    for cell in cells:
        scores = dict(cell.scores)
        for members in (merge or {}).values():
            here = [member for member in members if member in scores]
            if NONE not in scores or NONE in here:
                continue
            own = [member for member in here if cell.scores[member] != cell.scores[NONE]]
            if own:
                scores |= {member: cell.scores[own[0]] for member in here if member not in own}
        found.append(replace(cell, scores=scores))
    return found


def mean_losses(cells: Sequence[Cell], groups: Grouping, higher_is_better: Direction = False) -> NDArray[np.float64]:
    """Mean loss over seeds of everything that competes, +inf where any seed diverged. Returns: (num_cells, num_groups).

    A merged entry may lack some of its members in a cell, but not all; every other schedule must be in every cell.
    Otherwise some cells would be easier to win than others, so this raises and says which run is missing.
    """
    schedules = schedule_names(cells)
    for cell in cells:
        for name, members in zip(groups.names, groups.members, strict=True):
            if not any(schedules[member] in cell.scores for member in members):
                raise ValueError(
                    f"cell {cell.label} has no result for {name!r}, which other cells have. Add it (with the score "
                    "`diverged` if the run failed), or leave the schedule or the cell out."
                )
    means = np.array([[cell.mean(name) if name in cell.scores else np.nan for name in schedules] for cell in cells])
    losses = np.array(
        [as_losses(row, is_higher_better(higher_is_better, cell.task)) for cell, row in zip(cells, means, strict=True)]
    )
    return groups.best(losses)


def top_masks(losses: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which entries are Top-1 and Top-3 along the last axis; what diverged (+inf) is neither.

    losses: (..., num_groups). Returns: two masks of that shape.

    >>> top1, top3 = top_masks(np.array([3.0, 1.0, 1.0, 2.0, np.inf]))
    >>> top1.tolist(), top3.tolist()
    ([False, True, True, False, False], [False, True, True, True, False])
    """
    finite = np.isfinite(losses)
    slack = TIE_TOLERANCE * np.abs(np.where(finite, losses, 0.0)).max(axis=-1, keepdims=True)
    # Fewer than three strictly better is the same as: not worse than the third smallest.
    kth = min(2, losses.shape[-1] - 1)
    third = np.partition(losses, kth, axis=-1)[..., kth : kth + 1]
    return (losses <= losses.min(axis=-1, keepdims=True) + slack) & finite, (losses <= third + slack) & finite


def nominal_ranking(
    cells: Sequence[Cell], *, higher_is_better: Direction = False, merge: Merge | None = None
) -> Ranking:
    """Count Top-1 and Top-3 per schedule, as the REX paper's Table 1 does.

    A cell's score of a schedule is its mean over seeds. A schedule of which any seed diverged is worse than everything
    and never Top-1 or Top-3.

    >>> from glideslope.report.results import Result, group
    >>> cells = group(Result("t", "sgdm", "5%", 0.05, n, 0, s) for n, s in (("rex", 1.0), ("step", 2.0), ("none", 1.0)))
    >>> nominal_ranking(cells).counts["rex"]["low"]
    Count(top1=1, top3=1, num_cells=1)

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022, Table 1.
    """
    cells = without_twins(cells, merge)
    groups = grouping(schedule_names(cells), merge)
    top1, top3 = top_masks(mean_losses(cells, groups, higher_is_better))
    low = np.array([cell.regime == "low" for cell in cells])
    masks = {"low": low, "high": ~low, "overall": np.ones_like(low)}
    num_cells = {regime: int(mask.sum()) for regime, mask in masks.items()}
    counts = {
        name: {
            regime: Count(int(top1[mask, index].sum()), int(top3[mask, index].sum()), num_cells[regime])
            for regime, mask in masks.items()
        }
        for index, name in enumerate(groups.names)
    }
    return Ranking(num_cells, counts)


@dataclass(frozen=True)
class MeanRanks:
    """Mean rank per schedule, 1 is best.

    Args:
        names: what was ranked, num_groups of them.
        by_regime: regime → (num_groups,) mean rank over its cells; NaN where the regime has no cell.
        by_task: (num_tasks, num_groups) mean rank over the cells of each task.
        tasks: names, num_tasks of them.
    """

    names: tuple[str, ...]
    by_regime: Mapping[str, NDArray[np.float64]]
    by_task: NDArray[np.float64]
    tasks: tuple[str, ...]


def cell_ranks(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank within each cell, 1 is best, ties share the mean of their ranks; all that diverged tie for last.

    losses: (num_cells, num_groups). Returns: the same shape.

    >>> cell_ranks(np.array([[3.0, 1.0, 1.0, np.inf, np.inf]])).tolist()
    [[3.0, 1.5, 1.5, 4.5, 4.5]]
    """
    slack = TIE_TOLERANCE * np.abs(np.where(np.isfinite(losses), losses, 0.0)).max(axis=-1)[:, None, None]
    own, other = losses[:, :, None], losses[:, None, :]
    better = (other < own - slack).sum(axis=-1)
    worse = (own < other - slack).sum(axis=-1)
    ranks: NDArray[np.float64] = 1 + better + (losses.shape[-1] - 1 - better - worse) / 2
    return ranks


def mean_ranks(cells: Sequence[Cell], *, higher_is_better: Direction = False, merge: Merge | None = None) -> MeanRanks:
    """Average the ranks within cells over the cells of each regime, and over those of each task."""
    cells = without_twins(cells, merge)
    groups = grouping(schedule_names(cells), merge)
    ranks = cell_ranks(mean_losses(cells, groups, higher_is_better))
    low = np.array([cell.regime == "low" for cell in cells])
    masks = {"low": low, "high": ~low, "overall": np.ones_like(low)}
    tasks = tuple(dict.fromkeys(cell.task for cell in cells))
    task_of = np.array([tasks.index(cell.task) for cell in cells])
    return MeanRanks(
        names=groups.names,
        by_regime={
            regime: ranks[mask].mean(axis=0) if mask.any() else np.full(len(groups.names), np.nan)
            for regime, mask in masks.items()
        },
        by_task=np.array([ranks[task_of == index].mean(axis=0) for index in range(len(tasks))]),
        tasks=tasks,
    )


def expected_ranking(
    cells: Sequence[Cell],
    generator: np.random.Generator,
    *,
    higher_is_better: Direction = False,
    merge: Merge | None = None,
    num_resamples: int = 2000,
    confidence: float = 0.95,
) -> ExpectedRanking:
    """Expected Top-1 and Top-3 per schedule, with a percentile interval from a hierarchical bootstrap.

    The nominal table treats a lead of a hair like a lead of a mile. Here the seeds of every cell are drawn anew, with
    replacement and jointly for all schedules (runs are paired by seed), and the share of cells in which a schedule is
    Top-k is averaged over the draws: that is the estimate. For the interval, tasks are drawn first, then cells within
    each drawn task and regime, then seeds within each drawn cell. With few tasks the interval is rough: print
    `coverage.measure_coverage` beside it.

    Raises ValueError unless every cell has all schedules with the same seeds, two at least.

    Source: Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021,
    Section 4, for intervals by resampling runs within tasks; Davison and Hinkley, "Bootstrap Methods and their
    Application", 1997, Section 3.8, for resampling a hierarchy.
    """
    cells = without_twins(cells, merge)
    schedules = schedule_names(cells)
    groups = grouping(schedules, merge)
    data = panel(cells, schedules, higher_is_better)
    short = [cell.label for cell in cells if len(cell.seeds) < 2]
    if short:
        raise ValueError(f"cell {short[0]} has one seed, but expected Top-k needs two or more in every cell.")
    sizes = chunks(num_resamples, data.losses.size)
    kept = [_shares(data.losses, data.design, groups, every_cell(data.design, size), generator) for size in sizes]
    intervals = share_intervals(data.losses, data.design, groups, generator, num_resamples, confidence)

    def estimate(kind: str, regime: str, index: int) -> Estimate:
        value = float(np.concatenate([part[kind, regime][:, index] for part in kept]).mean())
        low, high = intervals[kind, regime][:, index]
        return Estimate(value, float(low), float(high))

    return ExpectedRanking(
        shares={
            name: {
                regime: Expected(estimate("top1", regime, index), estimate("top3", regime, index)) for regime in REGIMES
            }
            for index, name in enumerate(groups.names)
        },
        confidence=confidence,
        num_resamples=num_resamples,
        num_tasks=data.design.num_tasks,
    )


def share_intervals(
    losses: NDArray[np.float64],
    design: Design,
    groups: Grouping,
    generator: np.random.Generator,
    num_resamples: int,
    confidence: float,
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The intervals of `expected_ranking`, on arrays.

    losses: (num_cells, num_seeds, num_schedules). Returns: ("top1" | "top3", regime) → (2, num_groups): low end, high
    end, in percent; NaN where the regime has no cell.
    """
    parts = [
        _shares(losses, design, groups, resample_cells(design, size, generator), generator)
        for size in chunks(num_resamples, losses.size)
    ]
    tail = (1 - confidence) / 2
    return {key: _quantiles(np.concatenate([part[key] for part in parts]), (tail, 1 - tail)) for key in parts[0]}


def _shares(
    losses: NDArray[np.float64], design: Design, groups: Grouping, slots: Slots, generator: np.random.Generator
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Percent of the slots in which each group is Top-k: ("top1" | "top3", regime) → (num_resamples, num_groups)."""
    means = groups.best(resample_seed_means(losses, design.num_seeds, slots.cells, generator))
    shares: dict[tuple[str, str], NDArray[np.float64]] = {}
    for kind, mask in zip(("top1", "top3"), top_masks(means), strict=True):
        hits = mask & slots.valid[..., None]
        for regime in REGIMES:
            chosen = slots.in_regime(regime)
            total = slots.valid[:, chosen].sum(axis=1)[:, None]
            # A resample may hold no cell of the regime, if not every task has one; it says nothing about the regime.
            share: NDArray[np.float64] = 100 * hits[:, chosen].sum(axis=1) / np.maximum(total, 1)
            shares[kind, regime] = np.where(total > 0, share, np.nan)
    return shares


def _quantiles(values: NDArray[np.float64], levels: tuple[float, float]) -> NDArray[np.float64]:
    """Quantiles over resamples that say something. values: (num_resamples, num_groups). Returns: (2, num_groups)."""
    telling = values[~np.isnan(values).any(axis=1)]
    if telling.size == 0:
        return np.full((2, values.shape[1]), np.nan)
    return np.asarray(np.quantile(telling, levels, axis=0), dtype=np.float64)
