"""Trials in worker processes, one at a time each. A worker that dies costs its own trial only."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, final

from glideslope.trials.executors.pool import Pool, lost
from glideslope.trials.executors.queue import LongestFirst
from glideslope.trials.record import Record
from glideslope.trials.trial import TrialSpec


@final
class Processes(Pool):
    """Every trial as its own loop of ordinary PyTorch; one that its worker dies at is recorded as failed.

    Args:
        num_workers: how many; None means one per usable core, or per GPU.
        device: "cpu" or "cuda".
    """

    name: ClassVar[str] = "processes"

    def __init__(self, num_workers: int | None = None, device: str = "cpu") -> None:
        super().__init__(num_workers, device)
        self._queue = LongestFirst()

    def submit(self, spec: TrialSpec) -> None:
        self._queue.push(spec)

    def next(self) -> tuple[TrialSpec, Record]:
        spec, record = super().next()
        return spec, replace(record, path={**record.path, "executor": self.name})

    def close(self) -> None:
        self._queue.clear()
        super().close()

    def _take(self) -> list[TrialSpec]:
        return [self._queue.pop()] if self._queue else []

    def _bury(self, specs: list[TrialSpec], exit_code: int | None) -> None:
        self._finished += [(spec, lost(spec, self.name, exit_code, self._device)) for spec in specs]
