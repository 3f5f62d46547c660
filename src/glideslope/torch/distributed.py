"""The only file that touches torch.distributed: numbers on which all ranks must agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed


def is_distributed() -> bool:
    """Whether there is more than one rank to agree with."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def agree_on(numbers: Sequence[float]) -> list[float]:
    """The numbers of rank 0, on every rank: one small broadcast, nothing at all in a run of one process.

    Every rank must call this at the same point of its program, with equally many numbers.
    """
    if not is_distributed():
        return list(numbers)
    message = _message(numbers)
    distributed.broadcast(message, src=0)
    return [float(number) for number in message.tolist()]


def sum_of_ranks(amounts: Sequence[int]) -> list[int]:
    """Each amount summed over the ranks: one small reduction, nothing at all in a run of one process.

    Every rank must call this at the same point of its program, with equally many amounts, each below 2^53.
    """
    if not is_distributed():
        return list(amounts)
    message = _message(amounts)
    distributed.all_reduce(message)
    return [int(amount) for amount in message.tolist()]


def _message(numbers: Sequence[float]) -> torch.Tensor:
    # NCCL carries only CUDA tensors; gloo and MPI take those of the CPU.
    device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")
    return torch.tensor(numbers, dtype=torch.float64, device=device)
