"""Early stopping whose patience is counted where the rate has landed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from glideslope.core.plan import Plan
from glideslope.core.profiles import Multiplier
from glideslope.core.sampling import SLACK
from glideslope.core.spec import parse_plan
from glideslope.core.value import require


class EarlyStopping:
    """Says when a run no longer improves, from one observation per landing of the rate.

    A restart raises the rate, and with it the loss: patience counted in epochs runs out in the middle of a cycle that
    would have ended better. Here only the first observation at or after the end of each cycle counts; the others are
    looked at by nobody. Evaluate when `due`, or as often as you like.

    Args:
        schedule: a schedule or plan (its learning rate), or its text; its `landings` are what is counted. None: the
            schedule has no cycles, and every observation counts.
        patience: landings in a row without improvement that are forgiven, >= 0; the next one stops.
        min_improvement: by how much an observation must fall below the best to count as better, >= 0.

    Attributes:
        best: the best observation so far; inf before the first.

    >>> stopping = EarlyStopping("cycles(cosine, period=0.25)", patience=0)
    >>> stopping.observe(progress=0.25, val_loss=1.0)
    False
    >>> stopping.observe(progress=0.30, val_loss=7.0)  # just restarted: not compared
    False
    >>> stopping.observe(progress=0.50, val_loss=1.1)
    True
    """

    def __init__(
        self, schedule: str | Multiplier | Plan | None = None, patience: int = 1, min_improvement: float = 0.0
    ) -> None:
        require(patience >= 0, "patience", patience, "patience >= 0")
        require(0 <= min_improvement < math.inf, "min_improvement", min_improvement, "0 <= min_improvement < inf")
        self._landings = None if schedule is None else parse_plan(schedule)["lr"].schedule.landings
        self._patience = patience
        self._min_improvement = min_improvement
        self.best = math.inf
        self._waited = 0
        self._landed = 0

    def due(self, progress: float) -> bool:
        """Whether an observation now would count: the rate has landed since the one that counted last."""
        return self._landings is None or self._landings_by(progress) > self._landed

    def observe(self, progress: float, val_loss: float) -> bool:
        """Show a validation loss.

        Args:
            progress: share of the budget spent, as `scheduler.progress`.
            val_loss: lower is better; NaN is no improvement. For an accuracy pass its negative.

        Returns:
            Whether to stop.
        """
        if not self.due(progress):
            return self._waited > self._patience
        self._landed = self._landings_by(progress)
        if val_loss < self.best - self._min_improvement:
            self.best, self._waited = float(val_loss), 0
        else:
            self._waited += 1
        return self._waited > self._patience

    def _landings_by(self, progress: float) -> int:
        return sum(landing <= progress + SLACK for landing in self._landings or ())

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON types."""
        return {
            "best": self.best if math.isfinite(self.best) else str(self.best),
            "waited": self._waited,
            "landed": self._landed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.best = float(state["best"])
        self._waited = int(state["waited"])
        self._landed = int(state["landed"])
