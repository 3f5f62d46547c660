"""The evaluation of controllers: what it asks for, how it counts, and whether its report says what the numbers say."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from glideslope.controller.rules import Greedy
from glideslope.core.control import Clamped
from glideslope.core.policy import Policy
from glideslope.core.spec import parse_plan, parse_policy
from glideslope.report.tables import Table
from glideslope.studies.arc import evaluation as study
from glideslope.studies.arc.evaluation import Answer, Place, Question, Run
from glideslope.studies.arc.evaluation_report import FAILURES_SHOWN, document
from glideslope.studies.setting import Setting
from glideslope.trials.executors import InProcess
from glideslope.trials.planner import run_study
from glideslope.trials.record import Evaluation, Reading
from glideslope.trials.run import run_trial
from glideslope.trials.store import Store

TINY, UPWARDS = "tiny_tasks:Regression", "tiny_tasks:Upwards"
ARC = Policy(parse_plan("constant"), Greedy(every=2))
CONTROLLERS = (("arc", ARC), ("published arc", Policy(parse_plan("constant"), Greedy(every=3))))


@pytest.fixture(scope="module")
def setting():
    return Setting.of(TINY, ("adam",))


@pytest.fixture(scope="module")
def question(setting):
    return Question((setting,), (("arc", ARC),), epochs=4, num_seeds=2)


def completed(question, records=()):
    """Records of the study, asked cell by cell until nothing is missing; and the trials that were run for it."""
    records, asked = dict(records), []
    while specs := {s.trial_id: s for cell in study.cells(question).values() for s in cell.next_specs(records)}:
        asked += specs.values()
        records |= {trial_id: run_trial(spec) for trial_id, spec in specs.items()}
    return records, asked


@pytest.fixture(scope="module")
def records(question):
    return completed(question)[0]


def seeing(spec, *looks):
    """The record of a range test that saw these (update, metric)."""
    seen = tuple(Evaluation(update, 1.0, metric) for update, metric in looks)
    readings = tuple(Reading("weights", look, look) for look in seen)
    return replace(run_trial(spec), status="finished", validation=seen, readings=readings)


# -------------------------------------------------------- what is asked for


def test_who_chooses_a_rate_alone_has_one_cell_the_others_one_per_rate(question):
    factors = {}
    for place in study.cells(question):
        factors.setdefault(place.system, []).append(place.factor)
    assert list(factors) == list(question.systems)
    assert {name: found for name, found in factors.items() if found == [1.0]}.keys() == set(study.OWN_RATE)
    assert all(found == [0.1, 1.0, 10.0] for name, found in factors.items() if name not in study.OWN_RATE)


def test_rates_are_multiples_of_the_default_and_seeds_are_paired(question):
    for place, cell in study.cells(question).items():
        if place.system not in study.OWN_RATE:
            assert [spec.rate for spec in cell.trials] == pytest.approx([0.1 * place.factor] * 2)
            assert [spec.seeds.init for spec in cell.trials] == [1, 2]
            assert {spec.updates for spec in cell.trials} == {4 * 8}


def test_the_line_search_is_an_optimizer_of_its_own_with_the_longest_step_for_a_rate(question):
    specs = study.cells(question)[Place(TINY, "line search", 1.0)].trials
    assert {(spec.optimizer.name, spec.rate) for spec in specs} == {("sls", study.LARGEST_STEP)}
    others = {s.optimizer.name for p, c in study.cells(question).items() if p.system == "rex" for s in c.trials}
    assert others == {"adam"}


def test_superconvergence_looks_for_its_peak_before_it_runs(question):
    cell = study.cells(question)[Place(TINY, "superconvergence", 1.0)]
    tests = cell.next_specs({})
    assert tests == list(cell.tests)
    assert {spec.rate for spec in tests} == {0.1 * study.RANGE_TEST_TOP}
    course = tests[0].policy.plan["lr"]
    assert [course.value(share, 10.0) for share in (0.0, 0.3, 1.0)] == pytest.approx([0.0, 3.0, 10.0])

    known = {
        spec.trial_id: seeing(spec, *((update, abs(update - best_at)) for update in range(1, spec.updates + 1)))
        for spec, best_at in zip(tests, (3, 12), strict=True)
    }
    first, second = cell.next_specs(known)
    assert (first.rate, second.rate) == pytest.approx((10.0 * 3 / tests[0].updates, 10.0 * 12 / tests[0].updates))
    assert (first.seeds, second.seeds) == (tests[0].seeds, tests[1].seeds)
    assert cell.next_specs({**known, first.trial_id: known[tests[0].trial_id]}) == [second]


def test_a_range_test_that_saw_nothing_leaves_a_tenth_of_its_highest_rate(question):
    cell = study.cells(question)[Place(TINY, "superconvergence", 1.0)]
    spec = cell.tests[0]
    assert cell.peak(spec, seeing(spec, (1, math.nan), (2, math.inf))) == spec.rate / 10


@pytest.mark.parametrize("upward", [False, True])
def test_the_peak_is_where_the_metric_is_best_whatever_its_direction(question, upward):
    cell = replace(study.cells(question)[Place(TINY, "superconvergence", 1.0)], higher_is_better=upward)
    spec = cell.tests[0]
    found = cell.peak(spec, seeing(spec, (6, 2.0), (12, 5.0), (18, 1.0)))
    assert found == pytest.approx(spec.rate * (12 if upward else 18) / spec.updates)


def test_the_store_leads_to_the_same_runs_as_whole_records(tmp_path, question, records):
    with Store(tmp_path) as store:
        run_study(study.cells(question).values(), store, InProcess())
        stored = store.records()
    assert not [spec for cell in study.cells(question).values() for spec in cell.next_specs(stored)]
    assert stored.keys() == records.keys()


@pytest.mark.parametrize(("task", "factor"), [("fashion-small", 0.9), ("shakespeare-gru", 0.96)])
def test_the_exponential_schedule_falls_once_an_epoch(task, factor):
    course = study.policy("exponential", task, 30, {}).plan["lr"]
    rates = [course.value((update + 0.5) / 300, 1.0) for update in range(300)]
    assert rates[::10] == pytest.approx([factor**epoch for epoch in range(30)])
    assert len({round(rate, 12) for rate in rates}) == 30


@pytest.mark.parametrize(("task", "restart"), [("fashion-small", 10), ("shakespeare-gru", 14)])
def test_cycles_restart_where_the_source_says(task, restart):
    course = study.policy("cyclic cosine", task, 30, {}).plan["lr"]
    rates = [course.value(epoch / 30, 1.0) for epoch in range(30)]
    assert [epoch for epoch in range(1, 30) if rates[epoch] > rates[epoch - 1]] == [restart]
    assert rates[restart] == pytest.approx(1.0)


def test_an_unknown_system_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown system 'reks'.*rex"):
        study.policy("reks", TINY, 30, {})


def test_questions_that_cannot_be_meant_are_refused(setting):
    with pytest.raises(ValueError, match="names that no other system has"):
        Question((setting,), (("greedy", ARC),))
    with pytest.raises(ValueError, match="rate_factors"):
        Question((setting,), rate_factors=(1.0, 0.1))
    with pytest.raises(ValueError, match="epochs"):
        Question((setting,), epochs=2)


def test_the_question_survives_the_store(setting):
    asked = Question((setting,), (*CONTROLLERS, ("clamped", Policy(ARC.plan, Clamped(Greedy(), 0.1, 10.0)))), epochs=5)
    assert Question.from_json(json.loads(json.dumps(asked.to_json()))) == asked


# -------------------------------------------------------- what the records say


def test_a_study_that_is_done_asks_for_nothing_and_one_that_was_stopped_for_the_rest(question, records):
    assert completed(question, records) == (records, [])
    half = dict(list(records.items())[::2])
    again, asked = completed(question, half)
    assert again.keys() == records.keys()
    assert {spec.trial_id for spec in asked} == records.keys() - half.keys()


def test_more_seeds_repeat_nothing(question, records):
    _, asked = completed(replace(question, num_seeds=3), records)
    assert {spec.seeds.init for spec in asked} == {3}


def test_every_run_is_counted_in_both_ways(question, records):
    found = study.answer(question, records)
    assert (found.unfinished, found.failed, found.num_trials) == ((), (), len(records))
    for place, cell in study.cells(question).items():
        for run, spec in zip(found.runs[place], study.reported(cell, records), strict=True):
            record = records[spec.trial_id]
            assert (run.seed, run.rate) == (spec.seeds.init, spec.rate)
            assert run.last == record.test.metric
            assert run.best == min(look.metric for look in record.validation)
            assert run.losses == tuple(look.loss for look in record.validation)


def test_higher_metrics_are_best_where_they_are_better(question):
    upward = replace(question, settings=(Setting.of(UPWARDS, ("adam",)),), num_seeds=1)
    records, _ = completed(upward)
    found = study.answer(upward, records)
    place = Place(UPWARDS, "constant", 1.0)
    record = records[study.cells(upward)[place].trials[0].trial_id]
    assert found.runs[place][0].best == max(look.metric for look in record.validation)
    assert found.values(place, "best").tolist() == [-found.runs[place][0].best]


def test_decisions_are_read_off_the_gains(question, records):
    place = Place(TINY, "arc", 1.0)
    spec = study.cells(question)[place].trials[0]
    gains = ((8, 1.6, ""), (16, 1.2, ""), (24, 1.4, ""))
    changed = {**records, spec.trial_id: replace(records[spec.trial_id], decisions=gains)}
    assert study.answer(question, changed).runs[place][0].decisions == ((8, "raise"), (16, "lower"), (24, "raise"))


def test_a_run_that_diverged_is_worse_than_all_and_what_failed_is_named(question, records):
    place, broken = Place(TINY, "rex", 10.0), Place(TINY, "cosine", 0.1)
    diverged, failed = (study.cells(question)[where].trials[0] for where in (place, broken))
    changed = {
        **records,
        diverged.trial_id: replace(records[diverged.trial_id], status="diverged", test=None),
        failed.trial_id: replace(records[failed.trial_id], status="failed", test=None, error="Trace\nout of luck"),
    }
    found = study.answer(question, changed)
    assert found.values(place, "last").tolist() == [math.inf, found.runs[place][1].last]
    assert [run.diverged for run in found.runs[place]] == [True, False]
    assert found.failed == ((broken, "Trace\nout of luck"),)
    report = document(found, {})
    assert f"Failed: {TINY} / cosine / 0.1×: out of luck" in report.to_text()
    wrong = [(one["system"], one["factor"], one["seed"]) for one in report.data["failures"]]
    assert ("rex", 10.0, 1) in wrong
    assert ("cosine", 0.1, 1) not in wrong


def test_half_an_answer_tells_what_is_missing(question, records):
    specs = study.cells(question)
    some = {s.trial_id: records[s.trial_id] for p, c in specs.items() if p.system == "rex" for s in c.trials}
    found = study.answer(question, some)
    assert {place.system for place in found.runs} == {"rex"}
    report = document(found, {})
    assert "Not finished, and left out:" in report.to_text()
    assert f"{TINY} / arc (0.1×, 1×, 10×)" in report.to_text()
    assert {bar["verdict"] for bars in report.data["bars"].values() for bar in bars} == {"not known yet"}
    json.loads(report.to_json())
    assert (
        "Not finished" in document(study.answer(question, {}), {}).to_text()
        or not document(study.answer(question, {}), {}).sections
    )


# -------------------------------------------------------- the report of real trials


def test_the_report_of_real_trials_holds_together(tmp_path, question, records):
    found = study.answer(question, records)
    report = document(found, {"command": "glideslope arc evaluate"})
    data = json.loads(report.to_json())
    assert Question.from_json(data["question"]) == question
    assert len(data["runs"]) == 2 * len(study.cells(question))
    assert data["trials"] == len(records)
    text = report.to_text()
    for name in question.systems:
        assert name in text
    report.write_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data-figure=") >= 3
    assert "NaN" not in "".join(part for part in page.split("<script") if "data-figure" in part)


def test_equal_answers_have_equal_reports(question, records):
    found = study.answer(question, records)
    assert document(found, {}).to_json() == document(found, {}).to_json()


# -------------------------------------------------------- the report, by hand

SEEDS = (1, 2, 3)
SPREAD = (-0.1, 0.0, 0.1)


def made(seed, last, best=None, **changes):
    """A run of nine epochs of eight updates at a constant rate."""
    defaults = {
        "rate": 0.1,
        "diverged": not math.isfinite(last),
        "updates": tuple(range(72)),
        "rates": (0.1,) * 72,
        "losses": (1.0,) * 9,
        "decisions": (),
    }
    return Run(seed, last=last, best=last - 0.5 if best is None else best, **{**defaults, **changes})


def by_hand(setting, values=None, upward=False, factors=(0.1, 1.0, 10.0), tasks=("first", "second"), runs=None):
    """An answer: every system ends at 5 at the good rate and at 8 elsewhere, the learned ones at 5 everywhere.

    Args:
        values: (task or None for all, system, factor) → one number for every seed.
        runs: place → runs, instead.
    """
    metric = replace(setting.metric, higher_is_better=upward, unit="%")
    settings = tuple(replace(setting, task=replace(setting.task, name=name), metric=metric) for name in tasks)
    question = Question(settings, CONTROLLERS, epochs=9, rate_factors=factors, num_seeds=len(SEEDS))
    sign, given, found = (-1 if upward else 1), values or {}, {}
    for task, system, factor in study.cells(question):
        levels = 5.0 if factor == 1 or "arc" in system else 8.0
        usual = [sign * (levels + apart) for apart in SPREAD]
        lasts = given.get((task, system, factor), given.get((None, system, factor), usual))
        found[Place(task, system, factor)] = tuple(
            made(seed, last, None if math.isfinite(last) else 7.0, rate=0.1 * factor, rates=(0.1 * factor,) * 72)
            for seed, last in zip(SEEDS, lasts, strict=True)
        )
    return Answer(question, {**found, **(runs or {})}, (), (), 100, 1.0)


def bars(answer):
    """Controller → bar → entry of the data."""
    found = {}
    for title, entries in document(answer, {}).data["bars"].items():
        for bar in entries:
            found.setdefault(bar["controller"], {})[title.split(",")[0].split(" ")[0:2][-1]] = bar
    return found


def verdicts(answer, controller="arc"):
    return tuple(bar["verdict"] for bar in bars(answer)[controller].values())


HOLDS, FAILS = "holds", "does not hold"


def test_bars_hold_where_they_hold(setting):
    assert verdicts(by_hand(setting)) == (HOLDS, HOLDS, HOLDS)
    assert verdicts(by_hand(setting, upward=True)) == (HOLDS, HOLDS, HOLDS)


def test_greedy_is_held_to_the_same_bars(setting):
    found = by_hand(setting)
    # It ends at 8 where the learned ones end at 5, which is no better than the schedules' 8.
    assert verdicts(found, "greedy") == (FAILS, HOLDS, FAILS)
    report = document(found, {})
    (line,) = [line for line in report.to_text().splitlines() if line.startswith("greedy") and "of 4" in line]
    assert " ".join(line.split()) == "greedy 2 of 6: does not hold 2 of 2: holds 0 of 4: does not hold"


@pytest.mark.parametrize("upward", [False, True])
def test_behind_the_published_controller_by_the_median(setting, upward):
    """Paired with the other, seed by seed, each of 18 runs is half a unit worse: 5 standard deviations of 0.1."""
    sign = -1 if upward else 1
    worse = {(None, "arc", factor): [sign * (5.5 + apart) for apart in SPREAD] for factor in (0.1, 1.0, 10.0)}
    bar = bars(by_hand(setting, worse, upward))["arc"]["behind"]
    assert bar["verdict"] == FAILS
    assert bar["difference"] == pytest.approx({"value": 5.0, "low": 5.0, "high": 5.0})
    better = {(None, "published arc", factor): worse[None, "arc", factor] for factor in (0.1, 1.0, 10.0)}
    bar = bars(by_hand(setting, better, upward))["arc"]["behind"]
    assert (bar["verdict"], bar["difference"]["value"]) == (HOLDS, pytest.approx(-5.0))


def test_a_task_counts_by_its_own_yardstick(setting):
    """On the second task seeds differ ten times as much, so that the same half a unit is half a standard deviation."""
    values = {("second", "constant", 1.0): [4.0, 5.0, 6.0]}
    values |= {(task, "arc", 1.0): [5.4, 5.5, 5.6] for task in ("first", "second")}
    bar = bars(by_hand(setting, values, factors=(1.0,)))["arc"]["behind"]
    assert [check["said"] for check in bar["checks"]] == ["+5.00", "+0.50"]
    assert bar["difference"]["value"] == pytest.approx(2.75)


def test_without_a_spread_of_the_constant_rate_the_pooled_one_counts(setting):
    bar = bars(by_hand(setting, {(None, "constant", 1.0): [5.0, 5.0, 5.0], (None, "arc", 1.0): [6.0, 6.0, 6.0]}))
    said = [check["said"] for check in bar["arc"]["behind"]["checks"]]
    pooled = 0.1 * math.sqrt(9 / 11)  # of eleven systems, two have none
    assert said[1] == said[4] == f"{1 / pooled:+.2f}"


def test_both_diverged_is_a_tie_and_one_is_not(setting):
    lost = [math.nan] * 3
    both = {(None, name, 10.0): lost for name in ("arc", "published arc")}
    assert [c["said"] for c in bars(by_hand(setting, both))["arc"]["behind"]["checks"]][2] == "+0.00"
    everywhere = {(None, "arc", factor): lost for factor in (0.1, 1.0, 10.0)}
    bar = bars(by_hand(setting, everywhere))["arc"]["behind"]
    assert (bar["verdict"], bar["difference"]["value"]) == (FAILS, None)


@pytest.mark.parametrize("upward", [False, True])
def test_harm_at_the_good_rate_is_told_on_each_task(setting, upward):
    sign = -1 if upward else 1
    harm = {("second", "arc", 1.0): [sign * value for value in (5.4, 5.5, 5.65)]}
    bar = bars(by_hand(setting, harm, upward))["arc"]["worse"]
    assert bar["verdict"] == FAILS
    assert [check["holds"] for check in bar["checks"]] == [True, False]
    assert bar["checks"][1]["said"].startswith("+0.517 [+0.445, +0.588]")  # 2.92 of a standard error of 0.0167, twice


def test_worse_within_the_interval_is_no_harm(setting):
    unclear = {(None, "arc", 1.0): [4.5, 5.2, 6.0]}
    assert bars(by_hand(setting, unclear))["arc"]["worse"]["verdict"] == HOLDS


def test_diverging_where_a_constant_rate_does_not_is_harm(setting):
    values = {("first", "arc", 1.0): [5.0, math.inf, 5.0]}
    bar = bars(by_hand(setting, values))["arc"]["worse"]
    assert (bar["verdict"], bar["checks"][0]["holds"]) == (FAILS, False)
    assert "1 of 3 runs" in bar["checks"][0]["said"]


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_one_schedule_that_is_as_good_from_a_wrong_rate_is_enough_and_is_named(setting, factor):
    for value in (4.9, 5.0):
        bar = bars(by_hand(setting, {("second", "cosine", factor): [value] * 3}))["arc"]["than"]
        assert bar["verdict"] == FAILS
        (failing,) = [check for check in bar["checks"] if check["holds"] is False]
        assert failing["where"] == f"second from {factor:g}× = {0.1 * factor:.3g}"
        assert failing["said"] == f"5, not better than cosine ({value:g})"


def test_what_chooses_its_own_rate_is_no_schedule(setting):
    assert bars(by_hand(setting, {(None, "line search", 1.0): [1.0] * 3}))["arc"]["than"]["verdict"] == HOLDS


def test_bars_that_fail_are_said_in_the_text(setting):
    text = document(by_hand(setting, {("second", "rex", 10.0): [1.0] * 3}), {}).to_text()
    assert "Does not hold for arc: from the lowest and the highest initial rate better than constant, cosine" in text
    assert "second from 10× = 1: 5, not better than rex (1)" in text


def test_without_a_learned_controller_the_others_are_still_told(setting):
    full = by_hand(setting)
    kept = {place: runs for place, runs in full.runs.items() if "arc" not in place.system}
    alone = replace(full, question=replace(full.question, controllers=()), runs=kept)
    report = document(alone, {})
    assert "No controller named 'arc' took part" in report.to_text()
    assert {bar["controller"] for entries in report.data["bars"].values() for bar in entries} == set(study.RULES)
    no_published = replace(alone, question=replace(alone.question, controllers=CONTROLLERS[:1]))
    assert "No controller named 'published arc' took part" in document(no_published, {}).to_text()


def table(answer, title):
    (found,) = [
        block for section in document(answer, {}).sections for block in section.blocks
        if isinstance(block, Table) and block.title.startswith(title)
    ]  # fmt: skip
    return found


def test_medians_are_shown_for_both_countings_at_every_rate(setting):
    """Of 1, 2, 9 the median is 2 and the quartiles 1.5 and 5.5."""
    found = table(by_hand(setting, {("first", "rex", 0.1): [9.0, 1.0, 2.0]}), "first")
    row = dict(zip(found.columns, next(row for row in found.rows if row[0] == "rex"), strict=True))
    assert (row["0.1× = 0.01, last"].mean, row["0.1× = 0.01, last"].std) == (2.0, 2.0)
    assert row["0.1× = 0.01, best"].mean == 1.5
    assert (row["1× = 0.1, last"].mean, row["10× = 1, last"].mean) == (5.0, 8.0)
    assert "of 3 runs" in found.note


def test_a_rate_of_its_own_is_shown_at_every_rate(setting):
    found = table(by_hand(setting, {("first", "line search", 1.0): [3.0, 3.1, 3.2]}), "first")
    row = next(row for row in found.rows if row[0] == "line search")
    assert [entry.mean for entry in row[1:-1:2]] == [3.1] * 3


def test_who_is_tied_with_the_best_is_marked_per_column(setting):
    noise = {
        (None, name, factor): [level + apart for apart in np.random.default_rng(index).permutation(SPREAD)]
        for index, (name, level) in enumerate([("arc", 3.0), ("published arc", 3.02)])
        for factor in (0.1, 10.0)
    }
    found = table(by_hand(setting, noise), "first")
    column = found.columns.index("0.1× = 0.01, last")
    assert {row[0] for row in found.rows if row[column].tied} == {"arc", "published arc"}
    good = found.columns.index("1× = 0.1, last")
    assert all(row[good].tied for row in found.rows)


def test_the_medians_of_a_higher_metric_keep_their_sign(setting):
    found = table(by_hand(setting, upward=True), "first")
    assert {row[3].mean for row in found.rows} == {-5.0}
    assert "higher is better" in found.note


def test_runs_that_diverged_are_counted_and_never_averaged_away(setting):
    values = {("first", "rex", 10.0): [8.0, math.nan, 8.2], ("first", "cosine", 10.0): [math.nan, math.inf, 8.0]}
    found = table(by_hand(setting, values), "first")
    rows = {row[0]: row for row in found.rows}
    column = found.columns.index("10× = 1, last")
    assert (rows["rex"][column].mean, rows["rex"][column].flags, rows["rex"][-1]) == (8.2, ("diverged",), "0 0 1")
    assert (rows["cosine"][column].mean, rows["cosine"][-1]) == (math.inf, "0 0 2")
    assert not rows["rex"][column].tied
    assert "diverged" in found.to_text()


def test_ranks_by_hand(setting):
    """Learned ones share ranks 1 and 2 with those of a rate of their own: 1 to 4, so 2.5; the other seven 5 to 11."""
    found = document(by_hand(setting), {}).data["ranks"]
    assert found["cells"] == {"0.1×": 2, "1×": 2, "10×": 2, "all rates": 6}
    for counting in ("last", "best"):
        assert found[counting]["arc"] == {"0.1×": 2.5, "1×": 6.0, "10×": 2.5, "all rates": pytest.approx(11 / 3)}
        assert found[counting]["rex"]["0.1×"] == 8.0


def test_ranks_count_only_where_everybody_has_finished(setting):
    full = by_hand(setting)
    gone = Place("second", "rex", 10.0)
    part = replace(full, runs={p: r for p, r in full.runs.items() if p != gone}, unfinished=(gone,))
    report = document(part, {})
    assert report.data["ranks"]["cells"] == {"0.1×": 2, "1×": 2, "10×": 1, "all rates": 5}
    assert "second / rex (10×)" in report.to_text()
    assert bars(part)["arc"]["than"]["verdict"] == "not known yet"


# -------------------------------------------------------- decisions


def test_what_is_not_a_change_was_a_decision_to_keep(setting):
    """Nine epochs, a decision every second one: at 16, 32, 48 and 64 updates."""
    runs = tuple(made(seed, 5.0, decisions=((16, "raise"), (48, "lower"))) for seed in SEEDS)
    found = document(by_hand(setting, tasks=("first",), runs={Place("first", "arc", 1.0): runs}), {})
    (entry,) = [e for e in found.data["decisions"] if (e["controller"], e["factor"]) == ("arc", 1.0)]
    assert entry["counts_by_decision"] == [[3, 0, 0], [0, 3, 0], [0, 0, 3], [0, 3, 0]]
    assert entry["actions"] == ["raise", "keep", "lower"]
    line = next(line for line in found.to_text().splitlines() if line.startswith("arc") and " 1×" in line)
    # Thirds of four decisions: the first two, the third, the last.
    assert [part.strip() for part in line.split("  ") if part][1:] == [
        "1×", "50 / 50 / 0", "0 / 0 / 100", "0 / 100 / 0", "25 / 50 / 25", "12",
    ]  # fmt: skip


def test_a_run_that_diverged_decided_as_long_as_it_lasted(setting):
    lost = [made(seed, math.nan, 4.0, losses=(1.0,) * 5, decisions=((16, "lower"), (32, "lower"))) for seed in SEEDS]
    found = document(by_hand(setting, tasks=("first",), runs={Place("first", "arc", 10.0): tuple(lost)}), {})
    (entry,) = [e for e in found.data["decisions"] if (e["controller"], e["factor"]) == ("arc", 10.0)]
    assert entry["counts_by_decision"] == [[0, 0, 3], [0, 0, 3], [0, 0, 0], [0, 0, 0]]


# -------------------------------------------------------- runs that went wrong


def failures(answer):
    return document(answer, {}).data["failures"]


def wrong(setting, system, run, factor=0.1):
    """What is said of one run among ordinary ones; at the good rate seeds end at 4.9, 5.0, 5.1."""
    place = Place("first", system, factor)
    calm = {(None, name, f): [5.0, 5.1, 5.2] for name in (*study.OPEN_LOOP, *study.RULES) for f in (0.1, 10.0)}
    answer = by_hand(setting, calm, tasks=("first",))
    first, _, third = answer.runs[place]
    return failures(replace(answer, runs={**answer.runs, place: (first, run, third)}))


def test_ordinary_runs_are_not_listed(setting):
    assert wrong(setting, "arc", made(2, 5.0)) == []


def test_far_behind_the_worst_constant_run_is_listed_with_how_far(setting):
    """The worst ends at 5.1, a standard deviation is 0.1: listed from 5.4 on."""
    assert wrong(setting, "arc", made(2, 5.39)) == []
    (one,) = wrong(setting, "arc", made(2, 5.45))
    assert one["severity"] == pytest.approx(3.5)
    assert (one["task"], one["system"], one["factor"], one["seed"]) == ("first", "arc", 0.1, 2)


def test_a_rate_that_ran_away_is_listed_only_if_the_loss_rose(setting):
    away = {"rate": 0.1, "rates": tuple(0.1 * 10 ** (update / 20) for update in range(72))}
    rising = tuple(1.0 + 0.05 * epoch for epoch in range(9))
    (one,) = wrong(setting, "greedy", made(2, 5.0, losses=rising, **away))
    assert one["reasons"] == ["rate run away: gain 3.5e+03"]
    assert (one["best_epoch"], one["last_epoch"], one["first_rate"]) == (1, 9, 0.1)
    assert wrong(setting, "greedy", made(2, 5.0, losses=(1.0,) * 9, **away)) == []
    assert wrong(setting, "constant", made(2, 5.0, losses=rising, **away)) == []  # steered by nobody


def test_a_profile_that_lands_is_not_a_gain_that_ran_away(setting):
    rex = parse_policy("rex").plan["lr"]
    rates = tuple(float(rex.value(update / 72, 0.1)) for update in range(72))
    rising = tuple(1.0 + 0.05 * epoch for epoch in range(9))
    assert wrong(setting, "rex | greedy", made(2, 5.0, rates=rates, losses=rising)) == []
    sunk = tuple(1e-4 * rate for rate in rates)
    (one,) = wrong(setting, "rex | greedy", made(2, 5.0, rates=sunk, losses=rising))
    assert one["reasons"] == ["rate run away: gain 1.0e-04"]


def test_divergence_is_the_gravest(setting):
    (one,) = wrong(setting, "line search", made(2, math.nan, losses=(3.0, 2.0, math.nan)), 1.0)
    assert one["reasons"] == ["diverged after epoch 3 of 9"]
    assert (one["severity"], one["last_loss"], one["best_epoch"], one["factor"]) == (None, None, 2, None)
    assert one["first_rate"] is None  # of a line search only the longest step is known


def test_the_list_is_capped_and_the_rest_is_counted(setting):
    answer = by_hand(setting)  # schedules end at 8 from both wrong rates, on two tasks, with three seeds
    found = table(answer, "One by one")
    listed = [row for row in found.rows if row[0] == "rex"]
    assert len(listed) == FAILURES_SHOWN < 12
    assert f"{12 - FAILURES_SHOWN} of rex" in found.note
    assert "rex 12" in found.note
    assert len([one for one in failures(answer) if one["system"] == "rex"]) == 12


def test_the_gravest_come_first_and_learned_controllers_before_all(setting):
    place = Place("first", "arc", 10.0)
    lost = (made(1, 9.0), made(2, math.nan, losses=()), made(3, 5.0))
    found = failures(by_hand(setting, tasks=("first",), runs={place: lost}))
    assert [(one["system"], one["seed"]) for one in found[:2]] == [("arc", 2), ("arc", 1)]


# -------------------------------------------------------- everything at once


def test_the_page_of_a_study_with_everything_wrong_renders(tmp_path, setting):
    values = {(None, name, 10.0): [math.nan, math.inf, 8.0] for name in (*study.OPEN_LOOP, "arc")}
    values |= {("first", name, 1.0): [math.nan] * 3 for name in ("constant", "superconvergence")}
    blown = Place("second", "arc", 0.1)
    runs = {blown: tuple(made(seed, math.nan, math.nan, losses=(), updates=(), rates=()) for seed in SEEDS)}
    report = document(by_hand(setting, values, runs=runs), {"command": "glideslope arc evaluate"})
    json.loads(report.to_json())
    report.write_html(tmp_path / "page.html")
    assert verdicts(by_hand(setting, values, runs=runs))[2] == FAILS
    assert "3 of 3 diverged" in (tmp_path / "page.html").read_text()


def test_one_seed_has_no_intervals(setting):
    full = by_hand(setting)
    one = replace(
        full,
        question=replace(full.question, num_seeds=1),
        runs={place: runs[:1] for place, runs in full.runs.items()},
    )
    report = document(one, {})
    assert "One seed" in report.to_text()
    assert "no interval" in report.to_text()
    assert {bar["verdict"] for bar in report.data["bars"]["not worse than constant, good rate"]} == {"not known yet"}
    json.loads(report.to_json())
