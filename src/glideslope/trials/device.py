"""Device: where a trial is computed. Its data lie there, and whatever an update touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import torch
from torch import Tensor, nn

from glideslope.core.value import unknown
from glideslope.trials.arithmetic import ARITHMETICS, Arithmetic
from glideslope.trials.lookup import task_splits
from glideslope.trials.task import Batch, Noise, Splits, Task

DEVICES = ("cpu", "cuda", "auto")
"""What may be asked for. "auto" is CUDA where PyTorch finds it."""


def find_device(name: str) -> str:
    """The device of a name in `DEVICES`: "cpu" or "cuda".

    Raises:
        ValueError: no such name, or no such device here.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    found = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not found:
        built = "is built without CUDA" if torch.version.cuda is None else "finds no CUDA device"
        raise ValueError(
            f"PyTorch {torch.__version__} {built}: look at `nvidia-smi` and CUDA_VISIBLE_DEVICES, "
            "or compute on this machine's cores with --device cpu."
        )
    return "cuda" if found else "cpu"


@contextmanager
def exact() -> Iterator[None]:
    """On a GPU, float32 means float32, and equal trials equal bits; elsewhere nothing changes."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, convolutions.deterministic, convolutions.benchmark, products.allow_tf32
    # Not `benchmark`: it takes the kernel that was fastest a moment ago.
    convolutions.allow_tf32, convolutions.deterministic, convolutions.benchmark = False, True, False
    products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, convolutions.deterministic, convolutions.benchmark, products.allow_tf32 = before


@cache
def resident_splits(task: Task, device: str) -> Splits:
    """The task's data on a device, moved there once per process."""
    splits = task_splits(task)
    if device == "cpu":
        return splits
    return Splits(
        *(tuple(part.to(device) for part in split) for split in (splits.train, splits.validation, splits.test))
    )


def _moved(batch: Batch, device: str) -> Batch:
    return tuple(tensor.to(device) for tensor in batch)


def arithmetic_on(device: str, precision: str) -> Arithmetic:
    """How a trial of a precision is computed on "cpu" or "cuda", by one process alone."""
    inner = ARITHMETICS[precision]
    return inner if device == "cpu" else OnDevice(inner, device)


@final
@dataclass(frozen=True)
class OnDevice(Arithmetic):
    """Another arithmetic, on a device: model and data lie there, draws are moved there.

    Args:
        inner: computes.
        device: where, as PyTorch names it.
    """

    inner: Arithmetic
    device: str

    @property
    def facts(self) -> Mapping[str, Any]:
        return {**self.inner.facts, "device": self.device}

    def splits(self, task: Task) -> Splits:
        return resident_splits(task, self.device)

    def place(self, model: nn.Module) -> nn.Module:
        return self.inner.place(model).to(self.device)

    def loss(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return self.inner.loss(task, model, _moved(batch, self.device), self._drawn(noise))

    def evaluate(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        return self.inner.evaluate(task, model, _moved(batch, self.device), self._drawn(noise))

    def _drawn(self, noise: Noise) -> Noise:
        return {name: draw.to(self.device) for name, draw in noise.items()}
