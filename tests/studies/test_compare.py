"""compare: the question, its cells, and what is read off the records."""

import json
from dataclasses import replace

import pytest
import tiny_tasks
from specs import Counted, make_spec

from glideslope.controller.rules import Plateau
from glideslope.core.budget import Epochs
from glideslope.core.policy import Policy
from glideslope.core.spec import canonical, parse_policy
from glideslope.report.results import percent
from glideslope.studies import compare, compare_report
from glideslope.studies.compare import Place, Question, Row
from glideslope.studies.setting import Setting
from glideslope.trials.planner import run_study
from glideslope.trials.run import run_trial
from glideslope.trials.store import Store


def setting(task="Regression", optimizers=("sgdm",)):
    return Setting.of(f"tiny_tasks:{task}", optimizers)


def small(task="Regression", **changes):
    """Two schedules at two budgets, two seeds: a study of a second."""
    given = {"schedules": ("linear", "rex"), "optimizers": ("sgdm",), "budgets": (0.1, 0.2), "num_seeds": 2}
    return Question((setting(task),), **{**given, "uncounted": (), **changes})


def run(question, store):
    """All records, and the specs that had to be run."""
    with Counted() as executor:
        records = run_study(compare.cells(question).values(), store, executor)
    return records, executor.ran


def every_spec(cell, records):
    """What a finished cell has run."""
    return [*cell.tuning.asked(records), *cell.reports(cell.tuning.ask(records))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    question = small()
    with Store(tmp_path_factory.mktemp("store")) as store:
        return question, run(question, store)[0]


class TestQuestion:
    def test_question_and_json_are_one(self):
        for question in (small(), Question((setting(optimizers=("sgdm", "adam")), setting("Upwards")))):
            assert Question.from_json(json.loads(canonical(question.to_json()))) == question

    def test_the_precision_is_kept_where_it_is_not_that_of_stores_made_before_there_was_a_choice(self):
        assert "precision" not in small().to_json()
        assert Question.from_json(small().to_json()).precision == "float32"
        half = small(precision="bfloat16")
        assert Question.from_json(json.loads(canonical(half.to_json()))) == half != small()

    def test_the_default_is_the_papers(self):
        question = Question((setting(),))
        paper = ("none", "step", "plateau", "linear", "cosine", "exponential", "one_cycle", "rex")
        assert question.schedules == (*paper, "rex+warmup(10%)")
        assert question.uncounted == ("rex+warmup(10%)",)
        assert question.optimizers == ("sgdm", "adam")
        assert question.budgets == (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)
        assert (question.num_seeds, question.num_tuning_seeds) == (3, 1)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"budgets": (0.0, 0.5)}, "`budgets` is 0.0, but must satisfy 0 < budget"),
            ({"budgets": (-0.1,)}, "`budgets` is -0.1"),
            ({"budgets": (float("nan"),)}, "`budgets` is nan"),
            ({"budgets": (float("inf"),)}, "`budgets` is inf"),
            ({"budgets": (0.5, 0.1)}, "budgets increasing"),
            ({"budgets": (0.1, 0.1)}, "each once"),
            ({"schedules": ()}, "`schedules` is .*at least one"),
            ({"schedules": ("rexx",)}, r"unknown schedule 'rexx'. Did you mean 'rex'\?"),
            ({"num_seeds": 0}, "`num_seeds` is 0"),
            ({"num_tuning_seeds": 0}, "`num_tuning_seeds` is 0"),
        ],
    )
    def test_mistakes(self, change, message):
        with pytest.raises(ValueError, match=message):
            small(**change)


class TestSeeds:
    def test_no_run_is_chosen_by_and_reported(self, finished):
        question, records = finished
        for cell in compare.cells(question).values():
            choice = cell.tuning.ask(records)
            tuned = {spec.seeds.init for spec in cell.tuning.asked(records)}
            reported = {spec.seeds.init for spec in cell.reports(choice)}
            assert (tuned, reported) == ({1001}, {1, 2})

    def test_as_many_reporting_seeds_as_would_meet_the_tuning_seeds_are_refused(self):
        assert small(num_seeds=1000).num_seeds == 1000
        with pytest.raises(ValueError, match="`num_seeds` is 1001, but must satisfy 1 <= num_seeds < 1001"):
            small(num_seeds=1001)

    def test_the_choice_is_made_on_validation_and_the_report_on_test(self, finished):
        question, records = finished
        answer = compare.answer(question, records)
        place, cell = next(iter(compare.cells(question).items()))
        choice = answer.choices[place]
        validated = {spec.rate: records[spec.trial_id].validation[-1].metric for spec in cell.tuning.asked(records)}
        assert choice.rate == min(validated, key=validated.get)
        assert choice.score == validated[choice.rate]
        reported = {spec.seeds.init: records[spec.trial_id].test for spec in cell.reports(choice)}
        scores = {
            result.seed: result.score
            for result in answer.results
            if (result.schedule, result.budget) == (place.schedule, percent(place.budget))
        }
        assert scores == {seed: seen.metric for seed, seen in reported.items()}
        assert {seen.update for seen in reported.values()} == {cell.tuning.base.updates}


class TestBudgets:
    @pytest.mark.parametrize(
        ("share", "updates"), [(1.0, 80), (0.5, 40), (0.01, 1), (1e-9, 1), (0.05, 4), (0.33, 26), (2.0, 160)]
    )
    def test_embedded_tasks_use_fractions_of_an_epoch(self, share, updates):
        assert setting().trial("sgdm", share).updates == updates

    @pytest.mark.parametrize(
        ("share", "epochs"),
        [(1.0, 100), (0.5, 50), (0.001, 1), (1e-12, 1), (0.011, 2), (0.07, 7), (0.14, 14), (0.55, 55)],
    )
    def test_settings_of_the_papers_round_up_to_whole_epochs(self, share, epochs):
        # 0.07 * 100 is 7.000000000000001: that may not cost an epoch more.
        papers = replace(setting("WholeEpochs"), maximum_epochs=100)
        assert papers.trial("sgdm", share).updates == 8 * epochs

    def test_the_schedule_spans_its_own_budget(self):
        fitted = setting().fitted(parse_policy("truncated(linear, 10ep)"), 0.5)
        assert fitted == parse_policy("truncated(linear, 2.0)")
        assert Epochs(setting().epochs(0.5), 8).limit == 40

    def test_a_preamble_in_epochs_learns_their_length(self):
        policy = parse_policy("plan(lr=rex, preamble=preamble(1ep, 0, 0.1))")
        assert setting().fitted(policy, 0.5).plan.preamble.length == Epochs(1, 8)

    @pytest.mark.parametrize(
        ("patience", "share", "falls"),
        [(0, 0.1, False), (0, 0.11, True), (1, 0.2, False), (1, 0.21, True), (5, 0.6, False), (5, 0.7, True)],
    )
    def test_a_plateau_without_the_time_to_fall_is_the_plan(self, patience, share, falls):
        policy = parse_policy(f"plateau(patience={patience})")
        assert setting().fitted(policy, share) == (policy if falls else parse_policy("none"))

    @pytest.mark.parametrize(("share", "falls"), [(0.3, False), (0.4, False), (0.5, True)])
    def test_it_observes_the_preamble_too(self, share, falls):
        told = setting().fitted(parse_policy("plateau(patience=5) + preamble(2ep, 0, 0.01)"), share)
        assert (told.controller is not None) == falls
        assert told.plan.preamble.length == Epochs(2, 8)

    @pytest.mark.parametrize("plan", ["none", "none + preamble(2ep, 0, 0.01)"])
    @pytest.mark.parametrize(("patience", "epochs"), [(2, 1), (3, 2), (5, 4)])
    def test_and_trains_to_the_same_bits(self, patience, epochs, plan):
        # No loss is a thousand times better than another: every observation is one without improvement.
        told = setting().fitted(parse_policy(plan), epochs / 10).plan
        steered = Policy(told, Plateau(patience=patience, threshold=0.999))
        left_out = setting().fitted(steered, epochs / 10)
        assert left_out.controller is None
        specs = [make_spec(updates=8 * epochs, eval_every=8, policy=policy) for policy in (steered, left_out)]
        with_it, without = map(run_trial, specs)
        assert (with_it.series, with_it.validation, with_it.test) == (without.series, without.validation, without.test)

    def test_validation_comes_once_an_epoch(self):
        assert setting().trial("sgdm", 0.5).eval_every == 8

    def test_rates_start_where_the_task_says_and_else_where_the_optimizer_does(self):
        rates = dict(setting(optimizers=("sgdm", "adam", "sgdm(momentum=0.5)", "torch.optim:LBFGS")).rates)
        assert rates == {"sgdm": 0.03, "adam": 0.1, "sgdm(momentum=0.5)": 0.03, "torch.optim:LBFGS": 1.0}


class TestRows:
    def test_plateau_is_tuned_over_its_patience(self):
        row = Row.parse("plateau")
        assert [policy.controller.patience for policy in row.candidates] == [5, 10]
        warmed = Row.parse("plateau + warmup(10%)")
        assert [policy.controller.patience for policy in warmed.candidates] == [5, 10]
        assert "warmup" in str(warmed.candidates[0])

    def test_a_patience_that_is_given_is_kept(self):
        assert [policy.controller.patience for policy in Row.parse("plateau(patience=3)").candidates] == [3]

    def test_other_rows_have_one_candidate(self):
        assert Row.parse(" rex+warmup(10%) ").candidates == (parse_policy("rex + warmup(0.1)"),)


class TestTuneAt:
    def test_question_and_json_are_one(self):
        assert "tune_at" not in small().to_json()
        question = small(tune_at=0.05)
        assert Question.from_json(json.loads(canonical(question.to_json()))) == question != small()

    @pytest.mark.parametrize("share", [0.0, -1.0, float("nan"), float("inf")])
    def test_it_is_a_share_of_the_maximum(self, share):
        with pytest.raises(ValueError, match=r"`tune_at` is .*, but must satisfy tune_at > 0"):
            small(tune_at=share)

    def test_rates_are_tuned_at_one_budget_and_reported_at_all(self, tmp_path):
        question = small(tune_at=0.05)
        with Store(tmp_path) as store:
            records, ran = run(question, store)
        tuned = [spec for spec in ran if spec.seeds.init == 1001]
        reported = [spec for spec in ran if spec.seeds.init != 1001]
        assert {spec.updates for spec in tuned} == {4}
        assert len(reported) == 2 * 2 * 2
        answer = compare.answer(question, records)
        assert answer.num_trials == len(ran)
        for place, choice in answer.choices.items():
            mine = [spec for spec in tuned if spec.policy == choice.policy]
            best = min(mine, key=lambda spec: records[spec.trial_id].validation[-1].metric)
            assert choice.rate == best.rate
            there = [spec for spec in reported if (spec.policy, spec.updates) == (choice.policy, 80 * place.budget)]
            assert [spec.rate for spec in there] == [best.rate] * 2

    def test_the_same_budget_is_what_it_was(self, finished):
        question, records = finished
        one = replace(question, budgets=(0.2,))
        assert compare.answer(replace(one, tune_at=0.2), records).results == compare.answer(one, records).results

    def test_policies_are_told_the_budget_they_are_reported_at(self):
        question = small(schedules=("truncated(linear, 10ep)", "plateau"), budgets=(0.2, 0.9), tune_at=0.1)
        cells = compare.cells(question)
        for budget in (0.2, 0.9):
            cell = cells[Place("tiny_tasks:Regression", "sgdm", budget, question.schedules[0])]
            assert cell.tuning.candidates == (parse_policy("truncated(linear, 10.0)"),)
            (reported,) = cell.reported
            assert reported.policy == setting().fitted(parse_policy(question.schedules[0]), budget)
            assert reported.policy != cell.tuning.candidates[0]
        short, long = (cells[Place("tiny_tasks:Regression", "sgdm", budget, "plateau")] for budget in (0.2, 0.9))
        assert short.tuning.candidates == long.tuning.candidates == (parse_policy("none"),)
        assert [spec.policy for spec in short.reported] == [parse_policy("none")]
        assert [spec.policy for spec in long.reported] == [parse_policy("plateau(patience=5)")]

    def test_the_report_says_so_and_shows_the_tuning_once(self, tmp_path):
        question = small(schedules=("none", "plateau"), budgets=(0.2, 0.9), tune_at=0.1)
        with Store(tmp_path) as store:
            records, _ = run(question, store)
        document = compare_report.document(compare.answer(question, records), {})
        assert "by validation at 10% of the maximum and reused at every budget" in document.lead
        assert "(plateau's patience too; 5 epochs where none can fall there)" in document.lead
        assert [table["title"] for table in document.data["sensitivity"]] == ["tiny_tasks:Regression, sgdm, 10%"]
        policies = {(cell["budget"], cell["schedule"]): cell["policy"] for cell in document.data["cells"]}
        assert policies[0.9, "plateau"] == "constant | plateau"
        assert policies[0.2, "plateau"] == "constant"


class TestReuse:
    @pytest.mark.parametrize(
        ("change", "fresh", "grows"),
        [
            ({}, lambda spec: False, False),
            ({"schedules": ("rex",), "num_seeds": 1}, lambda spec: False, False),
            ({"num_seeds": 3}, lambda spec: spec.seeds.init == 3, True),
            ({"schedules": ("linear", "rex", "cosine")}, lambda spec: spec.policy == parse_policy("cosine"), True),
            ({"budgets": (0.1, 0.2, 0.3)}, lambda spec: spec.updates == 24, True),
            ({"optimizers": ("sgdm", "adam")}, lambda spec: spec.optimizer.name == "adam", True),
        ],
        ids=["same", "less", "seed", "schedule", "budget", "optimizer"],
    )
    def test_more_of_anything_runs_the_new_trials_only(self, finished, tmp_path, change, fresh, grows):
        question, records = finished
        if "optimizers" in change:
            change = {**change, "settings": (setting(optimizers=change["optimizers"]),)}
        wider = replace(question, **change)
        specs = {spec.trial_id: spec for cell in compare.cells(question).values() for spec in every_spec(cell, records)}
        with Store(tmp_path) as store:
            for trial_id, record in records.items():
                store.put(specs[trial_id], record)
            _, ran = run(wider, store)
        assert all(fresh(spec) for spec in ran)
        assert len({spec.trial_id for spec in ran}) == len(ran)
        assert bool(ran) == grows


class TestAnswer:
    def test_every_cell_has_every_seed(self, finished):
        question, records = finished
        answer = compare.answer(question, records)
        assert set(answer.choices) == set(compare.cells(question))
        assert set(answer.choices) == {
            Place("tiny_tasks:Regression", "sgdm", budget, schedule)
            for budget in (0.1, 0.2)
            for schedule in ("linear", "rex")
        }
        assert len(answer.results) == 2 * 2 * 2
        assert answer.num_trials == len(records)
        assert answer.num_updates == sum(record.cost.updates for record in records.values())
        assert answer.failed == ()

    def test_cells_that_are_not_finished_are_left_out(self, finished):
        question, records = finished
        place, cell = next(iter(compare.cells(question).items()))
        missing = cell.reports(cell.tuning.ask(records))[0].trial_id
        partly = {trial_id: record for trial_id, record in records.items() if trial_id != missing}
        answer = compare.answer(question, partly)
        assert set(answer.choices) == set(compare.cells(question)) - {place}
        assert len(answer.results) == 6
        untuned = dict(partly)
        for spec in cell.tuning.asked(records):
            untuned.pop(spec.trial_id)
        assert place not in compare.answer(question, untuned).choices
        assert compare.answer(question, {}).results == ()

    def test_trials_of_other_studies_do_not_matter(self, finished, tmp_path):
        question, records = finished
        with Store(tmp_path) as store:
            run(question, store)
            both, _ = run(small(schedules=("cosine",)), store)
        assert len(both) > len(records)
        assert compare.answer(question, both).results == compare.answer(question, records).results

    @pytest.mark.parametrize("seed", [2, 1001])
    def test_failures_are_told_in_tuning_too(self, finished, seed):
        question, records = finished
        place, cell = next(iter(compare.cells(question).items()))
        choice = cell.tuning.ask(records)
        specs = [*cell.reports(choice), *cell.tuning.asked(records)]
        spec = next(spec for spec in specs if spec.seeds.init == seed and spec.rate in (choice.rate / 3, choice.rate))
        broken = replace(records[spec.trial_id], status="failed", test=None, error="Traceback\nRuntimeError: no memory")
        answer = compare.answer(question, {**records, spec.trial_id: broken})
        assert (place, broken.error) in answer.failed

    def test_a_failure_of_a_shared_tuning_is_told_once_and_where_it_was(self, tmp_path):
        question = small(schedules=("rex",), tune_at=0.05)
        with Store(tmp_path) as store:
            records, ran = run(question, store)
        spec = next(spec for spec in ran if spec.seeds.init == 1001)
        broken = replace(records[spec.trial_id], status="failed", error="Traceback\nRuntimeError: no memory")
        answer = compare.answer(question, {**records, spec.trial_id: broken})
        assert [place.budget for place, _ in answer.failed] == [0.05]


class TestDocument:
    def test_an_unfinished_study_has_a_document(self, finished):
        question, records = finished
        assert "No cell is finished yet" in compare_report.document(compare.answer(question, {}), {}).to_text()
        cell = next(iter(compare.cells(question).values()))
        missing = cell.reports(cell.tuning.ask(records))[0].trial_id
        partly = {trial_id: record for trial_id, record in records.items() if trial_id != missing}
        document = compare_report.document(compare.answer(question, partly), {})
        assert "Not finished" in document.to_text()
        assert len(json.loads(document.to_json())["cells"]) == 3

    def test_rows_outside_the_count_are_in_the_scores_and_not_in_the_ranking(self, tmp_path):
        question = small(schedules=("linear", "rex", "rex+warmup(10%)"), uncounted=("rex+warmup(10%)",), budgets=(0.2,))
        with Store(tmp_path) as store:
            records, _ = run(question, store)
        data = json.loads(compare_report.document(compare.answer(question, records), {}).to_json())
        assert {cell["schedule"] for cell in data["cells"]} == {"linear", "rex", "rex+warmup(10%)"}
        for part in ("ranking", "expected", "mean_ranks", "improvement"):
            assert "rex+warmup(10%)" not in json.dumps(data[part]), part
        assert "rex+warmup(10%)" in json.dumps(data["question"])

    @pytest.mark.parametrize(("task", "best"), [("Regression", min), ("Upwards", max)])
    def test_the_direction_of_the_metric_decides_who_wins(self, task, best, tmp_path):
        question = small(task, schedules=("linear", "none"), num_seeds=1)
        with Store(tmp_path) as store:
            records, _ = run(question, store)
        data = json.loads(compare_report.document(compare.answer(question, records), {}).to_json())
        wins = {"linear": 0, "none": 0}
        for budget in question.budgets:
            means = {
                cell["schedule"]: sum(cell["scores"].values()) for cell in data["cells"] if cell["budget"] == budget
            }
            wins[best(means, key=means.get)] += 1
        ranking = data["ranking"]
        assert {name: ranking["schedules"][name]["overall"]["top1"] for name in wins} == wins

    def test_a_task_that_never_converges_is_told_first_and_is_strict_json(self, tmp_path):
        question = small("NotANumber", num_seeds=1)
        with Store(tmp_path) as store:
            records, _ = run(question, store)
        document = compare_report.document(compare.answer(question, records), {})
        assert document.sections[0].title == "Nothing to compare"
        assert "tiny_tasks:NotANumber: every run diverged or failed" in document.to_text()
        assert json.loads(document.to_json())["nothing_finite"] == ["tiny_tasks:NotANumber"]

    def test_cells_at_the_limit_are_flagged(self, monkeypatch, tmp_path):
        # A rate a million times too small: the best lies beyond the last step of the grid.
        monkeypatch.setattr(tiny_tasks.Regression, "defaults", {"sgdm": tiny_tasks.Default(1e-8)})
        question = small(budgets=(0.1,), num_seeds=1)
        with Store(tmp_path) as store:
            records, _ = run(question, store)
        answer = compare.answer(question, records)
        assert all(choice.at_limit for choice in answer.choices.values())
        document = compare_report.document(answer, {})
        assert all(cell["rate_at_limit"] for cell in json.loads(document.to_json())["cells"])
        assert "limit" in document.to_text()
