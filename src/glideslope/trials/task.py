"""Task: what is trained. Model, data, loss and metric, each built from a seed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

Batch = tuple[Tensor, ...]
"""Tensors that share their leading axis, one entry per example: usually (inputs, targets)."""


class Column(ABC):
    """Rows that are read when they are asked for: it stands where a tensor would, for what no memory holds.

    It stays on the CPU, and the rows it gives are moved; a training set of columns is read one batch ahead.

    Attributes:
        device: where the rows are when they have been read.
        nbytes: infinite, as nobody is to copy it whole.
    """

    device = torch.device("cpu")
    nbytes = math.inf

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Examples by a slice or by their numbers, (rows,) int64: tensor (rows, …)."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Fingerprint of all that its rows are made of."""

    def to(self, device: str) -> Column:
        """Itself, wherever the rows are wanted."""
        return self


Part = tuple[Tensor | Column, ...]
"""A whole split: what batches are cut from."""

Noise = Mapping[str, Tensor]
"""Every random number a loss may use, by name: drawn outside, passed in, so that a loss is a pure function."""


def of_rows(noise: Noise, rows: slice, size: int) -> dict[str, Tensor]:
    """The draws of `rows` of a batch of `size`: one with an entry per example is cut, any other is everybody's."""
    return {name: draw[rows] if draw.dim() and len(draw) == size else draw for name, draw in noise.items()}


@dataclass(frozen=True)
class Metric:
    """What a task is judged by.

    Args:
        name: the field's word, in the task's `evaluate` dictionary: "error", "loss", "perplexity".
        higher_is_better: direction.
        unit: printed behind the number, "%" for shares.
        over_split: all that `evaluate` returned, every example of a split along the leading axes → the metric. None
            is the mean of the entry that is called `name`. With one, entries may have any shape behind that axis.
    """

    name: str
    higher_is_better: bool = False
    unit: str = ""
    over_split: Callable[[Mapping[str, Tensor]], float] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Splits:
    """Three disjoint sets. Rates are tuned on `validation`, reported on `test`, which is seen at the last step only."""

    train: Part
    validation: Part
    test: Part


@dataclass(frozen=True)
class Default:
    """Where tuning starts for one optimizer.

    Args:
        rate: centre of the first learning-rate grid.
    """

    rate: float


class Task(ABC):
    """A problem to train on.

    Final classes are frozen dataclasses; their fields are the task's parameters and part of a trial's identity.

    The contract, kept by every task and checked in `tests/contracts/test_tasks.py`:

    1. `splits()` is a pure function of the fields: same fields, same bytes.
    2. `model(seed)` is a pure function of the fields and the seed, and leaves every global generator as it found it.
    3. `loss` and `evaluate` draw nothing: all randomness comes in through `noise`. That is what lets a member of a
       batched population equal the trial run alone. They use only operations that `torch.func.vmap` can batch
       wherever the model family allows it.
    4. `evaluate` returns one value per example (or one row, for a metric over the whole split), so that results do not
       depend on the chunk size.

    The engine calls `model.train()` before updates and `model.eval()` before `evaluate`. `loss` receives the draws of
    `noise` together with its examples' rows of `augmentation`; `evaluate` receives the draws of `noise` only.

    Class attributes:
        name: how users and the store call it, e.g. "mnist1d-mlp".
        version: raised whenever a change alters what any trial of the task computes.
        source: where data and model come from, one line.
        needs: name of the file or folder in the data folder, or None for embedded data.
        maximum_epochs: the 100 % budget.
        batch_size: examples per update; the remainder of an epoch is dropped, and each epoch is drawn in a new order.
        metric: what `compare` reports.
        defaults: optimizer name → `Default`; at least "sgdm", "adam", "adamw".
        evaluation_batch: most examples that are evaluated at once; their draws depend on it.
        num_parameters: of tasks whose models begin with weights from elsewhere, so that a list need not load them; None
            where whoever wants to know makes a model and counts.
        whole_epochs: True for settings of the papers, whose budgets are rounded up to whole epochs.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    source: ClassVar[str]
    needs: ClassVar[str | None] = None
    maximum_epochs: ClassVar[int]
    batch_size: ClassVar[int]
    metric: ClassVar[Metric]
    defaults: ClassVar[Mapping[str, Default]]
    evaluation_batch: ClassVar[int] = 1024
    num_parameters: ClassVar[int | None] = None
    whole_epochs: ClassVar[bool] = False

    @abstractmethod
    def splits(self) -> Splits:
        """The data, ready to index, on the CPU: float inputs or integer tokens, integer or float targets."""

    @abstractmethod
    def model(self, seed: int) -> nn.Module:
        """A fresh model, initialised from `seed` alone."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        """Mean training loss of one batch: a scalar, differentiable."""

    @abstractmethod
    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """Per-example values, each of shape (batch,): always "loss", and `metric.name`.

        A metric over the whole split wants what it is made of instead, (batch, …) each.
        """

    def order(self, generator: np.random.Generator, num_samples: int) -> np.ndarray:
        """In which order an epoch goes through the training set: (num_samples,) int64, by default at random."""
        return generator.permutation(num_samples)

    def pretrained_sha256(self) -> str:
        """Fingerprint of the weights that every model begins with; empty where all of them are drawn."""
        return ""

    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        """Draws for one update (or one evaluation chunk), keyed by (seed, stream, step); none by default."""
        return {}

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        """Draws for one epoch, one row per training example, keyed by (seed, epoch).

        A batch receives its examples' rows in `noise`.
        """
        return {}


class Labelled(Task):
    """Inputs with integer labels, trained by cross-entropy: a loss in parts, so that training methods can reach in.

    The loss is the `criterion` of what the model makes of the inputs as they are `shown`. A task that overrides `loss`
    instead has a loss in one piece, and methods that need the parts are refused.
    """

    def shown(self, inputs: Tensor, noise: Noise) -> Tensor:
        """The inputs as the model sees them in training: augmented, where a task does so."""
        return inputs

    def criterion(self, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss of one batch: a scalar.

        Args:
            logits: what the model returns, (batch, classes).
            labels: (batch,), integers.
            label_smoothing: share of each label that is spread over all classes evenly.
        """
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        inputs, labels = batch
        return self.criterion(model(self.shown(inputs, noise)), labels)


def seeded_model(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """Call `build()` with PyTorch's global generator seeded, and put the generator back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
