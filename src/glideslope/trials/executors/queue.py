"""LongestFirst: the order in which queued trials are started."""

from __future__ import annotations

import heapq
from itertools import count

from glideslope.trials.trial import TrialSpec


class LongestFirst:
    """Queued trials, the longest first and equals in the order they came, so that none is left alone at the end."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, TrialSpec]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, spec: TrialSpec) -> None:
        heapq.heappush(self._heap, (-spec.last_update, next(self._order), spec))

    def pop(self) -> TrialSpec:
        """The longest; only called while there is one."""
        return heapq.heappop(self._heap)[2]

    def clear(self) -> None:
        self._heap.clear()
