"""Batches of a population: every member sees its own data in its own order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glideslope.trials.device import resident_splits
from glideslope.trials.randomness import Stream, generator
from glideslope.trials.run import updates_per_epoch
from glideslope.trials.task import Batch, Task
from glideslope.trials.trial import Seeds


class MemberBatches:
    """Batches of all members: every member in its own order, with its own draws, all by the counters of `run_trial`.

    Args:
        task: what is trained.
        seeds: of the members.
        device: where the data lie; orders and draws are made by this process, and moved there.
    """

    def __init__(self, task: Task, seeds: Sequence[Seeds], device: str = "cpu") -> None:
        self.task, self.device = task, device
        # No columns: tasks that have them are not batched.
        self.train = cast("Batch", resident_splits(task, device).train)
        self.per_epoch = updates_per_epoch(task, self.train)
        self.draws_noise = type(task).noise is not Task.noise
        # Tuning trials share seeds: every order and every draw is made once for all members that want it.
        self.orders, self.order_of = _distinct([seed.data for seed in seeds])
        self.noises, self.noise_of = _distinct([seed.noise for seed in seeds])
        self.epoch = -1
        self.made: dict[int, tuple[Tensor, dict[str, Tensor]]] = {}

    def batch(self, update: int, members: Tensor) -> tuple[Batch, dict[str, Tensor]]:
        """Tensors (members, rows, …) of one update, and the noise that goes with them."""
        epoch, position = divmod(update, self.per_epoch)
        if epoch != self.epoch:
            self._start(epoch)
        size = self.task.batch_size
        orders = self.order_of[members].to(self.device)
        picked = self.order[:, position * size : (position + 1) * size][orders]
        noise = {name: draws[orders[:, None], picked] for name, draws in self.augmentation.items()}
        if self.draws_noise:
            noise |= self.noise(Stream.NOISE, update, size, members)
        return self.gathered(picked), noise

    def gathered(self, picked: Tensor) -> Batch:
        """The training examples with these numbers, (members, rows): tensors (members, rows, …)."""
        flat = picked.flatten()
        return tuple(tensor.index_select(0, flat).view(*picked.shape, *tensor.shape[1:]) for tensor in self.train)

    def between(self, start: int, stop: int, members: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What `batch` is made of, for updates start … stop - 1 at once.

        Returns:
            Numbers of examples, (updates, members, rows), and draws, (updates, members, rows, …).
        """
        size = self.task.batch_size
        orders = self.order_of[members].to(self.device)
        numbers: list[Tensor] = []
        draws: list[dict[str, Tensor]] = []
        update = start
        while update < stop:
            epoch, position = divmod(update, self.per_epoch)
            if epoch != self.epoch:
                self._start(epoch)
            count = min(stop - update, self.per_epoch - position)
            rows = self.order[:, position * size : (position + count) * size]
            picked = rows.reshape(-1, count, size)[orders].transpose(0, 1)
            numbers.append(picked)
            draws.append({name: values[orders[:, None], picked] for name, values in self.augmentation.items()})
            update += count
        joined = {name: torch.cat([each[name] for each in draws]) for name in draws[0]}
        if self.draws_noise:
            each_update = [self._drawn(Stream.NOISE, update, size, members) for update in range(start, stop)]
            joined |= {name: torch.stack([each[name] for each in each_update]) for name in each_update[0]}
        return torch.cat(numbers), joined

    def make_ahead(self, update: int) -> None:
        """Draw the orders that an update will want, while a device is at earlier ones."""
        self._made(update // self.per_epoch)

    def noise(self, stream: Stream, counter: int, rows: int, members: Tensor) -> dict[str, Tensor]:
        """Draws of the task's noise, (members, rows, …)."""
        return {name: draw.to(self.device) for name, draw in self._drawn(stream, counter, rows, members).items()}

    def _drawn(self, stream: Stream, counter: int, rows: int, members: Tensor) -> dict[str, Tensor]:
        if not self.draws_noise:
            return {}
        wanted = self.noise_of[members]
        draws = {
            seed: self.task.noise(generator(self.noises[seed], stream, counter), rows) for seed in set(wanted.tolist())
        }
        first = next(iter(draws.values()))
        return {name: _stack([draws[seed][name] for seed in wanted.tolist()]) for name in first}

    def _start(self, epoch: int) -> None:
        order, augmentation = self._made(epoch)
        self.epoch = epoch
        self.order = order.to(self.device)
        self.augmentation = {name: draws.to(self.device) for name, draws in augmentation.items()}
        self.made = {ahead: made for ahead, made in self.made.items() if ahead > epoch}

    def _made(self, epoch: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Orders of the different seeds, (orders, examples), and the draws of an epoch, (orders, examples, …)."""
        if epoch not in self.made:
            count = len(self.train[0])
            order = _stack([self.task.order(generator(seed, Stream.ORDER, epoch), count) for seed in self.orders])
            draws = [self.task.augmentation(generator(seed, Stream.AUGMENTATION, epoch), count) for seed in self.orders]
            self.made[epoch] = order, {name: _stack([each[name] for each in draws]) for name in draws[0]}
        return self.made[epoch]


def _distinct(seeds: Sequence[int]) -> tuple[list[int], Tensor]:
    """The different seeds, and the place of every member's among them, (members,)."""
    distinct = list(dict.fromkeys(seeds))
    return distinct, torch.tensor([distinct.index(seed) for seed in seeds])


def _stack(arrays: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
