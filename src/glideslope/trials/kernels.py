"""Kernels: two losses for all members of a population at once, with backward written by hand."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every example of every member.

    Args:
        logits: (members, rows, classes).
        labels: (members, rows), integers.

    Returns:
        (members, rows), in nats.
    """
    return cast(Tensor, _CrossEntropy.apply(logits, labels))  # type: ignore[no-untyped-call]


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of every element: (members, …), (members, …) → (members, …)."""
    return cast(Tensor, _BinaryCrossEntropy.apply(logits, targets))  # type: ignore[no-untyped-call]


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        log_shares = functional.log_softmax(logits, -1)
        ctx.save_for_backward(log_shares, labels)
        return -log_shares.gather(-1, labels[..., None])[..., 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        log_shares, labels = ctx.saved_tensors
        wanted = gradient.new_full((1,) * log_shares.ndim, -1.0).expand(*labels.shape, 1)
        difference = log_shares.exp().scatter_add_(-1, labels[..., None], wanted)
        return difference.mul_(gradient[..., None]), None


class _BinaryCrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        # max(z, 0) - z t + log(1 + exp(-|z|)): exact for large |z| on both sides.
        tail = logits.abs().neg_().exp_().log1p_()
        return tail.add_(logits.clamp_min(0)).sub_(logits * targets)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, targets = ctx.saved_tensors
        return torch.sigmoid(logits).sub_(targets).mul_(gradient), None
