"""Frequency: longer cycles get longer runs, and stand beside a constant rate of the same length."""

import numpy as np
import pytest

from glideslope import Greedy
from glideslope.studies.arc import evaluation
from glideslope.studies.arc.evaluation import Question
from glideslope.studies.arc.frequency import frequency_tables, questions
from glideslope.studies.setting import Setting
from glideslope.trials.executors import InProcess
from glideslope.trials.planner import run_study
from glideslope.trials.run import run_trial
from glideslope.trials.store import Store

TINY = "tiny_tasks:Regression"


def base():
    return Question((Setting.of(TINY, ("adam",)),), num_seeds=3, rate_factors=(1.0,))


def test_more_often_than_once_an_epoch_means_validating_as_often():
    (asked,) = questions(base(), lambda every: Greedy(every=every), (0.25,)).values()
    assert asked.validations_per_epoch == 4
    assert dict(asked.controllers)["steered"].controller == Greedy(every=1)
    for cell in evaluation.cells(asked).values():
        assert all(spec.eval_every == 2 for spec in cell.trials)  # of eight updates
    records = {spec.trial_id: run_trial(spec) for cell in evaluation.cells(asked).values() for spec in cell.trials}
    (run, *_) = evaluation.answer(asked, records).runs[evaluation.Place("tiny_tasks:Regression", "steered", 1.0)]
    assert len(run.losses) == 4 * 30
    assert len(run.decisions) > 30


@pytest.mark.parametrize(("every", "bound"), [(1 / 3, "a divisor of the 8 updates"), (1.5, "a whole number of epochs")])
def test_epochs_are_not_divided_as_they_cannot_be(every, bound):
    with pytest.raises(ValueError, match=bound):
        questions(base(), lambda every: Greedy(every=every), (every,))


def test_every_frequency_has_ten_cycles_at_least_and_thirty_epochs():
    found = questions(base(), lambda every: Greedy(every=every), (1, 3, 4, 6))
    assert {every: question.epochs for every, question in found.items()} == {1: 30, 3: 30, 4: 40, 6: 60}
    for every, question in found.items():
        assert question.systems == ("constant", "steered")
        assert dict(question.controllers)["steered"].controller == Greedy(every=every)


def test_the_table_gives_medians_steered_and_left_alone(tmp_path):
    asked = questions(base(), lambda every: Greedy(every=every), (2,))
    with Store(tmp_path) as store:
        run_study(
            [cell for question in asked.values() for cell in evaluation.cells(question).values()], store, InProcess()
        )
        records = store.records()
    answers = {every: evaluation.answer(question, records) for every, question in asked.items()}
    (table,) = frequency_tables(answers)
    steered, alone = (
        np.median([run.last for run in answers[2].runs[evaluation.Place(TINY, system, 1.0)]])
        for system in ("steered", "constant")
    )
    assert [row[:2] for row in table.rows] == [("2 (30 epochs)", "last"), ("2 (30 epochs)", "best")]
    assert table.rows[0][2] == f"{steered:.4g} / {alone:.4g}"
