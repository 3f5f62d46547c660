"""Choice: which way a task's populations are computed, if any. Found out by trying, before the first trial."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from glideslope.trials.batched.programs import PaddedProgram, Program, StackedProgram, VmapProgram
from glideslope.trials.batched.side_by_side import SideBySide, SideBySideInBfloat16
from glideslope.trials.device import exact, resident_splits
from glideslope.trials.lookup import task_splits
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.run import one_thread
from glideslope.trials.task import Column, Task

MOST_WEIGHTS = 30_000
"""Members with more weights run alone. With 26,122 (64-128-128-10) a population is 2 to 3 times as fast as loops, with
85,002 at most 1.5 times, with 301,066 no faster (`benchmarks/engine.py`), and its records come late."""
MOST_WEIGHTS_ON_CUDA = 2**22
"""The same on a GPU. Not measured: 64 members with more would take more than 6 GB."""
CUDA_WIDTH = 64
"""Members of a batched population on CUDA, always: its libraries choose kernels by shape, so that a member's last bits
depend on how many there are. Places that are not wanted are filled up."""
SEPARATE_WIDTH = 4
"""Members with kernels of their own that share a graph: as many as there are streams."""

PROBES = (73_856_093, 19_349_663, 83_492_791)
"""Seeds of models that are looked at before any trial is run: nobody's, so that a trial's own trouble stays its own."""


@cache
def choose_program(task: Task, device: str = "cpu", precision: str = "float32") -> type[Program] | None:
    """The way to compute a population of this task; None where its trials run one by one.

    The first way is taken that repeats the ordinary loss, gradient and evaluation of three models on a real batch, and
    that gives equal members equal bits wherever they stand. So a model whose code Stacked or vmap misunderstands is not
    batched, rather than trained wrongly. Convolutions fail the second: under vmap they are two to five times as fast as
    alone, but their last bits depend on the number of members. Recurrent layers are not known to vmap.

    On CUDA, where one launch of a graph beats a hundred launches of kernels, what cannot be batched runs side by side.

    Args:
        task: what is trained.
        device: "cpu" or "cuda", on which all this is tried.
        precision: of the trials; on a CPU, trials in bfloat16 run one by one.
    """
    if not _fits(task, device):
        return None
    models = [task.model(seed).to(device) for seed in PROBES]
    # As trials are run: with more threads a kernel's bits depend on how it was divided.
    with one_thread(), exact():
        for way in _candidates(models, device, precision):
            try:
                if (way.separate or _repeats(way, task, models, device)) and _is_blind(way, task, models, device):
                    return way
            # Whatever it is that goes wrong inside a user's code, under a way it was not written for: the next way.
            except Exception:
                continue
    return None


def _fits(task: Task, device: str) -> bool:
    """Whether it is worth making several models: large ones take seconds and gigabytes."""
    columns = any(isinstance(column, Column) for column in task_splits(task).train)
    if columns or task.metric.over_split is not None:
        return False
    return device == "cuda" or sum(weight.numel() for weight in task.model(PROBES[0]).parameters()) <= MOST_WEIGHTS


def _candidates(models: Sequence[nn.Module], device: str, precision: str) -> tuple[type[Program], ...]:
    num_weights = sum(weight.numel() for weight in models[0].parameters() if weight.requires_grad)
    if num_weights == 0:
        return ()
    separate: tuple[type[Program], ...] = ()
    if device == "cuda":
        separate = (SideBySide,) if precision == "float32" else (SideBySideInBfloat16,)
    most = MOST_WEIGHTS_ON_CUDA if device == "cuda" else MOST_WEIGHTS
    if precision == "float32" and num_weights <= most and _alike(models):
        return (StackedProgram, PaddedProgram, VmapProgram, *separate)
    return separate


def _alike(models: Sequence[nn.Module]) -> bool:
    """Whether models differ in their parameters and buffers alone: nothing else is stacked."""
    hidden = any(
        isinstance(value, Tensor) for model in models for part in model.modules() for value in vars(part).values()
    )
    return not hidden and len({repr(model) for model in models}) == 1


def _repeats(way: type[Program], task: Task, models: Sequence[nn.Module], device: str) -> bool:
    program = way(task, models)
    splits = resident_splits(task, device)
    train, validation = splits.train, splits.validation
    rows = torch.arange(len(models) * task.batch_size).view(len(models), -1) % len(train[0])
    batch = tuple(tensor[rows] for tensor in train)
    few = tuple(tensor[:5] for tensor in validation)
    members = range(len(models))
    draws = [_draws(task, Stream.NOISE, member, task.batch_size, len(train[0]), device) for member in members]
    looks = [_draws(task, Stream.EVALUATION, member, len(few[0]), 0, device) for member in members]
    program.template.train()
    losses, gradient = program.gradient(batch, _joined(draws))
    program.template.eval()
    with torch.no_grad():
        values = program.evaluate(few, _joined(looks))
    for member, model in enumerate(models):
        buffers = [buffer.clone() for buffer in model.buffers()]
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        loss = task.loss(model.train(), tuple(tensor[member] for tensor in batch), draws[member])
        slopes = torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, weights)])
        with torch.no_grad():
            wanted = task.evaluate(model.eval(), few, looks[member])
        pairs = [(losses[member], loss), (gradient[member][program.real], slopes)]
        pairs += [(values[name][member], wanted[name]) for name in wanted]
        pairs += zip(model.buffers(), buffers, strict=True)  # batch normalisation: its state would be lost
        if not all(_close(found, right.detach()) for found, right in pairs):
            return False
    return True


def _is_blind(way: type[Program], task: Task, models: Sequence[nn.Module], device: str) -> bool:
    """Whether a member's numbers are the same, bit for bit, at every place of a population, whoever else is in it.

    On a CPU, in one of any size: kernels may depend on addresses, which repeat after 16 members (64 bytes), and on what
    is left over at the end. On CUDA, in one of the width that is used.
    """
    one, other = models[:2]
    if device == "cuda":
        width = SEPARATE_WIDTH if way.separate else CUDA_WIDTH
        populations = [[one] * width, [one, other] * (width // 2), [other, one] * (width // 2)]
    else:
        populations = [[one], [one] * 2, [one] * 17]
    first: list[Tensor] = []
    for members in populations:
        found = _computed(way, task, members, device)
        first = first or [values[:1] for values in found]
        places = torch.tensor([member is one for member in members], device=device)
        for values, right in zip(found, first, strict=True):
            mine = values[places]
            if not bool(((mine == right) | (mine.isnan() & right.isnan())).all()):
                return False
    return True


def _computed(way: type[Program], task: Task, members: Sequence[nn.Module], device: str) -> list[Tensor]:
    """Losses, gradients and evaluations of members that see the same examples, (members, …) each."""
    splits, count = resident_splits(task, device), len(members)
    train, validation = splits.train, splits.validation
    noise = _joined([_draws(task, Stream.NOISE, 0, task.batch_size, len(train[0]), device)] * count)
    looks = _joined([_draws(task, Stream.EVALUATION, 0, len(validation[0][:64]), 0, device)] * count)
    program = way(task, members)
    program.template.train()
    batch = tuple(torch.stack([tensor[: task.batch_size]] * count) for tensor in train)
    losses, gradient = program.gradient(batch, noise)
    program.template.eval()
    with torch.no_grad():
        seen = program.evaluate(tuple(tensor[:64] for tensor in validation), looks)
    return [losses, gradient, *seen.values()]


def _draws(task: Task, stream: Stream, counter: int, rows: int, num_samples: int, device: str) -> dict[str, Tensor]:
    draws = task.noise(generator(0, stream, counter), rows)
    if num_samples:
        epoch = task.augmentation(generator(0, Stream.AUGMENTATION, counter), num_samples)
        draws = {name: values[:rows] for name, values in epoch.items()} | draws
    return {name: torch.from_numpy(values).to(device) for name, values in draws.items()}


def _joined(draws: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([member[name] for member in draws]) for name in draws[0]}


def _close(found: Tensor, right: Tensor) -> bool:
    scale = float(right.nan_to_num(0.0, 0.0, 0.0).abs().max()) if right.numel() else 0.0
    return found.shape == right.shape and torch.allclose(found, right, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)
