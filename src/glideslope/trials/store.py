"""Store: the trials of a folder, in SQLite. One transaction per finished trial."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from glideslope.core.spec import canonical
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.presence import Presence, described, is_present
from glideslope.trials.record import Record
from glideslope.trials.shelf import (
    FILE,
    LISTED,
    PATIENCE_SECONDS,
    SUMMARIES,
    VERSION,
    Shelf,
    StoreError,
    existing,
    explained,
    has_table,
    missing_columns,
    portions,
)
from glideslope.trials.summary import COLUMNS, RECORD_COLUMNS, Known, record_of, row_of
from glideslope.trials.trial import TrialSpec

__all__ = ["FILE", "VERSION", "Claimed", "Store", "StoreError"]

CHECKPOINTS = "checkpoints"

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE trials (
    trial_id TEXT PRIMARY KEY, trajectory_id TEXT NOT NULL, status TEXT NOT NULL,
    spec TEXT NOT NULL, record TEXT NOT NULL, finished_at REAL NOT NULL
);
CREATE TABLE questions (
    question TEXT PRIMARY KEY, kind TEXT NOT NULL, provenance TEXT NOT NULL, asked_at REAL NOT NULL
);
"""

_LATER_TABLES = f"""
CREATE TABLE IF NOT EXISTS summaries {SUMMARIES};
CREATE TABLE IF NOT EXISTS claims (trial_id TEXT PRIMARY KEY, driver TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS again (trial_id TEXT PRIMARY KEY);
"""


@dataclass(frozen=True)
class Claimed:
    """What became of a wish to run some trials.

    Args:
        granted: ids that are this driver's now.
        finished: id → summary of what is stored already.
        elsewhere: id → who is running it.
    """

    granted: frozenset[str]
    finished: Mapping[str, Record]
    elsewhere: Mapping[str, str]


@final
class Store(Shelf):
    """The trials kept in a folder. What is stored is never run again, unless someone asks for it.

    Several drivers may use a store at once, on one machine. Each claims trials before it runs them.

    Args:
        folder: created if it is not there; the data lie in `trials.sqlite` inside.
        create: False insists on a store that is there already.

    Raises:
        StoreError: the folder holds no store, one of another version, or a file that is no store.
    """

    def __init__(self, folder: Path | str, create: bool = True) -> None:
        path = Path(folder) / FILE if create else existing(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._presence: Presence | None = None
        with explained(path):
            super().__init__(path, sqlite3.connect(path, timeout=PATIENCE_SECONDS, isolation_level=None))
            try:
                _wait_for_mode(self._connection)
                # Safe against kill -9; a power cut may cost the last trials.
                self._connection.execute("PRAGMA synchronous=NORMAL")
                self._open()
            except BaseException:
                self._connection.close()
                raise

    def _open(self) -> None:
        with self._transaction() as connection:
            if not has_table(connection, "meta"):
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('version', ?)", (str(VERSION),))
            self._check_version()
            missing = missing_columns(connection)
            if missing is None:
                connection.execute("DROP TABLE IF EXISTS summaries")
            for name in missing or ():
                connection.execute(f"ALTER TABLE summaries ADD COLUMN {name} {COLUMNS[name].kind}")
            for statement in _LATER_TABLES.split(";\n"):
                connection.execute(statement)
        for some in portions(self._without_summary()):
            with self._transaction():
                self._summarise(some)
        self._drop_checkpoints()

    def close(self) -> None:
        if self._presence is not None:
            with suppress(sqlite3.Error):  # without its driver, a claim is void
                self._connection.execute("DELETE FROM claims WHERE driver = ?", (self._presence.driver,))
            self._presence.close()
            self._presence = None
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with self._explained():
            # At once as a writer: a reader that turns into one may find that another was faster, and must give up.
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise

    def put(self, spec: TrialSpec, record: Record) -> None:
        """Keep a trial, and give up the claim on it.

        One that failed before is replaced. One that did not stays, unless it is to run again and did not fail now.
        """
        finished_at = time.time()
        text = canonical(record.to_json())
        row = (record.trial_id, record.trajectory_id, record.status, canonical(spec.to_json()), text, finished_at)
        summary = row_of(spec, record, finished_at)
        with self._transaction() as connection:
            written = connection.execute(
                "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (trial_id) DO UPDATE SET "
                "status = excluded.status, record = excluded.record, finished_at = excluded.finished_at "
                "WHERE trials.status = 'failed' OR "
                "(excluded.status <> 'failed' AND trials.trial_id IN (SELECT trial_id FROM again))",
                row,
            )
            if written.rowcount:
                self._put_summary(summary)
            connection.execute("DELETE FROM again WHERE trial_id = ?", (record.trial_id,))
            connection.execute("DELETE FROM claims WHERE trial_id = ?", (record.trial_id,))
        if record.status != "failed":
            self.checkpoints().remove(record.trial_id)

    def claim(self, trial_ids: Collection[str], failed_before: float) -> Claimed:
        """Reserve trials for this driver, until they are stored or the driver ends.

        Args:
            trial_ids: what it wants to run; those that it has claimed already are granted again.
            failed_before: trials that failed before this moment (seconds since 1970) are to be run; later failures
                stand.
        """
        if self._presence is None:
            self._presence = Presence(self.folder)
        mine, wanted = self._presence.driver, canonical(list(trial_ids))
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT {', '.join(RECORD_COLUMNS)} FROM summaries WHERE trial_id IN {LISTED} "
                "AND (status <> 'failed' OR finished_at >= ?) AND trial_id NOT IN (SELECT trial_id FROM again)",
                (wanted, failed_before),
            ).fetchall()
            finished = {row[0]: record_of(row) for row in rows}
            holders = dict(
                connection.execute(f"SELECT trial_id, driver FROM claims WHERE trial_id IN {LISTED}", (wanted,))
            )
            alive = {driver: driver == mine or is_present(self.folder, driver) for driver in set(holders.values())}
            for driver, lives in alive.items():
                if not lives:
                    connection.execute("DELETE FROM claims WHERE driver = ?", (driver,))
            elsewhere = {
                trial_id: described(self.folder, driver)
                for trial_id, driver in holders.items()
                if driver != mine and alive[driver] and trial_id not in finished
            }
            granted = frozenset(trial_ids) - finished.keys() - elsewhere.keys()
            claims = [(trial_id, mine) for trial_id in granted]
            connection.executemany("INSERT OR IGNORE INTO claims VALUES (?, ?)", claims)
        return Claimed(granted, finished, elsewhere)

    def run_again(self, trial_ids: Collection[str]) -> None:
        """Have trials count as missing, until they are stored anew. Their records stay in place until then."""
        with self._transaction() as connection:
            connection.execute(
                f"INSERT OR IGNORE INTO again SELECT trial_id FROM trials WHERE trial_id IN {LISTED}",
                (canonical(list(trial_ids)),),
            )
        for trial_id in trial_ids:
            self.checkpoints().remove(trial_id)

    def known(self) -> Known:
        """What need not run: not what failed, and not what someone wants again."""
        with self._explained():
            rows = self._connection.execute(
                f"SELECT {', '.join(RECORD_COLUMNS)} FROM summaries WHERE status <> 'failed' "
                "AND trial_id NOT IN (SELECT trial_id FROM again)"
            )
            return Known(rows)

    def checkpoints(self, **settings: float) -> Checkpoints:
        """Where long trials leave their checkpoints; settings as in `Checkpoints`."""
        return Checkpoints(self.folder / CHECKPOINTS, **settings)

    def _drop_checkpoints(self) -> None:
        """Remove what drivers that were killed have left of trials that are stored."""
        checkpoints = self.checkpoints()
        left = canonical(checkpoints.trial_ids())
        done = self._connection.execute(
            f"SELECT trial_id FROM summaries WHERE trial_id IN {LISTED} AND status <> 'failed' "
            "AND trial_id NOT IN (SELECT trial_id FROM again)",
            (left,),
        ).fetchall()
        for (trial_id,) in done:
            checkpoints.remove(trial_id)

    def ask(self, kind: str, question: Mapping[str, Any], provenance: Mapping[str, str]) -> None:
        """Remember a study's question and where it was asked: its report can be rebuilt from the store alone."""
        row = (canonical(question), kind, canonical(provenance), time.time())
        with self._explained():
            self._connection.execute(
                "INSERT INTO questions VALUES (?, ?, ?, ?) ON CONFLICT (question) DO UPDATE SET "
                "asked_at = excluded.asked_at",
                row,
            )


def _wait_for_mode(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. For this step alone SQLite does not wait while others are just doing the same."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
