"""Store: the trials of a folder, in SQLite. One transaction per finished trial."""

from __future__ import annotations

import json
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from glideslope.core.spec import canonical
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.presence import Presence, described, is_present
from glideslope.trials.record import Record
from glideslope.trials.summary import COLUMNS, EVERY_TRIAL, RECORD_COLUMNS, Known, Selection, record_of, row_of
from glideslope.trials.trial import TrialSpec

VERSION = 1
FILE = "trials.sqlite"
CHECKPOINTS = "checkpoints"
PATIENCE_SECONDS = 60.0
"""So long a driver waits for another one's transaction, each of which takes milliseconds."""
TRIALS_AT_ONCE = 1000
"""So many are read, or summarised in one transaction, at a time."""

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

# What follows from `trials`, in pages of its own: to read a column of `trials` for every trial is to pass all series.
_SUMMARIES = f"({', '.join(f'{name} {column.kind}' for name, column in COLUMNS.items())}, PRIMARY KEY (trial_id))"
_LATER_TABLES = f"""
CREATE TABLE IF NOT EXISTS summaries {_SUMMARIES};
CREATE TABLE IF NOT EXISTS claims (trial_id TEXT PRIMARY KEY, driver TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS again (trial_id TEXT PRIMARY KEY);
"""
_LISTED = "(SELECT value FROM json_each(?))"


class StoreError(RuntimeError):
    """The store cannot be read or written; what was stored before is untouched."""


@dataclass(frozen=True)
class Asked:
    """A study as it was asked: its kind, its question, and where and how it ran."""

    kind: str
    question: Mapping[str, Any]
    provenance: Mapping[str, str]


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


class Shelf(ABC):
    """What can be read of a store. A context manager: leaving it closes the database."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the database."""

    @property
    def folder(self) -> Path:
        """Where the store lies."""
        return self.path.parent

    def summaries(self, selection: Selection = EVERY_TRIAL) -> dict[str, Record]:
        """`Record.summary` of every stored trial, by id: 100,000 of them in a second, without reading their series."""
        rows = self._select(RECORD_COLUMNS, selection).fetchall()
        return {row[0]: record_of(row) for row in rows}

    def rows(self, selection: Selection = EVERY_TRIAL, newest: int | None = None) -> list[tuple[Any, ...]]:
        """The `COLUMNS` of the trials selected, those stored last at the end.

        Args:
            newest: how many of them, those stored last; None for all.
        """
        order = "finished_at DESC, trial_id DESC" + ("" if newest is None else f" LIMIT {newest:d}")
        return self._select(tuple(COLUMNS), selection, order).fetchall()[::-1]

    def count(self, selection: Selection = EVERY_TRIAL) -> int:
        """How many trials are selected."""
        (number,) = self._select(("count(*)",), selection).fetchone()
        return int(number)

    def each_record(self, selection: Selection = EVERY_TRIAL) -> Iterator[Record]:
        """The whole records of the trials selected, read as they are asked for: 10 kB each, most of it series."""
        for (text,) in self._each("record", selection):
            yield Record.from_json(json.loads(text))

    def records(self, selection: Selection = EVERY_TRIAL) -> dict[str, Record]:
        """The whole records of the trials selected, by trial id. For many trials, `summaries` is enough."""
        return {record.trial_id: record for record in self.each_record(selection)}

    def specs(self, selection: Selection = EVERY_TRIAL) -> dict[str, TrialSpec]:
        """The specs of the trials selected, by trial id."""
        specs = (TrialSpec.from_json(json.loads(text)) for (text,) in self._each("spec", selection))
        return {spec.trial_id: spec for spec in specs}

    def last_question(self) -> Asked:
        """The study asked last.

        Raises:
            StoreError: no study was asked of this store.
        """
        with self._explained():
            row = self._connection.execute(
                "SELECT kind, question, provenance FROM questions ORDER BY asked_at DESC LIMIT 1"
            ).fetchone()
        if row is None:
            raise StoreError(f"{self.path} holds no study yet; run `glideslope compare --out {self.folder}` first.")
        return Asked(row[0], json.loads(row[1]), json.loads(row[2]))

    def _select(self, columns: Iterable[str], selection: Selection, order: str = "") -> sqlite3.Cursor:
        condition, values = selection.where
        query = f"SELECT {', '.join(columns)} FROM summaries WHERE {condition}"
        with self._explained():
            return self._connection.execute(f"{query} ORDER BY {order}" if order else query, values)

    def _each(self, column: str, selection: Selection) -> Iterator[tuple[str]]:
        """A column of `trials`, in the order of storing."""
        condition, values = selection.where
        query = f"SELECT {column} FROM trials"
        if selection != EVERY_TRIAL:
            query += f" WHERE trial_id IN (SELECT trial_id FROM summaries WHERE {condition})"
        with self._explained():
            cursor = self._connection.execute(f"{query} ORDER BY rowid", values)
            while rows := cursor.fetchmany(TRIALS_AT_ONCE):
                yield from rows

    def _check_version(self) -> None:
        (found,) = self._connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        if found != str(VERSION):
            raise StoreError(
                f"{self.path} is a store of version {found}; this glideslope reads version {VERSION}. "
                "Use another --out folder, or the glideslope that wrote it."
            )

    def _without_summary(self) -> list[str]:
        (trials,) = self._connection.execute("SELECT count(*) FROM trials").fetchone()
        (summaries,) = self._connection.execute("SELECT count(*) FROM summaries").fetchone()
        if trials == summaries:
            return []
        rows = self._connection.execute("SELECT trial_id FROM trials EXCEPT SELECT trial_id FROM summaries").fetchall()
        return [trial_id for (trial_id,) in rows]

    def _summarise(self, trial_ids: Collection[str]) -> None:
        """Write the summaries of trials that were stored without."""
        cursor = self._connection.execute(
            f"SELECT spec, record, finished_at FROM trials WHERE trial_id IN {_LISTED}", (canonical(list(trial_ids)),)
        )
        for spec, record, finished_at in cursor.fetchall():
            row = row_of(TrialSpec.from_json(json.loads(spec)), Record.from_json(json.loads(record)), finished_at)
            self._put_summary(row)

    def _put_summary(self, row: tuple[Any, ...]) -> None:
        self._connection.execute(f"INSERT OR REPLACE INTO summaries VALUES ({', '.join('?' * len(row))})", row)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(self.path):
            yield


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Errors of the database as a `StoreError` that says what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "full" in str(error):
            why = "the disk is full. Every trial stored so far is safe: make room and run the same command again"
        elif "not a database" in str(error) or "malformed" in str(error):
            why = "the file is not a store of glideslope, or is damaged. Use another --out folder"
        else:
            why = str(error)
        raise StoreError(f"{path}: {why}.") from error


@final
class StoreView(Shelf):
    """A store that is only looked at, also while a study is running, or where nothing may be written.

    Args:
        folder: of the store.

    Raises:
        StoreError: the folder holds no store, one of another version, or a file that is no store.
    """

    def __init__(self, folder: Path | str) -> None:
        path = _existing(folder)
        with explained(path):
            super().__init__(path, _open_to_read(path))
            try:
                if not _has_table(self._connection, "meta"):
                    raise StoreError(f"{path} is no store of glideslope, or one that is just being made.")
                self._check_version()
                self._complete()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        self._connection.close()

    def _complete(self) -> None:
        """Make good for summaries that an older glideslope did not write, in memory: the file stays as it is."""
        there = _has_summaries(self._connection)
        if there and not self._without_summary():
            return
        self._connection.execute(f"CREATE TEMP TABLE summaries {_SUMMARIES}")  # hides the table of that name
        if there:
            self._connection.execute("INSERT INTO temp.summaries SELECT * FROM main.summaries")
        for some in _portions(self._without_summary()):
            self._summarise(some)


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
        path = Path(folder) / FILE if create else _existing(folder)
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
            if not _has_table(connection, "meta"):
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('version', ?)", (str(VERSION),))
            self._check_version()
            if not _has_summaries(connection):
                connection.execute("DROP TABLE IF EXISTS summaries")
            for statement in _LATER_TABLES.split(";\n"):
                connection.execute(statement)
        for some in _portions(self._without_summary()):
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
                f"SELECT {', '.join(RECORD_COLUMNS)} FROM summaries WHERE trial_id IN {_LISTED} "
                "AND (status <> 'failed' OR finished_at >= ?) AND trial_id NOT IN (SELECT trial_id FROM again)",
                (wanted, failed_before),
            ).fetchall()
            finished = {row[0]: record_of(row) for row in rows}
            holders = dict(
                connection.execute(f"SELECT trial_id, driver FROM claims WHERE trial_id IN {_LISTED}", (wanted,))
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
                f"INSERT OR IGNORE INTO again SELECT trial_id FROM trials WHERE trial_id IN {_LISTED}",
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
            f"SELECT trial_id FROM summaries WHERE trial_id IN {_LISTED} AND status <> 'failed' "
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


def _existing(folder: Path | str) -> Path:
    path = Path(folder) / FILE
    if not path.exists():
        raise StoreError(
            f"there is no store in {folder} ({FILE} is missing). `glideslope compare --out DIR` makes one."
        )
    return path


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute("SELECT name FROM main.sqlite_master WHERE name = ?", (name,)).fetchone() is not None


def _has_summaries(connection: sqlite3.Connection) -> bool:
    """Whether the file has them, with the columns of today."""
    found = connection.execute("SELECT name FROM pragma_table_info('summaries', 'main')").fetchall()
    return [name for (name,) in found] == list(COLUMNS)


def _portions(trial_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(trial_ids), TRIALS_AT_ONCE):
        yield trial_ids[start : start + TRIALS_AT_ONCE]


def _open_to_read(path: Path) -> sqlite3.Connection:
    address = f"{path.resolve().as_uri()}?mode=ro"
    try:
        return _opened(address)
    except sqlite3.OperationalError:
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # Nobody writes, and the folder does not let SQLite lay its lock files down.
        return _opened(f"{address}&immutable=1")


def _opened(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, uri=True, timeout=PATIENCE_SECONDS, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_master")  # until now nothing has been read
    except BaseException:
        connection.close()
        raise
    return connection


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
