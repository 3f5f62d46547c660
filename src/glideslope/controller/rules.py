"""Rule-based controllers: simple, documented, no weights."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

from glideslope.core.control import Controller, Decision, Observation, State
from glideslope.core.value import registered, require


@registered("plateau")
@dataclass(frozen=True)
class Plateau(Controller):
    """Decay on plateau: lower the gain when the validation loss has stopped improving.

    Observations without a validation loss change nothing. A NaN or infinite loss counts as "no improvement".

    Args:
        patience: observations (usually epochs) without improvement that are tolerated, >= 0; the next one decays.
        factor: factor on the gain, 0 < factor < 1.
        threshold: relative improvement below which a loss counts as no improvement, 0 <= threshold < 1.

    >>> rule = Plateau(patience=0)
    >>> _, state = rule.decide(Observation(1, 0.1, 0.1, 1.0, val_loss=2.0), rule.start())
    >>> rule.decide(Observation(2, 0.2, 0.1, 1.0, val_loss=2.0), state)[0].gain
    0.1

    Source: the rule of `torch.optim.lr_scheduler.ReduceLROnPlateau` (mode "min", relative threshold, no cooldown).
    """

    patience: int = 5
    factor: float = 0.1
    threshold: float = 1e-4

    def _check(self) -> None:
        require(self.patience >= 0, "patience", self.patience, "patience >= 0")
        require(0 < self.factor < 1, "factor", self.factor, "0 < factor < 1")
        require(0 <= self.threshold < 1, "threshold", self.threshold, "0 <= threshold < 1")

    def start(self) -> State:
        return {"best": None, "waited": 0}

    def decide(self, observation: Observation, state: State) -> tuple[Decision, State]:
        loss, best, waited = observation.val_loss, state["best"], state["waited"]
        if loss is None:
            return Decision(observation.gain), state
        if math.isfinite(loss) and (best is None or loss < best * (1 - math.copysign(self.threshold, best))):
            return Decision(observation.gain), {"best": loss, "waited": 0}
        if waited < self.patience:
            return Decision(observation.gain), {"best": best, "waited": waited + 1}
        reason = f"no improvement on {best:.4g}" if best is not None else "no finite loss yet"
        reason += f" in {self.patience + 1} observations"
        # Never 0, which would be no gain, however often it decays.
        gain = max(observation.gain * self.factor, sys.float_info.min)
        return Decision(gain, reason), {"best": best, "waited": 0}
