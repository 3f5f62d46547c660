"""The contract of executors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.record import Record
from glideslope.trials.trial import TrialSpec

Admission = Callable[[list[TrialSpec]], list[TrialSpec]]
"""Those among trials about to start that may start."""


def _all(specs: list[TrialSpec]) -> list[TrialSpec]:
    return specs


class NothingLeft(Exception):  # noqa: N818 - no error: there is nothing to wait for
    """All that was queued has been turned away at its start."""


class Executor(ABC):
    """Takes specs, hands back records, in any order, each once. A context manager: leaving it stops all work.

    A trial that cannot be computed comes back as a failed record. Whether it is tried again is not the executor's to
    decide.
    """

    _admit: Admission = staticmethod(_all)
    _checkpoints: Checkpoints | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, admit: Admission, checkpoints: Checkpoints | None) -> None:
        """Say for whom the next trials run.

        Args:
            admit: is asked, on the thread that calls `next`, about trials that leave the queue to start: those that it
                leaves out are not run, and do not come back. Until then all may start.
            checkpoints: where trials that run alone leave checkpoints; None: nowhere, as until then.
        """
        self._admit, self._checkpoints = admit, checkpoints

    @abstractmethod
    def submit(self, spec: TrialSpec) -> None:
        """Queue a trial. Long trials are started first, so that none is left alone at the end."""

    @abstractmethod
    def next(self) -> tuple[TrialSpec, Record]:
        """Wait for the next finished trial; only called while some are queued or running.

        Raises:
            NothingLeft: none is running, and none of those queued was admitted.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop: what is queued or running is forgotten."""
