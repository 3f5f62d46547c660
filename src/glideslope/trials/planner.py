"""Planner: what is missing, who runs it. Calls every cell of a study to its fixed point."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from glideslope.trials.executors.base import Executor
from glideslope.trials.record import Record
from glideslope.trials.store import Store
from glideslope.trials.trial import TrialSpec


class Cell(Protocol):
    """One part of a study that can be decided on its own."""

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        """What this cell wants to know next: a pure function of the records it has.

        Returns the specs still missing from `records` (by trial id); none means that the cell is answered.
        """
        ...


@dataclass(frozen=True)
class Progress:
    """How far a study is; trials and updates that cells will ask for later are not known yet."""

    trials_done: int
    trials_known: int
    updates_done: int
    updates_known: int
    failed: int


def run_study(
    cells: Iterable[Cell],
    store: Store,
    executor: Executor,
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Record]:
    """Run what is missing until no cell wants more; every finished trial is stored at once.

    Trials that failed in an earlier call are tried again, once; failures of this call stand.

    Returns:
        All records of the store, by trial id.
    """
    records = {trial_id: record for trial_id, record in store.records().items() if record.status != "failed"}
    waiting: dict[str, list[Cell]] = defaultdict(list)
    running = done = failed = updates_done = updates_known = 0

    def plan(cell: Cell) -> None:
        nonlocal running, updates_known
        for spec in cell.next_specs(records):
            if spec.trial_id not in waiting:
                executor.submit(spec)
                running += 1
                updates_known += spec.updates
            if cell not in waiting[spec.trial_id]:
                waiting[spec.trial_id].append(cell)

    for cell in cells:
        plan(cell)
    while running:
        report(Progress(done, done + running, updates_done, updates_known, failed))
        spec, record = executor.next()
        store.put(spec, record)
        records[record.trial_id] = record
        running -= 1
        done += 1
        failed += record.status == "failed"
        updates_done += spec.updates
        for cell in waiting.pop(record.trial_id):
            plan(cell)
    report(Progress(done, done, updates_done, updates_known, failed))
    return records
