"""convergence: cells, forms, landings; what is read off records, from records made by hand; the report."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from specs import Counted

from glideslope.core.profiles import Linear
from glideslope.core.schedule import Truncated
from glideslope.core.spec import canonical
from glideslope.studies import convergence, convergence_report
from glideslope.studies.convergence import AWARE, CONSTANT, RETUNED, TRUNCATED, Place, Question, WatchedRun, normalised
from glideslope.studies.convergence_report import Differences
from glideslope.studies.setting import Setting
from glideslope.trials.planner import run_study
from glideslope.trials.record import Cost, Evaluation, Record, Series
from glideslope.trials.store import Store
from glideslope.trials.task import Metric

TASK = "tiny_tasks:Regression"
BUDGETS = (0.1, 0.5, 1.0)


@pytest.fixture(scope="module")
def question():
    optimizers = ("sgdm", "adam")
    return Question((Setting.of(TASK, optimizers),), ("linear", "step"), optimizers, BUDGETS, num_seeds=2)


@pytest.fixture(scope="module")
def finished(question, tmp_path_factory):
    """Whole records of a study that ran, and what ran."""
    with Store(tmp_path_factory.mktemp("store")) as store, Counted() as executor:
        run_study(convergence.cells(question).values(), store, executor)
        return store.records(), executor.ran


def made_up(question, metric, norms=lambda spec: (4.0, 2.0, 1.0)):
    """Records of the whole study, of trials that never ran: `metric(spec)` on both splits, `norms(spec)` on the way."""
    records = {}
    while missing := [spec for cell in convergence.cells(question).values() for spec in cell.next_specs(records)]:
        for spec in missing:
            score = metric(spec)
            at = [math.ceil(spec.updates * share) for share in (0.25, 0.5, 1.0)]
            watched = bool(spec.probes)
            records[spec.trial_id] = Record(
                spec.trial_id,
                spec.trajectory_id,
                "finished" if math.isfinite(score) else "diverged",
                Series((0, 1), (2.0, 1.0), (spec.rate, spec.rate), {"weight_norm": (3.0, 5.0)} if watched else {}),
                tuple(Evaluation(update, score, score) for update in at),
                Evaluation(spec.updates, score, score) if math.isfinite(score) else None,
                (),
                Cost(1.0, 0.5, spec.updates),
                {},
                {},
                measured={"full_gradient_norm": norms(spec)} if watched else {},
            )
    return records


def schedule_of(spec):
    return spec.policy.plan["lr"].schedule


class TestQuestion:
    def test_question_and_json_are_one(self, question):
        assert Question.from_json(json.loads(canonical(question.to_json()))) == question

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"budgets": (0.0,)}, "`budgets` is 0.0, but must satisfy 0 < budget"),
            ({"num_seeds": 0}, "`num_seeds` is 0"),
            ({"schedules": ("rex",)}, "`schedules` is .*'linear' among them"),
            ({"schedules": ("linear", "none")}, "`schedules` is 'none', but must satisfy a schedule that moves"),
            ({"schedules": ("linear", "rexx")}, "unknown schedule 'rexx'"),
            ({"schedules": ("linear", "one_cycle")}, "a schedule is needed here"),
            ({"optimizers": ()}, "`optimizers` is .*at least one"),
        ],
    )
    def test_mistakes(self, question, change, message):
        with pytest.raises(ValueError, match=message):
            replace(question, **change)


class TestCells:
    def test_every_schedule_has_its_forms_and_every_other_optimizer_a_constant_rate(self, question):
        places = {place[1:] for place in convergence.cells(question)}
        early = {
            ("sgdm", name, form, budget)
            for name in ("linear", "step")
            for form in (TRUNCATED, RETUNED)
            for budget in BUDGETS[:2]
        }
        stretched = ("linear", "step", CONSTANT, "SGDR", "SGDR-r1", "SGDR-r2")
        aware = {("sgdm", name, AWARE, budget) for name in stretched for budget in BUDGETS}
        assert places == early | aware | {("adam", CONSTANT, AWARE, budget) for budget in BUDGETS}

    def test_a_truncated_run_is_the_beginning_of_the_full_one(self, question, finished):
        records, _ = finished
        cells = convergence.cells(question)
        full = cells[Place(TASK, "sgdm", "linear", AWARE, 1.0)]
        whole = full.reports(full.tuning.ask(records))[0]
        for budget in BUDGETS[:2]:
            cell = cells[Place(TASK, "sgdm", "linear", TRUNCATED, budget)]
            spec = cell.reports(cell.tuning.ask(records))[0]
            assert schedule_of(spec) == Truncated(Linear(), of=whole.updates / spec.updates)
            assert (spec.rate, spec.seeds) == (whole.rate, whole.seeds)
            early, late = records[spec.trial_id].series, records[whole.trial_id].series
            assert early.updates == late.updates[: spec.updates]
            assert early.rate == pytest.approx(late.rate[: spec.updates], rel=1e-12)
            assert early.train_loss == pytest.approx(late.train_loss[: spec.updates], rel=1e-5)

    def test_retuned_is_the_same_schedule_with_a_rate_of_its_own(self, question):
        cells = convergence.cells(question)
        for name in ("linear", "step"):
            truncated, retuned = (cells[Place(TASK, "sgdm", name, form, 0.1)] for form in (TRUNCATED, RETUNED))
            assert truncated.reported == retuned.reported
            assert truncated.tuning.base.updates == 80
            assert retuned.tuning.base.updates == retuned.reported[0].updates == 8
            assert retuned.tuning.candidates == (retuned.reported[0].policy,)

    def test_norms_are_measured_where_reports_need_them_and_nowhere_else(self, question, finished):
        records, ran = finished
        watched = {spec.trial_id for spec in ran if spec.probes}
        assert watched == set(convergence.to_watch(question, records))
        assert all(spec.seeds.init < 1000 for spec in ran if spec.probes)
        for spec in ran:
            if spec.probes:
                norms = records[spec.trial_id].measured["full_gradient_norm"]
                assert 8 <= len(norms) <= 16
                assert records[spec.trial_id].validation[-1].update == spec.updates

    def test_a_finished_study_asks_for_nothing(self, question, finished):
        records, ran = finished
        assert len({spec.trial_id for spec in ran}) == len(ran) == len(records)
        assert not any(cell.next_specs(records) for cell in convergence.cells(question).values())


class TestRestarts:
    @pytest.mark.parametrize("epochs", [0.25, 1.0, 6.25, 10.0, 25.0, 31.0, 200.0])
    def test_sgdr_rn_lands_on_the_budget_and_restarts_n_times_before(self, epochs):
        for name, count in (("SGDR-r1", 1), ("SGDR-r2", 2)):
            schedule = convergence.restarts(epochs)[name]
            assert schedule(1.0) == pytest.approx(0.0, abs=1e-12)
            assert schedule(1.0 - 1e-6) < 1e-6
            values = schedule.sample(6000)
            assert [round((k + 1) / 6000, 3) for k in np.flatnonzero(np.diff(values) > 0.5)] == [
                round(k / (count + 1), 3) for k in range(1, count + 1)
            ]

    @pytest.mark.parametrize(("epochs", "at"), [(6.0, []), (10.0, []), (25.0, [10]), (75.0, [10, 30, 70])])
    def test_sgdr_restarts_after_10_30_and_70_epochs_whatever_the_budget(self, epochs, at):
        values = convergence.restarts(epochs)["SGDR"].sample(round(epochs * 100))
        assert [(k + 1) / 100 for k in np.flatnonzero(np.diff(values) > 0.5)] == at
        assert values[round(min(epochs, 5.0) * 100) - 1] == pytest.approx(0.5, abs=0.01)


class TestNumbers:
    @pytest.mark.parametrize(
        ("score", "full", "metric", "share"),
        [
            (40.0, 20.0, Metric("error", unit="%"), 0.75),
            (0.6, 0.8, Metric("accuracy", higher_is_better=True), 0.75),
            (4.0, 3.0, Metric("loss"), 0.75),
            (math.nan, 3.0, Metric("loss"), math.nan),
            (3.0, math.nan, Metric("loss"), math.nan),
            (-1.0, -2.0, Metric("loss"), math.nan),
            (50.0, 100.0, Metric("error", unit="%"), math.nan),
        ],
    )
    def test_normalised(self, score, full, metric, share):
        assert normalised(score, full, metric) == pytest.approx(share, nan_ok=True)

    def test_the_normalised_figure_from_records_made_by_hand(self, question):
        def metric(spec):
            schedule, seed = schedule_of(spec), spec.seeds.init
            if isinstance(schedule, Truncated):
                return 8.0 * seed
            return {8: 4.0, 40: 2.0, 80: 1.0}[spec.updates] * seed

        answer = convergence.answer(question, made_up(question, metric))
        place = Place(TASK, "sgdm", "linear", AWARE, 0.1)
        assert answer.scores[place] == (4.0, 8.0)
        assert answer.normalised(place) == (0.25, 0.25)
        assert answer.normalised(place._replace(budget=0.5)) == (0.5, 0.5)
        assert answer.normalised(place._replace(budget=1.0)) == (1.0, 1.0)
        assert answer.normalised(place._replace(form=TRUNCATED)) == (0.125, 0.125)
        document = convergence_report.document(answer, {})
        (figure,) = [
            block.draw()
            for section in document.sections
            if section.title == "Knowing the budget"
            for block in section.blocks
            if hasattr(block, "draw")
        ]
        lines = {(trace.name, trace.xaxis): list(zip(trace.x, trace.y, strict=True)) for trace in figure.data}
        assert lines["aware", "x"] == [(0.1, 0.25), (0.5, 0.5), (1.0, 1.0)]
        assert lines["truncated", "x2"] == [(0.1, 0.125), (0.5, 0.125), (1.0, 1.0)]

    def test_the_full_gradient_over_a_run(self):
        run = WatchedRun(1, (0.25, 0.5, 1.0), (4.0, 3.0, 1.0), (0.75, 0.5, 0.0), (), (), ())
        assert run.end_over_largest == 0.25
        assert run.correlation == pytest.approx(stats.pearsonr((4, 3, 1), (0.75, 0.5, 0)).statistic)
        assert run.correlation_with_time_left == run.correlation
        still = replace(run, rate=(1.0, 1.0, 1.0))
        assert math.isnan(still.correlation)
        assert still.correlation_with_time_left == run.correlation
        assert math.isnan(replace(run, full_gradient_norm=(1.0, math.inf, 1.0)).end_over_largest)

    def test_the_rate_beside_the_norm_is_that_of_the_next_update(self, question, finished):
        answer = convergence.answer(question, finished[0])
        place = Place(TASK, "sgdm", "linear", AWARE, 1.0)
        for run in answer.watched[place]:
            assert run.rate == pytest.approx([answer.rates[place] * (1 - share) for share in run.progress])
            assert run.progress[-1] == 1.0

    def test_differences_hold_all_at_once(self):
        values = {"a": {0.1: (1.0, 2.0, 4.0), 1.0: (9.0, 9.0, 9.1)}, "b": {0.1: (0.0, 1.0, 2.0), 1.0: (1.0, 1.1, 1.0)}}
        found = Differences.of(values, {"a": "b"}, higher_is_better=False)
        # Two intervals at 97.5 %, each the classical paired one, for there are two lines.
        wanted = stats.ttest_rel(values["a"][0.1], values["b"][0.1]).confidence_interval(0.975)
        estimate = found.estimates["a", 0.1]
        assert (estimate.low, estimate.high) == pytest.approx((wanted.low, wanted.high))
        assert estimate.value == pytest.approx(4 / 3)
        assert (found.worse("a"), found.better("a")) == ([1.0], [])
        assert found.verdict("a").startswith("worse at 100% (8 [")
        assert Differences.of(values, {"a": "b"}, higher_is_better=True).verdict("a").startswith("better at 100% (8 [")

    def test_one_seed_or_a_run_that_diverged_tells_no_difference(self):
        values = {"a": {0.1: (1.0,), 1.0: (math.nan, 1.0)}, "b": {0.1: (2.0,), 1.0: (2.0, 2.0)}}
        found = Differences.of(values, {"a": "b"}, higher_is_better=False)
        assert found.estimates == {}
        assert found.verdict("a") == "nothing can be said"


class TestDocument:
    def test_what_is_found_follows_from_the_records(self, question):
        def norms(spec):
            moves = schedule_of(spec)(1.0) < 1
            return (4.0, 2.0, (0.04 if moves else 4.0) * (1 + 0.01 * spec.seeds.init))

        records = made_up(question, lambda spec: 1.0 + 0.01 * spec.seeds.init, norms)
        text = convergence_report.document(convergence.answer(question, records), {}).to_text()
        assert "0.01 under linear, 0.01 under step, 1.00 at a constant rate" in text
        assert "below the constant rate's in 6 of 6 pairs of schedule and budget, above in 0" in text

    def test_runs_that_diverge_are_told_and_spoil_nothing(self, question):
        def metric(spec):
            return math.nan if spec.optimizer.name == "adam" and spec.seeds.init == 2 else 1.0 / spec.updates

        answer = convergence.answer(question, made_up(question, metric))
        document = convergence_report.document(answer, {})
        assert "‡ some seeds diverged" in document.to_text()
        json.loads(document.to_json(), parse_constant=pytest.fail)
        for section in document.sections:
            for block in section.blocks:
                if hasattr(block, "draw"):
                    block.draw()

    def test_an_unfinished_study_shows_what_is_there(self, question, finished):
        records, _ = finished
        assert "No cell is finished yet" in convergence_report.document(convergence.answer(question, {}), {}).to_text()
        cell = convergence.cells(question)[Place(TASK, "sgdm", "step", AWARE, 0.5)]
        missing = cell.reports(cell.tuning.ask(records))[0].trial_id
        partly = {trial_id: record for trial_id, record in records.items() if trial_id != missing}
        text = convergence_report.document(convergence.answer(question, partly), {}).to_text()
        assert f"Left out: {TASK} / sgdm / step / aware / 50%." in text

    def test_one_budget_one_optimizer_one_schedule_one_seed(self, question):
        small = replace(question, schedules=("linear",), optimizers=("sgdm",), budgets=(0.5,), num_seeds=1)
        answer = convergence.answer(small, made_up(small, lambda spec: 1.0))
        document = convergence_report.document(answer, {})
        titles = [section.title for section in document.sections]
        assert titles == [
            "What is found",
            "Does the full gradient vanish with the rate?",
            "SGDR and SGDR-rn",
            "Base rates",
            "Provenance",
        ]
        assert "It takes two reporting seeds or more" in document.to_text()
        json.loads(document.to_json(), parse_constant=pytest.fail)
