"""Stacked: one tensor per member of a population, kept in one block. Dense models and their losses run on it as is.

A task's `loss` and a model's `forward` are written for one trial. Called with `Stacked` weights and batches they
compute all members at once: PyTorch hands every function it is asked for to `Stacked.__torch_function__`, which knows
what each means with one more axis in front. What it does not know raises `Unstackable`, and the caller takes
`torch.vmap` instead. This is vmap for the operations that dense families use. Measured with 32 members on one Zen 3
core, forward and backward, per member and update: cross-entropy of (100, 10) 5 µs against 37 µs under vmap, binary
cross-entropy of (50, 64) 14 µs against 96 µs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from glideslope.trials.batched.kernels import binary_cross_entropy, cross_entropy


class Unstackable(TypeError):  # noqa: N818 - it names the fact
    """An operation whose meaning for stacked tensors is not written down here; `torch.vmap` may know it."""


class Stacked:
    """The tensors of all members, (members, …), which behaves like the tensor of one, (…).

    Args:
        data: (members, …).
    """

    __slots__ = ("data",)

    def __init__(self, data: Tensor) -> None:
        self.data = data

    @property
    def shape(self) -> torch.Size:
        """Of one member."""
        return self.data.shape[1:]

    @property
    def ndim(self) -> int:
        return self.data.ndim - 1

    @property
    def dtype(self) -> torch.dtype:
        return self.data.dtype

    @property
    def device(self) -> torch.device:
        return self.data.device

    def __len__(self) -> int:
        return self.data.shape[1]

    def __getitem__(self, index: Any) -> Stacked:
        if isinstance(index, Stacked) and index.ndim == 1 and index.dtype == torch.int64:
            return Stacked(self.data[torch.arange(len(self.data), device=self.device)[:, None], index.data])
        entries = index if isinstance(index, tuple) else (index,)
        if not all(isinstance(entry, (int, slice)) or entry is None for entry in entries):
            raise Unstackable(f"index {index!r}")
        return Stacked(self.data[(slice(None), *entries)])

    def __getattr__(self, name: str) -> Any:
        rule = _RULES.get(name)
        if rule is None:
            raise Unstackable(f"tensor.{name}")
        return lambda *args, **kwargs: rule(self, *args, **kwargs)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        rule = _FUNCTIONS.get(function)
        if rule is None:  # torch.exp, functional.relu and Tensor.exp are found by name
            rule = _RULES.get(getattr(function, "__name__", ""))
        if rule is None:
            raise Unstackable(getattr(function, "__name__", repr(function)))
        return rule(*args, **(kwargs or {}))

    def __add__(self, other: Any) -> Stacked:
        return _add(self, other)

    def __radd__(self, other: Any) -> Stacked:
        return _add(other, self)

    def __sub__(self, other: Any) -> Stacked:
        return _sub(self, other)

    def __rsub__(self, other: Any) -> Stacked:
        return _sub(other, self)

    def __mul__(self, other: Any) -> Stacked:
        return _mul(self, other)

    def __rmul__(self, other: Any) -> Stacked:
        return _mul(other, self)

    def __truediv__(self, other: Any) -> Stacked:
        return _div(self, other)

    def __rtruediv__(self, other: Any) -> Stacked:
        return _div(other, self)

    def __pow__(self, exponent: Any) -> Stacked:
        return _pow(self, exponent)

    def __neg__(self) -> Stacked:
        return Stacked(-self.data)

    def __eq__(self, other: Any) -> Stacked:  # type: ignore[override]
        return _eq(self, other)

    def __ne__(self, other: Any) -> Stacked:  # type: ignore[override]
        return _ne(self, other)

    __hash__ = None  # type: ignore[assignment]


def members(value: Any, count: int) -> Tensor:
    """(members, …) of a stacked value, or of one that all `count` members share."""
    return value.data if isinstance(value, Stacked) else value.expand(count, *value.shape)


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Stacked]:
    def rule(value: Stacked, inplace: bool = False) -> Stacked:
        return Stacked(function(value.data))

    return rule


def _elementwise(function: Callable[..., Tensor]) -> Callable[[Any, Any], Stacked]:
    """Broadcasting aligns the axes of one member, so missing ones go behind the members' axis."""

    def rule(left: Any, right: Any) -> Stacked:
        ndim = max(value.ndim for value in (left, right) if isinstance(value, (Stacked, Tensor)))
        return Stacked(function(_padded(left, ndim), _padded(right, ndim)))

    return rule


def _padded(value: Any, ndim: int) -> Any:
    if not isinstance(value, Stacked):
        return value
    missing = ndim - value.ndim
    return value.data[(slice(None), *[None] * missing)] if missing else value.data


def _shifted(dim: int, value: Stacked) -> int:
    """An axis of one member, as an axis of all."""
    if not -value.ndim <= dim < value.ndim:
        raise IndexError(f"axis {dim} of a tensor with {value.ndim} axes")
    return dim + 1 if dim >= 0 else dim


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Stacked]:
    def rule(value: Stacked, dim: int | None = None, keepdim: bool = False) -> Stacked:
        if dim is None:
            if keepdim:
                raise Unstackable("keepdim over all axes")
            return Stacked(function(value.data.flatten(1), 1) if value.ndim else value.data)
        if not isinstance(dim, int):
            raise Unstackable(f"reduction over {dim!r}")
        return Stacked(function(value.data, _shifted(dim, value), keepdim))

    return rule


def _argmax(value: Stacked, dim: int) -> Stacked:
    # Not argmax, which takes seven times as long along an axis with strides.
    return Stacked(value.data.max(_shifted(dim, value)).indices)


def _chunk(value: Stacked, chunks: int, dim: int = 0) -> tuple[Stacked, ...]:
    return tuple(Stacked(part) for part in value.data.chunk(chunks, _shifted(dim, value)))


def _flatten(value: Stacked, start_dim: int = 0, end_dim: int = -1) -> Stacked:
    return Stacked(value.data.flatten(_shifted(start_dim, value), _shifted(end_dim, value)))


def _to(value: Stacked, dtype: torch.dtype) -> Stacked:
    if not isinstance(dtype, torch.dtype):
        raise Unstackable(f"tensor.to({dtype!r})")
    return Stacked(value.data.to(dtype))


def _cross_entropy(
    logits: Any, labels: Any, *, reduction: str = "mean", label_smoothing: float = 0.0, **options: Any
) -> Stacked:
    integers = isinstance(labels, (Stacked, Tensor)) and not labels.dtype.is_floating_point
    plain = all(value is None or (name, value) == ("ignore_index", -100) for name, value in _set(options).items())
    if not (plain and integers and isinstance(logits, Stacked) and logits.ndim == 2):
        raise Unstackable("cross_entropy with these options")
    return _reduced(cross_entropy(logits.data, members(labels, len(logits.data)), label_smoothing), reduction)


def _binary_cross_entropy(logits: Any, targets: Any, *, reduction: str = "mean", **options: Any) -> Stacked:
    if not (isinstance(logits, Stacked) and logits.shape == targets.shape and not _set(options)):
        raise Unstackable("binary_cross_entropy_with_logits with these options")
    if isinstance(targets, Stacked) and targets.data.requires_grad:
        raise Unstackable("binary_cross_entropy_with_logits with targets that depend on weights")
    return _reduced(binary_cross_entropy(logits.data, members(targets, len(logits.data))), reduction)


def _mse_loss(values: Any, targets: Any, *, reduction: str = "mean", **options: Any) -> Stacked:
    if values.shape != targets.shape or _set(options):
        raise Unstackable("mse_loss with these options")
    difference = _sub(values, targets)
    return _reduced(difference.data.square(), reduction)


def _set(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are given and say something; size_average and reduce are deprecated and None, smoothing is 0."""
    return {name: value for name, value in options.items() if value is not None and value != 0.0}


def _reduced(values: Tensor, reduction: str) -> Stacked:
    if reduction == "none":
        return Stacked(values)
    flat = values.flatten(1)
    return Stacked(flat.sum(1) if reduction == "sum" else flat.mean(1))


_add, _sub, _mul, _div = (_elementwise(function) for function in (torch.add, torch.sub, torch.mul, torch.div))
_eq, _ne, _pow = (_elementwise(function) for function in (torch.eq, torch.ne, torch.pow))

_RULES: dict[str, Callable[..., Any]] = {
    "argmax": _argmax,
    "chunk": _chunk,
    "flatten": _flatten,
    "to": _to,
    "sum": _reduction(torch.sum),
    "mean": _reduction(torch.mean),
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "eq": _eq,
    "ne": _ne,
    **{
        function.__name__: _unary(function)
        for function in (
            torch.relu,
            torch.tanh,
            torch.sigmoid,
            torch.exp,
            torch.log,
            torch.square,
            torch.sqrt,
            torch.abs,
            torch.neg,
            functional.silu,
            functional.softplus,
        )
    },
}
"""By the name of the method or function: they take what PyTorch's take, and refuse what they do not know."""

_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    functional.cross_entropy: _cross_entropy,
    functional.binary_cross_entropy_with_logits: _binary_cross_entropy,
    functional.mse_loss: _mse_loss,
    Tensor.__add__: _add,
    Tensor.__radd__: lambda left, right: _add(right, left),
    Tensor.__sub__: _sub,
    Tensor.__rsub__: lambda left, right: _sub(right, left),
    Tensor.__mul__: _mul,
    Tensor.__rmul__: lambda left, right: _mul(right, left),
    Tensor.__truediv__: _div,
    Tensor.__rtruediv__: lambda left, right: _div(right, left),
    Tensor.__eq__: _eq,
    Tensor.__ne__: _ne,
}
