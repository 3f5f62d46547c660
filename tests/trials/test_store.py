"""Store: what is in it stays in it."""

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from specs import SUPPORT, make_spec

from glideslope.core.spec import canonical
from glideslope.trials.record import Cost
from glideslope.trials.run import run_trial
from glideslope.trials.shelf import StoreView
from glideslope.trials.store import FILE, VERSION, Store, StoreError
from glideslope.trials.summary import COLUMNS, Selection

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


class TestSummaries:
    RECORDS = (
        (SPEC, RECORD),
        (make_spec(seed=2), FAILED),
        *((spec, run_trial(spec)) for spec in (
            make_spec("tiny_tasks:NotANumber"), make_spec("tiny_tasks:BadMetric"), make_spec("tiny_tasks:Raising"),
            make_spec(schedule="plateau(patience=0)", rate=0.1, updates=60, probes=("weight_norm",)),
            make_spec(schedule="one_cycle", optimizer="adamw(weight_decay=0.1)", rate=1e30, updates=1),
        )),
    )  # fmt: skip

    def filled(self, folder):
        with Store(folder) as store:
            for spec, record in self.RECORDS:
                store.put(spec, replace(record, trial_id=spec.trial_id))
            return store.records()

    def texts(self, records):
        """NaN is unequal to itself."""
        return {key: canonical(record.to_json()) for key, record in records.items()}

    def test_they_are_the_records_without_series_earlier_validations_and_decisions(self, tmp_path):
        records = self.filled(tmp_path)
        expected = {key: record.summary for key, record in records.items()}
        assert {record.status for record in expected.values()} == {"finished", "diverged", "failed"}
        for record in expected.values():
            assert record.series.updates == ()
            assert record.last_validation == records[record.trial_id].last_validation
        with Store(tmp_path) as store, StoreView(tmp_path) as view:
            assert self.texts(store.summaries()) == self.texts(view.summaries()) == self.texts(expected)
            known = store.known()
            done = {key: record for key, record in expected.items() if record.status != "failed"}
            assert self.texts({key: known[key] for key in known}) == self.texts(done)
            assert (len(known), "no such trial" in known, known.get("no such trial")) == (len(done), False, None)

    def test_a_failed_trial_that_finishes_has_another_summary(self, tmp_path):
        with Store(tmp_path) as store:
            store.put(SPEC, FAILED)
            store.put(SPEC, RECORD)
            store.put(SPEC, replace(RECORD, cost=Cost(99.0, 99.0, 99)))
            assert store.summaries() == {SPEC.trial_id: RECORD.summary}

    def test_no_series_is_read_for_them(self, tmp_path):
        self.filled(tmp_path)
        with Store(tmp_path) as store:
            store._connection.execute("UPDATE trials SET record = 'unreadable', spec = 'unreadable'")
        with StoreView(tmp_path) as view:
            assert len(view.summaries()) == len(view.rows()) == len(self.RECORDS)

    @pytest.mark.parametrize(
        ("selection", "seeds"),
        [
            (Selection(), {1, 2}),
            (Selection(status="failed"), {1, 2}),
            (Selection(status="failed", task="REGRESSION"), {2}),
            (Selection(seed=2), {2}),
            (Selection(optimizer="weight_decay", schedule="one_cycle"), {1}),
            (Selection(schedule="rex"), set()),
            (Selection(trial=SPEC.trial_id[:9]), {1}),
            (Selection(trial=SPEC.trial_id[1:9]), set()),
            (Selection(task="%"), set()),
        ],
        ids=str,
    )
    def test_what_is_selected_is_the_same_everywhere(self, selection, seeds, tmp_path):
        self.filled(tmp_path)
        with StoreView(tmp_path) as view:
            specs = view.specs(selection)
            assert {spec.seeds.init for spec in specs.values()} == seeds
            assert view.summaries(selection).keys() == view.records(selection).keys() == specs.keys()
            assert {row[0] for row in view.rows(selection)} == specs.keys()
            assert view.count(selection) == len(specs)

    def test_rows_come_in_the_order_of_storing_the_newest_last(self, tmp_path, monkeypatch):
        times = iter(range(1, 100))
        monkeypatch.setattr("glideslope.trials.store.time.time", lambda: float(next(times)))
        self.filled(tmp_path)
        with StoreView(tmp_path) as view:
            rows = view.rows()
            place = list(COLUMNS).index("finished_at")
            assert [row[place] for row in rows] == sorted(row[place] for row in rows)
            assert view.rows(newest=2) == rows[-2:]
            assert list(view.records()) == [spec.trial_id for spec, _ in self.RECORDS]

    @pytest.mark.parametrize("older", ["DROP TABLE summaries", "DELETE FROM summaries WHERE status = 'failed'"])
    def test_a_store_without_them_gets_them_when_it_is_written_and_not_when_it_is_looked_at(self, older, tmp_path):
        records = self.filled(tmp_path)
        expected = self.texts({key: record.summary for key, record in records.items()})
        with Store(tmp_path) as store:
            rows = store.rows()
            store._connection.execute(older)
        before = (tmp_path / FILE).read_bytes()
        with StoreView(tmp_path) as view:
            assert self.texts(view.summaries()) == expected
            assert sorted(view.rows()) == sorted(rows)
        assert (tmp_path / FILE).read_bytes() == before
        with Store(tmp_path) as store:
            assert self.texts(store.summaries()) == expected
            assert sorted(store.rows()) == sorted(rows)

    def test_summaries_with_other_columns_are_made_anew(self, tmp_path):
        records = self.filled(tmp_path)
        with Store(tmp_path) as store:
            store._connection.execute("ALTER TABLE summaries RENAME COLUMN rate TO learning_rate")
        for kind in (StoreView, Store):
            with kind(tmp_path) as store:
                assert {row[list(COLUMNS).index("rate")] for row in store.rows()} == {0.03, 0.1, 1e30}
                assert store.summaries().keys() == records.keys()

    def test_a_misspelt_status(self):
        with pytest.raises(ValueError, match=r"unknown status 'faild'\. Did you mean 'failed'\?"):
            Selection(status="faild")


class TestView:
    def test_it_changes_nothing(self, tmp_path):
        with Store(tmp_path) as store:
            store.put(SPEC, RECORD)
        before = (tmp_path / FILE).read_bytes()
        with StoreView(tmp_path) as view:
            assert view.records() == {SPEC.trial_id: RECORD}
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                view._connection.execute("DELETE FROM trials")
        assert (tmp_path / FILE).read_bytes() == before

    def test_it_sees_what_is_stored_while_it_looks(self, tmp_path):
        with Store(tmp_path) as store, StoreView(tmp_path) as view:
            assert view.records() == {}
            store.put(SPEC, RECORD)
            assert view.records() == {SPEC.trial_id: RECORD}

    def test_a_folder_that_nobody_may_write_to(self, tmp_path, monkeypatch):
        with Store(tmp_path) as store:
            store.put(SPEC, RECORD)
        real = sqlite3.connect

        def without_lock_files(address, **options):
            if "immutable" not in str(address):
                raise sqlite3.OperationalError("unable to open database file")
            return real(address, **options)

        monkeypatch.setattr("glideslope.trials.store.sqlite3.connect", without_lock_files)
        with StoreView(tmp_path) as view:
            assert view.records() == {SPEC.trial_id: RECORD}

    def test_what_is_refused(self, tmp_path):
        with pytest.raises(StoreError, match="there is no store in"):
            StoreView(tmp_path)
        sqlite3.connect(tmp_path / FILE).close()
        with pytest.raises(StoreError, match="is no store of glideslope, or one that is just being made"):
            StoreView(tmp_path)
        (tmp_path / FILE).write_bytes(b"text, and not a database " * 40)
        with pytest.raises(StoreError, match="is not a store of glideslope, or is damaged"):
            StoreView(tmp_path)
        (tmp_path / FILE).unlink()
        with Store(tmp_path) as store:
            store._connection.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
        with pytest.raises(StoreError, match="is a store of version 99"):
            StoreView(tmp_path)


class TestClaims:
    IDS = ("a", "b", "c")

    def test_a_trial_belongs_to_who_claims_it_first(self, tmp_path):
        with Store(tmp_path) as one, Store(tmp_path) as two:
            assert one.claim(["a", "b"], 0.0).granted == {"a", "b"}
            claimed = two.claim(self.IDS, 0.0)
            assert claimed.granted == {"c"}
            assert claimed.elsewhere.keys() == {"a", "b"}
            assert f"process {os.getpid()} on " in claimed.elsewhere["a"]
            assert one.claim(self.IDS, 0.0).granted == {"a", "b"}

    def test_it_is_free_again_when_its_driver_ends(self, tmp_path):
        with Store(tmp_path) as two:
            with Store(tmp_path) as one:
                one.claim(["a"], 0.0)
                assert two.claim(["a"], 0.0).granted == set()
            assert two.claim(["a"], 0.0).granted == {"a"}

    def test_it_is_free_again_when_its_driver_is_killed(self, tmp_path):
        program = (
            "import os, signal, sys; from glideslope.trials.store import Store; store = Store(sys.argv[1]);"
            "store.claim(['a'], 0.0); os.kill(os.getpid(), signal.SIGKILL)"
        )
        process = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
        assert process.returncode == -9
        assert len(list((tmp_path / "drivers").iterdir())) == 1
        with Store(tmp_path) as store:
            assert store._connection.execute("SELECT trial_id FROM claims").fetchall() == [("a",)]
            assert store.claim(["a"], 0.0).granted == {"a"}
            assert len(list((tmp_path / "drivers").iterdir())) == 1  # its own

    def test_what_is_stored_is_not_claimed_but_handed_out(self, tmp_path):
        with Store(tmp_path) as store:
            store.put(SPEC, RECORD)
            claimed = store.claim([SPEC.trial_id, "a"], 0.0)
        assert claimed.granted == {"a"}
        assert claimed.finished == {SPEC.trial_id: RECORD.summary}

    def test_old_failures_are_claimed_and_new_ones_stand(self, tmp_path, monkeypatch):
        monkeypatch.setattr("glideslope.trials.store.time.time", lambda: 10.0)
        with Store(tmp_path) as store:
            store.put(SPEC, FAILED)
            assert store.claim([SPEC.trial_id], 10.0).finished == {SPEC.trial_id: FAILED.summary}
            assert store.claim([SPEC.trial_id], 10.1).granted == {SPEC.trial_id}

    def test_a_claim_ends_when_the_trial_is_stored(self, tmp_path):
        with Store(tmp_path) as one, Store(tmp_path) as two:
            one.claim([SPEC.trial_id], 0.0)
            one.put(SPEC, FAILED)
            assert two.claim([SPEC.trial_id], float("inf")).granted == {SPEC.trial_id}


class TestAgain:
    def test_it_counts_as_missing_and_keeps_its_record_until_there_is_another(self, tmp_path):
        other = replace(RECORD, cost=Cost(9.0, 9.0, 9))
        with Store(tmp_path) as store:
            store.put(SPEC, RECORD)
            store.run_again([SPEC.trial_id, "of no known trial"])
            assert SPEC.trial_id not in store.known()
            assert store.records() == {SPEC.trial_id: RECORD}
            assert store.claim([SPEC.trial_id], 0.0).granted == {SPEC.trial_id}
            store.put(SPEC, other)
            assert store.records() == {SPEC.trial_id: other}
            assert store.summaries() == {SPEC.trial_id: other.summary}
            assert SPEC.trial_id in store.known()
            store.put(SPEC, RECORD)
            assert store.records() == {SPEC.trial_id: other}

    def test_a_failure_replaces_no_outcome(self, tmp_path):
        with Store(tmp_path) as store:
            store.put(SPEC, RECORD)
            store.run_again([SPEC.trial_id])
            store.put(SPEC, FAILED)
            assert store.records() == {SPEC.trial_id: RECORD}
            assert SPEC.trial_id in store.known()

    def test_its_checkpoint_goes(self, tmp_path):
        with Store(tmp_path) as store:
            store.put(SPEC, FAILED)
            path = store.checkpoints().path(SPEC.trial_id)
            path.parent.mkdir()
            path.touch()
            store.put(SPEC, FAILED)
            assert path.exists()  # the next try may go on from it
            store.run_again([SPEC.trial_id])
            assert not path.exists()


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


class TestLocked:
    """SQLite waits by itself for other writers, but not while it switches to its log: about once in 150 openings."""

    class Contended(sqlite3.Connection):
        refusals = 0

        def execute(self, statement, *arguments):
            if "journal_mode" in statement and type(self).refusals:
                type(self).refusals -= 1
                raise sqlite3.OperationalError("database is locked")
            return super().execute(statement, *arguments)

    @pytest.fixture
    def contended(self, monkeypatch):
        real = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: real(*given, factory=self.Contended, **named))
        return self.Contended

    def test_a_driver_waits_until_others_have_switched(self, contended, tmp_path, monkeypatch):
        contended.refusals = 3
        with Store(tmp_path) as store:
            assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert contended.refusals == 0

    def test_but_not_for_ever(self, contended, tmp_path, monkeypatch):
        contended.refusals = 10**9
        monkeypatch.setattr("glideslope.trials.store.PATIENCE_SECONDS", 0.05)
        with pytest.raises(StoreError, match="database is locked"):
            Store(tmp_path)
        contended.refusals = 0


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


def test_summaries_of_an_older_glideslope_get_their_new_columns(tmp_path, capsys):
    spec = make_spec("tiny_tasks:Regression")
    record = run_trial(spec)
    with Store(tmp_path) as store:
        store.put(spec, record)
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("ALTER TABLE summaries DROP COLUMN readings")
    with StoreView(tmp_path) as view:
        assert view.summaries() == {spec.trial_id: record.summary}
    with Store(tmp_path) as store:
        assert dict(store.known()) == {spec.trial_id: record.summary}
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM pragma_table_info('summaries')")] == list(
            COLUMNS
        )
