"""Memory: what fits, where a batch did not."""

from __future__ import annotations

import traceback

import torch
from torch import nn

from glideslope.trials.arithmetic import Arithmetic
from glideslope.trials.task import Batch, Noise, Task, of_rows


def explained(
    error: Exception, task: Task, model: nn.Module, batch: Batch, noise: Noise, arithmetic: Arithmetic
) -> MemoryError:
    """Where memory ran out in an update with this batch: an error that says how many examples fit."""
    if arithmetic.shares > 1:  # the others wait for this one: no time to try
        return MemoryError(
            f"a batch of {task.batch_size} examples of {task.name} does not fit into memory, shared by "
            f"{arithmetic.shares} processes. Share it between more devices, or take some with more memory."
        )
    traceback.clear_frames(error.__traceback__)  # they hold on to the tensors of the attempt
    fits = _largest(task, model, batch, noise, arithmetic)
    return MemoryError(
        f"a batch of {len(batch[0])} examples of {task.name} does not fit into memory; "
        f"{f'{fits} examples do' if fits else 'not even one does'}. Share it between several devices, "
        "--executor torchrun --ranks N, or take one with more memory."
    )


def explained_evaluation(task: Task, size: int) -> MemoryError:
    """Where memory ran out as so many examples were evaluated: an error that says what to do."""
    return MemoryError(
        f"evaluating {size} examples of {task.name} at a time does not fit into memory. Take a device with more, "
        "or a task of your own with a smaller `evaluation_batch`; what evaluation draws belongs to it."
    )


def _largest(task: Task, model: nn.Module, batch: Batch, noise: Noise, arithmetic: Arithmetic) -> int:
    """The largest of a half, a quarter, … of the batch whose gradient can be computed; 0 if none can."""
    size = len(batch[0])
    fewer = size // 2
    while fewer:
        rows = slice(0, fewer)
        part = tuple(tensor[rows] for tensor in batch)
        try:
            arithmetic.loss(task, model, part, of_rows(noise, rows, size)).backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, MemoryError) as error:
            if not is_of_memory(error):
                raise
        else:
            return fewer
        fewer //= 2
    return 0


def is_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out; on the CPU PyTorch has no class of its own for it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
