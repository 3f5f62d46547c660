"""Tasks for the tests of checkpoints: models with state of every kind, and counters of what was computed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from dense_tasks import NUM_CLASSES, NUM_FEATURES, Dense
from safetensors import safe_open
from tiny_tasks import Regression
from torch import Tensor, nn

from glideslope.trials.task import Batch, Default, Noise, Splits, seeded_model


def position(checkpoint: Path) -> int:
    """Updates behind a checkpoint; 0 if there is none."""
    if not checkpoint.exists():
        return 0
    with safe_open(checkpoint, "pt") as file:
        return int(json.loads(file.metadata()["content"])["progress"]["cost"][2])


@dataclass(frozen=True)
class Counting(Dense):
    """Writes a byte into the file that TINY_COUNTER names, for every update.

    Where TINY_LIMIT is a number, it waits for its end before the file has more bytes.
    """

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        if "TINY_COUNTER" in os.environ:
            with open(os.environ["TINY_COUNTER"], "ab") as file:
                file.write(b".")
                if file.tell() > float(os.environ.get("TINY_LIMIT", "inf")):
                    time.sleep(3600)
        return super().loss(model, batch, noise)


class Recurrent(nn.Module):
    """A GRU over the features, read one by one; input and output layer share their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(1, NUM_CLASSES, bias=False)
        self.gru = nn.GRU(NUM_CLASSES, 5, batch_first=True)
        self.middle = nn.Linear(5, 1)
        self.outward = nn.Linear(1, NUM_CLASSES, bias=False)
        self.outward.weight = self.inward.weight

    def forward(self, inputs: Tensor) -> Tensor:
        states, _ = self.gru(self.inward(inputs[:, :, None]))
        return self.outward(self.middle(states[:, -1]))


@dataclass(frozen=True)
class GRU(Dense):
    """Recurrent, with weights that are tied."""

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, Recurrent).to(self.kind)


class Buffered(nn.Module):
    """Batch normalisation, and a buffer of its own that `state_dict` leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(NUM_FEATURES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, NUM_CLASSES))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.layers(inputs) / (1 + 0.1 * self.calls)


@dataclass(frozen=True)
class Normalised(Dense):
    """State in buffers, saved and unsaved."""

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, Buffered).to(self.kind)


@dataclass(frozen=True)
class Pictures(Dense):
    """Images of four channels, a 3 x 3 convolution and batch normalisation."""

    def splits(self) -> Splits:
        def images(part: Batch) -> Batch:
            spread = part[0][:, None, :, None].expand(-1, 4, NUM_FEATURES, NUM_FEATURES)
            return spread.contiguous(), part[1]

        flat = super().splits()
        return Splits(images(flat.train), images(flat.validation), images(flat.test))

    def model(self, seed: int) -> nn.Module:
        def build() -> nn.Module:
            layers = (nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
            return nn.Sequential(*layers, nn.Linear(8 * NUM_FEATURES**2, NUM_CLASSES))

        return seeded_model(seed, build)


@dataclass(frozen=True)
class Drawing(Dense):
    """Noise at every update and for every example of an epoch."""

    defaults: ClassVar[Mapping[str, Default]] = {"sgdm": Default(0.1), "adam": Default(0.01)}

    def noise(self, generator: np.random.Generator, batch_size: int) -> dict[str, np.ndarray]:
        return {"jitter": generator.normal(size=(batch_size, NUM_FEATURES)).astype(np.float32)}

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        return {"shift": generator.normal(size=(num_samples, 1)).astype(np.float32)}

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        inputs, labels = batch
        return super().loss(model, (inputs + 0.1 * noise["jitter"] + 0.1 * noise["shift"], labels), noise)


class Secretive(nn.Linear):
    """Keeps something that is no tensor, and says so."""

    def get_extra_state(self) -> dict[str, int]:
        return {"secret": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


@dataclass(frozen=True)
class Extra(Regression):
    """A model with extra state."""

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: Secretive(4, 1))


class Tangled(torch.optim.SGD):
    """An optimizer whose state holds an object of no known kind."""

    def step(self, closure=None):  # type: ignore[no-untyped-def]
        loss = super().step(closure)
        for weight in self.param_groups[0]["params"]:
            self.state[weight]["thing"] = object()
        return loss


class Precise(torch.optim.SGD):
    """Keeps a sum in double precision, which PyTorch makes single when it loads."""

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[no-untyped-def]
        loss = super().step(closure)
        for weight in self.param_groups[0]["params"]:
            state = self.state[weight]
            state["sum"] = state.get("sum", torch.zeros_like(weight, dtype=torch.float64)) + weight.grad
            weight.sub_(1e-3 * state["sum"])
        return loss


@dataclass(frozen=True)
class Dying(Counting):
    """Kills its process when there is a checkpoint of update 100 or later in TINY_CHECKPOINTS; once.

    TINY_MARKER then says how many updates have been computed.
    """

    def model(self, seed: int) -> nn.Module:
        model = seeded_model(seed, lambda: nn.Sequential(nn.Unflatten(1, (1, NUM_FEATURES)), nn.Conv1d(1, 2, 3)))
        return nn.Sequential(model, nn.Flatten(), seeded_model(seed, lambda: nn.Linear(10, NUM_CLASSES)))

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        if "TINY_MARKER" in os.environ and not Path(os.environ["TINY_MARKER"]).exists():
            self._consider()
        return super().loss(model, batch, noise)

    def _consider(self) -> None:
        done = Path(os.environ["TINY_COUNTER"]).stat().st_size if Path(os.environ["TINY_COUNTER"]).exists() else 0
        if done > 100:
            time.sleep(0.1)  # a checkpoint is due after twenty times what the last one took to write
            if any(position(path) >= 100 for path in Path(os.environ["TINY_CHECKPOINTS"]).glob("*.safetensors")):
                Path(os.environ["TINY_MARKER"]).write_text(str(done))
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Hopeless(Regression):
    """Cannot be built; says so in the file that TINY_COUNTER names."""

    def model(self, seed: int) -> nn.Module:
        if seed < 100:  # a trial's, and no population's that is tried out
            with open(os.environ["TINY_COUNTER"], "ab") as file:
                file.write(b".")
        raise RuntimeError("no model today")


DOUBLE = Normalised(double=True)
