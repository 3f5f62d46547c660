"""Trials that are stopped in the middle, as by a kill: they leave a checkpoint, and no record."""

from __future__ import annotations

from typing import Any

import pytest

from glideslope.trials import run as run_module
from glideslope.trials.arithmetic import Arithmetic
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.run import run_trial
from glideslope.trials.trial import TrialSpec


def interrupted(spec: TrialSpec, checkpoints: Checkpoints, updates: int, arithmetic: Arithmetic | None = None) -> None:
    """Leave the checkpoint of a trial that was stopped after so many updates."""
    real, made = run_module.make_update, []

    def update(*arguments: Any) -> float:
        if len(made) == updates:
            raise KeyboardInterrupt  # as a trial that is killed, it leaves no record
        made.append(1)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "make_update", update)
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec, checkpoints, arithmetic)
