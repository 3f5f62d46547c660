"""The tradeoff study: what it asks for, what it makes of half an answer, and what it says of rates."""

import math
from dataclasses import replace

import pytest

from glideslope.studies import tradeoff as study
from glideslope.studies.setting import Setting
from glideslope.studies.tradeoff_report import document
from glideslope.trials.run import run_trial

TINY = "tiny_tasks:Regression"
ESTIMATORS = ("separate", "cyclic", "cooldown(0.25)")


@pytest.fixture(scope="module")
def question():
    return study.Question((Setting.of(TINY, ("sgdm",)),), ESTIMATORS, budgets=(0.25, 0.5, 1.0), num_seeds=2)


def completed(question, until=None):
    """Records of the study, asked cell by cell until nothing is missing, or until there are so many."""
    records = {}
    while True:
        specs = {spec.trial_id: spec for cell in study.every_cell(question) for spec in cell.next_specs(records)}
        if not specs:
            return records
        for trial_id, spec in specs.items():
            if len(records) == until:
                return records
            records[trial_id] = run_trial(spec).summary


@pytest.fixture(scope="module")
def records(question):
    return completed(question)


def test_budgets_are_whole_updates(question):
    assert study.budgets_of(question.settings[0], (0.25, 0.5, 1.0)) == (20, 40, 80)


def test_a_method_is_part_of_the_variant_and_not_of_the_task():
    setting = Setting.of("mnist1d-mlp+mixup+label_smoothing", ("adam",))
    assert study.variant(setting, "adam") == ("mnist1d-mlp", "adam+label_smoothing+mixup")


def test_tuning_asks_only_for_what_tells_the_largest_budget(question):
    cells = study.cells(question)
    first = cells[study.Place(TINY, "sgdm", "separate")].next_specs({})
    assert {spec.updates for spec in first} == {80}
    assert {spec.seeds.init for spec in first} == set(question.tuning_seeds)


def test_every_curve_is_made_at_one_rate_on_fresh_seeds(question, records):
    found = study.answer(question, records)
    assert not found.unfinished
    assert {result.seed for result in found.results} == {1, 2}
    for place, cell in study.cells(question).items():
        specs = [spec for seed in (1, 2) for spec in cell.at(found.choices[place].rate, seed).specs()]
        assert all(spec.trial_id in records for spec in specs)


def test_the_chosen_rate_is_the_best_of_those_tried_at_the_largest_budget(question, records):
    for choice in study.answer(question, records).choices.values():
        assert choice.rate == min(choice.tried, key=lambda pair: pair[1])[0]
        assert len(choice.tried) >= 3


def test_what_one_rate_loses_can_be_told_at_every_budget(question, records):
    found = study.answer(question, records)
    (scores,) = found.rate_scores.values()
    shared = found.choices[study.Place(TINY, "sgdm", "separate")].rate
    assert {score.budget for score in scores if score.rate == shared} == {20, 40, 80}


def test_costs_count_each_leg_once(question, records):
    by_estimator = {result.estimator: result for result in study.answer(question, records).results}
    assert by_estimator["separate"].planned_cost == pytest.approx(1.75)
    assert by_estimator["cyclic"].planned_cost == 1.0
    assert by_estimator["cooldown(0.25)"].planned_cost == pytest.approx((60 + 5 + 10 + 20) / 80)


def test_half_an_answer_tells_what_is_missing(question):
    some = completed(question, until=9)
    found = study.answer(question, some)
    assert found.unfinished
    text = document(found, {}).to_text()
    assert "finished" in text


def test_a_run_that_diverged_leaves_the_other_points(question, records):
    found = study.answer(question, records)
    place = study.Place(TINY, "sgdm", "cooldown(0.25)")
    specs = study.cells(question)[place].at(found.choices[place].rate, 1).specs()
    (middle,) = [spec for spec in specs if spec.updates == 40]
    lost = replace(records[middle.trial_id], status="diverged", test=None, validation=())
    again = study.answer(question, {**records, middle.trial_id: lost})
    (curve,) = [r for r in again.results if (r.estimator, r.seed) == ("cooldown(0.25)", 1)]
    assert [math.isnan(value) for value in curve.values] == [False, True, False]
    assert "Some runs diverged" in document(again, {}).to_text()


def test_the_question_survives_the_store(question):
    assert study.Question.from_json(question.to_json()) == question
