"""The only file that touches torch.distributed: what all ranks must agree on, add up, or gather."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed

Value = TypeVar("Value")


class RankLost(RuntimeError):  # noqa: N818 - named as the event that it is
    """A rank of the same job has ended or cannot be reached: there is no going on for the others."""


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RankLost(f"a rank of this job is gone, or out of reach: {error}") from error


@contextmanager
def joined_ranks(backend: str) -> Iterator[tuple[int, int]]:
    """Meet the other ranks of a job that `torchrun` has started, and part from them.

    Whoever leaves by an error leaves at once: to part in order, all must be there.

    Args:
        backend: "gloo" for tensors of the CPU, "nccl" for those of GPUs.

    Yields:
        This process's rank, and how many there are.

    Raises:
        RankLost: they do not all come.
    """
    with _reached():
        distributed.init_process_group(backend)
    yield distributed.get_rank(), distributed.get_world_size()
    sum_of_ranks([0])  # nobody goes while another still waits for a message
    distributed.destroy_process_group()


def add_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over the ranks, in place; every rank gets the same bits.

    Every rank must call this at the same point of its program, with a tensor of equal shape and type.

    Raises:
        RankLost: one of them does not come.
    """
    with _reached():
        distributed.all_reduce(tensor)
    return tensor


def gather_over_ranks(value: Value) -> list[Value]:
    """Every rank's value, in the order of the ranks, on every rank; values are pickled.

    Every rank must call this at the same point of its program.

    Raises:
        RankLost: one of them does not come.
    """
    values = [value] * distributed.get_world_size()
    with _reached():
        distributed.all_gather_object(values, value)
    return values


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
    with _reached():
        distributed.broadcast(message, src=0)
    return [float(number) for number in message.tolist()]


def sum_of_ranks(amounts: Sequence[int]) -> list[int]:
    """Each amount summed over the ranks: one small reduction, nothing at all in a run of one process.

    Every rank must call this at the same point of its program, with equally many amounts, each below 2^53.
    """
    if not is_distributed():
        return list(amounts)
    return [int(amount) for amount in add_over_ranks(_message(amounts)).tolist()]


def _message(numbers: Sequence[float]) -> torch.Tensor:
    # NCCL carries only CUDA tensors; gloo and MPI take those of the CPU.
    device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")
    return torch.tensor(numbers, dtype=torch.float64, device=device)
