"""Shelf: what can be read of a store. StoreView: a store that is only looked at."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from glideslope.core.spec import canonical
from glideslope.trials.record import Record
from glideslope.trials.summary import COLUMNS, EVERY_TRIAL, RECORD_COLUMNS, Selection, record_of, row_of
from glideslope.trials.trial import TrialSpec

VERSION = 1
FILE = "trials.sqlite"
PATIENCE_SECONDS = 60.0
"""So long one waits for another one's transaction, each of which takes milliseconds."""
TRIALS_AT_ONCE = 1000
"""So many are read, or summarised in one transaction, at a time."""

# What follows from `trials`, in pages of its own: to read a column of `trials` for every trial is to pass all series.
SUMMARIES = f"({', '.join(f'{name} {column.kind}' for name, column in COLUMNS.items())}, PRIMARY KEY (trial_id))"
LISTED = "(SELECT value FROM json_each(?))"
"""What stands behind IN for a list that is given as JSON."""


class StoreError(RuntimeError):
    """The store cannot be read or written; what was stored before is untouched."""


@dataclass(frozen=True)
class Asked:
    """A study as it was asked: its kind, its question, and where and how it ran."""

    kind: str
    question: Mapping[str, Any]
    provenance: Mapping[str, str]


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
            f"SELECT spec, record, finished_at FROM trials WHERE trial_id IN {LISTED}", (canonical(list(trial_ids)),)
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
        path = existing(folder)
        with explained(path):
            super().__init__(path, _open_to_read(path))
            try:
                if not has_table(self._connection, "meta"):
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
        missing = missing_columns(self._connection)
        if missing == [] and not self._without_summary():
            return
        self._connection.execute(f"CREATE TEMP TABLE summaries {SUMMARIES}")  # hides the table of that name
        if missing is not None:
            nulls = ", NULL" * len(missing)
            self._connection.execute(f"INSERT INTO temp.summaries SELECT *{nulls} FROM main.summaries")
        for some in portions(self._without_summary()):
            self._summarise(some)


def existing(folder: Path | str) -> Path:
    path = Path(folder) / FILE
    if not path.exists():
        raise StoreError(
            f"there is no store in {folder} ({FILE} is missing). `glideslope compare --out DIR` makes one."
        )
    return path


def has_table(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute("SELECT name FROM main.sqlite_master WHERE name = ?", (name,)).fetchone() is not None


def missing_columns(connection: sqlite3.Connection) -> list[str] | None:
    """Columns that the summaries of an older glideslope lack at their end; None if the file has none of use."""
    rows = connection.execute("SELECT name FROM pragma_table_info('summaries', 'main')").fetchall()
    found, today = [name for (name,) in rows], list(COLUMNS)
    return today[len(found) :] if found and found == today[: len(found)] else None


def portions(trial_ids: list[str]) -> Iterator[list[str]]:
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
