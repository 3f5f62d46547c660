"""Coverage: how often the interval of expected Top-k holds the truth, measured by simulating the study itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glideslope.report.panel import REGIMES, Design, Direction, panel, schedule_names
from glideslope.report.ranking import Grouping, Merge, grouping, share_intervals, top_masks, without_twins
from glideslope.report.results import Cell
from glideslope.report.statistics import residual_variation

TRUTH_CELLS = 20_000
"""Fresh cells from which the true shares are counted; their error is below 0.4 percentage points."""


@dataclass(frozen=True)
class Model:
    """How the simulated scores come about, in units of the residual standard deviation within a cell.

    loss[task, cell, seed, schedule] = effect[schedule] + task_std · z[task, schedule] + cell_std · z[cell, schedule]
    + z[cell, seed, schedule], all z standard normal and independent. What all schedules of a cell or of a seed share is
    left out, because it moves no rank.

    Args:
        effects: (num_schedules,) mean of each schedule, summing to 0.
        task_std: how much a schedule's standing changes from task to task.
        cell_std: how much it changes between optimizers and budgets within a task.
    """

    effects: NDArray[np.float64]
    task_std: float
    cell_std: float


@dataclass(frozen=True)
class Coverage:
    """Measured coverage of the intervals of expected Top-k, averaged over schedules and simulated studies.

    Args:
        top1, top3: regime → share of intervals that held the truth, 0..1; NaN where the regime has no cell.
        nominal: what the intervals promise, 0..1.
        standard_error: largest standard error of the measured shares, 0..1.
        num_studies: simulated studies.
        num_tasks: tasks in each.
        model: where the scores came from.
    """

    top1: Mapping[str, float]
    top3: Mapping[str, float]
    nominal: float
    standard_error: float
    num_studies: int
    num_tasks: int
    model: Model

    def sentence(self) -> str:
        """What to print beside the interval."""
        return (
            f"Nominal {100 * self.nominal:g} % intervals covered the truth for {100 * self.top1['overall']:.0f} % "
            f"(Top-1) and {100 * self.top3['overall']:.0f} % (Top-3) of schedules in {self.num_studies} simulated "
            f"studies of this size ({self.num_tasks} task{'s' if self.num_tasks > 1 else ''}), "
            f"standard error ≤ {100 * self.standard_error:.1f} points."
        )


def fit_model(losses: NDArray[np.float64], design: Design) -> Model:
    """Estimate the model's spreads from a study by the method of moments.

    Each cell is scaled to a residual standard deviation of 1. Cells with a diverged run or without any seed noise are
    left out; divergence has no part in the model. With one task its spread between tasks cannot be seen and is taken
    as 0: the intervals then speak about that task only. Schedule effects are shrunk by the part of their spread that
    noise explains.

    losses: (num_cells, num_seeds, num_schedules).

    Source: Searle, Casella, McCulloch, "Variance Components", 1992, Chapter 4 (nested analysis of variance).
    """
    num_schedules = losses.shape[2]
    means: list[NDArray[np.float64]] = []
    tasks: list[int] = []
    noise: list[float] = []
    for cell, task, num_seeds in zip(losses, design.task, design.num_seeds, strict=True):
        scores = cell[:num_seeds].T
        variation = residual_variation(scores)
        if np.isfinite(scores).all() and variation.std > 0:
            centred = scores.mean(axis=1) - scores.mean()
            # Dividing by an estimated variance inflates squares by freedom / (freedom - 2) on average.
            freedom = variation.degrees_of_freedom
            means.append(centred / variation.std * np.sqrt(max(freedom - 2, 1) / freedom))
            tasks.append(int(task))
            noise.append(1 / int(num_seeds))
    if not means:
        return Model(np.zeros(num_schedules), 0.0, 0.0)
    table, task_of = np.array(means), np.array(tasks)
    seed_variance = float(np.mean(noise))
    present = np.unique(task_of)
    task_means = np.array([table[task_of == task].mean(axis=0) for task in present])
    within = float(((table - task_means[np.searchsorted(present, task_of)]) ** 2).sum())
    within_freedom = (num_schedules - 1) * (len(table) - len(present))
    cell_variance = max(0.0, within / within_freedom - seed_variance) if within_freedom else 0.0
    effects = task_means.mean(axis=0)
    mean_noise = (cell_variance + seed_variance) * float(np.mean([1 / (task_of == task).sum() for task in present]))
    if len(present) > 1:
        between = float(((task_means - effects) ** 2).sum()) / ((num_schedules - 1) * (len(present) - 1))
        task_variance = max(0.0, between - mean_noise)
    else:
        task_variance = 0.0
    spread = float(effects @ effects) / (num_schedules - 1)
    explained = (task_variance + mean_noise) / len(present)
    effects = effects * np.sqrt(max(0.0, 1 - explained / spread)) if spread > 0 else effects
    return Model(effects, float(np.sqrt(task_variance)), float(np.sqrt(cell_variance)))


def measure_coverage(
    cells: Sequence[Cell],
    generator: np.random.Generator,
    *,
    higher_is_better: Direction = False,
    merge: Merge | None = None,
    num_studies: int = 200,
    num_resamples: int = 200,
    confidence: float = 0.95,
) -> Coverage:
    """Measure how often the interval of `expected_ranking` holds the truth, at the size of this very study.

    The generative model is `Model`, with spreads fitted to the cells. The target is what the study is about: the share
    of cells, among all tasks and cells the model can produce, in which a schedule is Top-k when its mean over as many
    seeds as the study has (the smallest number, if cells differ) is compared. Every simulated study has the tasks,
    cells, regimes, seeds, schedules and merges of the real one, and its intervals are computed by the code that
    computes the real ones, with `num_resamples` resamples.

    Two tasks cannot show how tasks differ, so coverage well below nominal is to be expected there. That is the reason
    to print it.

    Source: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, Section 5.4, for measuring coverage by
    simulation.
    """
    cells = without_twins(cells, merge)
    schedules = schedule_names(cells)
    groups = grouping(schedules, merge)
    data = panel(cells, schedules, higher_is_better)
    design = data.design
    model = fit_model(data.losses, design)
    truth = _true_shares(model, groups, int(design.num_seeds.min()), generator)
    covered: dict[tuple[str, str], list[float]] = {}
    for _ in range(num_studies):
        losses = simulate(model, design, data.losses.shape[1], generator)
        intervals = share_intervals(losses, design, groups, generator, num_resamples, confidence)
        for (kind, regime), (low, high) in intervals.items():
            held = np.mean((low <= truth[kind]) & (truth[kind] <= high)) if np.isfinite(low).all() else np.nan
            covered.setdefault((kind, regime), []).append(float(held))
    errors = [float(np.std(values, ddof=1)) / num_studies**0.5 for values in covered.values() if np.isfinite(values[0])]
    return Coverage(
        top1={regime: float(np.mean(covered["top1", regime])) for regime in REGIMES},
        top3={regime: float(np.mean(covered["top3", regime])) for regime in REGIMES},
        nominal=confidence,
        standard_error=max(errors),
        num_studies=num_studies,
        num_tasks=design.num_tasks,
        model=model,
    )


def simulate(model: Model, design: Design, num_seeds: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw one study's losses from the model. Returns: (num_cells, num_seeds, num_schedules)."""
    num_cells, num_schedules = design.task.size, model.effects.size
    of_task = model.task_std * generator.standard_normal((design.num_tasks, num_schedules))
    of_cell = model.cell_std * generator.standard_normal((num_cells, num_schedules))
    standing = model.effects + of_task[design.task] + of_cell
    return standing[:, None, :] + generator.standard_normal((num_cells, num_seeds, num_schedules))


def _true_shares(
    model: Model, groups: Grouping, num_seeds: int, generator: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """True percentages: "top1" | "top3" → (num_groups,)."""
    std = np.sqrt(model.task_std**2 + model.cell_std**2 + 1 / num_seeds)
    means = model.effects + std * generator.standard_normal((TRUTH_CELLS, model.effects.size))
    top1, top3 = top_masks(groups.best(means))
    return {"top1": 100 * top1.mean(axis=0), "top3": 100 * top3.mean(axis=0)}
