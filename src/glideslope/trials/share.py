"""Share: how one of several processes computes a trial that they all are at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from glideslope.torch.distributed import add_over_ranks, gather_over_ranks
from glideslope.trials.arithmetic import Arithmetic, Chunks
from glideslope.trials.task import Batch, Noise, Task


@final
class Share(Arithmetic):
    """A rank's rows of every batch; gradients and losses are added up, so that all ranks make the whole batch's update.

    Of a split it evaluates every R-th chunk: sums are added up, what a metric of the whole split needs is gathered.

    Rank r of R reads rows r n / R … (r + 1) n / R of a batch of n, rounded down, and takes the draws that belong to
    them: a draw with one entry per example is cut, any other is everybody's. Its loss counts by its share of the rows,
    so batches need not divide by the ranks. This is the batch's own loss as long as that is a mean of what each example
    gives by itself. Batch normalisation is not of that kind: on GPUs its statistics are added up over the ranks, for
    the CPU PyTorch has no way to do so.

    Args:
        inner: computes a rank's rows.
        rank, count: which of how many, 0 <= rank < count.
        device: where this rank computes.
    """

    def __init__(self, inner: Arithmetic, rank: int, count: int, device: torch.device) -> None:
        self._inner, self._rank, self._count, self._device = inner, rank, count, device
        self.shares = count

    @property
    def facts(self) -> Mapping[str, Any]:
        return {**self._inner.facts, "ranks": self._count, "device": self._device.type}

    def place(self, model: nn.Module) -> nn.Module:
        """See `Arithmetic.place`.

        Raises:
            ValueError: the model has batch normalisation, and several ranks share a batch on the CPU.
        """
        model = self._inner.place(model).to(self._device)
        if self._count == 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
            return model
        if self._device.type == "cpu":
            raise ValueError(
                f"the model has batch normalisation: {self._count} ranks on the CPU would each take the statistics of "
                "their own rows, and train something else. Run it with --ranks 1 or --executor processes, or on GPUs, "
                "where statistics are added up over the ranks."
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return,no-untyped-call]

    def rows(self, size: int) -> slice:
        """See `Arithmetic.rows`.

        Raises:
            ValueError: there are fewer examples than ranks.
        """
        if size < self._count:
            raise ValueError(
                f"{self._count} ranks cannot share a batch of {size}. Run it with --ranks {size} or fewer."
            )
        return slice(self._rank * size // self._count, (self._rank + 1) * size // self._count)

    def loss(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return self._inner.loss(task, model, *self._here(batch, noise))

    def evaluate(self, task: Task, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        return self._inner.evaluate(task, model, *self._here(batch, noise))

    def _here(self, batch: Batch, noise: Noise) -> tuple[Batch, Noise]:
        return tuple(tensor.to(self._device) for tensor in batch), {
            name: draw.to(self._device) for name, draw in noise.items()
        }

    def whole(self, loss: Tensor, optimizer: Optimizer) -> Tensor:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        # A weight that no rank's loss has reached must stay without a gradient: zeros would let its momentum run on.
        reached = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.float64)
        message = add_over_ranks(torch.cat([loss.double().reshape(1), reached.to(self._device)]))
        moving = [weight for weight, ranks in zip(weights, message[1:].tolist(), strict=True) if ranks]
        for kind in dict.fromkeys(weight.dtype for weight in moving):
            gradients = [_gradient(weight) for weight in moving if weight.dtype == kind]
            total = add_over_ranks(torch.cat([gradient.flatten() for gradient in gradients]))
            start = 0
            for gradient in gradients:
                gradient.copy_(total[start : start + gradient.numel()].view_as(gradient))
                start += gradient.numel()
        return message[0]

    def keeps(self, model: nn.Module) -> bool:
        """The first rank does, unless every rank's model remembers what it has seen of its own rows.

        Batch normalisation remembers the same on all of them.
        """
        remembering = (
            name
            for prefix, module in model.named_modules()
            if not isinstance(module, _BatchNorm)
            for name, _ in module.named_buffers(prefix, recurse=False)
        )
        return self._rank == 0 and (self._count == 1 or not set(remembering) & set(model.state_dict()))

    def takes(self, chunk: int) -> bool:
        return chunk % self._count == self._rank

    def total(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        names = sorted(sums)  # the same order on every rank
        added = add_over_ranks(torch.tensor([sums[name] for name in names], dtype=torch.float64, device=self._device))
        return dict(zip(names, added.tolist(), strict=True))

    def all_of(self, chunks: Chunks) -> Chunks:
        # Copies: pickled with a view goes the whole of what it is a view of.
        mine = {chunk: {name: value.clone() for name, value in values.items()} for chunk, values in chunks.items()}
        return {chunk: values for part in gather_over_ranks(mine) for chunk, values in part.items()}


def _gradient(weight: nn.Parameter) -> Tensor:
    """A weight's gradient; zeros, put in place, where another rank has one and this one has none."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad
