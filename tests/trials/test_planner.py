"""run_study: only what is missing, until no cell wants more."""

from dataclasses import dataclass

import pytest
from specs import Counted, make_spec

from glideslope.trials.executors import Processes
from glideslope.trials.planner import Progress, run_study
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
            assert records == store.records()
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
        assert [progress.trials_done for progress in seen] == [0, 1, 2, 3]
        assert seen[-1] == Progress(3, 3, 12, 12, failed=1)
        assert all(progress.trials_done <= progress.trials_known for progress in seen)


class TestFailures:
    def test_a_failed_trial_is_tried_again_by_the_next_call_and_only_once_in_a_call(self, tmp_path):
        cell = chain(1, task="tiny_tasks:Raising")
        with Store(tmp_path) as store:
            for _ in range(2):
                executor = Counted()
                records = run_study([cell], store, executor)
                assert len(executor.ran) == 1
                assert [record.status for record in records.values()] == ["failed"]

    def test_diverged_is_an_outcome_and_stays(self, tmp_path):
        cell = chain(1, task="tiny_tasks:NotANumber")
        with Store(tmp_path) as store:
            run_study([cell], store, Counted())
            again = Counted()
            run_study([cell], store, again)
        assert again.ran == []

    def test_a_killed_worker_is_a_failed_trial_that_the_next_call_repairs(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TINY_MARKER", str(tmp_path / "marker"))
        cells = [chain(seed, task="tiny_tasks:Killing") for seed in (2, 3)]
        with Store(tmp_path) as store:
            with Processes(1) as executor:
                records = run_study(cells, store, executor)
            assert sorted(record.status for record in records.values()) == ["failed", "finished"]
            again = Counted()
            records = run_study(cells, store, again)
            assert [spec.seeds.init for spec in again.ran] == [2]
            assert [record.status for record in records.values()] == ["finished"] * 2
            assert store.records() == records

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
