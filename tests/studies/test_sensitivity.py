"""sensitivity: the paper's Figure 3, every schedule at every rate, nothing tuned."""

import json
import math
from dataclasses import replace

import pytest
from specs import Counted

from glideslope.core.spec import canonical, parse_policy
from glideslope.report.tables import EMPTY, Value
from glideslope.studies import sensitivity, sensitivity_report
from glideslope.studies.sensitivity import Answer, Place, Question
from glideslope.studies.setting import Setting
from glideslope.trials.planner import run_study
from glideslope.trials.store import Store

TASK = "tiny_tasks:Regression"


def small(task=TASK, **changes):
    given = {"schedules": ("linear", "rex"), "optimizers": ("sgdm",), "budgets": (0.1,), "reach": 1, "num_seeds": 2}
    return Question((Setting.of(task, ("sgdm",)),), **{**given, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    question = small()
    with Store(tmp_path_factory.mktemp("store")) as store, Counted() as executor:
        return question, run_study(sensitivity.cells(question).values(), store, executor), executor.ran


def reported(rows, reach=2, higher_is_better=False, num_seeds=1, schedules=None):
    """The document of made-up scores: schedule → for each rate the scores of its seeds, or one score."""
    question = small(
        "tiny_tasks:Upwards" if higher_is_better else TASK,
        schedules=schedules or tuple(rows),
        reach=reach,
        num_seeds=num_seeds,
    )
    setting = question.settings[0]
    scores = {
        Place(setting.task.name, "sgdm", 0.1, name, rate): (score,) if isinstance(score, float) else score
        for name, row in rows.items()
        for rate, score in zip(question.rates(setting, "sgdm"), row, strict=True)
    }
    return sensitivity_report.document(Answer(question, scores, ()), {})


def summary(document):
    """Schedule → the rest of its row in the first table."""
    table = _titled(document, "What a wrong rate costs").blocks[1]
    return {name: rest for name, *rest in table.rows}


def _titled(document, title):
    return next(section for section in document.sections if section.title == title)


class TestQuestion:
    def test_question_and_json_are_one(self):
        assert Question.from_json(json.loads(canonical(small().to_json()))) == small()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"reach": 0}, "`reach` is 0, but must satisfy 1 <= reach <= 5"),
            ({"reach": 6}, "`reach` is 6"),
            ({"num_seeds": 0}, "`num_seeds` is 0"),
            ({"budgets": (0.0,)}, "`budgets` is 0.0"),
            ({"schedules": ("rexx",)}, "unknown schedule 'rexx'"),
        ],
    )
    def test_mistakes(self, change, message):
        with pytest.raises(ValueError, match=message):
            small(**change)


class TestCells:
    def test_every_schedule_at_every_rate_and_seed_and_nothing_else(self, finished):
        _, _, ran = finished
        wanted = {
            (parse_policy(name), step, seed) for name in ("linear", "rex") for step in (-1, 0, 1) for seed in (1, 2)
        }
        assert {(spec.policy, round(math.log(spec.rate / 0.03, 3)), spec.seeds.init) for spec in ran} == wanted
        assert len(ran) == len(wanted)
        assert {spec.updates for spec in ran} == {8}

    def test_scores_are_those_of_the_test_split(self, finished):
        question, records, ran = finished
        scores = sensitivity.answer(question, records).scores
        for spec in ran:
            place = Place(TASK, "sgdm", 0.1, str(spec.policy), spec.rate)
            assert scores[place][spec.seeds.init - 1] == records[spec.trial_id].test.metric

    def test_wider_grids_and_more_seeds_keep_what_is_there(self, finished):
        question, records, _ = finished
        for change, fresh in (({"reach": 2}, 8), ({"num_seeds": 3}, 6)):
            wider = sensitivity.cells(replace(question, **change)).values()
            assert sum(len(cell.next_specs(records)) for cell in wider) == fresh

    def test_a_plateau_is_its_first_candidate(self):
        cells = sensitivity.cells(small(schedules=("plateau",), budgets=(0.9,)))
        policies = {spec.policy for cell in cells.values() for spec in cell.trials}
        assert policies == {parse_policy("plateau(patience=5)")}

    def test_unfinished_cells_are_left_out_of_the_scores_and_shown_as_such(self, finished):
        question, records, ran = finished
        part = {name: record for name, record in records.items() if name != ran[0].trial_id}
        answer = sensitivity.answer(question, part)
        assert len(answer.scores) == 5
        document = sensitivity_report.document(answer, {})
        assert "1 of 6 pairs of schedule and rate are not run yet" in document.to_text()
        row = dict.fromkeys(("linear", "rex"))
        for name in row:
            missing = summary(document)[name].count(EMPTY) if name == str(ran[0].policy) else 0
            assert (missing > 0) == (name == str(ran[0].policy))

    def test_what_has_not_run_is_empty_and_not_called_diverged(self):
        setting = small().settings[0]
        scores = {Place(TASK, "sgdm", 0.1, "rex", small().rates(setting, "sgdm")[1]): (5.0, 5.0)}
        document = sensitivity_report.document(Answer(small(), scores, ()), {})
        assert summary(document) == {
            "linear": [EMPTY] * 6,
            "rex": ["0.03", Value(5.0), EMPTY, EMPTY, "0.03 to 0.03", "1"],
        }
        assert _titled(document, "What a wrong rate costs").blocks[0].rows == (
            ("linear", EMPTY, EMPTY, 0),
            ("rex", EMPTY, EMPTY, 0),
        )


class TestSummary:
    def test_best_rate_its_neighbours_and_the_rates_that_are_good_enough(self):
        document = reported({"linear": [9.0, 5.4, 5.0, 5.6, 20.0], "rex": [5.5, 5.49, 5.3, 5.45, 5.5]})
        assert summary(document)["linear"] == ["0.03", Value(5.0), Value(5.4), Value(5.6), "0.01 to 0.03", "3"]
        assert summary(document)["rex"] == [
            "0.03", Value(5.3), Value(5.49), Value(5.45), "≤ 0.00333 to ≥ 0.27", "≥ 81",
        ]  # fmt: skip

    def test_good_rates_are_those_around_the_best(self):
        rows = summary(reported({"linear": [5.1, 9.0, 5.0, 9.0, 5.1]}))
        assert rows["linear"][-2:] == ["0.03 to 0.03", "1"]

    def test_a_schedule_that_is_never_good_has_none(self):
        rows = summary(reported({"linear": [9.0, 8.0, 7.0, 8.0, 9.0], "rex": [9.0, 8.0, 5.0, 8.0, 9.0]}))
        assert rows["linear"] == ["0.03", Value(7.0), Value(8.0), Value(8.0), "none", EMPTY]

    def test_a_best_rate_at_the_end_of_the_grid_has_no_neighbour_there(self):
        rows = summary(reported({"linear": [1.0, 2.0, 3.0, 4.0, 5.0], "rex": [5.0, 4.0, 3.0, 2.0, 1.0]}))
        assert rows["linear"][:4] == ["0.00333", Value(1.0), EMPTY, Value(2.0)]
        assert rows["rex"][:4] == ["0.27", Value(1.0), Value(2.0), EMPTY]

    def test_where_more_is_better(self):
        rows = summary(reported({"rex": [50.0, 91.0, 100.0, 89.0, 10.0]}, higher_is_better=True))
        best, there, below, above, good, factor = rows["rex"]
        assert (there, below, above, factor) == (Value(100.0), Value(91.0), Value(89.0), "3")
        assert good.endswith(f"to {best}")

    def test_a_negative_score_has_a_tolerance_too(self):
        rows = summary(reported({"rex": [-5.0, -9.1, -10.0, -8.9, 0.0]}))
        assert rows["rex"][-1] == "3"

    def test_a_rate_at_which_one_seed_diverged_is_neither_best_nor_good(self):
        pair, nan = (5.0, 5.2), (4.0, math.nan)
        document = reported({"rex": [(9.0, 9.0), (5.3, 5.3), pair, nan, (math.nan,) * 2]}, num_seeds=2)
        assert summary(document)["rex"][:2] == ["0.03", Value(5.1)]
        assert math.isnan(summary(document)["rex"][3].mean)
        assert summary(document)["rex"][-1] == "3"
        (row,) = _titled(document, "Scores at every rate").blocks[0].rows
        assert row[4].flags == ("diverged",)
        assert row[4].mean == 4.0
        assert math.isnan(row[5].mean)

    def test_over_all_cells_the_median_of_a_step_below_and_above(self):
        nan = math.nan
        rows = {
            "none": [1.0, 2.0, 3.0, 4.0, 5.0],
            "linear": [9.0, 6.0, 5.0, 5.5, 9.0],
            "rex": [9.0, 7.0, 4.0, nan, nan],
            "cosine": [nan] * 5,
        }
        table = _titled(reported(rows), "What a wrong rate costs").blocks[0]
        assert {name: rest for name, *rest in table.rows} == {
            "none": [EMPTY, EMPTY, 0],
            "linear": ["+20.0 % (+20.0 % to +20.0 %)", "+10.0 % (+10.0 % to +10.0 %)", 1],
            "rex": ["+75.0 % (+75.0 % to +75.0 %)", "diverged (diverged to diverged)", 1],
            "cosine": [EMPTY, EMPTY, 0],
        }
        upward = _titled(
            reported({"rex": [1.0, 80.0, 100.0, 90.0, 1.0]}, higher_is_better=True), "What a wrong rate costs"
        )
        assert upward.blocks[0].rows == (("rex", "+20.0 % (+20.0 % to +20.0 %)", "+10.0 % (+10.0 % to +10.0 %)", 1),)

    def test_a_best_score_of_zero_has_no_percents(self):
        document = reported({"rex": [3.0, 1.0, 0.0, 2.0, 3.0]})
        assert _titled(document, "What a wrong rate costs").blocks[0].rows == (("rex", EMPTY, EMPTY, 0),)
        assert summary(document)["rex"] == ["0.03", Value(0.0), Value(1.0), Value(2.0), "0.03 to 0.03", "1"]

    def test_nothing_but_divergence(self):
        rows = summary(reported({"rex": [math.nan] * 5}))
        assert rows["rex"][0] == EMPTY
        assert math.isnan(rows["rex"][1].mean)


class TestDocument:
    def test_text_json_and_page(self, finished, tmp_path):
        question, records, _ = finished
        document = sensitivity_report.document(sensitivity.answer(question, records), {"command": "glideslope compare"})
        assert "Every schedule at 3 base rates, a factor of 3 apart, 2 seeds each" in document.to_text()
        data = json.loads(document.to_json())
        assert Question.from_json(data["question"]) == question
        assert len(data["cells"]) == 6
        document.write_html(tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text()
        assert "Scores by base rate" in page

    def test_the_patience_of_a_plateau_is_said(self):
        question = small(schedules=("plateau", "rex"))
        assert sensitivity_report.document(Answer(question, {}, ()), {}).lead.endswith('"plateau" waits 5 epochs.')

    def test_half_precision_is_said(self):
        question = small(precision="bfloat16")
        document = sensitivity_report.document(Answer(question, {}, ()), question.facts)
        assert "not exact" in document.lead

    def test_failures_come_first(self):
        place = Place(TASK, "sgdm", 0.1, "rex", 0.03)
        document = sensitivity_report.document(Answer(small(), {}, ((place, "Traceback\nValueError: no"),)), {})
        assert document.sections[0].title == "Trials that failed"
        assert "ValueError: no" in document.to_text()
