"""The report of the sampling study: the REX paper's Table 2, held and tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glideslope.core.catalog import SAMPLING_RATES
from glideslope.report.document import Document
from glideslope.report.page import Command, Provenance, Section
from glideslope.report.results import percent
from glideslope.report.tables import Entry, Table, Value, explained_flags, finite_or_none, how_many
from glideslope.studies.sampling import STEP_GAMMAS, Answer, Place

TITLE = "Profile and sampling rate"


def document(answer: Answer, provenance: Mapping[str, str]) -> Document:
    """A table per task, optimizer and budget: a row per sampling rate, a column per profile."""
    question = answer.question
    sections: list[Section] = []
    for tuned, title in ((False, "One rate held throughout, as in the paper"), (True, "The rate tuned in every cell")):
        tables = [
            _table(answer, setting.task.name, setting.metric.name, setting.metric.unit, optimizer, budget, tuned)
            for setting in question.settings
            for optimizer in question.optimizers
            for budget in question.budgets
        ]
        sections.append(Section(title, tables))
    if answer.failed:
        lines = [f"{place}: {error.strip().splitlines()[-1]}" for place, error in answer.failed]
        sections.insert(0, Section("Trials that failed", lines))
    facts = {**provenance, "n": question.seeds_in_words}
    command = facts.pop("command", "")
    sections.append(Section("Provenance", [Provenance(facts), *([Command(command)] if command else [])]))
    lead = (
        "A schedule is a profile and a sampling rate. Every profile is read at the seven rates of the REX paper's "
        'Table 2; the "step" profile is an exponential whose gamma is tuned at 50-75.'
        f"{question.caution}"
    )
    data: dict[str, Any] = {
        "question": question.to_json(),
        "cells": [
            place._asdict()
            | {"scores": [finite_or_none(score) for score in scores], "rate_at_limit": place in answer.at_limit}
            for place, scores in answer.scores.items()
        ],
        "gammas": [
            {"task": task, "optimizer": optimizer, "budget": budget, "tuned": tuned, "gamma": gamma}
            for (task, optimizer, budget, tuned), gamma in answer.gammas.items()
        ],
        "held_rates": [
            {"task": task, "optimizer": optimizer, "rate": rate}
            for (task, optimizer), rate in answer.held_rates.items()
        ],
        "failed": [f"{place}: {error.strip().splitlines()[-1]}" for place, error in answer.failed],
        "provenance": dict(provenance),
    }
    return Document(TITLE, lead, sections, data)


def _table(answer: Answer, task: str, metric: str, unit: str, optimizer: str, budget: float, tuned: bool) -> Table:
    profiles = answer.question.profiles
    rows = tuple(
        (name, *(_entry(answer, Place(task, optimizer, budget, profile, name, tuned)) for profile in profiles))
        for name in SAMPLING_RATES
    )
    note = f"{metric}{f', {unit}' if unit else ''}; mean ± std over {how_many(answer.question.num_seeds, 'seed')}."
    gamma = answer.gammas.get((task, optimizer, budget, tuned))
    if gamma is not None:
        edge = " (the edge of its grid)" if gamma in (min(STEP_GAMMAS), max(STEP_GAMMAS)) else ""
        note += f" step: gamma = {gamma:g}{edge}."
    note += " Rate tuned per cell." if tuned else f" Rate {answer.held_rates[task, optimizer]:.3g} throughout."
    note += explained_flags(rows)
    return Table(f"{task}, {optimizer}, {percent(budget)}", ("sampling", *profiles), rows, note)


def _entry(answer: Answer, place: Place) -> Entry:
    return Value.over_seeds(answer.scores.get(place, ()), flags=("at_limit",) if place in answer.at_limit else ())
