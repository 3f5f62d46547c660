"""The contract of executors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from glideslope.trials.record import Record
from glideslope.trials.trial import TrialSpec


class Executor(ABC):
    """Takes specs, hands back records, in any order, each once. A context manager: leaving it stops all work."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def submit(self, spec: TrialSpec) -> None:
        """Queue a trial. Long trials are started first, so that none is left alone at the end."""

    @abstractmethod
    def next(self) -> tuple[TrialSpec, Record]:
        """Wait for the next finished trial; only called while some are queued or running."""

    @abstractmethod
    def close(self) -> None:
        """Stop: what is queued or running is forgotten."""
