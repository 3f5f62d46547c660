"""Parts: small, fixed pieces of larger data, so that an epoch takes a fraction of a second."""

from __future__ import annotations

import torch
from torch import Tensor

from glideslope.tasks.cache import Arrays
from glideslope.trials.task import Batch, Splits

NUM_HELD_OUT = 500
"""Examples to validate on, and as many to test on."""
ORDER_SEED = 0


def labelled(arrays: Arrays, name: str, most: int | None = None) -> Batch:
    """Inputs and labels of the part "train" or "test" of a data file: all, or the first `most`."""
    inputs, labels = (torch.from_numpy(arrays[f"{name}_{kind}"][:most]) for kind in ("inputs", "labels"))
    return inputs, labels


def cut(train: Batch, test: Batch, num_train: int) -> Splits:
    """The first examples in one fixed random order; fewer where the data have fewer.

    Args:
        train: gives the training and the validation part.
        test: gives the test part.
        num_train: examples to train on.
    """
    order = shuffled(len(train[0]))
    held_out = min(NUM_HELD_OUT, len(order) // 5)
    rows = order[held_out : held_out + num_train]
    tested = shuffled(len(test[0]))[:NUM_HELD_OUT]
    return Splits(
        train=tuple(tensor[rows] for tensor in train),
        validation=tuple(tensor[order[:held_out]] for tensor in train),
        test=tuple(tensor[tested] for tensor in test),
    )


def cut_in_three(data: Batch, num_train: int) -> Splits:
    """The same of data without a test set of their own: a seventh of the rest is set aside for it."""
    order = shuffled(len(data[0]))
    tested = min(NUM_HELD_OUT, len(order) // 7)
    train, test = (tuple(tensor[rows] for tensor in data) for rows in (order[tested:], order[:tested]))
    return cut(train, test, num_train)


def shuffled(count: int) -> Tensor:
    """0 … count − 1 in one fixed random order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(ORDER_SEED))
