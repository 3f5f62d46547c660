"""Trials one after the other, in this process."""

from __future__ import annotations

from glideslope.trials.device import arithmetic_on
from glideslope.trials.executors.base import Executor, NothingLeft
from glideslope.trials.executors.queue import LongestFirst
from glideslope.trials.record import Record
from glideslope.trials.run import run_trial
from glideslope.trials.trial import TrialSpec


class InProcess(Executor):
    """Runs a trial whenever the next one is asked for: for debugging, and the oracle of every other executor.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._queue = LongestFirst()

    def submit(self, spec: TrialSpec) -> None:
        self._queue.push(spec)

    def next(self) -> tuple[TrialSpec, Record]:
        while self._queue:
            for spec in self._admit([self._queue.pop()]):
                return spec, run_trial(spec, self._checkpoints, arithmetic_on(self._device, spec.precision))
        raise NothingLeft

    def close(self) -> None:
        self._queue.clear()
