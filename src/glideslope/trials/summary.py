"""Summary: a trial as one flat row, without its series. What planning, reports, lists and exports read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, final, get_args

from glideslope.core.catalog import NAMED
from glideslope.core.policy import Policy
from glideslope.core.spec import canonical, parse_policy, to_text
from glideslope.core.value import unknown
from glideslope.trials.record import (
    Cost,
    Evaluation,
    Record,
    Series,
    Status,
    readings_from_json,
    readings_to_json,
)
from glideslope.trials.trial import TrialSpec


@dataclass(frozen=True)
class Column:
    """One column: its type in SQLite, and what it means."""

    kind: str
    meaning: str


COLUMNS: Mapping[str, Column] = {
    "trial_id": Column("TEXT", "identity of the trial: training and what is looked at"),
    "trajectory_id": Column("TEXT", "identity of the training alone"),
    "status": Column("TEXT", "finished, diverged or failed"),
    "task": Column("TEXT", "name or import path"),
    "task_version": Column("INTEGER", "version of the task"),
    "task_params": Column("TEXT", "the task's fields, JSON"),
    "optimizer": Column("TEXT", "with the settings that differ from its defaults"),
    "schedule": Column("TEXT", "plan and controller, as `--schedules` reads them"),
    "rate": Column("REAL", "base learning rate"),
    "updates": Column("INTEGER", "length that was asked for"),
    "eval_every": Column("INTEGER", "updates between validations"),
    "seed_init": Column("INTEGER", "seed of the initial weights"),
    "seed_data": Column("INTEGER", "seed of order and augmentation"),
    "seed_noise": Column("INTEGER", "seed of noise in the loss"),
    "precision": Column("TEXT", "of the arithmetic"),
    "updates_done": Column("INTEGER", "updates until the trial ended; fewer if it diverged or failed"),
    "validation_update": Column("INTEGER", "updates done at the last validation; null if there was none"),
    "validation_loss": Column("REAL", "loss on the validation split there; null if NaN"),
    "validation_metric": Column("REAL", "the task's metric there; null if NaN"),
    "test_update": Column("INTEGER", "updates done when the test split was seen; null unless finished"),
    "test_loss": Column("REAL", "loss on the test split after the last update"),
    "test_metric": Column("REAL", "the task's metric on the test split after the last update"),
    "training_seconds": Column("REAL", "seconds of training; a member of a population bears its share"),
    "evaluation_seconds": Column("REAL", "seconds of evaluation, likewise"),
    "path": Column("TEXT", "how it was computed, JSON: executor, device, K members, method"),
    "versions": Column("TEXT", "of the libraries that computed it, JSON"),
    "error": Column("TEXT", "traceback of a failed trial, else empty"),
    "finished_at": Column("REAL", "when it was stored, seconds since 1970 (UTC)"),
    "readings": Column(
        "TEXT", "the model on the way, JSON: what was judged, update, loss and metric per split; or null"
    ),
}
"""Column → type and meaning, in order: the table `summaries` of a store, and what is exported."""

RECORD_COLUMNS = (
    "trial_id", "trajectory_id", "status", "validation_update", "validation_loss", "validation_metric", "test_update",
    "test_loss", "test_metric", "readings", "training_seconds", "evaluation_seconds", "updates_done", "path",
    "versions", "error",
)  # fmt: skip
"""What `record_of` reads, in its order."""


def row_of(spec: TrialSpec, record: Record, finished_at: float) -> tuple[Any, ...]:
    """The row of a trial, in the order of `COLUMNS`. SQLite turns NaN into null."""
    seen, tested = record.validation[-1] if record.validation else None, record.test
    return (
        record.trial_id,
        record.trajectory_id,
        record.status,
        spec.task.name,
        spec.task.version,
        spec.task.params,
        str(spec.optimizer),
        _policy_text(spec.policy),
        spec.rate,
        spec.updates,
        spec.eval_every,
        spec.seeds.init,
        spec.seeds.data,
        spec.seeds.noise,
        spec.precision,
        record.cost.updates,
        *((seen.update, seen.loss, seen.metric) if seen else (None, None, None)),
        *((tested.update, tested.loss, tested.metric) if tested else (None, None, None)),
        record.cost.training_seconds,
        record.cost.evaluation_seconds,
        canonical(dict(record.path)),
        canonical(dict(record.versions)),
        record.error,
        finished_at,
        canonical(readings_to_json(record.readings)) if record.readings else None,
    )


@cache
def _policy_text(policy: Policy) -> str:
    """A plan of the literature by its name there ("one_cycle"): spelt out it would fill a line."""
    if len(policy.plan.courses) > 1:
        for name in NAMED:
            with suppress(ValueError):  # some names need arguments
                if parse_policy(name) == policy:
                    return name
    return to_text(policy)


def record_of(row: Sequence[Any]) -> Record:
    """`Record.summary` of a trial, from its `RECORD_COLUMNS`."""
    trial, trajectory, status, *_, path, versions, error = row
    validated, loss, metric, tested, test_loss, test_metric, readings, training, evaluating, updates = row[3:13]
    return Record(
        trial,
        trajectory,
        status,
        _NO_SERIES,
        () if validated is None else (_evaluation(validated, loss, metric),),
        None if tested is None else _evaluation(tested, test_loss, test_metric),
        (),
        Cost(training, evaluating, updates),
        _shared(path),
        _shared(versions),
        error,
        () if readings is None else readings_from_json(json.loads(readings)),
    )


@final
class Known(Mapping[str, Record]):
    """`Record.summary` of trials by id, each made when it is first asked for: a study that goes on asks for few.

    Args:
        rows: `RECORD_COLUMNS` of trials.
    """

    def __init__(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._entries: dict[str, Record | tuple[Any, ...]] = {row[0]: row for row in rows}

    def __getitem__(self, trial_id: str) -> Record:
        entry = self._entries[trial_id]
        if isinstance(entry, tuple):
            entry = self._entries[trial_id] = record_of(entry)
        return entry

    def __contains__(self, trial_id: object) -> bool:
        return trial_id in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, record: Record) -> None:
        """Add a summary, or replace it."""
        self._entries[record.trial_id] = record


_NO_SERIES = Series((), (), ())


def _evaluation(update: int, loss: float | None, metric: float | None) -> Evaluation:
    return Evaluation(update, math.nan if loss is None else loss, math.nan if metric is None else metric)


@cache
def _shared(text: str) -> Mapping[str, Any]:
    """One object for the same words of thousands of trials."""
    found: Mapping[str, Any] = json.loads(text)
    return found


@dataclass(frozen=True)
class Selection:
    """Which trials of a store: those that meet every condition; what is left out sets none.

    Args:
        trial: how the id begins.
        status: "finished", "diverged" or "failed".
        task, optimizer, schedule: part of the text in the column of that name, in capitals or not.
        seed: of the initial weights.

    >>> Selection(status="finshed")
    Traceback (most recent call last):
    ValueError: unknown status 'finshed'. Did you mean 'finished'? Known: diverged, failed, finished.
    """

    trial: str | None = None
    status: str | None = None
    task: str | None = None
    optimizer: str | None = None
    schedule: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.status is not None and self.status not in get_args(Status):
            raise unknown("status", self.status, get_args(Status))

    @property
    def where(self) -> tuple[str, list[Any]]:
        """A condition in SQL on the columns of `summaries`, and its values."""
        conditions: list[tuple[str, list[Any]]] = [("1", [])]
        if self.trial is not None:
            conditions.append(("substr(trial_id, 1, ?) = ?", [len(self.trial), self.trial]))
        if self.status is not None:
            conditions.append(("status = ?", [self.status]))
        if self.seed is not None:
            conditions.append(("seed_init = ?", [self.seed]))
        for name in ("task", "optimizer", "schedule"):
            part = getattr(self, name)
            if part is not None:
                conditions.append((f"instr(lower({name}), ?) > 0", [part.lower()]))
        return " AND ".join(text for text, _ in conditions), [value for _, values in conditions for value in values]


EVERY_TRIAL = Selection()
