"""The report of a tradeoff study: curves, what they cost, how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import plotly.graph_objects as go

from glideslope.core.curve import Axis, Curve, frontier, price_of_separate
from glideslope.core.estimators import Separate
from glideslope.core.spec import parse_estimator
from glideslope.report import figures
from glideslope.report.document import Document
from glideslope.report.fidelity import CurveResult, Fidelity, fidelity, pooled
from glideslope.report.figures import Style
from glideslope.report.page import Figure, Provenance, Section
from glideslope.report.tables import Table, how_many
from glideslope.report.tradeoff_figures import (
    cost_bars,
    fidelity_panel,
    frontier_figure,
    target_slider,
    tradeoff_curves,
)
from glideslope.report.tradeoff_tables import (
    cost_table,
    costs,
    coupling,
    coupling_table,
    curve_table,
    fidelity_json,
    fidelity_table,
    pooled_table,
)
from glideslope.studies.tradeoff import Answer, Place

PAGE_TITLE = "What every budget buys"


def document(answer: Answer, provenance: Mapping[str, str], price_per_hour: float | None = None) -> Document:
    """Everything the study found.

    Args:
        answer: may be of an unfinished study; what is missing is told.
        provenance: facts for the foot of the page.
        price_per_hour: of the machine, for costs in money; None leaves money out.
    """
    question = answer.question
    if not answer.results:
        return Document(PAGE_TITLE, "No curve is finished yet: run the same command again.", [], {})
    directions = {setting.task.name.partition("+")[0]: setting.metric.higher_is_better for setting in question.settings}
    metrics = {
        setting.task.name.partition("+")[0]: f"{setting.metric.name}{setting.metric.unit and ', '}{setting.metric.unit}"
        for setting in question.settings
    }
    reference = question.estimators[0]
    found = _fidelities(answer, reference, directions)
    sections = [
        Section("Curves", [*_curve_tables(answer, metrics), *_curve_figures(answer, directions, price_per_hour)]),
        *_method_sections(answer, reference, directions, price_per_hour),
        Section("What they cost", [*_cost_tables(answer, reference), *_cost_figures(answer, reference)]),
        Section("How far from the separate runs", [*_fidelity_tables(found), *_fidelity_figures(found)]),
        Section("One rate for all budgets", _coupling_tables(answer, metrics, directions)),
        Section("Provenance", [Provenance({**provenance, "seconds of work": f"{answer.seconds:.0f}"})]),
    ]
    notes = _notes(answer)
    if notes:
        sections.insert(0, Section("Read first", notes))
    rho = price_of_separate(question.budgets)
    lead = (
        f"{how_many(len(question.budgets), 'budget')} up to {100 * question.budgets[-1]:.4g} % of each task, "
        f"{how_many(question.num_seeds, 'seed')}, rates tuned on "
        f"{how_many(question.num_tuning_seeds, 'other seed')}, one rate for all budgets of a curve. Separate runs cost "
        f"\u03c1 = {rho:.2f} full runs; a cheap curve costs about one.{question.caution}"
    )
    return Document(
        PAGE_TITLE, lead, [section for section in sections if section.blocks], _data(answer, found, provenance)
    )


def _fidelities(answer: Answer, reference: str, directions: Mapping[str, bool]) -> tuple[Fidelity, ...]:
    """Of the problems that have the reference and something to hold against it."""
    by_problem: dict[tuple[str, str], list[CurveResult]] = {}
    for result in answer.results:
        by_problem.setdefault((result.task, result.variant), []).append(result)
    complete = [
        result
        for results in by_problem.values()
        if {reference} < {result.estimator for result in results}
        for result in results
    ]
    return fidelity(complete, reference, directions) if complete else ()


def _curve_tables(answer: Answer, metrics: Mapping[str, str]) -> list[Table]:
    problems = dict.fromkeys((result.task, result.variant) for result in answer.results)
    return [
        curve_table(
            [result for result in answer.results if (result.task, result.variant) == problem], metrics[problem[0]]
        )
        for problem in problems
    ]


def _curve_figures(answer: Answer, directions: Mapping[str, bool], price: float | None) -> list[Figure]:
    looks = figures.styles(list(dict.fromkeys(place.estimator for place in answer.curves)))

    def draw(task: str, variant: str) -> go.Figure:
        mine = [curve for place, curve in answer.curves.items() if place[:2] == (task, variant)]
        return tradeoff_curves(mine, looks, _metric(answer, task), directions[task], price)

    problems = dict.fromkeys(place[:2] for place in answer.curves)
    shown = "mean over seeds with its 90 % interval" if answer.question.num_seeds > 1 else "one seed"
    return [Figure(partial(draw, *problem), f"{problem[0]}, {problem[1]}: {shown}.") for problem in problems]


def _method_sections(
    answer: Answer, reference: str, directions: Mapping[str, bool], price: float | None
) -> list[Section]:
    """Training methods side by side, by the curves of the reference: where there are several."""
    blocks: list[Table | Figure] = []
    for task in dict.fromkeys(place.task for place in answer.curves):
        mine = [
            replace(curve, name=place.variant)
            for place, curve in answer.curves.items()
            if (place.task, place.estimator) == (task, reference)
        ]
        if len(mine) < 2:
            continue
        metric, upward = _metric(answer, task), directions[task]
        looks = figures.styles([curve.name for curve in mine])
        blocks += [
            _method_table(answer, task, reference),
            Figure(
                partial(target_slider, mine, looks, metric, upward, mine[0].name, price_per_hour=price),
                f"{task}: the cheapest method to a target, against {mine[0].name}, by the curves of {reference}.",
            ),
            Figure(
                partial(_frontier, mine, looks, metric, upward, price),
                f"{task}: what can be bought; grey where another method is as cheap and as good.",
            ),
        ]
    return [Section("Training methods", blocks)] if blocks else []


def _frontier(
    curves: Sequence[Curve], looks: Mapping[str, Style], metric: str, upward: bool, price: float | None
) -> go.Figure:
    axis: Axis = "updates" if price is None or not all(curve.seconds for curve in curves) else "money"
    return frontier_figure(frontier(curves, metric, upward, axis, price), looks, metric, upward, axis, price)


def _method_table(answer: Answer, task: str, reference: str) -> Table:
    """What each method costs to reach what the first one reaches with the largest budget, by every estimator."""
    metric = _metric(answer, task)
    variants = list(dict.fromkeys(place.variant for place in answer.curves if place.task == task))
    estimators = list(dict.fromkeys(place.estimator for place in answer.curves if place.task == task))
    rows = []
    for estimator in estimators:
        curves = {variant: answer.curves.get(Place(task, variant, estimator)) for variant in variants}
        first = curves[variants[0]]
        if first is None:
            continue
        target = first.metrics[metric].values[-1]
        rows.append(
            (estimator, f"{target:.4g}", *(_share(curves[variant], metric, target) for variant in variants[1:]))
        )
    interval = " [from its 90 % interval over seeds]" if answer.question.num_seeds > 1 else ""
    note = (
        f"Share of the largest budget that a method needs for the {metric} that {variants[0]} ends with{interval}; "
        f"outside: its curve ends before, or begins beyond. {reference} is what the other rows estimate."
    )
    return Table(f"{task}: cost to reach {variants[0]}", ("estimator", metric, *variants[1:]), tuple(rows), note)


def _share(curve: Curve | None, metric: str, target: float) -> str:
    if curve is None:
        return "-"
    found, full = curve.cost_to_reach("updates", None, **{metric: target}), curve.updates[-1]
    band = curve.metrics[metric]
    if band.lows == band.highs:
        return f"{found.value / full:.2f}" if found.is_known else "outside"
    if not found.is_known:
        bounds = (
            math.isnan(found.low) or f"{found.low / full:.2f}",
            math.isnan(found.high) or f"{found.high / full:.2f}",
        )
        return "-" if True in bounds else f"outside [{bounds[0]}, {bounds[1]}]"
    return f"{found.value / full:.2f} [{found.low / full:.2f}, {found.high / full:.2f}]"


def _metric(answer: Answer, task: str) -> str:
    return next(s.metric.name for s in answer.question.settings if s.task.name.partition("+")[0] == task)


def _cost_figures(answer: Answer, reference: str) -> list[Figure]:
    tasks = dict.fromkeys(result.task for result in answer.results if result.estimator == reference)

    def draw(task: str) -> go.Figure:
        return cost_bars(costs([result for result in answer.results if result.task == task], reference))

    return [Figure(partial(draw, task), f"{task}: cost of a whole curve in full runs.") for task in tasks]


def _fidelity_figures(found: tuple[Fidelity, ...]) -> list[Figure]:
    if not any(math.isfinite(one.bias_seed_sd.value) for one in found):
        return []
    looks = figures.styles(list(dict.fromkeys(one.estimator for one in found)))
    return [Figure(lambda: fidelity_panel(found, looks), "Bias of each estimator on each task.")]


def _cost_tables(answer: Answer, reference: str) -> list[Table]:
    tasks = dict.fromkeys(result.task for result in answer.results if result.estimator == reference)
    return [cost_table([result for result in answer.results if result.task == task], reference) for task in tasks]


def _fidelity_tables(found: tuple[Fidelity, ...]) -> list[Table]:
    tasks = dict.fromkeys(one.task for one in found)
    tables = [fidelity_table([one for one in found if one.task == task]) for task in tasks]
    return [*tables, pooled_table(pooled(found))] if len(tasks) > 1 else tables


def _coupling_tables(answer: Answer, metrics: Mapping[str, str], directions: Mapping[str, bool]) -> list[Table]:
    shared = {
        place[:2]: choice.rate
        for place, choice in answer.choices.items()
        if isinstance(parse_estimator(place.estimator), Separate)
    }
    return [
        coupling_table(coupling(scores, directions[task], shared[task, variant]), f"{task}, {variant}", metrics[task])
        for (task, variant), scores in answer.rate_scores.items()
        if (task, variant) in shared
    ]


def _notes(answer: Answer) -> list[str]:
    missing = "; ".join(" / ".join(place) for place in answer.unfinished)
    notes = [f"Not finished: {missing}. Run the same command again."] if missing else []
    notes += [f"Failed: {' / '.join(place)}: {error.strip().splitlines()[-1]}" for place, error in answer.failed]
    edges = [" / ".join(place) for place, choice in answer.choices.items() if choice.at_limit]
    notes += [
        f"The best rate lies at the end of its grid, and a better one may lie beyond: {place}." for place in edges
    ]
    diverged = {
        " / ".join((result.task, result.variant, result.estimator))
        for result in answer.results
        if not all(map(math.isfinite, result.values))
    }
    notes += [f"Some runs diverged: {place}; their other points stand." for place in sorted(diverged)]
    if answer.fallbacks:
        curves = len({(place, seed) for place, seed in answer.fallbacks})
        of = sum(result.estimator in {place.estimator for place, _ in answer.fallbacks} for result in answer.results)
        notes.append(f"The self-check failed for {curves} of {of} curves, which then took a branch for every budget.")
    return notes


def _data(answer: Answer, found: tuple[Fidelity, ...], provenance: Mapping[str, str]) -> dict[str, Any]:
    return {
        "question": answer.question.to_json(),
        "fidelity": fidelity_json(found),
        "curves": [
            {
                "task": result.task,
                "variant": result.variant,
                "estimator": result.estimator,
                "seed": result.seed,
                "budgets": list(result.budgets),
                "values": [value if math.isfinite(value) else None for value in result.values],
                "lows": [value if math.isfinite(value) else None for value in result.lows],
                "highs": [value if math.isfinite(value) else None for value in result.highs],
                "planned_cost": result.planned_cost,
                "measured_cost": result.measured_cost if math.isfinite(result.measured_cost) else None,
            }
            for result in answer.results
        ],
        "mean_curves": [
            {"task": place.task, "variant": place.variant, "estimator": place.estimator, **_curve_json(curve)}
            for place, curve in answer.curves.items()
        ],
        "rates": [
            {"task": place.task, "variant": place.variant, "estimator": place.estimator, "rate": choice.rate}
            for place, choice in answer.choices.items()
        ],
        "fallbacks": [[*place, seed] for place, seed in answer.fallbacks],
        "trials": answer.num_trials,
        "updates": answer.num_updates,
        "seconds_of_work": answer.seconds,
        "provenance": dict(provenance),
    }


def _curve_json(curve: Curve) -> dict[str, Any]:
    return {key: value for key, value in curve.to_dict().items() if key != "name"}
