"""Trials in worker processes, a population at a time each: the fastest way for small dense networks."""

from __future__ import annotations

from typing import ClassVar, final

from glideslope.trials.executors.groups import Groups
from glideslope.trials.executors.pool import Pool, lost
from glideslope.trials.trial import TrialSpec


@final
class Populations(Pool):
    """Trials that can run together are computed together; records do not depend on how they were put together.

    If a worker dies, its trials are queued again one by one. One at which a worker dies again is recorded as failed.

    Args:
        num_workers: how many; None means one per usable core, or per GPU.
        device: "cpu" or "cuda".
    """

    name: ClassVar[str] = "population"

    def __init__(self, num_workers: int | None = None, device: str = "cpu") -> None:
        super().__init__(num_workers, device)
        self._groups = Groups(device)

    def submit(self, spec: TrialSpec) -> None:
        self._groups.push(spec)

    def close(self) -> None:
        self._groups.clear()
        super().close()

    def _take(self) -> list[TrialSpec]:
        return self._groups.take(self._count).specs

    def _has_plenty(self) -> bool:
        return self._groups.has_plenty()

    def _return(self, specs: list[TrialSpec]) -> None:
        self._groups.part(specs)

    def _bury(self, specs: list[TrialSpec], exit_code: int | None) -> None:
        self._finished += [(spec, lost(spec, self.name, exit_code, self._device)) for spec in self._groups.bury(specs)]
