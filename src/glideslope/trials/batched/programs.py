"""Programs: the losses of all members of a population, and their gradient, as functions of one block of weights."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from glideslope.trials.batched.dense import DenseLayer, DenseStack, dense_parts
from glideslope.trials.batched.stacked import Stacked, Unstackable
from glideslope.trials.task import Batch, Noise, Task

WIDTH = 16
"""Padded widths are multiples of this: 64 bytes in single precision."""


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
    separate: ClassVar[bool] = False
    """Whether every member has kernels and a module of its own: its bits depend on nobody, its buffers may change."""

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
        self.ones = torch.ones(len(weights), dtype=weights.dtype, device=weights.device)
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
    """The same with every width padded with zeros, which stay zeros, to multiples of `WIDTH`.

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
