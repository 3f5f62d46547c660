"""Scores of a whole split: numbers that are no means over examples. Shares are in percent."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Share of right predictions.

    Args:
        predictions, labels: classes, (examples,) each.

    >>> accuracy(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 0, 0]))
    75.0
    """
    return 100.0 * float((predictions == labels).double().mean())


def f1(predictions: Tensor, labels: Tensor) -> float:
    r"""Harmonic mean of precision and recall of class 1; 0 where the class is neither there nor predicted.

    .. math:: F_1 = \frac{2\,TP}{2\,TP + FP + FN}

    Args:
        predictions, labels: classes 0 and 1, (examples,) each.

    >>> f1(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 1, 0]))
    50.0
    """
    hits = int(((predictions == 1) & (labels == 1)).sum())
    named = int((predictions == 1).sum()) + int((labels == 1).sum())
    return 200.0 * hits / named if named else 0.0


def matthews(predictions: Tensor, labels: Tensor) -> float:
    """Matthews correlation of two classes: Pearson's, of classes as numbers; 0 where all predictions are one class.

    Args:
        predictions, labels: classes 0 and 1, (examples,) each.

    >>> matthews(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 1, 0]))
    0.0

    Source: Matthews, "Comparison of the Predicted and Observed Secondary Structure of T4 Phage Lysozyme", 1975.
    """
    return pearson(predictions, labels)


def pearson(predictions: Tensor, labels: Tensor) -> float:
    """Linear correlation; 0 where one side is the same everywhere, NaN where a number is.

    Args:
        predictions, labels: (examples,) each.

    >>> round(pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 2.0])), 2)
    86.6
    """
    sides = torch.stack([predictions.double(), labels.double()])
    if bool((sides == sides[:, :1]).all(1).any()):
        # Asked for exactly: less its mean, what is the same everywhere may be left with rounding errors.
        return 0.0
    centred = sides - sides.mean(1, keepdim=True)
    scaled = centred / centred.norm(dim=1, keepdim=True)
    return 100.0 * float(scaled[0] @ scaled[1])


def spearman(predictions: Tensor, labels: Tensor) -> float:
    """Rank correlation, ties sharing the mean of their ranks; 0 where one side is the same everywhere.

    Args:
        predictions, labels: (examples,) each.

    >>> round(spearman(torch.tensor([0.1, 0.2, 9.0]), torch.tensor([1.0, 2.0, 3.0])), 1)
    100.0
    """
    if not (bool(predictions.isfinite().all()) and bool(labels.isfinite().all())):
        return math.nan
    return pearson(_ranks(predictions), _ranks(labels))


def perplexity(nats: Tensor) -> float:
    """Exponential of the mean loss; infinite where that exceeds all numbers.

    Args:
        nats: losses per word, of any shape.

    >>> round(perplexity(torch.tensor([math.log(2.0), math.log(8.0)])), 5)
    4.0
    """
    return float(nats.double().mean().exp())


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1, (examples,) float64."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: Tensor = counts.cumsum(0).double() - (counts - 1) / 2
    return mean_ranks[place]
