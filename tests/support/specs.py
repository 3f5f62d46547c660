"""Specs, executors and processes that the tests of trials, studies and the command line share."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from glideslope.core.spec import parse_policy
from glideslope.studies.setting import Setting
from glideslope.trials.executors import InProcess
from glideslope.trials.optimizers import OptimizerSpec
from glideslope.trials.record import Record
from glideslope.trials.trial import Seeds, TrialSpec

SUPPORT = Path(__file__).parent
COMMAND = (sys.executable, "-m", "glideslope")


def make_spec(task: str = "tiny_tasks:Regression", schedule: str = "linear", **changes: Any) -> TrialSpec:
    """A trial of ten updates with SGDM, with any field replaced; `optimizer` as text, `seed` for all three seeds."""
    optimizer = changes.pop("optimizer", "sgdm")
    seed = changes.pop("seed", 1)
    base = Setting.of(task, (optimizer,)).trial(optimizer, 1.0)
    base = replace(base, policy=parse_policy(schedule), seeds=Seeds.all(seed), updates=10, rate=0.03)
    return replace(base, optimizer=OptimizerSpec.parse(optimizer), **changes)


class Counted(InProcess):
    """Runs trials in this process and remembers which."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[TrialSpec] = []

    def next(self) -> tuple[TrialSpec, Record]:
        spec, record = super().next()
        self.ran.append(spec)
        return spec, record


def command_environment(**more: str) -> dict[str, str]:
    """The environment of a `glideslope` process that finds the tiny tasks."""
    return {**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1", **more}
