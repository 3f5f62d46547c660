"""Groups: queued trials, sorted into those that can run as one population."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from glideslope.trials.executors.queue import LongestFirst
from glideslope.trials.trial import TrialSpec

MOST_MEMBERS = 64
"""Twice as many gain 3 % on an update, and lose more where the last populations of a study leave a worker idle."""
LEAST_MEMBERS = 8
"""Below this size a population is not split between workers: half of it would take more than half of its time."""
ALONE = ""
"""The key of trials that run one by one."""
SHORT_SECONDS = 0.1
"""What runs one by one may be ordered several at a time up to this, where handing over costs a millisecond or two."""


@dataclass(frozen=True)
class Order:
    """What a worker does next; an order without specs means that nothing is queued.

    Args:
        specs: the trials.
        together: as one population, if that pays; else one by one.
    """

    specs: list[TrialSpec]
    together: bool


@final
class Groups:
    """What is queued, in groups of trials that differ in rate, schedule, controller, seeds and length alone.

    A worker takes from the group with most updates to do: its longest trials, up to `MOST_MEMBERS`, and no more than a
    worker's share of all that is queued, so that the last ones keep every worker busy. Small groups wait, and grow
    while they do. What cannot run together, or does not pay (see `choose_program`), goes one by one.

    Args:
        device: of the workers, "cpu" or "cuda", which decides what can run together.
        together: False where every trial runs by itself.
    """

    def __init__(self, device: str = "cpu", together: bool = True) -> None:
        self._device, self._may_join = device, together
        self._queues: dict[str, LongestFirst] = {}
        self._work: dict[str, int] = {}
        self._unpaid: set[str] = set()
        self._survivors: set[str] = set()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def push(self, spec: TrialSpec) -> None:
        key = _key(spec, self._device) if self._may_join else None
        if key is None or key in self._unpaid or spec.trial_id in self._survivors:
            key = ALONE
        self._queue(key, spec)

    def take(self, num_workers: int, seconds: Callable[[TrialSpec], float] = lambda spec: math.inf) -> Order:
        """What a worker does next, out of the queue.

        Args:
            num_workers: between how many the queue is shared.
            seconds: how long a trial takes by itself, inf if nobody knows. Short ones are taken several at a time.
        """
        if not self._queues:
            return Order([], together=False)
        key = self._most_work()
        share = sum(self._work.values()) / num_workers
        taken = self._lone(share, seconds) if key == ALONE else self._together(key, share)
        self._work[key] -= sum(spec.last_update for spec in taken)
        if not self._queues[key]:
            del self._queues[key], self._work[key]
        return Order(taken, together=key != ALONE)

    def has_plenty(self) -> bool:
        """Whether the order that `take` would make is as large as orders get."""
        if not self._queues:
            return False
        key = self._most_work()
        return key == ALONE or len(self._queues[key]) >= MOST_MEMBERS

    def _most_work(self) -> str:
        """The group that is next; only called while something is queued."""
        return max(self._work, key=lambda key: self._work[key])

    def _together(self, key: str, share: float) -> list[TrialSpec]:
        queue, taken, work = self._queues[key], list[TrialSpec](), 0
        while queue and len(taken) < MOST_MEMBERS and (len(taken) < LEAST_MEMBERS or work < share):
            taken.append(queue.pop())
            work += taken[-1].last_update
        return taken

    def _lone(self, share: float, seconds: Callable[[TrialSpec], float]) -> list[TrialSpec]:
        queue = self._queues[ALONE]
        taken = [queue.pop()]
        work, spent = taken[0].last_update, self._lone_seconds(taken[0], seconds)
        while queue and len(taken) < MOST_MEMBERS and work < share:
            spec = queue.pop()
            spent += self._lone_seconds(spec, seconds)
            if spent > SHORT_SECONDS:
                queue.push(spec)
                break
            taken.append(spec)
            work += spec.last_update
        return taken

    def _lone_seconds(self, spec: TrialSpec, seconds: Callable[[TrialSpec], float]) -> float:
        """One at which a worker has died stays by itself, so that the next death is laid to nobody else."""
        return math.inf if spec.trial_id in self._survivors else seconds(spec)

    def part(self, specs: list[TrialSpec]) -> None:
        """It does not pay to run these together: queue them, and all that will be pushed of their kind, one by one."""
        for spec in specs:
            if (key := _key(spec, self._device)) is not None:
                self._unpaid.add(key)
            self._queue(ALONE, spec)

    def bury(self, specs: list[TrialSpec]) -> list[TrialSpec]:
        """A worker has died at these: queue them again one by one.

        Returns:
            Those that are not queued again, because a worker has died at them before.
        """
        again = [spec for spec in specs if spec.trial_id not in self._survivors]
        for spec in again:
            self._survivors.add(spec.trial_id)
            self._queue(ALONE, spec)
        return [spec for spec in specs if spec not in again]

    def clear(self) -> None:
        self._queues.clear()
        self._work.clear()

    def _queue(self, key: str, spec: TrialSpec) -> None:
        self._queues.setdefault(key, LongestFirst()).push(spec)
        self._work[key] = self._work.get(key, 0) + spec.last_update


def _key(spec: TrialSpec, device: str) -> str | None:
    from glideslope.trials.population import population_key  # imports PyTorch, which not every command needs

    return population_key(spec, device)
