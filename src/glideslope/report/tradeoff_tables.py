"""The tables of tradeoff curves: fidelity, the curves themselves, what they cost, and how the best rate moves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glideslope.report.fidelity import NOMINAL, CurveResult, Fidelity, PooledFidelity
from glideslope.report.panel import Estimate, as_losses
from glideslope.report.statistics import paired_interval
from glideslope.report.tables import EMPTY, Entry, Table, Tally, Value, finite_or_none, how_many


def fidelity_table(fidelities: Sequence[Fidelity]) -> Table:
    """How far each estimator is from the reference on one task: a row per estimator."""
    task = _only("task", (one.task for one in fidelities))
    reference = _only("reference", (one.reference for one in fidelities))
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (
            one.estimator,
            one.planned_cost,
            one.measured_cost,
            one.mean_gap.value,
            (one.mean_gap.high - one.mean_gap.low) / 2,
            one.bias_seed_sd,
            100 * one.coverage.value,
            _agreement(one),
            one.rank_correlation,
            one.cosine_similarity,
        )
        for one in fidelities
    )
    direction = "higher" if fidelities[0].higher_is_better else "lower"
    note = [
        f"Against {reference}; {direction} is better. {_design(fidelities)}",
        "Cost in runs of the largest budget. Gap: estimate − reference in the metric's unit, with a 90 % t-interval "
        "over seeds. Bias: mean |gap| in standard deviations over seeds of the reference, noise taken off [90 % "
        "interval, bootstrap over seeds]. Agreement: of the differences between variants that the reference shows "
        "(paired t, Holm, 5 %), those with the same sign. Rank correlation: Kendall's. Cosine: of the variants' "
        "improvements over the first.",
        *_coverage_notes(fidelities),
        *_noise_notes(fidelities),
    ]
    return Table(
        f"{task}: fidelity to {reference}",
        (
            "estimator",
            "planned cost",
            "measured",
            "gap",
            "±",
            "bias, seed sd",
            "coverage, %",
            "agreement",
            "rank corr.",
            "cosine",
        ),
        rows,
        " ".join(note),
    )


def pooled_table(lines: Sequence[PooledFidelity]) -> Table:
    """Every estimator over all tasks: a row each."""
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (
            line.estimator,
            line.num_tasks,
            line.planned_cost.value,
            line.measured_cost.value,
            line.bias_seed_sd.value,
            100 * line.coverage.value,
            100 * line.agreement.value,
            line.rank_correlation.value,
            line.cosine_similarity.value,
        )
        for line in lines
    )
    columns = (
        "estimator",
        "tasks",
        "planned cost",
        "measured",
        "bias, seed sd",
        "coverage, %",
        "agreement, %",
        "rank corr.",
        "cosine",
    )
    return Table(
        "Fidelity over all tasks",
        columns,
        rows,
        "Means over the tasks on which a number could be told; tasks count alike. See the tables of the tasks for what "
        "is measured.",
    )


def _agreement(one: Fidelity) -> Tally:
    if not one.num_significant_pairs:
        return Tally(0, None)
    return Tally(round(one.agreement * one.num_significant_pairs), 100 * one.agreement)


def _design(fidelities: Sequence[Fidelity]) -> str:
    counts = (
        how_many([one.num_seeds for one in fidelities], "seed"),
        how_many([one.num_variants for one in fidelities], "variant"),
        how_many([one.num_budgets for one in fidelities], "budget"),
    )
    diverged = [f"{one.num_diverged} of {one.estimator}" for one in fidelities if one.num_diverged]
    left_out = f" Diverged and left out: {', '.join(diverged)}." if diverged else ""
    return f"{counts[0]}, {counts[1]}, {counts[2]}.{left_out}"


def _coverage_notes(fidelities: Sequence[Fidelity]) -> list[str]:
    return [
        f"Coverage of {one.estimator}: {one.num_intervals} nominal {100 * NOMINAL:g} % intervals of "
        f"{one.num_interval_runs} runs [{100 * one.coverage.low:.0f}, {100 * one.coverage.high:.0f}]; right ones would "
        f"show {100 * one.attainable_coverage:.0f} %, for the means they are held to are noisy."
        for one in fidelities
        if one.num_intervals
    ]


def _noise_notes(fidelities: Sequence[Fidelity]) -> list[str]:
    names = dict.fromkeys(match.variant for one in fidelities for match in one.improvements if match.within_noise)
    if not names:
        return []
    return [f"Improvement within noise, so that its cosine says nothing: {', '.join(names)}."]


def curve_table(results: Sequence[CurveResult], metric: str) -> Table:
    """The curves of one task and variant: mean ± std over seeds, a row per budget, a column per estimator.

    Args:
        results: of one task and variant.
        metric: name and unit, such as "accuracy, %".
    """
    task, variant = _only("task", (r.task for r in results)), _only("variant", (r.variant for r in results))
    estimators = list(dict.fromkeys(result.estimator for result in results))
    budgets = sorted({budget for result in results for budget in result.budgets})
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (str(budget), *(_over_seeds(results, estimator, budget) for estimator in estimators)) for budget in budgets
    )
    seeds = [len({r.seed for r in results if r.estimator == estimator}) for estimator in estimators]
    some = any(isinstance(entry, Value) and entry.flags for row in rows for entry in row)
    note = f"{metric}; mean ± std over {how_many(seeds, 'seed')}. A budget is a number of updates."
    return Table(
        f"{task}, {variant}: curves",
        ("budget", *estimators),
        rows,
        note + (" ‡ some seeds diverged: mean of the others." if some else ""),
    )


def _over_seeds(results: Iterable[CurveResult], estimator: str, budget: int) -> Entry:
    values = [r.values[r.budgets.index(budget)] for r in results if r.estimator == estimator and budget in r.budgets]
    return Value.over_seeds(values) if values else EMPTY


@dataclass(frozen=True)
class Cost:
    """What a whole curve costs by one estimator, in runs of the largest budget, evaluation apart; NaN: not known.

    Args:
        estimator: its text.
        planned: by counted updates.
        measured: by time.
    """

    estimator: str
    planned: float
    measured: float


def costs(results: Iterable[CurveResult], reference: str = "separate") -> tuple[Cost, ...]:
    """Costs of the estimators of one task, means over variants and seeds, the reference first.

    Where the reference's plan is not known, it is ρ = ΣT_k / T_K of its budgets.
    """
    by_estimator: dict[str, list[CurveResult]] = {}
    for result in results:
        by_estimator.setdefault(result.estimator, []).append(result)
    if reference not in by_estimator:
        raise ValueError(f"there is no curve of {reference!r}. There are: {', '.join(by_estimator)}.")
    found = {
        name: Cost(name, _finite_mean(r.planned_cost for r in mine), _finite_mean(r.measured_cost for r in mine))
        for name, mine in by_estimator.items()
    }
    first = found.pop(reference)
    if not math.isfinite(first.planned):
        budgets = by_estimator[reference][0].budgets
        first = Cost(reference, sum(budgets) / max(budgets), first.measured)
    return (first, *found.values())


def cost_table(results: Sequence[CurveResult], reference: str = "separate") -> Table:
    """What every estimator's curve of one task cost, and what that saved: plan against plan, measured against measured.

    Args:
        results: of one task.
        reference: the estimator whose curve the others stand in for; see `costs`.
    """
    task = _only("task", (result.task for result in results))
    ledger = costs(results, reference)
    whole = ledger[0]
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (
            one.estimator,
            one.planned,
            one.measured,
            whole.planned / one.planned,
            100 * (1 - one.planned / whole.planned),
            100 * (1 - one.measured / whole.measured),
        )
        for one in ledger
    )
    return Table(
        f"{task}: what the curves cost",
        ("estimator", "planned", "measured", "speed-up, ×", "saved, planned %", "saved, measured %"),
        rows,
        f"Cost of a whole curve in runs of the largest budget, evaluation apart; {reference} costs "
        f"ρ = {whole.planned:.2f}. Planned counts updates, measured time.",
    )


@dataclass(frozen=True)
class RateScore:
    """The metric of one run that was tuned over.

    Args:
        budget: in updates.
        rate: base rate, > 0.
        seed: runs of one seed are paired.
        score: in the metric's unit; NaN or infinite where the run diverged.
    """

    budget: int
    rate: float
    seed: int
    score: float


@dataclass(frozen=True)
class Coupling:
    """What one rate for all budgets loses at one of them.

    Args:
        budget: in updates.
        best_rate: best mean over seeds.
        is_edge: whether it is the lowest or highest tried, so that a better one may lie outside.
        shared_rate: the one rate.
        loss: how much worse the shared rate is than one tuned for this budget, in the metric's unit, > 0 is worse, with
            a 90 % t-interval. The tuned rate of a seed is the best of the others' seeds, for the best of what is seen
            is flattered by its own noise. Infinite where the shared rate diverged.
    """

    budget: int
    best_rate: float
    is_edge: bool
    shared_rate: float
    loss: Estimate


def coupling(
    scores: Iterable[RateScore], higher_is_better: bool = False, shared_rate: float | None = None
) -> tuple[Coupling, ...]:
    """How the best rate moves with the budget, and what it costs not to follow it.

    Args:
        scores: every rate with the same seeds at every budget.
        higher_is_better: direction of the metric.
        shared_rate: left out: the best at the largest budget, the one that a single run is tuned for.

    Returns: by budget, smallest first.
    """
    by_budget: dict[int, dict[float, dict[int, float]]] = {}
    for one in scores:
        by_budget.setdefault(one.budget, {}).setdefault(one.rate, {})[one.seed] = one.score
    if not by_budget:
        raise ValueError("there are no scores to compare rates by. Give one or more runs.")
    losses = {
        budget: {rate: _losses(seeds, by_rate, budget, higher_is_better) for rate, seeds in sorted(by_rate.items())}
        for budget, by_rate in sorted(by_budget.items())
    }
    shared = _best(losses[max(losses)]) if shared_rate is None else shared_rate
    found = []
    for budget, by_rate in losses.items():
        if shared not in by_rate:
            tried = ", ".join(f"{rate:g}" for rate in by_rate)
            raise ValueError(f"the shared rate {shared:g} was not tried at {budget} updates; tried: {tried}.")
        best = _best(by_rate)
        is_edge = best in (min(by_rate), max(by_rate))
        found.append(Coupling(budget, best, is_edge, shared, _lost(by_rate, shared)))
    return tuple(found)


_ByRate = dict[float, NDArray[np.float64]]


def _losses(
    by_seed: dict[int, float], by_rate: dict[float, dict[int, float]], budget: int, higher_is_better: bool
) -> NDArray[np.float64]:
    """(num_seeds,), in the order of the seeds."""
    seeds = sorted(set().union(*by_rate.values()))
    if sorted(by_seed) != seeds:
        raise ValueError(f"at {budget} updates not every rate has the seeds {seeds}: one has {sorted(by_seed)}.")
    return as_losses(np.array([by_seed[seed] for seed in seeds], dtype=np.float64), higher_is_better)


def _best(by_rate: _ByRate) -> float:
    return min(by_rate, key=lambda rate: float(by_rate[rate].mean()))


def _lost(by_rate: _ByRate, shared: float) -> Estimate:
    num_seeds = by_rate[shared].size
    others = [np.arange(num_seeds) != seed for seed in range(num_seeds)] if num_seeds > 1 else [np.array([True])]
    tuned = np.array(
        [by_rate[_best({r: v[kept] for r, v in by_rate.items()})][seed] for seed, kept in enumerate(others)]
    )
    ours = by_rate[shared]
    if not np.isfinite(ours).all():
        return Estimate(math.inf, math.nan, math.nan)
    if num_seeds < 2 or not np.isfinite(tuned).all():
        return Estimate(float((ours - tuned).mean()), math.nan, math.nan)
    found = paired_interval(ours, tuned, NOMINAL)
    return Estimate(found.mean, found.low, found.high)


def coupling_table(couplings: Sequence[Coupling], title: str, metric: str) -> Table:
    """How the best rate moves with the budget: a row per budget.

    Args:
        couplings: from `coupling`.
        title: what was tuned, such as "digits-mlp, sgdm".
        metric: name and unit.
    """
    rows: tuple[tuple[Entry, ...], ...] = tuple(
        (str(one.budget), f"{one.best_rate:.3g}" + (" †" if one.is_edge else ""), one.loss) for one in couplings
    )
    note = [
        f"Loss: {metric}, by how much the one rate {couplings[0].shared_rate:.3g} is worse than the best of each "
        "budget [90 % interval]; above 0: worse. The best is chosen on other seeds than it is scored on.",
        *(
            ["† the edge of what was tried: a better rate may lie outside."]
            if any(c.is_edge for c in couplings)
            else []
        ),
    ]
    return Table(
        f"{title}: the best rate at every budget",
        ("budget", "best rate", "loss of one rate"),
        rows,
        " ".join(note),
    )


def fidelity_json(fidelities: Iterable[Fidelity]) -> dict[str, dict[str, dict[str, object]]]:
    """Task → estimator → its fidelity as plain data for strict JSON; what cannot be told is null."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for one in fidelities:
        found.setdefault(one.task, {})[one.estimator] = {
            "planned_cost": finite_or_none(one.planned_cost),
            "measured_cost": finite_or_none(one.measured_cost),
            "mean_gap": finite_or_none(one.mean_gap.value),
            "mean_gap_interval": _ends(one.mean_gap),
            "bias_seed_sd": finite_or_none(one.bias_seed_sd.value),
            "bias_seed_sd_interval": _ends(one.bias_seed_sd),
            "uncorrected_bias_seed_sd": finite_or_none(one.uncorrected_bias_seed_sd),
            "coverage": finite_or_none(one.coverage.value),
            "coverage_interval": _ends(one.coverage),
            "attainable_coverage": finite_or_none(one.attainable_coverage),
            "num_intervals": one.num_intervals,
            "num_interval_runs": one.num_interval_runs,
            "agreement": finite_or_none(one.agreement),
            "num_significant_pairs": one.num_significant_pairs,
            "rank_correlation": finite_or_none(one.rank_correlation),
            "cosine_similarity": finite_or_none(one.cosine_similarity),
            "improvement_within_noise": one.improvement_within_noise,
            "improvements": {
                match.variant: {
                    "cosine_similarity": finite_or_none(match.cosine_similarity),
                    "p_value": finite_or_none(match.p_value),
                    "within_noise": match.within_noise,
                }
                for match in one.improvements
            },
            "reference": one.reference,
            "higher_is_better": one.higher_is_better,
            "num_seeds": one.num_seeds,
            "num_variants": one.num_variants,
            "num_budgets": one.num_budgets,
            "num_diverged": one.num_diverged,
        }
    return found


def _ends(estimate: Estimate) -> list[float | None]:
    return [finite_or_none(estimate.low), finite_or_none(estimate.high)]


def _only(noun: str, names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    if len(found) != 1:
        raise ValueError(f"this table is about one {noun}, but was given {', '.join(found) or 'none'}.")
    return found[0]


def _finite_mean(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan
