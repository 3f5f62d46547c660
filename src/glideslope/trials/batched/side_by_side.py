"""Side by side: members with modules of their own, one after the other or on streams of a GPU. For any model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from glideslope.trials.arithmetic import ARITHMETICS, Arithmetic
from glideslope.trials.batched.programs import Program
from glideslope.trials.task import Batch, Noise, Task

STREAMS = 4
"""Members whose kernels may run on a GPU at the same time."""


class SideBySide(Program):
    """The task's own code on each member's own module, whose parameters are views into its row of the block.

    Nothing is batched, so nothing has to be known of the model: convolutions, recurrent layers, batch normalisation
    with statistics of each member's own. On a CPU this gains nothing over one trial after the other. On a GPU it is
    what makes one graph of several members' updates (`Replay`).

    Where kernels want a weight's channels innermost, so it lies in the block.
    """

    method = "side by side"
    separate = True
    arithmetic: ClassVar[Arithmetic] = ARITHMETICS["float32"]

    def __init__(self, task: Task, models: Sequence[nn.Module]) -> None:
        # Not the base class's: it takes buffers for constants.
        self.task = task
        self.models = [self.arithmetic.place(copy.deepcopy(model)) for model in models]
        self.template = nn.ModuleList(self.models)
        block = torch.stack([_row([(weight, weight) for weight in _trained(model)]) for model in self.models])
        self.real = torch.ones(block.shape[1], dtype=torch.bool, device=block.device)
        self.bind(torch.arange(len(models)), block)

    def bind(self, members: Tensor, weights: Tensor) -> None:
        self.weights = weights
        self.gradients = torch.empty_like(weights)
        self.bound = [self.models[member] for member in members.tolist()]
        for model, row in zip(self.bound, weights, strict=True):
            trained = _trained(model)
            parts = row.split([weight.numel() for weight in trained])
            for weight, part in zip(trained, parts, strict=True):
                weight.data = _in_layout(part, weight)
        count = min(STREAMS, len(self.bound)) if weights.device.type == "cuda" else 0
        self.streams: list[Any] = [torch.cuda.Stream() for _ in range(count)]  # type: ignore[no-untyped-call]

    def losses(self, batch: Batch, noise: Noise) -> Tensor:
        return torch.stack([self._loss(row, batch, noise) for row in range(len(self.bound))])

    def gradient(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        losses: list[Tensor] = []
        for row, model in enumerate(self.bound):
            with self._stream(row):
                weights = _trained(model)
                loss = self._loss(row, batch, noise)
                slopes = torch.autograd.grad(loss, weights)
                _row([*zip(slopes, weights, strict=True)], out=self.gradients[row])
                losses.append(loss.detach())
        for stream in self.streams:
            torch.cuda.current_stream().wait_stream(stream)
        return torch.stack(losses), self.gradients

    def evaluate(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        seen = [
            self.arithmetic.evaluate(self.task, model, batch, {name: draw[row] for name, draw in noise.items()})
            for row, model in enumerate(self.bound)
        ]
        return {name: torch.stack([values[name] for values in seen]) for name in seen[0]}

    def _loss(self, row: int, batch: Batch, noise: Noise) -> Tensor:
        mine = tuple(tensor[row] for tensor in batch)
        return self.arithmetic.loss(self.task, self.bound[row], mine, {name: draw[row] for name, draw in noise.items()})

    @contextmanager
    def _stream(self, row: int) -> Iterator[None]:
        """A member's kernels on a stream of its own, if there are streams; `gradient` waits for all of them."""
        if not self.streams:
            yield
            return
        stream = self.streams[row % len(self.streams)]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield


@final
class SideBySideInBfloat16(SideBySide):
    """The same with forward pass and loss under autocast."""

    arithmetic = ARITHMETICS["bfloat16"]


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _innermost(weight: Tensor) -> bool:
    """Whether a weight lies with its channels innermost: (outputs, height, width, inputs)."""
    return weight.dim() == 4 and not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)


def _row(tensors: Sequence[tuple[Tensor, Tensor]], out: Tensor | None = None) -> Tensor:
    """Tensors in one row, each as the weight beside it lies in memory: one kernel, however many they are."""
    flat = [
        (tensor.permute(0, 2, 3, 1) if _innermost(weight) else tensor).detach().reshape(-1)
        for tensor, weight in tensors
    ]
    return torch.cat(flat, out=out)


def _in_layout(part: Tensor, weight: Tensor) -> Tensor:
    """A part of a row, with the shape of a weight, and its layout."""
    if not _innermost(weight):
        return part.view(weight.shape)
    outputs, inputs, height, width = weight.shape
    return part.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
