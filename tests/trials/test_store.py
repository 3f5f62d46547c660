"""Store: what is in it stays in it."""

import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from specs import SUPPORT, make_spec

from glideslope.trials.record import Cost
from glideslope.trials.run import run_trial
from glideslope.trials.store import FILE, VERSION, Store, StoreError

SPEC = make_spec()
RECORD = run_trial(SPEC)
FAILED = replace(RECORD, status="failed", test=None, error="Traceback …")


def limited(store, pages=0):
    """A disk that is full: the database may not grow beyond so many pages more."""
    (count,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {count + pages}")


def many_records(number):
    return [
        (spec, replace(RECORD, trial_id=spec.trial_id)) for spec in (make_spec(seed=seed) for seed in range(number))
    ]


class TestRoundTrip:
    def test_specs_and_records_come_back_equal(self, tmp_path):
        with Store(tmp_path / "new" / "folder") as store:
            store.put(SPEC, RECORD)
        with Store(tmp_path / "new" / "folder", create=False) as store:
            assert store.records() == {SPEC.trial_id: RECORD}
            assert store.specs() == {SPEC.trial_id: SPEC}

    def test_diverged_records_survive(self, tmp_path):
        spec = make_spec("tiny_tasks:NotANumber")
        record = run_trial(spec)
        with Store(tmp_path) as store:
            store.put(spec, record)
            assert store.records()[spec.trial_id].to_json() == record.to_json()

    def test_nothing_is_pickled(self, tmp_path):
        with Store(tmp_path) as store:
            store.put(SPEC, RECORD)
            rows = store._connection.execute("SELECT * FROM trials").fetchall()
        assert all(isinstance(value, (str, float)) for row in rows for value in row)


class TestPut:
    def test_a_failed_trial_is_replaced(self, tmp_path):
        with Store(tmp_path) as store:
            store.put(SPEC, FAILED)
            assert store.records()[SPEC.trial_id].status == "failed"
            store.put(SPEC, RECORD)
            assert store.records() == {SPEC.trial_id: RECORD}

    @pytest.mark.parametrize("status", ["finished", "diverged"])
    def test_an_outcome_is_never_overwritten(self, tmp_path, status):
        kept = replace(RECORD, status=status)
        with Store(tmp_path) as store:
            store.put(SPEC, kept)
            store.put(SPEC, FAILED)
            store.put(SPEC, replace(RECORD, cost=Cost(99.0, 99.0, 99)))
            assert store.records() == {SPEC.trial_id: kept}

    def test_each_trial_is_a_transaction_of_its_own(self, tmp_path):
        # Seen by another connection at once, while the writer is still open.
        with Store(tmp_path) as writer, Store(tmp_path) as reader:
            for number, (spec, record) in enumerate(many_records(3), start=1):
                writer.put(spec, record)
                assert len(reader.records()) == number
                assert not writer._connection.in_transaction

    def test_what_is_stored_survives_the_death_of_the_writer(self, tmp_path):
        program = (
            "import os, signal, sys; from specs import make_spec; from glideslope.trials.run import run_trial;"
            "from glideslope.trials.store import Store; spec = make_spec(); store = Store(sys.argv[1]);"
            "store.put(spec, run_trial(spec)); os.kill(os.getpid(), signal.SIGKILL)"
        )
        process = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=SUPPORT, check=False)
        assert process.returncode == -9
        with Store(tmp_path, create=False) as store:
            assert store.records()[SPEC.trial_id].outcome == RECORD.outcome


class TestQuestions:
    def test_the_last_question_is_the_one_asked_last(self, tmp_path, monkeypatch):
        times = iter([1.0, 2.0, 3.0])
        monkeypatch.setattr("glideslope.trials.store.time.time", lambda: next(times))
        with Store(tmp_path) as store:
            store.ask("compare", {"budgets": [0.1]}, {"commit": "a"})
            store.ask("sampling", {"budgets": [0.2]}, {"commit": "b"})
            assert (store.last_question().kind, store.last_question().question) == ("sampling", {"budgets": [0.2]})
            store.ask("compare", {"budgets": [0.1]}, {"commit": "c"})
            last = store.last_question()
        # Where it was asked first stays with it: asking again on another machine computes nothing there.
        assert (last.kind, last.question, last.provenance) == ("compare", {"budgets": [0.1]}, {"commit": "a"})

    def test_none_was_asked(self, tmp_path):
        with Store(tmp_path) as store, pytest.raises(StoreError, match=r"holds no study yet; run `glideslope compare"):
            store.last_question()


class TestRefusals:
    def test_another_version(self, tmp_path):
        with Store(tmp_path) as store:
            store.put(SPEC, RECORD)
            store._connection.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
        with pytest.raises(StoreError, match=rf"is a store of version 99; this glideslope reads version {VERSION}"):
            Store(tmp_path)
        connection = sqlite3.connect(tmp_path / FILE)
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (1,)
        connection.close()

    @pytest.mark.parametrize("content", [b"text, and not a database " * 40, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_a_file_that_is_no_database(self, tmp_path, content):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(StoreError, match=r"not a store of glideslope, or is damaged. Use another --out folder"):
            Store(tmp_path)
        assert (tmp_path / FILE).read_bytes() == content

    def test_a_database_of_something_else(self, tmp_path):
        connection = sqlite3.connect(tmp_path / FILE)
        connection.execute("CREATE TABLE trials (lawyer TEXT)")
        connection.commit()
        connection.close()
        with pytest.raises(StoreError, match="trials"):
            Store(tmp_path)
        connection = sqlite3.connect(tmp_path / FILE)
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("trials",)]
        connection.close()

    def test_no_store_where_one_must_be(self, tmp_path):
        with pytest.raises(StoreError, match=r"there is no store in .*nowhere .*`glideslope compare --out DIR`"):
            Store(tmp_path / "nowhere", create=False)
        assert not (tmp_path / "nowhere").exists()


class TestFullDisk:
    def test_stored_trials_are_safe_and_it_goes_on_when_there_is_room(self, tmp_path):
        trials = many_records(40)
        with Store(tmp_path) as store:
            limited(store, pages=8)
            stored = []
            with pytest.raises(StoreError, match=r"the disk is full. Every trial stored so far is safe"):  # noqa: PT012
                for spec, record in trials:
                    store.put(spec, record)
                    stored.append(spec.trial_id)
            assert 0 < len(stored) < len(trials)
            assert set(store.records()) == set(stored)
        with Store(tmp_path) as store:
            assert set(store.records()) == set(stored)
            for spec, record in trials:
                store.put(spec, record)
            assert len(store.records()) == len(trials)

    def test_a_disk_full_from_the_start(self, tmp_path, monkeypatch):
        real = sqlite3.connect

        def full(*arguments, **options):
            connection = real(*arguments, **options)
            connection.execute("PRAGMA max_page_count = 2")
            return connection

        monkeypatch.setattr("glideslope.trials.store.sqlite3.connect", full)
        with pytest.raises(StoreError, match="the disk is full"):
            Store(tmp_path)
        monkeypatch.undo()
        with Store(tmp_path) as store:
            assert store.records() == {}
