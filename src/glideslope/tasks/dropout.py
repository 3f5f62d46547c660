"""Dropout whose masks come in from outside: a seed per update, in place of PyTorch's global generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def dropout_seeds(generator: np.random.Generator, batch_size: int) -> np.ndarray:
    """Draws for `seeded_dropout`: (batch_size,) int64, of which the first counts.

    One per example, so that ranks that share a batch find one among their own rows: each has masks of its own then. As
    masks belong to places in a batch, they are not those that one process alone would draw for the same examples.
    """
    return generator.integers(0, 2**63 - 1, batch_size)


@contextmanager
def seeded_dropout(seeds: Tensor) -> Iterator[None]:
    """In this block dropout is a pure function of the seed; afterwards global generators are as they were.

    Not for cuDNN's dropout between the layers of one `nn.LSTM`, which keeps a state of its own.

    Args:
        seeds: of `dropout_seeds`, on the device on which the model computes.

    >>> seeds = torch.tensor([7])
    >>> with seeded_dropout(seeds):
    ...     once = torch.dropout(torch.ones(8), 0.5, train=True)
    >>> with seeded_dropout(seeds):
    ...     again = torch.dropout(torch.ones(8), 0.5, train=True)
    >>> torch.equal(once, again)
    True
    """
    with torch.random.fork_rng(devices=[seeds.device] if seeds.device.type == "cuda" else []):
        torch.manual_seed(int(seeds[0]))
        yield
