"""Result: one finished run as plain data. Cell: all runs that compete under one (task, optimizer, budget)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Regime = Literal["low", "high"]

LOW_BUDGET = 0.25
"""Budgets below this share of a task's maximum are "low": Chen, Wolfe, Kyrillidis, MLSys 2022, Table 1."""


@dataclass(frozen=True)
class Result:
    """The final score of one run.

    Args:
        task: name of the task.
        optimizer: name of the optimizer.
        budget: the budget's label, such as "5%" or "3" (epochs).
        fraction: budget / the task's maximum budget, > 0; 1 is the full budget.
        schedule: name of the schedule.
        seed: the run's seed; None where it is not known. Runs of one cell with equal seeds are paired.
        score: the metric at the last step, in the metric's own unit; NaN or infinite means that the run diverged.
        regime: "low" or "high" to override the 25 % rule, None to follow it.

    >>> Result("digits", "sgdm", "5%", 0.05, "rex", 0, float("nan")).diverged
    True
    """

    task: str
    optimizer: str
    budget: str
    fraction: float
    schedule: str
    seed: int | None
    score: float
    regime: Regime | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fraction) and self.fraction > 0):
            raise ValueError(f"`fraction` is {self.fraction}, but a budget must be a positive share of the maximum.")
        if self.regime not in (None, "low", "high"):
            raise ValueError(f"unknown regime {self.regime!r}. Known: high, low.")

    @property
    def diverged(self) -> bool:
        """Whether the score is NaN or infinite."""
        return not math.isfinite(self.score)


def percent(share: float) -> str:
    """The label of a budget that is a share of the maximum.

    >>> percent(0.01), percent(0.125)
    ('1%', '12.5%')
    """
    return f"{100 * share:.10g}%"


def regime_of(fraction: float) -> Regime:
    """The paper's rule: below 25 % of the maximum is low, from 25 % on it is high.

    >>> [regime_of(share) for share in (0.1, 0.25, 1.0)]
    ['low', 'high', 'high']
    """
    # 0.3 / 1.2 and its like may round to just under a quarter; a budget of exactly 25 % is high.
    return "low" if fraction < LOW_BUDGET - 1e-9 else "high"


@dataclass(frozen=True)
class Cell:
    """All runs under one (task, optimizer, budget): what schedules are ranked within.

    Args:
        task, optimizer, budget, fraction: as in `Result`.
        regime: "low" or "high".
        scores: schedule → seed → score; a score that is not finite diverged.
    """

    task: str
    optimizer: str
    budget: str
    fraction: float
    regime: Regime
    scores: Mapping[str, Mapping[int | None, float]]

    @property
    def label(self) -> str:
        """How tables and errors call the cell: "task / optimizer / budget"."""
        return f"{self.task} / {self.optimizer} / {self.budget}"

    @property
    def schedules(self) -> tuple[str, ...]:
        """Names of the schedules, in order of first appearance."""
        return tuple(self.scores)

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """Seeds of the first schedule, in order; if the cell is `paired`, those of every schedule."""
        return tuple(next(iter(self.scores.values())))

    @property
    def paired(self) -> bool:
        """Whether every schedule was run with the same seeds, so that differences can be taken seed by seed."""
        return all(set(by_seed) == set(self.seeds) for by_seed in self.scores.values())

    def values(self, schedule: str) -> NDArray[np.float64]:
        """Scores of one schedule, in its own order of seeds. Returns: (num_seeds,)."""
        return np.array(list(self.scores[schedule].values()), dtype=np.float64)

    def matrix(self, schedules: Sequence[str]) -> NDArray[np.float64]:
        """Scores paired by seed. Returns: (num_schedules, num_seeds)."""
        missing = [name for name in schedules if name not in self.scores]
        if missing:
            present = ", ".join(self.scores)
            raise ValueError(f"cell {self.label} has no runs of {', '.join(missing)}. It has: {present}.")
        if not self.paired:
            raise ValueError(
                f"cell {self.label} does not have the same seeds for every schedule, so its runs cannot be paired: "
                + "; ".join(f"{name} has {_list_seeds(by_seed)}" for name, by_seed in self.scores.items())
                + "."
            )
        return np.array([[self.scores[name][seed] for seed in self.seeds] for name in schedules], dtype=np.float64)

    def mean(self, schedule: str) -> float:
        """Mean score over seeds; NaN if any seed diverged, because a mean with an infinite loss in it is infinite.

        >>> cell = Cell("t", "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0, 1: 2.0}, "none": {0: 1.0, 1: float("inf")}})
        >>> cell.mean("rex"), cell.mean("none")
        (1.5, nan)
        """
        values = self.values(schedule)
        # fsum is exact, so equal sets of scores tie whatever the order of their seeds.
        return math.fsum(values) / values.size if np.isfinite(values).all() else math.nan


def group(results: Iterable[Result]) -> tuple[Cell, ...]:
    """Gather runs into cells, in order of first appearance.

    Raises ValueError on two results with the same task, optimizer, budget, schedule and seed, and on a cell whose
    results disagree about its fraction or regime.

    >>> cells = group(Result("t", "sgdm", "5%", 0.05, name, 0, score) for name, score in (("rex", 1.0), ("step", 2.0)))
    >>> cells[0].label, cells[0].schedules, cells[0].regime
    ('t / sgdm / 5%', ('rex', 'step'), 'low')
    """
    first: dict[tuple[str, str, str], Result] = {}
    scores: dict[tuple[str, str, str], dict[str, dict[int | None, float]]] = {}
    for result in results:
        key = (result.task, result.optimizer, result.budget)
        known = first.setdefault(key, result)
        if (known.fraction, known.regime) != (result.fraction, result.regime):
            raise ValueError(
                f"cell {' / '.join(key)} is given both as fraction {known.fraction}, regime {known.regime} and as "
                f"fraction {result.fraction}, regime {result.regime}. All runs of a cell share one budget."
            )
        by_seed = scores.setdefault(key, {}).setdefault(result.schedule, {})
        if result.seed in by_seed:
            seed = "without a seed" if result.seed is None else f"with seed {result.seed}"
            raise ValueError(f"cell {' / '.join(key)} has two results of {result.schedule!r} {seed}. Keep one.")
        by_seed[result.seed] = result.score
    return tuple(
        Cell(*key, one.fraction, one.regime or regime_of(one.fraction), scores[key]) for key, one in first.items()
    )


@dataclass(frozen=True)
class Complete:
    """The part of an unfinished study that can be compared.

    Args:
        cells: cells in which every schedule has the same, at least one, seeds.
        omitted: one line per cell or seed left out, saying what is missing.
    """

    cells: tuple[Cell, ...]
    omitted: tuple[str, ...]


def complete_part(cells: Sequence[Cell], schedules: Sequence[str]) -> Complete:
    """Keep what every schedule has: cells that hold them all, and in each the seeds they share.

    For looking into a study that is still running. Nothing is imputed: what is left out is listed in `omitted`.

    >>> cell = Cell("t", "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0, 1: 2.0}, "step": {0: 3.0}})
    >>> complete_part([cell], ["rex", "step"]).omitted
    ('t / sgdm / 5%: seed 1 is missing for step',)
    """
    kept: list[Cell] = []
    omitted: list[str] = []
    for cell in cells:
        absent = [name for name in schedules if not cell.scores.get(name)]
        if absent:
            omitted.append(f"{cell.label}: no runs of {', '.join(absent)}")
            continue
        every = dict.fromkeys(seed for name in schedules for seed in cell.scores[name])
        shared = [seed for seed in every if all(seed in cell.scores[name] for name in schedules)]
        for seed in every:
            if seed not in shared:
                lacking = [name for name in schedules if seed not in cell.scores[name]]
                omitted.append(f"{cell.label}: seed {seed} is missing for {', '.join(lacking)}")
        if shared:
            scores = {name: {seed: cell.scores[name][seed] for seed in shared} for name in schedules}
            kept.append(Cell(cell.task, cell.optimizer, cell.budget, cell.fraction, cell.regime, scores))
    return Complete(tuple(kept), tuple(omitted))


def in_common(cells: Sequence[Cell]) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Cells of several sources, with the schedules that all of them have; and the names of those left out.

    >>> one = Cell("a", "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0}, "step": {0: 2.0}})
    >>> other = Cell("b", "sgdm", "5%", 0.05, "low", {"rex": {0: 1.0}, "none": {0: 2.0}})
    >>> [cell.schedules for cell in in_common([one, other])[0]], in_common([one, other])[1]
    ([('rex',), ('rex',)], ('step', 'none'))
    """
    every = dict.fromkeys(name for cell in cells for name in cell.schedules)
    shared = [name for name in every if all(name in cell.scores for cell in cells)]
    kept = tuple(replace(cell, scores={name: cell.scores[name] for name in shared}) for cell in cells)
    return kept, tuple(name for name in every if name not in shared)


def _list_seeds(by_seed: Mapping[int | None, float]) -> str:
    return ", ".join("no seed" if seed is None else str(seed) for seed in by_seed)
