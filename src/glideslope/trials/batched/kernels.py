"""Kernels: two losses for all members of a population at once, with backward written by hand."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every example of every member.

    Args:
        logits: (members, rows, classes).
        labels: (members, rows), integers.
        label_smoothing: share of each label that is spread over all classes evenly.

    Returns:
        (members, rows), in nats.
    """
    return cast(Tensor, _CrossEntropy.apply(logits, labels, label_smoothing))  # type: ignore[no-untyped-call]


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of every element: (members, …), (members, …) → (members, …)."""
    return cast(Tensor, _BinaryCrossEntropy.apply(logits, targets))  # type: ignore[no-untyped-call]


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
        # Classes before rows, as a narrow last layer leaves them: sums over classes then run along rows, and the whole
        # takes 5.9 µs a member for (100, 10), against 9.3 with log_softmax.
        by_class, labels = logits.mT, labels[:, None]
        largest = by_class.amax(1, keepdim=True)
        shares = (by_class - largest).exp_()
        total = shares.sum(1, keepdim=True)
        ctx.save_for_backward(shares, total, labels)
        ctx.smoothing = smoothing
        wanted = by_class.gather(1, labels)
        if smoothing:
            wanted = torch.lerp(wanted, by_class.mean(1, keepdim=True), smoothing)
        return (total.log() - (wanted - largest))[:, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        shares, total, labels = ctx.saved_tensors
        wanted = gradient.new_full((1, 1, 1), ctx.smoothing - 1.0).expand_as(labels)
        difference = shares.div(total).scatter_add_(1, labels, wanted)
        if ctx.smoothing:
            difference.sub_(ctx.smoothing / shares.shape[1])
        return difference.mul_(gradient[:, None]).mT, None, None


class _BinaryCrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        # log(1 + exp(z)) - z t. Beyond 50 the first is z to the last digit, in double precision too.
        return functional.softplus(logits, threshold=50.0).addcmul_(logits, targets, value=-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        return torch.sigmoid(logits).sub_(targets).mul_(gradient), None
