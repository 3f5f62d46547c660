"""Variant: a task with training methods switched on; and what a method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeGuard

import numpy as np
from torch import Tensor, nn

from glideslope.trials.task import Batch, Labelled, Noise, Splits, Task

Criterion = Callable[..., Tensor]
"""(logits, labels, and the options of `Labelled.criterion` by name) → mean loss."""

COPIED = ("source", "needs", "maximum_epochs", "batch_size", "metric", "defaults", "evaluation_batch", "whole_epochs")


class Method(ABC):
    """A way to train that suits many tasks. What it is trained on, and how it is judged, stays the task's own.

    Final classes are frozen dataclasses; their fields are part of a trial's identity, beside those of the task. A
    method overrides the places that it changes, and draws nothing: its random numbers come in through `noise`. Methods
    of one variant must give the same whatever their order.

    Class attributes:
        name: how users call it, behind a "+"; also in front of the names of its draws.
        version: raised whenever a change alters what any trial with the method computes.
        source: the paper, one line.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    source: ClassVar[str]

    @abstractmethod
    def refusal(self, task: Task) -> str:
        """Why a task cannot be trained this way, to be read after "because"; "" where it can."""

    def model(self, model: nn.Module) -> nn.Module:
        """The task's model, changed; it may be changed in place."""
        return model

    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        """Draws for one update, beside the task's own. One that is not one entry per example has a first axis of 1."""
        return {}

    def shown(self, inputs: Tensor, noise: Noise) -> Tensor:
        """The inputs as the model sees them in training, of those that the task would show it."""
        return inputs

    def criterion(self, criterion: Criterion, noise: Noise) -> Criterion:
        """The loss of outputs and labels, made of the task's; for tasks that are `Labelled`."""
        return criterion


@dataclass(frozen=True)
class Variant(Task):
    """A task with methods switched on: the same data, the same evaluation, another way to train.

    Make it with `varied`. Its version is the task's plus those of the methods, so it rises with any of them.

    Args:
        task: what is trained.
        methods: how, each at most once.
    """

    task: Task
    methods: tuple[Method, ...]

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(method.name for method in self.methods).items() if count > 1]
        if twice:
            raise ValueError(f"{self.task.name} has {twice[0]} more than once. Name every method once.")
        for method in self.methods:
            if reason := method.refusal(self.task):
                raise ValueError(f"{method.name} does not apply to {self.task.name}, because {reason}.")
        for attribute in COPIED:
            object.__setattr__(self, attribute, getattr(self.task, attribute))
        object.__setattr__(self, "name", "+".join([self.task.name, *(method.name for method in self.methods)]))
        object.__setattr__(self, "version", self.task.version + sum(method.version for method in self.methods))

    def splits(self) -> Splits:
        return self.task.splits()

    def model(self, seed: int) -> nn.Module:
        model = self.task.model(seed)
        for method in self.methods:
            model = method.model(model)
        return model

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        if not in_parts(self.task):
            return self.task.loss(model, (self._shown(batch[0], noise), *batch[1:]), noise)
        inputs, labels = batch
        criterion: Criterion = self.task.criterion
        for method in self.methods:
            criterion = method.criterion(criterion, noise)
        return criterion(model(self._shown(self.task.shown(inputs, noise), noise)), labels)

    def _shown(self, inputs: Tensor, noise: Noise) -> Tensor:
        for method in self.methods:
            inputs = method.shown(inputs, noise)
        return inputs

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        return self.task.evaluate(model, batch, noise)

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        return self.task.augmentation(generator, num_samples)

    def order(self, generator: np.random.Generator, num_samples: int) -> np.ndarray:
        return self.task.order(generator, num_samples)

    def pretrained_sha256(self) -> str:
        return self.task.pretrained_sha256()


@dataclass(frozen=True)
class NoisyVariant(Variant):
    """A variant that draws in every update. A class of its own: the engine makes no generator for tasks without."""

    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        draws = self.task.noise(generator, batch_size)  # first, so that they are those of the task without methods
        for method in self.methods:
            draws = draws | method.noise(generator, batch_size)
        return draws


def varied(task: Task, methods: tuple[Method, ...]) -> Variant:
    """The task with methods switched on.

    Raises:
        ValueError: a method is there twice, or does not apply to the task.
    """
    draws = type(task).noise is not Task.noise or any(type(method).noise is not Method.noise for method in methods)
    return NoisyVariant(task, methods) if draws else Variant(task, methods)


def in_parts(task: Task) -> TypeGuard[Labelled]:
    """Whether the task's loss is that of `Labelled`, in parts that methods may replace."""
    return isinstance(task, Labelled) and type(task).loss is Labelled.loss
