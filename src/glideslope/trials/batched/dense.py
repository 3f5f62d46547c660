"""Dense stacks: `nn.Sequential` of linear layers and ReLUs for all members of a population at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from glideslope.trials.batched.stacked import Stacked, Unstackable, members

NARROW = 16
"""Products with fewer columns than this run transposed: (100, 32) @ (32, 10) takes 5 µs a member, its transpose 1.8."""


@dataclass(frozen=True)
class DenseLayer:
    """One linear layer: views on the block of weights and on the block of gradients.

    Args:
        weight: (members, outputs, inputs).
        bias: (members, outputs), or None.
        rectified: whether a ReLU follows.
    """

    weight: Tensor
    bias: Tensor | None
    weight_gradient: Tensor
    bias_gradient: Tensor | None
    rectified: bool

    def __call__(self, inputs: Tensor) -> Tensor:
        """(members, rows, inputs) → (members, rows, outputs)."""
        if self.weight.shape[1] < NARROW:
            outputs = _product(self.weight, inputs.mT, None if self.bias is None else self.bias[:, :, None]).mT
        else:
            outputs = _product(inputs, self.weight.mT, None if self.bias is None else self.bias[:, None, :])
        return outputs.relu_() if self.rectified else outputs


def _product(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    # In float32 both give each member the same bits whatever the number and order of members, also for one alone.
    return torch.bmm(left, right) if bias is None else torch.baddbmm(bias, left, right)


class DenseStack(nn.Module):
    """Stands in for a sequence of linear layers and ReLUs, in a model that is called with `Stacked` tensors.

    One node of the autograd graph for all layers, with backward written by hand, which writes gradients where they
    belong. Measured for 64-20-6-20-64 and 2 members: half the price in Python of one node per layer.

    Args:
        layers: in order; widths may be padded with zeros.
        outputs: width of the last layer without padding.
    """

    def __init__(self, layers: Sequence[DenseLayer], outputs: int) -> None:
        super().__init__()
        self.layers = layers
        self.outputs = outputs
        # Something for autograd to differentiate: gradients of weights do not pass through it.
        self.anchor = torch.zeros((), requires_grad=True, device=layers[0].weight.device)
        self.is_open = False

    def forward(self, inputs: Any) -> Stacked:
        """(members, rows, inputs) → (members, rows, outputs), as `Stacked`; a plain tensor is shared by all members."""
        if inputs.ndim != 2:
            raise Unstackable(f"dense layers on {inputs.ndim} axes")
        if torch.is_grad_enabled():
            if self.is_open:
                raise Unstackable("dense layers that are used twice")
            self.is_open = True
        weight = self.layers[0].weight
        rows = members(inputs, len(weight))
        if missing := weight.shape[2] - rows.shape[2]:
            rows = functional.pad(rows, (0, missing))
        outputs = cast(Tensor, _Dense.apply(rows, self.anchor, self))  # type: ignore[no-untyped-call]
        return Stacked(outputs if outputs.shape[2] == self.outputs else outputs[..., : self.outputs])


class _Dense(Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, anchor: Tensor, stack: DenseStack) -> Tensor:
        values = [inputs]
        for layer in stack.layers:
            values.append(layer(values[-1]))
        ctx.stack = stack
        last = stack.layers[-1].rectified
        ctx.save_for_backward(*(values if last else values[:-1]))
        return values[-1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        values = ctx.saved_tensors
        layers = ctx.stack.layers
        for position in reversed(range(len(layers))):
            layer = layers[position]
            if layer.rectified:
                # In place, but for the gradient that came from outside.
                into = torch.empty_like(gradient) if position == len(layers) - 1 else gradient
                torch.ops.aten.threshold_backward.grad_input(gradient, values[position + 1], 0, grad_input=into)
                gradient = into
            # Not with `out=`: into a view, PyTorch computes member by member, which takes twice as long.
            layer.weight_gradient.copy_(torch.bmm(gradient.mT, values[position]))
            if layer.bias_gradient is not None:
                torch.sum(gradient, 1, out=layer.bias_gradient)
            if position or ctx.needs_input_grad[0]:
                gradient = torch.bmm(gradient, layer.weight)
        ctx.stack.is_open = False
        return gradient if ctx.needs_input_grad[0] else None, None, None


def dense_parts(model: nn.Module) -> Iterator[tuple[str, list[tuple[str, nn.Linear, bool]]]]:
    """The largest parts of a model that a `DenseStack` can stand in for.

    Yields:
        Path of the part, "" for the model itself, and its layers: path, the layer, whether a ReLU follows.
    """

    def search(path: str, module: nn.Module) -> Iterator[tuple[str, list[tuple[str, nn.Linear, bool]]]]:
        if type(module) is nn.Linear:
            yield path, [(path, module, False)]
        elif type(module) is nn.Sequential and (layers := _layers(path, module)):
            yield path, layers
        else:
            for name, child in module.named_children():
                yield from search(f"{path}.{name}" if path else name, child)

    return search("", model)


def _layers(path: str, sequence: nn.Sequential) -> list[tuple[str, nn.Linear, bool]]:
    """The linear layers of a sequence that starts with one and has nothing else but single ReLUs between; or none."""
    prefix = f"{path}." if path else ""
    named = [(f"{prefix}{name}", module) for name, module in sequence.named_children()]
    kinds = [type(module) for _, module in named]
    if not kinds or kinds[0] is not nn.Linear or not set(kinds) <= {nn.Linear, nn.ReLU}:
        return []
    if (nn.ReLU, nn.ReLU) in pairwise(kinds):
        return []
    after = [*kinds[1:], None]
    return [
        (name, module, following is nn.ReLU)
        for (name, module), following in zip(named, after, strict=True)
        if isinstance(module, nn.Linear)
    ]
