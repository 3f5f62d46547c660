"""A smoke trial for a task of any size: two updates, evaluations, and a resume that goes on to the bit."""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from interrupted import interrupted
from torch import Tensor

from glideslope.core.spec import canonical
from glideslope.studies.setting import Setting
from glideslope.trials.arithmetic import Float32
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.lookup import task_params
from glideslope.trials.record import Record
from glideslope.trials.run import run_trial
from glideslope.trials.task import Column, Part, Splits, Task
from glideslope.trials.trial import TrialSpec

RATE = 1e-3


def smoke(task: Task, examples: int = 4) -> dict[str, float]:
    """Run a trial of two updates on a few of the task's own data, whole and again with a stop in the middle.

    The model is of full size and the inputs of full shape; only the batch and the splits are small, so one update takes
    seconds. All else is the engine as it is: rows that are read ahead, evaluation in chunks, checkpoints.

    Args:
        task: its data must be where `splits` looks for them.
        examples: of each split, at most as many as an update has.

    Returns:
        "loss_before" and "loss_after": the training loss of the same examples before the first update and before the
        second, with the draws of each; and the metric at the end, by its name.

    Raises:
        AssertionError: a number is not finite, the weights have no gradient, a global generator was used, or the trial
            that was stopped, kept and resumed is not the whole one.
    """
    count = min(examples, task.batch_size)
    few, before = Few(count), _generators()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(type(task), "batch_size", count)
        patch.setattr(type(task), "evaluation_batch", max(1, count - 1))  # more than one chunk
        patch.setattr("glideslope.trials.checkpoint._to_disk", lambda path: None)
        spec = _spec(task)
        whole = run_trial(spec, arithmetic=few)
        checkpoints = Checkpoints(Path(folder), every_seconds=0.0, largest_share=float("inf"))
        interrupted(spec, checkpoints, 1, few)
        kept = list(Path(folder).iterdir())
        resumed = run_trial(spec, checkpoints, few)
    assert whole.status == "finished", f"{task.name}: {whole.error}"
    assert len(kept) == 1, f"{task.name}: nothing was kept of a trial that was stopped"
    assert canonical(resumed.outcome) == canonical(whole.outcome), f"{task.name}: stopped and resumed it ends elsewhere"
    assert min(whole.series.probes["gradient_norm"]) > 0, f"{task.name}: an update had no gradient"
    assert _generators() == before, f"{task.name}: something was drawn from a global generator"
    return _numbers(task, whole)


def _spec(task: Task) -> TrialSpec:
    params = ", ".join(f"{name}={json.dumps(value)}" for name, value in task_params(task).items())
    setting = Setting.of(f"{task.name}({params})" if params else task.name, ("sgdm",))
    probes = ("gradient_norm", "weight_norm")
    return replace(setting.trial("sgdm", 1.0), rate=RATE, updates=2, eval_every=2, probes=probes)


class Few(Float32):
    """Plain arithmetic on the first rows of every split."""

    def __init__(self, count: int) -> None:
        self.count = count

    def splits(self, task: Task) -> Splits:
        whole = task.splits()
        return Splits(self._few(whole.train), self._few(whole.validation), self._few(whole.test))

    def _few(self, part: Part) -> Part:
        return tuple(
            Head(column, self.count) if isinstance(column, Column) else column[: self.count] for column in part
        )


class Head(Column):
    """The first rows of a column, read when they are asked for as its own are."""

    def __init__(self, whole: Column, count: int) -> None:
        self.whole, self.count = whole, min(count, len(whole))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return self.whole[torch.arange(self.count)[rows]]

    @property
    def sha256(self) -> str:
        return self.whole.sha256


def _numbers(task: Task, record: Record) -> dict[str, float]:
    assert record.test is not None
    before, after = record.series.train_loss
    numbers = {"loss_before": before, "loss_after": after, task.metric.name: record.test.metric}
    assert np.isfinite([*numbers.values(), record.test.loss]).all(), f"{task.name}: not finite: {numbers}"
    return numbers


def _generators() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), kind, keys.tolist(), *rest, random.getstate()
