"""Frequency: how often should a controller decide? One evaluation for every number of epochs between decisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from glideslope.core.control import Controller
from glideslope.core.policy import Policy
from glideslope.core.spec import parse_plan
from glideslope.core.value import require
from glideslope.report.tables import Entry, Table
from glideslope.studies.arc.evaluation import Answer, Place, Question

FREQUENCIES = (0.25, 0.5, 1, 2, 3, 4, 5, 6)
"""Epochs between decisions. More often than once an epoch, runs are validated as often as that."""
SHORT_RUNS, FEWEST_DECISIONS = 30, 10
"""Runs are 30 epochs long, and longer where that would make fewer than ten cycles."""
STEERED, LEFT_ALONE = "steered", "constant"


def questions(base: Question, controller: Callable[[int], Controller], every: Sequence[float]) -> dict[float, Question]:
    """Epochs between decisions → the evaluation of a constant rate, steered and left alone.

    Args:
        base: tasks, optimizer, rates and seeds; its controllers, baselines and length are replaced.
        controller: makes the one that decides every so many observations.
        every: how many epochs; whole ones, or one divided by a whole number.

    Source: Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021, Appendix A.5. To
        validate several times an epoch is what its Section 5 proposes.
    """
    for number in every:
        whole = number if number >= 1 else 1 / number
        require(whole == round(whole), "every", number, "a whole number of epochs, or one divided by a whole number")
    return {
        number: replace(
            base,
            controllers=((STEERED, Policy(parse_plan("constant"), controller(math.ceil(number)))),),
            baselines=(LEFT_ALONE,),
            epochs=max(SHORT_RUNS, FEWEST_DECISIONS * math.ceil(number)),
            validations_per_epoch=max(1, round(1 / number)),
        )
        for number in every
    }


def frequency_tables(answers: Mapping[float, Answer]) -> list[Table]:
    """One table per task: a row per frequency, and for every initial rate the median steered, and left alone."""
    first = next(iter(answers.values())).question
    return [_table(answers, setting.task.name, setting.metric.name, first) for setting in first.settings]


def _table(answers: Mapping[float, Answer], task: str, metric: str, first: Question) -> Table:
    def medians(answer: Answer, counting: str) -> tuple[Entry, ...]:
        found: list[Entry] = []
        sign = -1.0 if answer.higher_is_better(task) else 1.0
        for factor in answer.question.rate_factors:
            pair = [
                sign * float(np.median(answer.values(Place(task, system, factor), counting)))
                for system in (STEERED, LEFT_ALONE)
            ]
            found.append(f"{pair[0]:.4g} / {pair[1]:.4g}")
        return tuple(found)

    rows: list[tuple[Entry, ...]] = [
        (f"{number:g} ({answer.question.epochs} epochs)", counting, *medians(answer, counting))
        for counting in ("last", "best")
        for number, answer in answers.items()
        if not answer.unfinished
    ]
    columns = ("decides every", "counting", *(f"{factor:g} × default" for factor in first.rate_factors))
    note = (
        f"{metric}, {first.optimizer}, median of {first.num_seeds} runs: steered / at a constant rate. Last: test "
        "metric after the last update; best: at the best validation."
    )
    return Table(f"{task}: how often to decide", columns, tuple(rows), note)
