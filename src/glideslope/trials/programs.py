"""Programs: how the losses of all members of a population are computed, and by which of two ways."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from glideslope.trials.dense import DenseLayer, DenseStack, dense_parts
from glideslope.trials.lookup import task_splits
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.run import one_thread
from glideslope.trials.stacked import Stacked, Unstackable
from glideslope.trials.task import Batch, Noise, Task

MOST_WEIGHTS = 30_000
"""Members with more weights run alone; see `choose_program`."""
LONERS = (nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase)
"""Layers for which batching loses on a CPU; see `choose_program`."""


WIDTH = 16
PROBES = (73_856_093, 19_349_663, 83_492_791)
"""Seeds of models that are looked at before any trial is run: nobody's, so that a trial's own trouble stays its own."""


class Program(ABC):
    """Losses of all members of a population, as functions of one block of weights.

    The weights lie in `weights`, (members, weights), one row a member, in the order of `model.parameters()`. Whoever
    trains changes that block in place.

    Args:
        task: what is trained.
        models: one per member, alike but for their numbers.

    Attributes:
        weights: (members, weights).
        real: (weights,), False where the block is only filled up.
        template: the model that is called, in training or evaluation mode.
    """

    method: ClassVar[str]

    def __init__(self, task: Task, models: Sequence[nn.Module]) -> None:
        self.task = task
        self.template = copy.deepcopy(models[0])
        columns: list[dict[str, Tensor]] = []
        constants: list[dict[str, Tensor]] = []
        for model in models:
            named = dict(model.named_parameters())
            columns.append({name: self._laid_out(weight) for name, weight in named.items() if weight.requires_grad})
            fixed = {name: weight.detach() for name, weight in named.items() if not weight.requires_grad}
            constants.append({**fixed, **dict(model.named_buffers())})
        weights = [weight for weight in models[0].parameters() if weight.requires_grad]
        self.real = torch.cat([self._laid_out(torch.ones_like(weight)).flatten() for weight in weights]) > 0
        self.shapes = {name: tensor.shape for name, tensor in columns[0].items()}
        self.all_constants = {name: torch.stack([member[name] for member in constants]) for name in constants[0]}
        block = torch.stack([torch.cat([tensor.flatten() for tensor in member.values()]) for member in columns])
        self.bind(torch.arange(len(models)), block)

    @staticmethod
    def _laid_out(weight: Tensor) -> Tensor:
        """A parameter, as it lies in the block."""
        return weight.detach()

    def bind(self, members: Tensor, weights: Tensor) -> None:
        """Go on with these members, in this order, and these weights of theirs.

        Args:
            members: positions in the `models` this was made with.
            weights: (members, weights).
        """
        self.constants = {name: values[members] for name, values in self.all_constants.items()}
        self.weights = weights

    def _views(self, block: Tensor) -> dict[str, Tensor]:
        """The block (members, weights) by parameter, (members, …)."""
        parts = torch.split(block, [shape.numel() for shape in self.shapes.values()], 1)
        return {
            name: part.view(len(part), *shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    @abstractmethod
    def losses(self, batch: Batch, noise: Noise) -> Tensor:
        """(members,), differentiable; batch and noise are (members, rows, …)."""

    @abstractmethod
    def gradient(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        """Losses, (members,), and their gradient, (members, weights), which the caller may overwrite.

        One backward pass for all members: no loss knows another member's weights.
        """

    @abstractmethod
    def evaluate(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Values of every example, (members, rows), of a batch (rows, …) that all members share.

        Args:
            batch: tensors (rows, …).
            noise: tensors (members, rows, …).
        """


class StackedProgram(Program):
    """The task's own code, run on `Stacked` tensors: the fast way, for models whose weights are in dense layers."""

    method = "baddbmm"

    def bind(self, members: Tensor, weights: Tensor) -> None:
        super().bind(members, weights)
        self.gradients = torch.empty_like(weights)
        self.ones = torch.ones(len(weights), dtype=weights.dtype)
        values, slopes = self._views(self.weights), self._views(self.gradients)
        self.stacks: list[DenseStack] = []
        for path, layers in self.parts:
            stack = DenseStack(
                [
                    DenseLayer(
                        values[f"{prefix}weight"],
                        values.get(f"{prefix}bias"),
                        slopes[f"{prefix}weight"],
                        slopes.get(f"{prefix}bias"),
                        rectified,
                    )
                    for prefix, rectified in layers
                ],
                self.outputs[path],
            )
            self.stacks.append(stack)
            if path:
                self.template.set_submodule(path, stack)
            else:
                self.template = stack
        for name, constant in self.constants.items():
            path, _, attribute = name.rpartition(".")
            buffers: dict[str, Any] = self.template.get_submodule(path)._buffers
            buffers[attribute] = Stacked(constant)

    def __init__(self, task: Task, models: Sequence[nn.Module]) -> None:
        self.parts = [
            (path, [(f"{name}." if name else "", rectified) for name, _, rectified in layers])
            for path, layers in dense_parts(models[0])
        ]
        self.outputs = {path: layers[-1][1].out_features for path, layers in dense_parts(models[0])}
        dense = [
            id(weight)
            for _, layers in dense_parts(models[0])
            for _, layer, _ in layers
            for weight in layer.parameters()
        ]
        if sorted(dense) != sorted(id(weight) for weight in models[0].parameters() if weight.requires_grad):
            raise Unstackable("weights outside of dense layers, frozen or shared between layers")
        super().__init__(task, models)

    def losses(self, batch: Batch, noise: Noise) -> Tensor:
        losses: Any = self.task.loss(self.template, tuple(map(Stacked, batch)), _stacked(noise))  # type: ignore[arg-type]
        if not isinstance(losses, Stacked):
            raise Unstackable(f"a loss of type {type(losses).__name__}")
        return losses.data

    def gradient(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        losses = self.losses(batch, noise)
        if not all(stack.is_open for stack in self.stacks):
            raise Unstackable("dense layers that are not used")
        # Not of a sum: where one loss is NaN, the others' gradients are none of its business.
        torch.autograd.backward(losses, self.ones)
        return losses.detach(), self.gradients

    def evaluate(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        values: Mapping[str, Any] = self.task.evaluate(self.template, batch, _stacked(noise))
        return {name: value.data for name, value in values.items()}


class PaddedProgram(StackedProgram):
    """The same with every width padded with zeros, which stay zeros, to a multiple of 16.

    For widths like 7 and 17, MKL picks its code by the address of a matrix, and a member's last bits depend on its
    place in the population. Padded, all members lie at multiples of 64 bytes.
    """

    @staticmethod
    def _laid_out(weight: Tensor) -> Tensor:
        missing = [-size % WIDTH for size in reversed(weight.shape)]
        return functional.pad(weight.detach(), [side for size in missing for side in (0, size)])


def _stacked(noise: Noise) -> Any:
    return {name: Stacked(values) for name, values in noise.items()}


class VmapProgram(Program):
    """The task's own code under `torch.vmap`: the general way, for any model without state that changes in training."""

    method = "vmap"

    def bind(self, members: Tensor, weights: Tensor) -> None:
        super().bind(members, weights)
        # Views on the block that autograd takes for variables of their own.
        self.leaves = {name: view.detach().requires_grad_() for name, view in self._views(weights).items()}

    def losses(self, batch: Batch, noise: Noise) -> Tensor:
        losses: Tensor = torch.vmap(self._loss)(self.leaves, self.constants, batch, dict(noise))
        return losses

    def gradient(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        # Autograd outside of vmap, and not vmap(grad): then only the forward pass pays vmap's price in Python.
        losses = self.losses(batch, noise)
        gradients = torch.autograd.grad(losses, list(self.leaves.values()), torch.ones_like(losses))
        return losses.detach(), torch.cat([gradient.reshape(len(losses), -1) for gradient in gradients], 1)

    def _loss(self, weights: dict[str, Tensor], constants: dict[str, Tensor], batch: Batch, noise: Noise) -> Tensor:
        loss: Tensor = functional_call(_Loss(self.task, self.template), _named(weights, constants), (batch, noise))
        return loss

    def evaluate(self, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        def one(weights: dict[str, Tensor], constants: dict[str, Tensor], noise: Noise) -> dict[str, Tensor]:
            program = _Values(self.task, self.template)
            values: dict[str, Tensor] = functional_call(program, _named(weights, constants), (batch, noise))
            return values

        values: dict[str, Tensor] = torch.vmap(one)(self.leaves, self.constants, dict(noise))
        return values


def _named(weights: dict[str, Tensor], constants: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": values for name, values in {**weights, **constants}.items()}


class _Loss(nn.Module):
    """The task's loss as a module, so that `functional_call` reaches a model whichever way the task calls it."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Batch, noise: Noise) -> Tensor:
        return self.task.loss(self.model, batch, noise)


class _Values(_Loss):
    def forward(self, batch: Batch, noise: Noise) -> Any:
        return self.task.evaluate(self.model, batch, noise)


@cache
def choose_program(task: Task) -> type[Program] | None:
    """The way to compute a population of this task; None where its trials run one by one.

    The first way is taken that repeats the ordinary loss, gradient and evaluation of three models on a real batch, and
    that gives equal members equal bits wherever they stand. So a model whose code Stacked or vmap misunderstands is not
    batched, rather than trained wrongly.

    The limits are measured, by `benchmarks/engine.py`.
    """
    models = [task.model(seed) for seed in PROBES]
    model = models[0]
    if any(isinstance(module, LONERS) for module in model.modules()) or not _alike(models):
        return None
    if not 0 < sum(weight.numel() for weight in model.parameters() if weight.requires_grad) <= MOST_WEIGHTS:
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


def member_bytes(program: Program, batch: Batch, noise: Noise) -> int:
    """Memory of one member, measured: weights, what the optimizer keeps, and what backward needs from forward."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        program.losses(batch, noise)
    block = program.weights
    return sum(saved.values()) // len(block) + 6 * block.element_size() * block.shape[1]
