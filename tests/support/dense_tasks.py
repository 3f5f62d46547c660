"""Tasks for the tests of populations: dense networks in both precisions, and models that cannot be batched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from tiny_tasks import Regression
from torch import Tensor, nn
from torch.nn import functional

from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task, seeded_model

NUM_FEATURES, NUM_CLASSES = 7, 3


@dataclass(frozen=True)
class Dense(Task):
    """A dense classifier on 83 examples of noise and signal: 8 updates an epoch.

    Args:
        double: in double precision, where two orders of one sum differ by 1e-16 and not by 1e-7.
    """

    name: ClassVar[str] = "dense"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "made up"
    maximum_epochs: ClassVar[int] = 10
    batch_size: ClassVar[int] = 10
    metric: ClassVar[Metric] = Metric("error", unit="%")
    defaults: ClassVar[Mapping[str, Default]] = {"sgdm": Default(0.1), "adam": Default(0.01)}

    double: bool = False

    @property
    def kind(self) -> torch.dtype:
        return torch.float64 if self.double else torch.float32

    def splits(self) -> Splits:
        generator = np.random.default_rng(0)
        directions = generator.normal(size=(NUM_FEATURES, NUM_CLASSES))

        def split(count: int) -> Batch:
            inputs = generator.normal(size=(count, NUM_FEATURES))
            labels = (inputs @ directions + generator.gumbel(size=(count, NUM_CLASSES))).argmax(1)
            return torch.from_numpy(inputs).to(self.kind), torch.from_numpy(labels)

        return Splits(split(83), split(1300), split(40))

    def model(self, seed: int) -> nn.Module:
        def build() -> nn.Module:
            return nn.Sequential(
                nn.Linear(NUM_FEATURES, 17), nn.ReLU(), nn.Linear(17, 5), nn.Linear(5, 17, bias=False), nn.ReLU(),
                nn.Linear(17, NUM_CLASSES),
            )  # fmt: skip

        return seeded_model(seed, build).to(self.kind)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        inputs, labels = batch
        return functional.cross_entropy(model(inputs), labels)

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        inputs, labels = batch
        logits = model(inputs)
        wrong = logits.argmax(dim=-1) != labels
        return {
            "loss": functional.cross_entropy(logits, labels, reduction="none"),
            "error": 100.0 * wrong.to(logits.dtype),
        }


@dataclass(frozen=True)
class Tanh(Dense):
    """Layers one by one, with another activation between them."""

    def model(self, seed: int) -> nn.Module:
        def build() -> nn.Module:
            return nn.Sequential(nn.Linear(NUM_FEATURES, 6), nn.Tanh(), nn.Linear(6, NUM_CLASSES))

        return seeded_model(seed, build).to(self.kind)


class Scaled(nn.Module):
    """A dense layer with a scale of its own, behind a normalisation and fixed random features."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", torch.randn(NUM_FEATURES, NUM_FEATURES) / NUM_FEATURES**0.5)
        self.norm = nn.LayerNorm(NUM_FEATURES)
        self.dense = nn.Linear(NUM_FEATURES, NUM_CLASSES)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * self.dense(self.norm(inputs @ self.features))


@dataclass(frozen=True)
class General(Dense):
    """A model that `Stacked` does not know, and vmap does; its buffer differs between seeds."""

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, Scaled).to(self.kind)


@dataclass(frozen=True)
class Convolution(Dense):
    """Batching does not pay."""

    def model(self, seed: int) -> nn.Module:
        def build() -> nn.Module:
            return nn.Sequential(
                nn.Unflatten(1, (1, NUM_FEATURES)), nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(10, 3)
            )

        return seeded_model(seed, build).to(self.kind)


@dataclass(frozen=True)
class Normalised(Dense):
    """Batch normalisation: state that changes in training."""

    def model(self, seed: int) -> nn.Module:
        def build() -> nn.Module:
            return nn.Sequential(nn.Linear(NUM_FEATURES, 5), nn.BatchNorm1d(5), nn.Linear(5, NUM_CLASSES))

        return seeded_model(seed, build).to(self.kind)


class Looking(nn.Module):
    """Reads its inputs' shape as that of one trial, in a way that Stacked would get wrong without a word."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(NUM_FEATURES, NUM_CLASSES)
        self.offset = float(torch.rand(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dense(inputs) + self.offset * torch.arange(NUM_CLASSES)


@dataclass(frozen=True)
class Hidden(Dense):
    """A number of each model's own, hidden in a Python attribute."""

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, Looking).to(self.kind)


@dataclass(frozen=True)
class Fragile(Regression):
    """The model of one seed cannot be built."""

    def model(self, seed: int) -> nn.Module:
        if seed == 3:
            raise RuntimeError("no model for 3")
        return super().model(seed)


DOUBLE = Dense(double=True)
GENERAL = General(double=True)
