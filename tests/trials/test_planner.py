"""run_study: only what is missing, until no cell wants more."""

from dataclasses import dataclass, replace

import pytest
from specs import Counted, make_spec

from glideslope.trials.executors import InProcess, Populations, Processes
from glideslope.trials.planner import Progress, run_study
from glideslope.trials.run import run_trial
from glideslope.trials.store import Store, StoreError


@dataclass(frozen=True)
class Chain:
    """A cell that wants its specs one after the other."""

    specs: tuple

    def next_specs(self, records):
        return [spec for spec in self.specs if spec.trial_id not in records][:1]


def chain(*seeds, task="tiny_tasks:Regression"):
    return Chain(tuple(make_spec(task, seed=seed, updates=4) for seed in seeds))


class TestFixedPoint:
    def test_cells_are_called_until_they_are_answered(self, tmp_path):
        with Store(tmp_path) as store, Counted() as executor:
            records = run_study([chain(1, 2, 3), chain(4)], store, executor)
            assert records == store.summaries()
            assert records == {key: record.summary for key, record in store.records().items()}
        assert {spec.seeds.init for spec in executor.ran} == {1, 2, 3, 4}
        assert len(executor.ran) == 4

    def test_a_trial_that_two_cells_want_runs_once(self, tmp_path):
        with Store(tmp_path) as store, Counted() as executor:
            run_study([chain(1, 2), chain(1, 2), chain(2, 1), chain(1, 3)], store, executor)
        assert sorted(spec.seeds.init for spec in executor.ran) == [1, 2, 3]

    def test_what_is_stored_is_not_run_again(self, tmp_path):
        with Store(tmp_path) as store:
            run_study([chain(1, 2)], store, Counted())
            again, more = Counted(), Counted()
            run_study([chain(1, 2)], store, again)
            run_study([chain(1, 2, 3)], store, more)
        assert again.ran == []
        assert [spec.seeds.init for spec in more.ran] == [3]

    def test_nothing_to_do(self, tmp_path):
        seen = []
        with Store(tmp_path) as store:
            assert run_study([], store, Counted(), seen.append) == {}
        assert seen == [Progress(0, 0, 0, 0, 0)]

    def test_progress_counts_up_to_all(self, tmp_path):
        seen = []
        with Store(tmp_path) as store:
            run_study([chain(1, 2), chain(3, task="tiny_tasks:Raising")], store, Counted(), seen.append)
        assert [progress.trials_done for progress in seen] == [0, 1, 1, 2, 3]  # the failed one is tried again
        assert seen[-1] == Progress(3, 3, 12, 12, failed=1)
        assert all(progress.trials_done <= progress.trials_known for progress in seen)


class TestOthers:
    """Another driver on the same store, seen from this one. Two real ones: test_drivers.py."""

    def test_what_another_driver_is_at_is_not_run_but_waited_for(self, tmp_path, monkeypatch):
        cells = [chain(1), chain(2)]
        first, second = (cell.specs[0] for cell in cells)
        with Store(tmp_path) as mine, Store(tmp_path) as theirs, Counted() as executor:
            assert theirs.claim([first.trial_id], 0.0).granted == {first.trial_id}
            seen = []

            def sleep(seconds):
                assert [spec.trial_id for spec in executor.ran] == [second.trial_id]
                assert seen[-1].elsewhere == 1
                theirs.put(first, run_trial(first))

            monkeypatch.setattr("glideslope.trials.planner.time.sleep", sleep)
            records = run_study(cells, mine, executor, seen.append)
            assert set(records) == {first.trial_id, second.trial_id}
            assert records == mine.summaries()
        assert executor.ran == [second]
        assert seen[-1] == Progress(2, 2, 8, 8, failed=0, elsewhere=0)

    def test_what_a_driver_that_ended_was_at_is_taken_over(self, tmp_path, monkeypatch):
        (spec,) = chain(1).specs
        monkeypatch.setattr("glideslope.trials.planner.time.sleep", lambda seconds: theirs.close())
        with Store(tmp_path) as mine, Counted() as executor:
            theirs = Store(tmp_path)
            theirs.claim([spec.trial_id], 0.0)
            run_study([chain(1)], mine, executor)
        assert executor.ran == [spec]

    def test_what_has_been_stored_since_it_was_planned_is_not_run(self, tmp_path):
        cells = [chain(1, 2), chain(3)]
        with Store(tmp_path) as mine, Store(tmp_path) as theirs:

            class Slow(Counted):
                def next(self):
                    spec, record = super().next()
                    if len(self.ran) == 1:  # the other one does all the rest meanwhile
                        for other in (*cells[0].specs, *cells[1].specs):
                            if other != spec:
                                theirs.put(other, run_trial(other))
                    return spec, record

            executor = Slow()
            records = run_study(cells, mine, executor)
            assert len(records) == 3
        assert len(executor.ran) == 1

    def test_a_failure_of_another_driver_stands_while_this_one_lives(self, tmp_path):
        spec = make_spec("tiny_tasks:Raising", updates=4)
        failed = run_trial(spec)
        with Store(tmp_path) as mine, Store(tmp_path) as theirs, Counted() as executor:

            class Late:
                def next_specs(self, records):
                    if not records:  # planned before it fails elsewhere
                        theirs.put(spec, failed)
                        return [spec]
                    return []

            records = run_study([Late()], mine, executor)
            assert [record.status for record in records.values()] == ["failed"]
        assert executor.ran == []

    def test_the_claim_on_a_trial_ends_with_its_record_and_with_the_driver(self, tmp_path):
        with Store(tmp_path) as store:
            run_study([chain(1, 2)], store, Counted())
            assert store._connection.execute("SELECT * FROM claims").fetchall() == []
            store.claim(["never put"], 0.0)
        with Store(tmp_path) as store:
            assert store._connection.execute("SELECT * FROM claims").fetchall() == []
            assert list((tmp_path / "drivers").iterdir()) == []


class TestAgain:
    def test_trials_that_someone_wants_again_run_again(self, tmp_path):
        cell = chain(1, 2)
        with Store(tmp_path) as store:
            run_study([cell], store, Counted())
            store.run_again([cell.specs[0].trial_id])
            again, once = Counted(), Counted()
            run_study([cell], store, again)
            run_study([cell], store, once)
        assert [spec.seeds.init for spec in again.ran] == [1]
        assert once.ran == []


class TestFailures:
    def test_a_failed_trial_is_tried_once_more_and_again_by_the_next_call(self, tmp_path, caplog):
        cells = [chain(1, task="tiny_tasks:Raising"), chain(2)]
        raising, sound = (cell.specs[0].trial_id for cell in cells)
        with Store(tmp_path) as store:
            for call in range(2):
                executor = Counted()
                records = run_study(cells, store, executor)
                assert [spec.trial_id for spec in executor.ran].count(raising) == 2
                assert len(executor.ran) == (2 if call else 3)  # the study goes on
                assert (records[raising].status, records[sound].status) == ("failed", "finished")
                assert "Traceback" in records[raising].error
                assert "no loss today" in store.records()[raising].error
        assert caplog.text.count("failed and is tried once more: RuntimeError: <b>no loss today</b>") == 2

    def test_a_trial_that_fails_once_finishes(self, tmp_path):
        class Faltering(Counted):
            def next(self):
                spec, record = super().next()
                return spec, record if len(self.ran) > 1 else replace(record, status="failed", error="out of luck")

        with Store(tmp_path) as store, Faltering() as executor:
            records = run_study([chain(1)], store, executor)
            assert [record.status for record in records.values()] == ["finished"]
            assert records == store.summaries()
        assert len(executor.ran) == 2

    def test_diverged_is_an_outcome_and_stays(self, tmp_path):
        cell = chain(1, task="tiny_tasks:NotANumber")
        with Store(tmp_path) as store:
            run_study([cell], store, Counted())
            again = Counted()
            run_study([cell], store, again)
        assert again.ran == []

    def test_a_worker_that_is_killed_once_costs_nothing_but_time(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TINY_MARKER", str(tmp_path / "marker"))
        cells = [chain(seed, task="tiny_tasks:Killing") for seed in (2, 3)]
        with Store(tmp_path) as store:
            with Processes(1) as executor:
                records = run_study(cells, store, executor)
            assert (tmp_path / "marker").exists()
            assert [record.status for record in records.values()] == ["finished"] * 2
            assert store.summaries() == records

    @pytest.mark.parametrize("make", [InProcess, lambda: Processes(1), lambda: Populations(1)])
    def test_the_rule_is_the_same_for_every_executor(self, make, tmp_path, monkeypatch):
        counter = tmp_path / "models"
        monkeypatch.setenv("TINY_COUNTER", str(counter))
        with Store(tmp_path) as store, make() as executor:
            run_study([chain(1, task="checkpoint_tasks:Hopeless")], store, executor)
            (record,) = store.records().values()
        assert record.status == "failed"
        assert "no model today" in record.error
        assert counter.stat().st_size == 2

    def test_every_trial_is_stored_before_the_next_is_waited_for(self, tmp_path):
        class Breaking(Counted):
            def next(self):
                if len(self.ran) == 2:
                    raise KeyboardInterrupt
                return super().next()

        with Store(tmp_path) as store:
            with pytest.raises(KeyboardInterrupt):
                run_study([chain(1, 2, 3)], store, Breaking())
            assert len(store.records()) == 2
            rest = Counted()
            run_study([chain(1, 2, 3)], store, rest)
        assert len(rest.ran) == 1

    def test_a_full_disk_stops_the_study_and_loses_nothing(self, tmp_path):
        cells = [chain(*range(100))]
        with Store(tmp_path) as store:
            (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
            store._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
            executor = Counted()
            with pytest.raises(StoreError, match="the disk is full"):
                run_study(cells, store, executor)
            assert len(store.records()) == len(executor.ran) - 1 > 0
