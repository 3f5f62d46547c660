"""Arithmetic: how the numbers of a trial are computed. The training loop is one; this is what it leaves open."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from glideslope.trials.lookup import task_splits
from glideslope.trials.task import Batch, Noise, Splits, Task

Chunks = Mapping[int, Mapping[str, Tensor]]
"""Number of a chunk of a split → what `Task.evaluate` returned for it, on the CPU."""


class Arithmetic(ABC):
    """In what precision a trial computes, and how much of every batch this process takes.

    The methods that are not abstract are those of a process that computes its trial alone.

    Attributes:
        shares: how many processes have a part of every batch.
    """

    shares: int = 1

    @property
    def facts(self) -> Mapping[str, Any]:
        """What `Record.path` says of it, and what a checkpoint must agree in; nothing for plain PyTorch."""
        return {}

    def splits(self, task: Task) -> Splits:
        """The task's data, where batches are cut from them."""
        return task_splits(task)

    @abstractmethod
    def place(self, model: nn.Module) -> nn.Module:
        """A fresh model as it is going to be trained: on its device, in its layout of memory."""

    def rows(self, size: int) -> slice:
        """Which examples of a batch of `size` this process takes; only those are read, and handed to `loss`."""
        return slice(0, size)

    @abstractmethod
    def loss(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        """The training loss of these examples: a scalar, differentiable."""

    @abstractmethod
    def evaluate(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Per-example values of a chunk of a split, each of shape (batch,)."""

    def whole(self, loss: Tensor, optimizer: Optimizer) -> Tensor:
        """Turn the parts of gradients, in place, and of the loss into those of the whole batch. Returns: the loss.

        A process's part is the loss of its examples by their share of the batch; the parts add up to the loss.
        """
        return loss

    def keeps(self, model: nn.Module) -> bool:
        """Whether this process leaves checkpoints of the model: all that a trial needs to go on from."""
        return True

    def takes(self, chunk: int) -> bool:
        """Whether this process evaluates a chunk of a split."""
        return True

    def total(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        """Sums over the chunks that this process took, made those over all chunks."""
        return sums

    def all_of(self, chunks: Chunks) -> Chunks:
        """What was found of the chunks that this process took, together with what others found of theirs."""
        return chunks


@final
class Float32(Arithmetic):
    """Plain PyTorch: the task's own code on the task's own tensors."""

    def place(self, model: nn.Module) -> nn.Module:
        return model

    def loss(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return task.loss(model, batch, noise)

    def evaluate(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        return task.evaluate(model, batch, noise)


@final
class Bfloat16(Arithmetic):
    """Forward and loss under bfloat16 autocast, weights and optimizer in float32. Not exact: eight bits of mantissa.

    Equal specs still have equal outcomes, bit for bit on one kind of processor. Networks with two-dimensional
    convolutions keep images and their weights with the channels innermost, which half-precision kernels are made for.
    """

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"precision": "bfloat16"}

    def place(self, model: nn.Module) -> nn.Module:
        if any(isinstance(module, nn.Conv2d) for module in model.modules()):
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            # At the door of the model: a task's augmentation may lay its images out anew.
            model.register_forward_pre_hook(_channels_innermost)
        return model

    def loss(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        with torch.autocast(batch[0].device.type, dtype=torch.bfloat16):
            return task.loss(model, batch, noise)

    def evaluate(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        with torch.autocast(batch[0].device.type, dtype=torch.bfloat16):
            return task.evaluate(model, batch, noise)


FLOAT32 = Float32()
ARITHMETICS: Mapping[str, Arithmetic] = {"float32": FLOAT32, "bfloat16": Bfloat16()}
"""By the names in `TrialSpec.precision`."""


def _channels_innermost(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.contiguous(memory_format=torch.channels_last) if isinstance(value, Tensor) and value.dim() == 4 else value
        for value in inputs
    )
