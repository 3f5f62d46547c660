"""Tiny tasks and optimizers for the tests: importable by name ("tiny_tasks:Regression"), also from worker processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from glideslope.trials.task import Batch, Column, Default, Metric, Noise, Part, Splits, Task, seeded_model

NUM_FEATURES = 4
EVENTS: list[str] = []
"""What `Watched` and `TwoModes` saw, in order: for trials in this process."""


@dataclass(frozen=True)
class Regression(Task):
    """A linear regression with noise in its targets: 8 updates an epoch, microseconds each."""

    name: ClassVar[str] = "regression"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "made up"
    maximum_epochs: ClassVar[int] = 10
    batch_size: ClassVar[int] = 8
    metric: ClassVar[Metric] = Metric("squared_error")
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.03),
        "adam": Default(0.1),
        "adamw": Default(0.1),
    }

    data_seed: int = 0

    def splits(self) -> Splits:
        generator = np.random.default_rng(self.data_seed)
        weights = generator.normal(size=NUM_FEATURES)

        def split(count: int) -> Batch:
            inputs = generator.normal(size=(count, NUM_FEATURES))
            targets = inputs @ weights + 0.5 * generator.normal(size=count)
            return torch.from_numpy(inputs).float(), torch.from_numpy(targets).float()

        return Splits(split(67), split(32), split(32))

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: nn.Linear(NUM_FEATURES, 1))

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return self._errors(model, batch).mean()

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        errors = self._errors(model, batch)
        return {"loss": errors, self.metric.name: self.measured(errors)}

    def measured(self, errors: Tensor) -> Tensor:
        """The metric, from squared errors."""
        return errors

    def _errors(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return (model(inputs)[:, 0] - targets).square()


@dataclass(frozen=True)
class Upwards(Regression):
    """Higher is better."""

    metric: ClassVar[Metric] = Metric("score", higher_is_better=True, unit="%")

    def measured(self, errors: Tensor) -> Tensor:
        return 100 - errors


@dataclass(frozen=True)
class WholeEpochs(Regression):
    """A setting of the papers: budgets are rounded up to whole epochs."""

    whole_epochs: ClassVar[bool] = True


@dataclass(frozen=True)
class Random(Regression):
    """Draws in every loss and for every example: noise and augmentation."""

    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        return {"jitter": generator.normal(size=batch_size).astype(np.float32)}

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        return {"shift": generator.normal(size=num_samples).astype(np.float32)}

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        inputs, targets = batch
        return super().loss(model, (inputs, targets + 0.1 * noise["jitter"] + 0.1 * noise["shift"]), noise)


@dataclass(frozen=True)
class NotANumber(Regression):
    """The loss is NaN from the start."""

    def _errors(self, model: nn.Module, batch: Batch) -> Tensor:
        return super()._errors(model, batch) * float("nan")


@dataclass(frozen=True)
class BadMetric(Regression):
    """The loss is fine, the metric is NaN."""

    def measured(self, errors: Tensor) -> Tensor:
        return errors * float("nan")


@dataclass(frozen=True)
class Raising(Regression):
    """The loss raises."""

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        raise RuntimeError("<b>no loss today</b>")


class Clock:
    """In a test: time passes for trials in this process while a task sleeps, and never else."""

    def __init__(self, monkeypatch: Any) -> None:
        self.now = 0.0
        monkeypatch.setattr(f"{__name__}.time", self)
        monkeypatch.setattr("glideslope.trials.run.time", self)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def perf_counter(self) -> float:
        return self.now


@dataclass(frozen=True)
class Slow(Regression):
    """Every update takes a while."""

    seconds: float = 0.02

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        time.sleep(self.seconds)
        return super().loss(model, batch, noise)


@dataclass(frozen=True)
class Halting(Slow):
    """Where TINY_MODELS names a file, the sixth trial and all later ones wait for their end.

    Who wants to stop a study in the middle is never too late.
    """

    def model(self, seed: int) -> nn.Module:
        if "TINY_MODELS" in os.environ:
            with open(os.environ["TINY_MODELS"], "ab") as file:
                file.write(b".")
                if file.tell() > 5:
                    time.sleep(3600)
        return super().model(seed)


@dataclass(frozen=True)
class Gated(Regression):
    """Where TINY_GATE names a file, training waits until it is there."""

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        while "TINY_GATE" in os.environ and not Path(os.environ["TINY_GATE"]).exists():
            time.sleep(0.005)
        return super().loss(model, batch, noise)


@dataclass(frozen=True)
class Hours(Slow):
    """Every update takes an hour."""

    seconds: float = 3600.0


@dataclass(frozen=True)
class Killing(Regression):
    """Kills its process when the model of `victim` is built: always, or once if TINY_MARKER names a file to make."""

    victim: int = 2

    def model(self, seed: int) -> nn.Module:
        if seed == self.victim:
            marker = os.environ.get("TINY_MARKER")
            if marker is None or not Path(marker).exists():
                if marker is not None:
                    Path(marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().model(seed)


@dataclass(frozen=True)
class Environment(Regression):
    """The metric tells about the process: threads of PyTorch, plus 10 where every setting for one thread is there."""

    def measured(self, errors: Tensor) -> Tensor:
        one = all(
            os.environ.get(name) == "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        )
        passive = os.environ.get("OMP_WAIT_POLICY") == "PASSIVE"
        return torch.full_like(errors, torch.get_num_threads() + 10 * one + 100 * passive)


@dataclass(frozen=True)
class Watched(Regression):
    """Says in EVENTS what is done to it; the training inputs carry their row number, which `loss` writes down."""

    def splits(self) -> Splits:
        splits = super().splits()
        inputs, targets = splits.train
        rows = torch.arange(len(targets), dtype=targets.dtype)
        return Splits((inputs, targets, rows), splits.validation, splits.test)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        EVENTS.append(f"loss {'training' if model.training else 'evaluating'} {batch[2].int().tolist()}")
        return super().loss(model, batch[:2], noise)

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        EVENTS.append(f"evaluate {'training' if model.training else 'evaluating'} {len(batch[0])}")
        return super().evaluate(model, batch, noise)


@dataclass(frozen=True)
class Dangerous(Regression):
    """A metric whose name would run in a page that does not escape it."""

    metric: ClassVar[Metric] = Metric("<script>alert(1)</script>")


class TwoModes(torch.optim.SGD):
    """An optimizer with modes, as schedule-free ones have."""

    def train(self) -> None:
        EVENTS.append("train")

    def eval(self) -> None:
        EVENTS.append("eval")


regression = Regression(data_seed=1)


def make_regression() -> Task:
    return Regression(data_seed=2)


class Plain(Regression):
    """Not decorated: still a dataclass by inheritance."""


not_a_task = 3


@dataclass(frozen=True)
class OutOfMemory(Regression):
    """A machine on which five examples are the most."""

    name: ClassVar[str] = "out_of_memory"

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        if len(batch[0]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super().loss(model, batch, noise)


@dataclass(frozen=True)
class InOrder(Regression):
    """An epoch goes through its examples backwards."""

    name: ClassVar[str] = "in_order"

    def order(self, generator: np.random.Generator, num_samples: int) -> np.ndarray:
        return np.arange(num_samples)[::-1].copy()


def correlation(values: Mapping[str, Tensor]) -> float:
    """Of predictions and targets: no mean of anything that one example has."""
    return float(torch.corrcoef(torch.stack([values["predicted"], values["target"]]))[0, 1])


@dataclass(frozen=True)
class Correlated(Regression):
    """Judged over the whole split."""

    name: ClassVar[str] = "correlated"
    metric: ClassVar[Metric] = Metric("correlation", higher_is_better=True, over_split=correlation)

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        inputs, targets = batch
        return {"loss": self._errors(model, batch), "predicted": model(inputs)[:, 0], "target": targets}


class OnDemand(Column):
    """Rows of a tensor, read one access at a time; the sizes of what was read are kept."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        found = self.values[rows]
        self.read.append(len(found))
        return found

    @property
    def sha256(self) -> str:
        return f"{float(self.values.sum()):.6f}"


@dataclass(frozen=True)
class ReadOnDemand(Regression):
    """The same data, in columns."""

    name: ClassVar[str] = "read_on_demand"

    def splits(self) -> Splits:
        whole = super().splits()

        def columns(part: Part) -> Part:
            return OnDemand(part[0][:]), part[1]

        return Splits(columns(whole.train), columns(whole.validation), columns(whole.test))
