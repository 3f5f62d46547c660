"""Store: the trials of a folder, in SQLite. One transaction per finished trial."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from glideslope.core.spec import canonical
from glideslope.trials.record import Record
from glideslope.trials.trial import TrialSpec

VERSION = 1
FILE = "trials.sqlite"

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


class StoreError(RuntimeError):
    """The store cannot be read or written; what was stored before is untouched."""


@dataclass(frozen=True)
class Asked:
    """A study as it was asked: its kind, its question, and where and how it ran."""

    kind: str
    question: Mapping[str, Any]
    provenance: Mapping[str, str]


class Store:
    """The trials kept in a folder. What is stored is never run again.

    Args:
        folder: created if it is not there; the data lie in `trials.sqlite` inside.
        create: False insists on a store that is there already.

    Raises:
        StoreError: the folder holds no store, one of another version, or a file that is no store.
    """

    def __init__(self, folder: Path | str, create: bool = True) -> None:
        self.path = Path(folder) / FILE
        if not create and not self.path.exists():
            raise StoreError(
                f"there is no store in {folder} ({FILE} is missing). `glideslope compare --out DIR` makes one."
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            self._connection = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                # Safe against kill -9; a power cut may cost the last trials.
                self._connection.execute("PRAGMA synchronous=NORMAL")
                self._open()
            except BaseException:
                self._connection.close()
                raise

    def _open(self) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'meta'").fetchone():
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('version', ?)", (str(VERSION),))
            (found,) = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
            if found != str(VERSION):
                raise StoreError(
                    f"{self.path} is a store of version {found}; this glideslope reads version {VERSION}. "
                    "Use another --out folder, or the glideslope that wrote it."
                )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if "full" in str(error):
                why = "the disk is full. Every trial stored so far is safe: make room and run the same command again"
            elif "not a database" in str(error) or "malformed" in str(error):
                why = "the file is not a store of glideslope, or is damaged. Use another --out folder"
            else:
                why = str(error)
            raise StoreError(f"{self.path}: {why}.") from error

    def put(self, spec: TrialSpec, record: Record) -> None:
        """Keep a trial; one that failed before is replaced, one that did not stays."""
        row = (
            record.trial_id,
            record.trajectory_id,
            record.status,
            canonical(spec.to_json()),
            canonical(record.to_json()),
            time.time(),
        )
        with self._explained():
            self._connection.execute(
                "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (trial_id) DO UPDATE SET "
                "status = excluded.status, record = excluded.record, finished_at = excluded.finished_at "
                "WHERE trials.status = 'failed'",
                row,
            )

    def records(self) -> dict[str, Record]:
        """Every stored record, by trial id."""
        with self._explained():
            rows = self._connection.execute("SELECT trial_id, record FROM trials").fetchall()
        return {trial_id: Record.from_json(json.loads(text)) for trial_id, text in rows}

    def specs(self) -> dict[str, TrialSpec]:
        """Every stored spec, by trial id."""
        with self._explained():
            rows = self._connection.execute("SELECT trial_id, spec FROM trials").fetchall()
        return {trial_id: TrialSpec.from_json(json.loads(text)) for trial_id, text in rows}

    def ask(self, kind: str, question: Mapping[str, Any], provenance: Mapping[str, str]) -> None:
        """Remember a study's question and where it was asked: its report can be rebuilt from the store alone."""
        row = (canonical(question), kind, canonical(provenance), time.time())
        with self._explained():
            self._connection.execute(
                "INSERT INTO questions VALUES (?, ?, ?, ?) ON CONFLICT (question) DO UPDATE SET "
                "asked_at = excluded.asked_at",
                row,
            )

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
            raise StoreError(
                f"{self.path} holds no study yet; run `glideslope compare --out {self.path.parent}` first."
            )
        return Asked(row[0], json.loads(row[1]), json.loads(row[2]))
