"""The report of a tradeoff study: curves, what they cost, how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from glideslope.core.curve import Curve, price_of_separate
from glideslope.core.estimators import Separate
from glideslope.core.spec import parse_estimator
from glideslope.report.document import Document
from glideslope.report.fidelity import Fidelity, fidelity, pooled
from glideslope.report.page import Provenance, Section
from glideslope.report.tables import Table
from glideslope.report.tradeoff_tables import (
    cost_table,
    coupling,
    coupling_table,
    curve_table,
    fidelity_json,
    fidelity_table,
    pooled_table,
)
from glideslope.studies.tradeoff import Answer

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
        Section("Curves", [*_curve_tables(answer, metrics)]),
        Section("What they cost", _cost_tables(answer, reference)),
        Section("How far from the separate runs", _fidelity_tables(found)),
        Section("One rate for all budgets", _coupling_tables(answer, metrics, directions)),
        Section("Provenance", [Provenance({**provenance, "seconds of work": f"{answer.seconds:.0f}"})]),
    ]
    notes = _notes(answer)
    if notes:
        sections.insert(0, Section("Read first", notes))
    rho = price_of_separate(question.budgets)
    lead = (
        f"{len(question.budgets)} budgets up to 100 % of each task, {question.num_seeds} seeds, rates tuned on "
        f"{question.num_tuning_seeds} other seed(s), one rate for all budgets of a curve. Separate runs cost "
        f"\u03c1 = {rho:.2f} full runs; a cheap curve costs about one.{question.caution}"
    )
    return Document(
        PAGE_TITLE, lead, [section for section in sections if section.blocks], _data(answer, found, provenance)
    )


def _fidelities(answer: Answer, reference: str, directions: Mapping[str, bool]) -> tuple[Fidelity, ...]:
    tasks = {result.task for result in answer.results if result.estimator == reference}
    complete = [result for result in answer.results if result.task in tasks]
    if len({result.estimator for result in complete}) < 2:
        return ()
    return fidelity(complete, reference, directions)


def _curve_tables(answer: Answer, metrics: Mapping[str, str]) -> list[Table]:
    problems = dict.fromkeys((result.task, result.variant) for result in answer.results)
    return [
        curve_table(
            [result for result in answer.results if (result.task, result.variant) == problem], metrics[problem[0]]
        )
        for problem in problems
    ]


def _cost_tables(answer: Answer, reference: str) -> list[Table]:
    tasks = dict.fromkeys(result.task for result in answer.results if result.estimator == reference)
    return [cost_table([result for result in answer.results if result.task == task], reference) for task in tasks]


def _fidelity_tables(found: tuple[Fidelity, ...]) -> list[Table]:
    tasks = dict.fromkeys(one.task for one in found)
    tables = [fidelity_table([one for one in found if one.task == task]) for task in tasks]
    return [*tables, pooled_table(pooled(found))] if len(tasks) > 1 else tables


def _coupling_tables(answer: Answer, metrics: Mapping[str, str], directions: Mapping[str, bool]) -> list[Table]:
    tables = []
    for (task, variant), scores in answer.rate_scores.items():
        shared = next(
            choice.rate
            for place, choice in answer.choices.items()
            if place[:2] == (task, variant) and isinstance(parse_estimator(place.estimator), Separate)
        )
        found = coupling(scores, directions[task], shared)
        tables.append(coupling_table(found, f"{task}, {variant}", metrics[task]))
    return tables


def _notes(answer: Answer) -> list[str]:
    notes = [f"Not finished: {' / '.join(place)}." for place in answer.unfinished]
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
