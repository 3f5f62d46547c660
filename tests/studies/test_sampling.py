"""sampling: the paper's Table 2, with one rate held and with the rate tuned."""

import json
from dataclasses import replace

import pytest
from specs import Counted

from glideslope.core.catalog import SAMPLING_RATES
from glideslope.core.profiles import Exponential
from glideslope.core.spec import canonical
from glideslope.studies import sampling, sampling_report
from glideslope.studies.sampling import STEP_GAMMAS, Question
from glideslope.studies.setting import Setting
from glideslope.trials.planner import run_study
from glideslope.trials.store import Store

SEVEN = ("50-75", "33-66", "25-50-75", "10-10", "5-25", "1-100", "every")


@pytest.fixture(scope="module")
def question():
    return Question(
        (Setting.of("tiny_tasks:Regression", ("sgdm",)),), budgets=(0.1,), profiles=("step", "rex"), num_seeds=2
    )


@pytest.fixture(scope="module")
def finished(question, tmp_path_factory):
    with Store(tmp_path_factory.mktemp("store")) as store, Counted() as executor:
        return run_study(sampling.cells(question).values(), store, executor), executor.ran


class TestQuestion:
    def test_question_and_json_are_one(self, question):
        assert Question.from_json(json.loads(canonical(question.to_json()))) == question

    def test_the_default_is_the_papers(self, question):
        default = Question(question.settings)
        assert default.budgets == (0.05, 0.25, 1.0)
        assert default.profiles == ("step", "linear", "cosine", "rex")
        assert tuple(SAMPLING_RATES) == SEVEN

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"budgets": (0.0,)}, "`budgets` is 0.0, but must satisfy 0 < budget"),
            ({"num_seeds": 0}, "`num_seeds` is 0"),
            ({"num_tuning_seeds": 0}, "`num_tuning_seeds` is 0"),
            ({"profiles": ("rexx",)}, "unknown schedule 'rexx'"),
        ],
    )
    def test_mistakes(self, question, change, message):
        with pytest.raises(ValueError, match=message):
            replace(question, **change)


class TestCells:
    def test_every_profile_is_read_at_every_rate_held_and_tuned(self, question, finished):
        records, _ = finished
        answer = sampling.answer(question, records)
        assert {(place.profile, place.sampling, place.tuned) for place in answer.scores} == {
            (profile, name, tuned) for profile in ("step", "rex") for name in SEVEN for tuned in (False, True)
        }
        assert all(len(scores) == 2 for scores in answer.scores.values())

    def test_the_held_rate_is_one(self, question, finished):
        records, _ = finished
        for place, cell in sampling.cells(question).items():
            if place.tuned:
                continue
            resolved = cell if place.profile == "rex" else cell.resolve(records)
            assert {spec.rate for spec in resolved.reports(resolved.tuning.ask(records))} == {0.03}
        assert sampling.answer(question, records).held_rates == {("tiny_tasks:Regression", "sgdm"): 0.03}

    def test_gamma_is_tuned_at_50_75_and_used_at_every_rate(self, question, finished):
        records, ran = finished
        answer = sampling.answer(question, records)
        for tuned in (False, True):
            gamma = answer.gammas["tiny_tasks:Regression", "sgdm", 0.1, tuned]
            for place, cell in sampling.cells(question).items():
                if place.profile != "step" or place.tuned != tuned:
                    continue
                assert {str(policy.plan["lr"].schedule.sampling) for policy in cell.gamma.candidates} == {
                    str(SAMPLING_RATES["50-75"])
                }
                (policy,) = cell.resolve(records).tuning.candidates
                schedule = policy.plan["lr"].schedule
                assert (schedule.profile, schedule.sampling) == (Exponential(gamma), SAMPLING_RATES[place.sampling])
            # The best of the gammas by hand: validation at 50-75, at the held rate.
            if not tuned:
                cell = next(c for p, c in sampling.cells(question).items() if p.profile == "step" and not p.tuned)
                scores = {
                    spec.policy.plan["lr"].schedule.profile.gamma: records[spec.trial_id].validation[-1].metric
                    for spec in cell.gamma.asked(records)
                }
                assert set(scores) == set(STEP_GAMMAS)
                assert gamma == min(scores, key=scores.get)
        assert len({spec.trial_id for spec in ran}) == len(ran)

    def test_cells_that_are_not_finished_are_left_out(self, question, finished):
        records, _ = finished
        assert sampling.answer(question, {}).scores == {}
        place, cell = next((p, c) for p, c in sampling.cells(question).items() if p.profile == "rex" and not p.tuned)
        missing = cell.reports(cell.tuning.ask(records))[0].trial_id
        partly = {trial_id: record for trial_id, record in records.items() if trial_id != missing}
        assert place not in sampling.answer(question, partly).scores


class TestDocument:
    def test_gamma_and_variant_are_printed(self, question, finished):
        answer = sampling.answer(question, finished[0])
        document = sampling_report.document(answer, {"command": "glideslope compare --sampling"})
        text = " ".join(document.to_text().split())
        for tuned, words in ((False, "Rate 0.03 throughout."), (True, "Rate tuned per cell.")):
            assert f"step: gamma = {answer.gammas['tiny_tasks:Regression', 'sgdm', 0.1, tuned]:g}. {words}" in text
        for name in SEVEN:
            assert name in text
        data = json.loads(document.to_json())
        assert len(data["cells"]) == 2 * 7 * 2
        assert {entry["tuned"] for entry in data["gammas"]} == {True, False}
