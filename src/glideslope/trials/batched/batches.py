"""Batches of a population: every member sees its own data in its own order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glideslope.trials.lookup import task_splits
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.run import updates_per_epoch
from glideslope.trials.task import Batch, Task
from glideslope.trials.trial import Seeds


class MemberBatches:
    """Batches of all members: every member in its own order, with its own draws, all by the counters of `run_trial`.

    Args:
        task: what is trained.
        seeds: of the members.
    """

    def __init__(self, task: Task, seeds: Sequence[Seeds]) -> None:
        self.task = task
        self.train = task_splits(task).train
        self.per_epoch = updates_per_epoch(task, self.train)
        self.draws_noise = type(task).noise is not Task.noise
        # Tuning trials share seeds: every order and every draw is made once for all members that want it.
        self.orders, self.order_of = _distinct([seed.data for seed in seeds])
        self.noises, self.noise_of = _distinct([seed.noise for seed in seeds])
        self.epoch = -1

    def batch(self, update: int, members: Tensor) -> tuple[Batch, dict[str, Tensor]]:
        """Tensors (members, rows, …) of one update, and the noise that goes with them."""
        epoch, position = divmod(update, self.per_epoch)
        if epoch != self.epoch:
            self._start(epoch)
        size = self.task.batch_size
        orders = self.order_of[members]
        picked = self.order[:, position * size : (position + 1) * size][orders]
        flat = picked.flatten()
        batch = tuple(tensor.index_select(0, flat).view(*picked.shape, *tensor.shape[1:]) for tensor in self.train)
        noise = {name: draws[orders[:, None], picked] for name, draws in self.augmentation.items()}
        if self.draws_noise:
            noise |= self.noise(Stream.NOISE, update, size, members)
        return batch, noise

    def noise(self, stream: Stream, counter: int, rows: int, members: Tensor) -> dict[str, Tensor]:
        """Draws of the task's noise, (members, rows, …)."""
        if not self.draws_noise:
            return {}
        wanted = self.noise_of[members]
        draws = {
            seed: self.task.noise(generator(self.noises[seed], stream, counter), rows) for seed in set(wanted.tolist())
        }
        first = next(iter(draws.values()))
        return {name: _stack([draws[seed][name] for seed in wanted.tolist()]) for name in first}

    def _start(self, epoch: int) -> None:
        count = len(self.train[0])
        self.epoch = epoch
        self.order = _stack([generator(seed, Stream.ORDER, epoch).permutation(count) for seed in self.orders])
        draws = [self.task.augmentation(generator(seed, Stream.AUGMENTATION, epoch), count) for seed in self.orders]
        self.augmentation = {name: _stack([each[name] for each in draws]) for name in draws[0]}


def _distinct(seeds: Sequence[int]) -> tuple[list[int], Tensor]:
    """The different seeds, and the place of every member's among them, (members,)."""
    distinct = list(dict.fromkeys(seeds))
    return distinct, torch.tensor([distinct.index(seed) for seed in seeds])


def _stack(arrays: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
