"""Panel: cells as arrays, with the hierarchical bootstrap over task, cell and seed that all intervals share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glideslope.report.results import Cell

Direction = bool | Mapping[str, bool]
"""Whether higher scores are better: for all tasks, or task → bool."""

REGIMES = ("low", "high", "overall")
"""The columns of the REX paper's Table 1; "overall" is low and high together."""

CHUNK_ELEMENTS = 4_000_000
"""Resamples are worked off in chunks of about this many numbers, so that memory stays near 100 MB at any size."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, both in the same unit. NaN where there was nothing to estimate from.

    Args:
        value: the estimate.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Design:
    """What was run: the shape of a study, without its scores.

    Args:
        task: (num_cells,) index of each cell's task.
        low_budget: (num_cells,) whether the cell is of the low regime.
        num_seeds: (num_cells,) paired seeds per cell.
    """

    task: NDArray[np.intp]
    low_budget: NDArray[np.bool_]
    num_seeds: NDArray[np.intp]

    @property
    def num_tasks(self) -> int:
        """How many tasks there are."""
        return int(self.task.max()) + 1


@dataclass(frozen=True)
class Panel:
    """Losses of all runs, paired by seed.

    Args:
        schedules: names, num_schedules of them.
        design: which cell is of which task and regime.
        losses: (num_cells, num_seeds, num_schedules); lower is better, +inf diverged. Cells with fewer seeds than the
            largest are padded with NaN.
    """

    schedules: tuple[str, ...]
    design: Design
    losses: NDArray[np.float64]


@dataclass(frozen=True)
class Slots:
    """Which cells stand in a resampled study.

    Args:
        cells: (num_resamples, num_slots) index of a cell.
        valid: (num_resamples, num_slots) False where a slot stays empty, because the drawn task has fewer cells.
        low_budget: (num_slots,) regime of the slot.
    """

    cells: NDArray[np.intp]
    valid: NDArray[np.bool_]
    low_budget: NDArray[np.bool_]

    def in_regime(self, regime: str) -> NDArray[np.bool_]:
        """Mask of the slots that count for a regime. Returns: (num_slots,)."""
        return np.ones_like(self.low_budget) if regime == "overall" else self.low_budget == (regime == "low")


def is_higher_better(direction: Direction, task: str) -> bool:
    """Direction of one task.

    >>> is_higher_better({"cnn": True}, "cnn")
    True
    """
    if isinstance(direction, Mapping):
        if task not in direction:
            raise ValueError(f"no direction is given for task {task!r}. Given: {', '.join(direction) or 'none'}.")
        return direction[task]
    return direction


def as_losses(scores: NDArray[np.float64], higher_is_better: bool) -> NDArray[np.float64]:
    """Scores as losses of the same shape: lower is better, and whatever diverged is +inf, worse than everything.

    >>> as_losses(np.array([0.5, float("nan"), float("inf")]), higher_is_better=True).tolist()
    [-0.5, inf, inf]
    """
    return np.where(np.isfinite(scores), -scores if higher_is_better else scores, np.inf)


def schedule_names(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Every schedule of the cells, in order of first appearance."""
    if not cells:
        raise ValueError("there are no cells to compare. Give at least one result.")
    return tuple(dict.fromkeys(name for cell in cells for name in cell.schedules))


def panel(cells: Sequence[Cell], schedules: Sequence[str], higher_is_better: Direction = False) -> Panel:
    """Arrange cells as arrays. Every cell must hold every schedule, all with the same seeds."""
    tasks = {name: index for index, name in enumerate(dict.fromkeys(cell.task for cell in cells))}
    matrices = [as_losses(cell.matrix(schedules), is_higher_better(higher_is_better, cell.task)).T for cell in cells]
    most = max(matrix.shape[0] for matrix in matrices)
    losses = np.full((len(cells), most, len(schedules)), np.nan)
    for padded, matrix in zip(losses, matrices, strict=True):
        padded[: matrix.shape[0]] = matrix
    design = Design(
        task=np.array([tasks[cell.task] for cell in cells], dtype=np.intp),
        low_budget=np.array([cell.regime == "low" for cell in cells]),
        num_seeds=np.array([matrix.shape[0] for matrix in matrices], dtype=np.intp),
    )
    return Panel(tuple(schedules), design, losses)


def every_cell(design: Design, num_resamples: int) -> Slots:
    """The cells as they are, in every resample: for resampling seeds alone."""
    cells = np.broadcast_to(np.arange(design.task.size), (num_resamples, design.task.size))
    return Slots(cells, np.ones(cells.shape, dtype=np.bool_), design.low_budget)


def resample_cells(design: Design, num_resamples: int, generator: np.random.Generator) -> Slots:
    """Draw tasks with replacement, then in each drawn task as many of its cells, with replacement, as it has.

    Cells are drawn within their regime: how many low and high budgets a task is run at is the experimenter's choice,
    not chance.
    """
    num_tasks = design.num_tasks
    strata = [[np.flatnonzero((design.task == t) & (design.low_budget == low)) for low in (True, False)]
              for t in range(num_tasks)]  # fmt: skip
    sizes = np.array([[members.size for members in pair] for pair in strata])  # (num_tasks, 2)
    widths = sizes.max(axis=0)
    drawn = generator.integers(num_tasks, size=(num_resamples, num_tasks))
    parts: list[Slots] = []
    for stratum, low in enumerate((True, False)):
        width = int(widths[stratum])
        if width == 0:
            continue
        members = np.zeros((num_tasks, width), dtype=np.intp)
        for t in range(num_tasks):
            members[t, : sizes[t, stratum]] = strata[t][stratum]
        count = sizes[drawn, stratum][..., None]  # (num_resamples, num_tasks, 1)
        pick = (generator.random((num_resamples, num_tasks, width)) * count).astype(np.intp)
        shape = (num_resamples, num_tasks * width)
        parts.append(
            Slots(
                cells=members[drawn[..., None], pick].reshape(shape),
                valid=np.broadcast_to(np.arange(width) < count, pick.shape).reshape(shape),
                low_budget=np.full(num_tasks * width, low),
            )
        )
    return Slots(
        cells=np.concatenate([part.cells for part in parts], axis=1),
        valid=np.concatenate([part.valid for part in parts], axis=1),
        low_budget=np.concatenate([part.low_budget for part in parts]),
    )


def resample_seed_means(
    values: NDArray[np.float64], num_seeds: NDArray[np.intp], cells: NDArray[np.intp], generator: np.random.Generator
) -> NDArray[np.float64]:
    """In every slot draw the cell's seeds with replacement, the same ones for all schedules, and average over them.

    Args:
        values: (num_cells, num_seeds, num_schedules), as in `Panel.losses`.
        num_seeds: (num_cells,) seeds per cell.
        cells: (num_resamples, num_slots), as in `Slots.cells`.

    Returns: (num_resamples, num_slots, num_schedules).
    """
    most = values.shape[1]
    count = num_seeds[cells][..., None]  # (num_resamples, num_slots, 1)
    pick = (generator.random((*cells.shape, most)) * count).astype(np.intp)
    drawn = values[cells[..., None], pick]  # (num_resamples, num_slots, num_seeds, num_schedules)
    surplus = np.arange(most) >= count  # (num_resamples, num_slots, num_seeds)
    sums: NDArray[np.float64] = np.where(surplus[..., None], 0.0, drawn).sum(axis=2)
    return sums / count


def chunks(num_resamples: int, elements_per_resample: int) -> list[int]:
    """Sizes of the chunks in which resamples are worked off; they sum to `num_resamples`.

    >>> chunks(10, 1_000_000)
    [4, 4, 2]
    """
    size = max(1, CHUNK_ELEMENTS // max(1, elements_per_resample))
    return [min(size, num_resamples - start) for start in range(0, num_resamples, size)]
