"""Choice: which way a task's populations are computed, if any. Found out by trying, before the first trial."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

from glideslope.trials.batched.programs import PaddedProgram, Program, StackedProgram, VmapProgram
from glideslope.trials.lookup import task_splits
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.run import one_thread
from glideslope.trials.task import Task

MOST_WEIGHTS = 30_000
"""Members with more weights run alone. With 26,122 (64-128-128-10) a population is 2 to 3 times as fast as loops, with
85,002 at most 1.5 times, with 301,066 no faster (`benchmarks/engine.py`), and its records come late."""

PROBES = (73_856_093, 19_349_663, 83_492_791)
"""Seeds of models that are looked at before any trial is run: nobody's, so that a trial's own trouble stays its own."""


@cache
def choose_program(task: Task) -> type[Program] | None:
    """The way to compute a population of this task; None where its trials run one by one.

    The first way is taken that repeats the ordinary loss, gradient and evaluation of three models on a real batch, and
    that gives equal members equal bits wherever they stand. So a model whose code Stacked or vmap misunderstands is not
    batched, rather than trained wrongly. Convolutions fail the second: under vmap they are two to five times as fast as
    alone, but their last bits depend on the number of members. Recurrent layers are not known to vmap.
    """
    models = [task.model(seed) for seed in PROBES]
    model = models[0]
    num_weights = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if not (0 < num_weights <= MOST_WEIGHTS and _alike(models)):
        return None
    # As trials are run: with more threads a kernel's bits depend on how it was divided.
    with one_thread():
        for way in (StackedProgram, PaddedProgram, VmapProgram):
            try:
                if _repeats(way, task, models) and _is_blind(way, task, models[0]):
                    return way
            # Whatever it is that goes wrong inside a user's code, under a way it was not written for: the next way.
            except Exception:
                continue
    return None


def _alike(models: Sequence[nn.Module]) -> bool:
    """Whether models differ in their parameters and buffers alone: nothing else is stacked."""
    hidden = any(
        isinstance(value, Tensor) for model in models for part in model.modules() for value in vars(part).values()
    )
    return not hidden and len({repr(model) for model in models}) == 1


def _repeats(way: type[Program], task: Task, models: Sequence[nn.Module]) -> bool:
    program = way(task, models)
    train, validation = task_splits(task).train, task_splits(task).validation
    rows = torch.arange(len(models) * task.batch_size).view(len(models), -1) % len(train[0])
    batch = tuple(tensor[rows] for tensor in train)
    few = tuple(tensor[:5] for tensor in validation)
    draws = [_draws(task, Stream.NOISE, member, task.batch_size, len(train[0])) for member in range(len(models))]
    looks = [_draws(task, Stream.EVALUATION, member, len(few[0]), 0) for member in range(len(models))]
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


def _is_blind(way: type[Program], task: Task, model: nn.Module) -> bool:
    """Whether a member's numbers are the same, bit for bit, at every place of a population, and in one of any size.

    Kernels may depend on addresses, which repeat after 16 members (64 bytes), and on what is left over at the end.
    """
    train, validation = task_splits(task).train, task_splits(task).validation
    noise = _joined([_draws(task, Stream.NOISE, 0, task.batch_size, len(train[0]))])
    looks = _joined([_draws(task, Stream.EVALUATION, 0, len(validation[0][:64]), 0)])
    found: list[Tensor] = []
    for count in (1, 2, 17):

        def repeated(tensor: Tensor, count: int = count) -> Tensor:
            return tensor.expand(count, *tensor.shape[1:]).contiguous()

        program = way(task, [model] * count)
        program.template.train()
        batch = tuple(repeated(tensor[None, : task.batch_size]) for tensor in train)
        found += program.gradient(batch, {name: repeated(values) for name, values in noise.items()})
        program.template.eval()
        with torch.no_grad():
            few = tuple(tensor[:64] for tensor in validation)
            found += program.evaluate(few, {name: repeated(values) for name, values in looks.items()}).values()
    kinds = len(found) // 3
    alone = [*found[:kinds]] * 3
    pairs = zip(found, alone, strict=True)
    return all(bool(((values == first) | (values.isnan() & first.isnan())).all()) for values, first in pairs)


def _draws(task: Task, stream: Stream, counter: int, rows: int, num_samples: int) -> dict[str, Tensor]:
    draws = task.noise(generator(0, stream, counter), rows)
    if num_samples:
        epoch = task.augmentation(generator(0, Stream.AUGMENTATION, counter), num_samples)
        draws = {name: values[:rows] for name, values in epoch.items()} | draws
    return {name: torch.from_numpy(values) for name, values in draws.items()}


def _joined(draws: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([member[name] for member in draws]) for name in draws[0]}


def _close(found: Tensor, right: Tensor) -> bool:
    scale = float(right.nan_to_num(0.0, 0.0, 0.0).abs().max()) if right.numel() else 0.0
    return found.shape == right.shape and torch.allclose(found, right, rtol=1e-3, atol=1e-4 * scale, equal_nan=True)
