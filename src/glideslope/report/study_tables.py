"""The tables of a study of schedules: scores, Top-k, ranks, probability of improvement, detectable differences."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from glideslope.report.coverage import Coverage
from glideslope.report.panel import REGIMES, Estimate
from glideslope.report.ranking import ExpectedRanking, MeanRanks, Ranking
from glideslope.report.results import Cell
from glideslope.report.statistics import (
    Friedman,
    Improvement,
    TiedSet,
    cell_variation,
    friedman_nemenyi,
    pooled_interval,
    smallest_detectable_difference,
    tied_with_best,
)
from glideslope.report.tables import (
    EMPTY,
    FLAGS,
    TIED_MARK,
    Entry,
    Table,
    Tally,
    Value,
    estimate_json,
    finite_or_none,
    how_many,
)

_REGIME_COLUMNS = ("schedule", *(f"{regime} {kind}" for regime in REGIMES for kind in ("Top-1", "Top-3")))


def scores_table(
    cells: Sequence[Cell],
    *,
    schedules: Sequence[str],
    metric: str,
    higher_is_better: bool = False,
    at_limit: Collection[tuple[str, str]] = (),
    alpha: float = 0.05,
) -> Table:
    """The paper's table of one task and optimizer: mean ± std over seeds, a row per schedule, a column per budget.

    Every schedule statistically tied with the best of its column is marked, not one bold winner.

    Args:
        cells: cells of one (task, optimizer), one per budget.
        schedules: rows, in order.
        metric: name and unit, such as "error, %".
        higher_is_better: direction of the metric.
        at_limit: (schedule, budget) of runs whose tuned rate lies at a hard limit of the grid.
        alpha: level of `tied_with_best`.
    """
    settings = list(dict.fromkeys((cell.task, cell.optimizer) for cell in cells))
    if len(settings) != 1:
        raise ValueError(f"a table of scores is about one task and optimizer, but the cells are of {settings}.")
    ties = [_ties(cell, schedules, higher_is_better, alpha) for cell in cells]
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (
            name,
            *(
                _value(cell, name, tie, index, (name, cell.budget) in at_limit)
                for cell, tie in zip(cells, ties, strict=True)
            ),
        )
        for index, name in enumerate(schedules)
    )
    shown = {flag for row in rows for entry in row if isinstance(entry, Value) for flag in entry.flags}
    untested: dict[str, list[str]] = {}
    for cell, tie in zip(cells, ties, strict=True):
        if tie is None or not tie.tested:
            untested.setdefault(_why_untested(tie), []).append(cell.budget)
    counts = [len(cell.scores[name]) for cell in cells for name in schedules if name in cell.scores]
    direction = "higher" if higher_is_better else "lower"
    note = [
        f"{metric}, {direction} is better; mean ± std over {how_many(counts, 'seed')}.",
        *(
            [f"{TIED_MARK} tied with the best (paired by seed, pooled variance, Holm, level {alpha:g})."]
            if any(tie is not None and tie.tested for tie in ties)
            else []
        ),
        *(f"Not tested at {', '.join(budgets)}: {reason}." for reason, budgets in untested.items()),
        *(f"{mark} {meaning}." for flag, (mark, meaning) in FLAGS.items() if flag in shown),
    ]
    task, optimizer = settings[0]
    return Table(f"{task}, {optimizer}", ("schedule", *(cell.budget for cell in cells)), rows, " ".join(note))


def _ties(cell: Cell, schedules: Sequence[str], higher_is_better: bool, alpha: float) -> TiedSet | None:
    """None where runs cannot be paired: a schedule is missing or has other seeds."""
    if not cell.paired or any(name not in cell.scores for name in schedules):
        return None
    return tied_with_best(cell.matrix(schedules), higher_is_better, alpha)


def _why_untested(tie: TiedSet | None) -> str:
    return "runs are not paired by seed" if tie is None else tie.reason


def _value(cell: Cell, schedule: str, tie: TiedSet | None, index: int, at_limit: bool) -> Entry:
    if schedule not in cell.scores:
        return EMPTY
    scores = cell.values(schedule)
    flags = {
        "at_limit": at_limit,
        "noisy": tie is not None and tie.tested and bool(np.isfinite(scores).all()) and not tie.pooled[index],
    }
    tied = tie is not None and tie.tied[index]
    return Value.over_seeds(scores, tied=tied, flags=tuple(flag for flag, raised in flags.items() if raised))


def ranking_table(ranking: Ranking) -> Table:
    """The REX paper's Table 1: cells in which each schedule is Top-1 and Top-3, by regime."""
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (
            name,
            *(
                tally
                for regime in REGIMES
                for tally in (
                    Tally(counts[regime].top1, counts[regime].top1_percent),
                    Tally(counts[regime].top3, counts[regime].top3_percent),
                )
            ),
        )
        for name, counts in ranking.counts.items()
    )
    sizes = ", ".join(f"{regime} {ranking.num_cells[regime]}" for regime in REGIMES)
    return Table(
        "Top-1 and Top-3, nominal",
        _REGIME_COLUMNS,
        rows,
        f"Cells (task, optimizer, budget): {sizes}; low is below 25 % of the maximum. Means over seeds; ties at the "
        "best count for each.",
    )


def expected_table(expected: ExpectedRanking, coverage: Coverage | None = None) -> Table:
    """Expected Top-1 and Top-3 with intervals, in the columns of `ranking_table`, and their measured coverage."""
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (name, *(entry for regime in REGIMES for entry in (shares[regime].top1, shares[regime].top3)))
        for name, shares in expected.shares.items()
    )
    note = (
        f"% of cells if seeds are drawn anew [{100 * expected.confidence:g} % interval]. Hierarchical bootstrap over "
        f"task, cell and seed, {expected.num_resamples} resamples, {how_many(expected.num_tasks, 'task')}."
    )
    return Table(
        "Top-1 and Top-3, expected",
        _REGIME_COLUMNS,
        rows,
        f"{note} {coverage.sentence()}" if coverage is not None else note,
    )


def mean_ranks_table(ranks: MeanRanks, alpha: float = 0.05) -> Table:
    """Mean rank by regime and over tasks, best first, with Friedman's test and Nemenyi's critical difference."""
    over_tasks = ranks.by_task.mean(axis=0)
    order = np.argsort(over_tasks, kind="stable")
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (ranks.names[i], *(float(ranks.by_regime[regime][i]) for regime in REGIMES), float(over_tasks[i]))
        for i in order
    )
    test = friedman_nemenyi(ranks.by_task, alpha) if len(ranks.names) > 2 else "2 schedules: see the paired tests"
    if isinstance(test, Friedman):
        verdict = (
            f"over {test.num_tasks} tasks p = {test.p_value:.2g}; Nemenyi: mean ranks over tasks further apart than "
            f"{test.critical_difference:.2f} differ at level {alpha:g}."
        )
    else:
        verdict = f"{test}."
    return Table(
        "Mean rank, 1 is best",
        ("schedule", *REGIMES, "over tasks"),
        rows,
        f"Ranks within cells, ties averaged; for the last column averaged inside each task first. Friedman: {verdict}",
    )


def improvement_table(improvements: Sequence[Improvement]) -> Table:
    """Probability that each schedule beats a baseline, in percent."""
    if not improvements:
        raise ValueError("there is no schedule beside the baseline to compare it with.")
    baseline = improvements[0].baseline
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (
            item.schedule,
            Estimate(100 * item.probability.value, 100 * item.probability.low, 100 * item.probability.high),
        )
        for item in improvements
    )
    return Table(
        f"Probability of beating {baseline}, %",
        ("schedule", f"P [{100 * improvements[0].confidence:g} % interval]"),
        rows,
        "Same task, optimizer, budget and seed; ties count half; mean over "
        f"{how_many(improvements[0].num_cells, 'cell')}. "
        "Interval: hierarchical bootstrap over task, cell and seed; with few tasks expect it to cover as far below its "
        "nominal share as those of the expected Top-k.",
    )


def difference_tables(cells: Sequence[Cell], schedules: Sequence[str], baseline: str) -> list[Table]:
    """Difference of every schedule to the baseline, with its pooled paired t-interval: a table per task and optimizer.

    Cells in which either diverged, or whose runs are not paired, are left empty.
    """
    tables = []
    for task, optimizer in dict.fromkeys((cell.task, cell.optimizer) for cell in cells):
        mine = [cell for cell in cells if (cell.task, cell.optimizer) == (task, optimizer)]
        rows: tuple[tuple[Entry, ...], ...] = tuple(
            (name, *(_difference(cell, schedules, name, baseline) for cell in mine))
            for name in schedules
            if name != baseline
        )
        tables.append(
            Table(
                f"{task}, {optimizer}: difference to {baseline}",
                ("schedule", *(cell.budget for cell in mine)),
                rows,
                "Mean difference [95 % interval], paired by seed: t-interval, variance pooled over the schedules of a "
                "cell; each interval for itself, not corrected for their number.",
            )
        )
    return tables


def _difference(cell: Cell, schedules: Sequence[str], name: str, baseline: str) -> Entry:
    if not cell.paired:
        return EMPTY
    finite = [other for other in schedules if other in cell.scores and np.isfinite(cell.values(other)).all()]
    if name not in finite or baseline not in finite:
        return EMPTY
    found = pooled_interval(cell.matrix(finite), finite.index(name), finite.index(baseline))
    return Estimate(found.mean, found.low, found.high)


def detectable_table(
    cells: Sequence[Cell],
    *,
    schedules: Sequence[str],
    metrics: Mapping[str, str],
    alpha: float = 0.05,
    power: float = 0.8,
) -> Table:
    """Smallest true difference between two schedules that each cell could have found: a row per budget.

    Args:
        cells: any cells.
        schedules: those whose seed noise is pooled.
        metrics: task → name and unit of its metric.
        alpha: level of the two-sided test.
        power: probability of finding the difference.
    """
    settings = tuple(dict.fromkeys((cell.task, cell.optimizer) for cell in cells))
    by_key = {(cell.task, cell.optimizer, cell.budget): cell for cell in cells}

    def entry(key: tuple[str, str, str]) -> float:
        cell = by_key.get(key)
        if cell is None or not cell.paired or any(name not in cell.scores for name in schedules):
            return math.nan
        return smallest_detectable_difference(cell_variation(cell, schedules), len(cell.seeds), alpha, power)

    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (budget, *(entry((task, optimizer, budget)) for task, optimizer in settings))
        for budget in dict.fromkeys(cell.budget for cell in cells)
    )
    units = "; ".join(f"{task}: {metrics[task]}" for task in dict.fromkeys(task for task, _ in settings))
    return Table(
        "Smallest detectable difference",
        ("budget", *(f"{task}, {optimizer}" for task, optimizer in settings)),
        rows,
        f"{units}. True difference between two schedules that one two-sided paired test at level {alpha:g} finds with "
        f"{100 * power:g} % power, at {how_many([len(cell.seeds) for cell in cells], 'seed')}, from the pooled "
        "residual standard deviation.",
    )


def expected_json(expected: ExpectedRanking, coverage: Coverage | None = None) -> dict[str, object]:
    """Expected Top-k as plain data for strict JSON, with the measured coverage of its intervals if there is one."""
    measured: dict[str, object] | None = None
    if coverage is not None:
        measured = {
            "nominal": coverage.nominal,
            "top1": {regime: finite_or_none(value) for regime, value in coverage.top1.items()},
            "top3": {regime: finite_or_none(value) for regime, value in coverage.top3.items()},
            "standard_error": coverage.standard_error,
            "num_studies": coverage.num_studies,
        }
    return {
        "confidence": expected.confidence,
        "num_resamples": expected.num_resamples,
        "num_tasks": expected.num_tasks,
        "coverage": measured,
        "schedules": {
            name: {
                regime: {"top1_percent": estimate_json(share.top1), "top3_percent": estimate_json(share.top3)}
                for regime, share in by_regime.items()
            }
            for name, by_regime in expected.shares.items()
        },
    }
