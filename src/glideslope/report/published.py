"""What the REX paper printed, and how far our cells agree with it.

Numbers are from Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022: of
Table 1 the overall columns of five schedules, of Table 4 the column of one per cent. The others were not at hand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from glideslope.report.panel import Estimate, as_losses
from glideslope.report.rank_correlation import FEWEST, NUM_RESAMPLES, kendall, percentiles
from glideslope.report.ranking import ExpectedRanking, Ranking, cell_ranks
from glideslope.report.results import Cell
from glideslope.report.tables import Entry, Table, Value

RUNS_PER_CELL = 3
"""That the paper's means and standard deviations are made of."""

Place = tuple[str, str, str]
"""Task, optimizer, label of the budget."""

SCORES: Mapping[Place, Mapping[str, tuple[float, float]]] = {
    ("cifar10-resnet20", "sgdm", "1%"): {
        "rex": (27.94, 0.46),
        "linear": (28.70, math.nan),
        "cosine": (28.49, math.nan),
        "step": (32.14, math.nan),
        "exponential": (31.31, math.nan),
        "one_cycle": (40.14, math.nan),
        "plateau": (41.98, math.nan),
    },
    ("cifar10-resnet20", "adam", "1%"): {
        "rex": (27.64, 0.02),
        "linear": (28.99, math.nan),
        "cosine": (29.20, math.nan),
        "step": (30.72, math.nan),
        "exponential": (31.87, math.nan),
        "one_cycle": (37.17, math.nan),
        "plateau": (43.40, math.nan),
        "none": (42.10, math.nan),
    },
}
"""Place → schedule → mean and standard deviation, NaN where it is not known; lower is better."""

WEIGHT_DECAY = re.compile(r"\(weight_decay=[^,)]*\)$")
"""The one setting of an optimizer under which a cell of ours is the paper's."""

LARGEST_STD = max(std for cell in SCORES.values() for _, std in cell.values() if not math.isnan(std))

TOP: Mapping[str, tuple[float, float]] = {
    "none": (1, 5),
    "exponential": (5, 11),
    "one_cycle": (13, 45),
    "linear": (11, 70),
    "rex": (70, 92),
}
"""Schedule → share of the paper's 82 cells in which it was Top-1 and Top-3, in percent."""


@dataclass(frozen=True)
class Agreement:
    """One of our cells beside the paper's.

    Args:
        cell: ours.
        schedules: that are in both, best of the paper's first.
        kendall: tau-b of the two rankings, with an interval that draws our seeds and the paper's means anew.
    """

    cell: Cell
    schedules: tuple[str, ...]
    kendall: Estimate

    def to_table(self, metric: str) -> Table:
        """Means, their difference and the places in both rankings."""
        theirs = SCORES[_place(self.cell)]
        ours = [self.cell.mean(name) for name in self.schedules]
        ranks = cell_ranks(as_losses(np.array([ours, [theirs[name][0] for name in self.schedules]]), False))
        rows: list[tuple[Entry, ...]] = []
        for index, (name, mean) in enumerate(zip(self.schedules, ours, strict=True)):
            spread = _std(list(self.cell.scores[name].values()))
            published = Value(*theirs[name])
            rows.append((name, Value(mean, spread), published, f"{ranks[0, index]:g}", f"{ranks[1, index]:g}"))
        return Table(
            f"{self.cell.label}: {metric}",
            ("schedule", "ours", "paper", "our place", "paper's"),
            tuple(rows),
            f"Kendall's tau of the two rankings: {_interval(self.kendall)}. Means and standard deviations over seeds; "
            "those of the paper, from its Table 4, where they are known.",
        )


def agreements(cells: Sequence[Cell], generator: np.random.Generator) -> list[Agreement]:
    """Every cell of ours that the paper has, too, and that shares at least three schedules with it.

    Args:
        cells: ours.
        generator: of the resamples.
    """
    found = []
    for cell in cells:
        theirs = SCORES.get(_place(cell), {})
        shared = sorted((name for name in theirs if name in cell.scores), key=lambda name: theirs[name][0])
        if len(shared) >= FEWEST:
            found.append(Agreement(cell, tuple(shared), _kendall(cell, shared, theirs, generator)))
    return found


def _kendall(
    cell: Cell, schedules: Sequence[str], theirs: Mapping[str, tuple[float, float]], generator: np.random.Generator
) -> Estimate:
    """Our seeds are drawn with replacement, the same ones for all schedules; a mean of the paper's by its error.

    A standard deviation of the paper's that is not known is taken to be the largest one that is, over all cells.
    """
    seeds = sorted({seed for name in schedules for seed in cell.scores[name]}, key=str)
    by_seed = [[cell.scores[name].get(seed, math.nan) for name in schedules] for seed in seeds]
    scores = as_losses(np.array(by_seed), higher_is_better=False)
    drawn = generator.integers(len(seeds), size=(NUM_RESAMPLES, len(seeds)))
    ours = np.concatenate([scores.mean(axis=0)[None], scores[drawn].mean(axis=1)])
    means = np.array([theirs[name][0] for name in schedules])
    known = np.array([theirs[name][1] for name in schedules])
    errors = np.where(np.isnan(known), LARGEST_STD, known) / math.sqrt(RUNS_PER_CELL)
    noise = generator.standard_normal((NUM_RESAMPLES, len(schedules))) * errors
    found = percentiles(kendall(ours, np.concatenate([means[None], means + noise])))
    return found if len(seeds) > 1 else Estimate(found.value, math.nan, math.nan)


def top_table(nominal: Ranking, expected: ExpectedRanking | None) -> Table:
    """Our shares of Top-1 and Top-3 over all cells beside the paper's Table 1, where it is known."""
    rows: list[tuple[Entry, ...]] = []
    for name, regimes in nominal.counts.items():
        count = regimes["overall"]
        shares = [_percent(count.top1_percent), _percent(count.top3_percent)]
        if expected is not None:
            over = expected.shares[name]["overall"]
            shares += [_percent_interval(over.top1), _percent_interval(over.top3)]
        paper = [f"{share:g} %" for share in TOP[name]] if name in TOP else ["", ""]
        rows.append((name, *shares, *paper))
    columns = ["schedule", "Top-1", "Top-3"]
    if expected is not None:
        columns += ["expected Top-1", "expected Top-3"]
    shared = [name for name in nominal.counts if name in TOP]
    both = np.array([[nominal.counts[name]["overall"].top3 for name in shared], [TOP[name][1] for name in shared]])
    tau = kendall(both[:1], both[1:])[0]
    return Table(
        "Beside the paper's Table 1",
        (*columns, "paper's Top-1", "paper's Top-3"),
        tuple(rows),
        f"Ours over {nominal.num_cells['overall']} cells, the paper's over its 82; empty where it was not at hand. "
        f"Kendall's tau of the two orders by Top-3, of {len(shared)} schedules: {tau:.2f}.",
    )


def _place(cell: Cell) -> Place:
    """Without the optimizer's weight decay, which belongs to the paper's recipe, but is no column of its own there."""
    return cell.task, WEIGHT_DECAY.sub("", cell.optimizer), cell.budget


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0f} %"


def _percent_interval(estimate: Estimate) -> str:
    return f"{estimate.value:.0f} [{estimate.low:.0f}, {estimate.high:.0f}]"


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return f"{estimate.value:.2f}, of one seed and so without an interval"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
