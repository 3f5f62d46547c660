"""Full gradient: of the mean training loss over the whole training set, a function of the weights alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer

from glideslope.trials.arithmetic import Arithmetic
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.task import Part, Task, of_rows
from glideslope.trials.trial import Seeds

MOST_ROWS = 256
"""Examples that go through the model at a time: times the members of a population, they stay in the cache."""

EPOCH = 0
"""Of which epoch the augmentation is: the same at every update, so that two norms differ by their weights alone."""


def row_parts(num_samples: int) -> Iterator[tuple[int, slice]]:
    """The training set in parts of nearly equal size, numbered: no part is too small to be shared by ranks.

    >>> [(part, rows.start, rows.stop) for part, rows in row_parts(514)]
    [(0, 0, 171), (1, 171, 342), (2, 342, 514)]
    """
    count = math.ceil(num_samples / MOST_ROWS)
    for part in range(count):
        yield part, slice(part * num_samples // count, (part + 1) * num_samples // count)


def full_gradient_norm(
    task: Task, model: nn.Module, optimizer: Optimizer, train: Part, seeds: Seeds, arithmetic: Arithmetic
) -> float:
    r"""Norm of the full gradient :math:`\|g^*\|`, at the weights as they are.

    The training loss of every example counts once, each with one fixed draw of its augmentation and its noise: those of
    epoch 0, and those that evaluation draws. The model is in evaluation mode, so that nothing of it changes and no
    example's loss depends on which others it shares a part with: dropout is off, batch normalisation has its running
    statistics. Call it in that mode; the weights are left without gradients.

    Source: Li, Yumer, Ramanan, "Budgeted Training", ICLR 2020, Section 5.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight in weights:
        weight.grad = None
    num_samples = len(train[0])
    epoch = task.augmentation(generator(seeds.data, Stream.AUGMENTATION, EPOCH), num_samples)
    total = torch.zeros(())
    # cuDNN's recurrent layers know no backward pass in evaluation mode; PyTorch's own do.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        for part, rows in row_parts(num_samples):
            size = rows.stop - rows.start
            own = arithmetic.rows(size)
            fresh = task.noise(generator(seeds.noise, Stream.EVALUATION, part), size)
            noise = of_rows({name: torch.from_numpy(values) for name, values in fresh.items()}, own, size)
            mine = slice(rows.start + own.start, rows.start + own.stop)
            draws = {name: torch.from_numpy(values[mine]) for name, values in epoch.items()}
            loss = arithmetic.loss(task, model, tuple(tensor[mine] for tensor in train), draws | noise)
            loss = loss * ((own.stop - own.start) / num_samples)
            loss.backward()
            total = total.to(loss.device) + loss.detach()
    arithmetic.whole(total, optimizer)
    squares = [float(weight.grad.double().square().sum()) for weight in weights if weight.grad is not None]
    for weight in weights:
        weight.grad = None
    return math.sqrt(sum(squares))
