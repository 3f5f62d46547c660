"""Planner: what is missing, who runs it. Calls every cell of a study to its fixed point."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, final

from glideslope.trials.checkpoint import EVERY_SECONDS
from glideslope.trials.executors.base import Executor, NothingLeft
from glideslope.trials.record import Record
from glideslope.trials.store import Store
from glideslope.trials.trial import TrialSpec

LOOK_SECONDS = 0.5
"""So often a driver looks at what it waits for and another one is running."""

_log = logging.getLogger(__name__)


class Cell(Protocol):
    """One part of a study that can be decided on its own."""

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        """What this cell wants to know next: a pure function of the records it has.

        Args:
            records: `Record.summary` of trials, by id: their series are left out.

        Returns the specs still missing from `records` (by trial id); none means that the cell is answered.
        """
        ...


@final
@dataclass(frozen=True)
class FixedCell:
    """A cell whose trials are known from the start."""

    trials: tuple[TrialSpec, ...]

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        return [spec for spec in self.trials if spec.trial_id not in records]


@dataclass(frozen=True)
class Progress:
    """How far a study is; trials and updates that cells will ask for later are not known yet.

    Args:
        elsewhere: trials known that another driver on the same store is running.
    """

    trials_done: int
    trials_known: int
    updates_done: int
    updates_known: int
    failed: int
    elsewhere: int = 0


def run_study(
    cells: Iterable[Cell],
    store: Store,
    executor: Executor,
    report: Callable[[Progress], None] = lambda progress: None,
    checkpoint_seconds: float = EVERY_SECONDS,
) -> dict[str, Record]:
    """Run what is missing until no cell wants more; every finished trial is stored at once.

    A trial that fails is tried once more; if it fails again, that is its record, and the study goes on. Trials that
    failed in an earlier call, or that `Store.run_again` names, count as missing.

    Several drivers may work at one store. A trial belongs to the driver whose executor starts it first, as long as that
    driver lives; the others go on with what is left, and wait for what they need of it at the end.

    Args:
        cells: the study.
        store: what is known, and where records go.
        executor: computes. Trials it runs one at a time leave checkpoints in the store's folder.
        report: is told how far the study is before every wait.
        checkpoint_seconds: see `Checkpoints.every_seconds`.

    Returns:
        `Record.summary` of all trials of the store, by trial id.
    """
    driver = _Driver(store, executor)
    executor.begin(driver.admit, store.checkpoints(every_seconds=checkpoint_seconds))
    for cell in cells:
        driver.plan(cell)
    while driver.busy:
        report(driver.progress)
        driver.wait()
    report(driver.progress)
    return dict(driver.records)


class _Driver:
    """A study that is running: what it knows, what it waits for, and which cells wait for that."""

    def __init__(self, store: Store, executor: Executor) -> None:
        self._store, self._executor = store, executor
        self._began = time.time()
        self.records = store.known()
        self._waiting: dict[str, list[Cell]] = defaultdict(list)
        self._queued: dict[str, TrialSpec] = {}
        self._elsewhere: dict[str, TrialSpec] = {}
        self._stored: list[tuple[TrialSpec, Record]] = []
        self._failed_once: set[str] = set()
        self._looked = time.monotonic()
        self._done = self._failed = self._updates_done = self._updates_known = 0

    @property
    def busy(self) -> bool:
        """Whether anything is still to come."""
        return bool(self._queued or self._elsewhere)

    @property
    def progress(self) -> Progress:
        known = self._done + len(self._queued) + len(self._elsewhere)
        return Progress(self._done, known, self._updates_done, self._updates_known, self._failed, len(self._elsewhere))

    def plan(self, cell: Cell) -> None:
        """Queue what the cell wants and nobody has wanted yet."""
        for spec in cell.next_specs(self.records):
            if spec.trial_id not in self._waiting:
                self._queue(spec)
                self._updates_known += spec.last_update
            if cell not in self._waiting[spec.trial_id]:
                self._waiting[spec.trial_id].append(cell)

    def admit(self, specs: list[TrialSpec]) -> list[TrialSpec]:
        """Claim trials that are about to start; see `Executor.begin`."""
        claimed = self._store.claim([spec.trial_id for spec in specs], self._began)
        for spec in specs:
            if spec.trial_id in claimed.finished:
                self._stored.append((self._queued.pop(spec.trial_id), claimed.finished[spec.trial_id]))
            elif spec.trial_id in claimed.elsewhere:
                self._elsewhere[spec.trial_id] = self._queued.pop(spec.trial_id)
                _log.info("trial %s is run by %s", spec.trial_id, claimed.elsewhere[spec.trial_id])
        return [spec for spec in specs if spec.trial_id in claimed.granted]

    def wait(self) -> None:
        """Until something has come: from the executor, or from other drivers where there is nothing else to do."""
        if self._queued:
            try:
                spec, record = self._executor.next()
            except NothingLeft:
                pass
            else:
                self._take(spec, record)
        elif not self._stored:
            time.sleep(LOOK_SECONDS)
        if self._elsewhere and time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look(self._elsewhere.values())
        while self._stored:
            self._finish(*self._stored.pop())

    def _look(self, specs: Collection[TrialSpec]) -> None:
        """Take in what other drivers have finished, and take over what those that ended have left."""
        self._looked = time.monotonic()
        claimed = self._store.claim([spec.trial_id for spec in specs], self._began)
        for trial_id, record in claimed.finished.items():
            self._stored.append((self._elsewhere.pop(trial_id), record))
        for trial_id in claimed.granted:
            self._queue(self._elsewhere.pop(trial_id))

    def _queue(self, spec: TrialSpec) -> None:
        self._queued[spec.trial_id] = spec
        self._executor.submit(spec)

    def _take(self, spec: TrialSpec, record: Record) -> None:
        """One rule for all executors: what fails is tried once more. What stands is stored before anything else."""
        if record.status == "failed" and spec.trial_id not in self._failed_once:
            self._failed_once.add(spec.trial_id)
            last_line = record.error.strip().splitlines()[-1]
            _log.warning("trial %s failed and is tried once more: %s", spec.trial_id, last_line)
            self._executor.submit(spec)
            return
        self._store.put(spec, record)
        del self._queued[spec.trial_id]
        self._finish(spec, record.summary)

    def _finish(self, spec: TrialSpec, record: Record) -> None:
        self.records.put(record)
        self._done += 1
        self._failed += record.status == "failed"
        self._updates_done += spec.last_update
        for cell in self._waiting.pop(spec.trial_id):
            self.plan(cell)
