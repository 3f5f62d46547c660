"""`glideslope trials`: lists, shows one, runs again."""

import json
from dataclasses import replace

import pytest
import tiny_tasks
from specs import make_spec

from glideslope.trials.record import Cost
from glideslope.trials.run import run_trial
from glideslope.trials.store import FILE, Store

SPECS = {
    "rex": make_spec(schedule="rex", seed=1),
    "plateau": make_spec(schedule="plateau(patience=0)", seed=2, rate=0.1, updates=200, probes=("weight_norm",)),
    "one_cycle": make_spec(schedule="one_cycle", optimizer="adamw(weight_decay=0.1)", seed=3),
    "diverged": make_spec("tiny_tasks:NotANumber", seed=4),
    "failed": make_spec("tiny_tasks:Raising", seed=5),
}


@pytest.fixture(scope="module")
def records():
    return {name: run_trial(spec) for name, spec in SPECS.items()}


@pytest.fixture
def runs(tmp_path, records):
    with Store(tmp_path / "runs") as store:
        for name, spec in SPECS.items():
            store.put(spec, records[name])
    return tmp_path / "runs"


def listed(called):
    """The lines of a list, by the beginning of the id."""
    title, header, *lines = called.out.splitlines()
    assert title == "Trials"
    assert header.split()[:3] == ["id", "task", "optimizer"]
    rows = [line.split() for line in lines]
    names = {spec.trial_id[:10]: name for name, spec in SPECS.items()}
    return {names[row[0]]: " ".join(row) for row in rows if row[0] in names}


class TestList:
    def test_one_line_a_trial(self, glideslope, runs):
        called = glideslope("trials", "runs")
        rows = listed(called)
        assert set(rows) == set(SPECS)
        assert " tiny_tasks:Regression adamw(weight_decay=0.1) one_cycle 0.03 3 10 finished " in rows["one_cycle"]
        assert rows["rex"].endswith("in-process")
        assert "constant | plateau(patience=0) 0.1 2 200 finished" in rows["plateau"]
        assert " diverged - " in rows["diverged"]
        assert "Selected: 5." in called.out

    @pytest.mark.parametrize(
        ("filters", "names"),
        [
            (("--status", "failed"), {"failed"}),
            (("--status", "finished", "--task", "regression"), {"rex", "plateau", "one_cycle"}),
            (("--schedule", "plateau"), {"plateau"}),
            (("--optimizer", "ADAMW"), {"one_cycle"}),
            (("--seed", "4"), {"diverged"}),
            (("--id", SPECS["rex"].trial_id[:7]), {"rex"}),
            (("--task", "no such task"), set()),
        ],
        ids=lambda words: " ".join(sorted(words)),  # of a set too: workers of pytest must agree
    )
    def test_filters(self, filters, names, glideslope, runs):
        assert set(listed(glideslope("trials", "runs", *filters))) == names

    def test_the_newest_of_many(self, glideslope, runs):
        called = glideslope("trials", "runs", "--newest", "2")
        assert set(listed(called)) == {"diverged", "failed"}
        assert "Selected: 5. Listed are the 2 stored last; --newest 0 lists all." in called.out
        assert set(listed(glideslope("trials", "runs", "--newest", "0"))) == set(SPECS)

    def test_json_is_strict_and_has_every_column(self, glideslope, runs):
        def refuse(constant):
            raise AssertionError(constant)

        found = json.loads(glideslope("trials", "runs", "--json").out, parse_constant=refuse)
        assert [row["status"] for row in found] == ["finished"] * 3 + ["diverged", "failed"]
        assert found[0]["trial_id"] == SPECS["rex"].trial_id
        assert "RuntimeError" in found[-1]["error"]

    def test_looking_changes_nothing(self, glideslope, runs):
        before = (runs / FILE).read_bytes()
        glideslope("trials", "runs")
        glideslope("trials", "runs", "--show", SPECS["rex"].trial_id)
        glideslope("report", "runs")
        assert (runs / FILE).read_bytes() == before
        assert not (runs / "drivers").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("nowhere",), "there is no store in nowhere"),
            (("runs", "--status", "finshed"), "unknown status 'finshed'. Did you mean 'finished'?"),
            (("runs", "--show", "zzz"), "no trial in runs has an id that begins with 'zzz'"),
            (("runs", "--show", ""), "5 trials begin with ''"),
            (("runs", "--show", "abc", "--rerun"), "To run that trial again: --id abc --rerun"),
            (("runs", "--rerun"), "say what, for example --status failed"),
            (("runs", "--rerun", "--task", "none such"), "no trial in runs is selected"),
            (("runs", "--rerun", "--seed", "1", "--executor", "population "), "unknown executor"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_mistakes(self, arguments, message, glideslope, runs):
        assert message in glideslope("trials", *arguments).error


class TestShow:
    def test_everything_about_one(self, glideslope, runs, records):
        spec = SPECS["plateau"]
        text = glideslope("trials", "runs", "--show", spec.trial_id[:8]).out
        assert text.startswith(f"Trial {spec.trial_id}\n")
        for words in (
            "tiny_tasks:Regression, version 1",
            spec.task.data_sha256,
            "constant | plateau(patience=0)",
            "init 2, data 2, noise 2",
            "200 of 200, validated every 8",
            "in-process on cpu",
            "torch 2.",
            "weight_norm",
            "200 updates were recorded, from 0 to 199.",
            "12 of 25.",
            "Decisions of the controller",
            f"{records['plateau'].test.metric:.6g}",
            f"{records['plateau'].last_validation.metric:.6g}",
        ):
            assert words in text, words

    def test_the_traceback_of_one_that_failed(self, glideslope, runs):
        text = glideslope("trials", "runs", "--show", SPECS["failed"].trial_id).out
        assert "Traceback (most recent call last)" in text
        assert "RuntimeError: <b>no loss today</b>" in text
        assert "0 of 10, validated every 8" in text

    def test_one_whose_loss_is_nan(self, glideslope, runs):
        text = glideslope("trials", "runs", "--show", SPECS["diverged"].trial_id).out
        assert "train loss  nan" in text

    def test_json_has_spec_and_record(self, glideslope, runs, records):
        found = json.loads(glideslope("trials", "runs", "--show", SPECS["plateau"].trial_id, "--json").out)
        assert found == {
            "spec": SPECS["plateau"].to_json(),
            "record": json.loads(json.dumps(records["plateau"].to_json())),
        }


ALONE = ("--executor", "in-process")


class TestRerun:
    def test_a_failure_whose_cause_is_gone(self, glideslope, runs, monkeypatch):
        monkeypatch.setattr(tiny_tasks.Raising, "loss", tiny_tasks.Regression.loss)
        called = glideslope("trials", "runs", "--status", "failed", "--rerun", *ALONE)
        assert "running again: 1 failed" in called.err
        assert called.out == "Run again. Before: 1 failed. Now: 1 finished.\n"
        assert glideslope("trials", "runs", "--status", "failed").out.splitlines()[2].startswith("Selected: 0.")

    def test_one_that_fails_again(self, glideslope, runs):
        out = glideslope("trials", "runs", "--status", "failed", "--rerun", *ALONE).out
        assert "Before: 1 failed. Now: 1 failed." in out
        assert f"{SPECS['failed'].trial_id[:10]} failed: RuntimeError: <b>no loss today</b>" in out

    def test_the_same_again_is_the_same(self, glideslope, runs, records):
        out = glideslope("trials", "runs", "--schedule", "rex", "--rerun", *ALONE).out
        assert out == "Run again. Before: 1 finished. Now: 1 finished.\n"
        with Store(runs) as store:
            again = store.records()[SPECS["rex"].trial_id]
        assert again.outcome == records["rex"].outcome
        assert again.cost != records["rex"].cost

    def test_another_result_is_told(self, glideslope, runs, monkeypatch):
        monkeypatch.setattr(tiny_tasks.Regression, "measured", lambda self, errors: 2 * errors)
        out = glideslope("trials", "runs", "--schedule", "rex", "--rerun", *ALONE).out
        assert f"Of the same status but with another result: {SPECS['rex'].trial_id[:10]}." in out

    def test_a_record_is_not_lost_to_a_failure(self, glideslope, runs, records, monkeypatch):
        monkeypatch.setattr(tiny_tasks.Regression, "loss", tiny_tasks.Raising.loss)
        out = glideslope("trials", "runs", "--schedule", "rex", "--rerun", *ALONE).out
        assert "Before: 1 finished. Now: 1 failed." in out
        assert "the record from before stays" in out
        with Store(runs) as store:
            assert store.records()[SPECS["rex"].trial_id] == records["rex"]

    def test_nothing_is_lost_when_it_is_interrupted_and_the_next_call_goes_on(self, glideslope, runs, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(tiny_tasks.Regression, "loss", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
            called = glideslope("trials", "runs", "--task", "regression", "--rerun", *ALONE)
        assert called.code == 130
        with Store(runs) as store:
            assert len(store.records()) == 5
            assert len(store.known()) == 1  # the diverged one; what was asked for again is missing
        assert "Now: 1 finished." in glideslope("trials", "runs", "--schedule", "rex", "--rerun", *ALONE).out

    def test_json(self, glideslope, runs):
        found = json.loads(glideslope("trials", "runs", "--schedule", "rex", "--rerun", *ALONE, "--json").out)
        assert found == {SPECS["rex"].trial_id: {"before": "finished", "now": "finished", "changed": False}}


def test_records_of_other_paths_are_described(glideslope, tmp_path, records):
    record = replace(
        records["rex"],
        path={"executor": "population", "device": "cpu", "K": 7, "method": "vmap"},
        cost=Cost(0.5, 0.25, 9),
    )
    with Store(tmp_path / "runs") as store:
        store.put(SPECS["rex"], record)
    assert "0.75     population of 7 (vmap)" in glideslope("trials", "runs").out
