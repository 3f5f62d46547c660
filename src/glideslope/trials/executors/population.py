"""Trials in worker processes, a population at a time each: the fastest way for small dense networks."""

from __future__ import annotations

from typing import ClassVar, final

from glideslope.trials.executors.pool import Pool, lost
from glideslope.trials.executors.queue import LongestFirst
from glideslope.trials.trial import TrialSpec

MOST_MEMBERS = 64
"""Twice as many gain 3 % on an update, and lose more where the last populations of a study leave a worker idle."""
LEAST_MEMBERS = 8
"""Below this size a population is not split between workers: half of it would take more than half of its time."""
ALONE = ""
"""The key of trials that run one by one."""


@final
class Populations(Pool):
    """Trials that differ in rate, schedule, controller, seeds and length alone are computed together.

    What is queued is sorted into groups that can run together. An idle worker takes from the group with most updates
    to do: its longest trials, up to `MOST_MEMBERS`, and no more than a worker's share of all that is queued, so that
    the last ones keep every worker busy. Small groups wait, and grow while they do. What cannot run together, or does
    not pay (see `choose_program`), goes through the same workers one by one. Records do not depend on how trials were
    put together.

    If a worker dies, its trials are queued again one by one. One at which a worker dies again is recorded as failed.

    Args:
        num_workers: how many; None means one per usable core.
    """

    name: ClassVar[str] = "population"

    def __init__(self, num_workers: int | None = None) -> None:
        super().__init__(num_workers)
        self._groups: dict[str, LongestFirst] = {}
        self._work: dict[str, int] = {}
        self._unpaid: set[str] = set()
        self._survivors: set[str] = set()

    def submit(self, spec: TrialSpec) -> None:
        from glideslope.trials.population import population_key  # imports PyTorch, which not every command needs

        key = population_key(spec)
        self._queue(ALONE if key is None or key in self._unpaid else key, spec)

    def close(self) -> None:
        self._groups.clear()
        self._work.clear()
        super().close()

    def _queue(self, key: str, spec: TrialSpec) -> None:
        self._groups.setdefault(key, LongestFirst()).push(spec)
        self._work[key] = self._work.get(key, 0) + spec.updates

    def _take(self) -> list[TrialSpec]:
        if not self._groups:
            return []
        key = max(self._work, key=lambda key: self._work[key])
        group = self._groups[key]
        share = sum(self._work.values()) / self._count
        taken: list[TrialSpec] = []
        work = 0
        while group and len(taken) < (1 if key == ALONE else MOST_MEMBERS):
            if len(taken) >= LEAST_MEMBERS and work >= share:
                break
            taken.append(group.pop())
            work += taken[-1].updates
        self._work[key] -= work
        if not group:
            del self._groups[key], self._work[key]
        return taken

    def _return(self, specs: list[TrialSpec]) -> None:
        from glideslope.trials.population import population_key

        for spec in specs:
            key = population_key(spec)
            if key is not None:
                self._unpaid.add(key)
            self._queue(ALONE, spec)

    def _bury(self, specs: list[TrialSpec], exit_code: int | None) -> None:
        for spec in specs:
            if spec.trial_id in self._survivors:
                self._finished.append((spec, lost(spec, self.name, exit_code)))
            else:
                self._survivors.add(spec.trial_id)
                self._queue(ALONE, spec)
