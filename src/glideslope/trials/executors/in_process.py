"""Trials one after the other, in this process."""

from __future__ import annotations

import heapq
from itertools import count

from glideslope.trials.executors.base import Executor
from glideslope.trials.record import Record
from glideslope.trials.run import run_trial
from glideslope.trials.trial import TrialSpec


class InProcess(Executor):
    """Runs a trial whenever the next one is asked for: for debugging, and the oracle of every other executor."""

    def __init__(self) -> None:
        self._queue: list[tuple[int, int, TrialSpec]] = []
        self._order = count()

    def submit(self, spec: TrialSpec) -> None:
        heapq.heappush(self._queue, (-spec.updates, next(self._order), spec))

    def next(self) -> tuple[TrialSpec, Record]:
        spec = heapq.heappop(self._queue)[2]
        return spec, run_trial(spec)

    def close(self) -> None:
        self._queue.clear()
