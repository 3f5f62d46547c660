"""Omniglot: have two drawings the same character? Learned on some alphabets, judged on others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast, final

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.cache import Arrays
from glideslope.tasks.data import DataFile, archived
from glideslope.tasks.parts import cut, labelled
from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task, seeded_model

SIDE = 105
SMALL_SIDE = 21
"""Drawings are reduced five-fold: strokes of two or three pixels stay visible."""
NUM_PAIRS = 4000
PAIR_SEED = 0


def _decode(path: Path) -> Arrays:
    """Pairs of drawings, half of one character: "train_inputs" (n, 2, 21, 21) in [0, 1], "train_labels" (n,)."""
    found = archived(path)
    arrays: dict[str, np.ndarray] = {}
    for name, part in (("train", "small1"), ("test", "small2")):
        bits = np.unpackbits(found[f"{part}_bits"], axis=1, count=SIDE * SIDE).reshape(-1, SIDE, SIDE)
        scale = SIDE // SMALL_SIDE
        small = bits.reshape(-1, SMALL_SIDE, scale, SMALL_SIDE, scale).mean((2, 4), dtype=np.float32)
        first, second, same = _pairs(found[f"{part}_labels"])
        arrays[f"{name}_inputs"] = np.stack([small[first], small[second]], axis=1)
        arrays[f"{name}_labels"] = same
    return arrays


def _pairs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of both sides and whether they are of one character, (NUM_PAIRS,) each."""
    generator = np.random.default_rng(PAIR_SEED)
    same = np.arange(NUM_PAIRS) % 2
    found: dict[tuple[int, int], None] = {}  # each pair once, or training and validation would share some
    while len(found) < NUM_PAIRS:
        left = int(generator.integers(len(labels)))
        alike = labels == labels[left] if same[len(found)] else labels != labels[left]
        others = np.flatnonzero(alike)
        right = int(generator.choice(others[others != left]))
        found[min(left, right), max(left, right)] = None
    first, second = np.array(list(found)).T
    return first, second, same.astype(np.int64)


OMNIGLOT = DataFile(
    "omniglot_small.npz",
    _decode,
    None,
    "It is a NumPy archive of the sets images_background_small1 and small2 of Omniglot: small1_bits, small1_labels, "
    "small2_bits, small2_labels, drawings of 105 x 105 pixels as packed bits, 1 is ink.",
    sha256="392b6baefa63970ce52ac32319c139e2bcca1d3e15a2ceff1a10cfcbffcad9fa",
)


class Siamese(nn.Module):
    """Two drawings through one network; how far their codes are from each other decides."""

    def __init__(self, channels: int, code_size: int) -> None:
        super().__init__()
        features = 2 * channels * (SMALL_SIDE // 4) ** 2
        self.code = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(features, code_size),
            nn.Sigmoid(),
        )
        self.readout = nn.Linear(code_size, 1)

    def forward(self, pairs: Tensor) -> Tensor:
        """Logits of "the same character", (batch,), of pairs, (batch, 2, side, side)."""
        first, second = self.code(pairs[:, :1]), self.code(pairs[:, 1:])
        return cast(Tensor, self.readout((first - second).abs()).squeeze(-1))


@final
@dataclass(frozen=True)
class OmniglotSiamese(Task):
    """A Siamese network on 800 pairs of drawings; the test is on alphabets that it has not seen.

    Source: Koch, Zemel, Salakhutdinov, "Siamese Neural Networks for One-shot Image Recognition", 2015; data by Lake,
    Salakhutdinov, Tenenbaum, Science 2015.
    """

    name: ClassVar[str] = "omniglot-siamese"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "Omniglot, background small 1 and 2 (Lake et al., 2015), MIT licence"
    needs: ClassVar[str | None] = OMNIGLOT.name
    maximum_epochs: ClassVar[int] = 60
    batch_size: ClassVar[int] = 50
    metric: ClassVar[Metric] = Metric("error", unit="%")
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }

    def splits(self) -> Splits:
        arrays = OMNIGLOT.arrays()
        return cut(labelled(arrays, "train"), labelled(arrays, "test"), num_train=800)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: Siamese(8, 32))

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        pairs, same = batch
        logits = model(pairs)
        return functional.binary_cross_entropy_with_logits(logits, same.to(logits.dtype))

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": binary cross-entropy in nats; "error": 0 where the verdict is right, 100 where it is wrong."""
        pairs, same = batch
        logits = model(pairs)
        wrong = (logits > 0) != (same > 0)
        return {
            "loss": functional.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="none"),
            "error": 100.0 * wrong.to(logits.dtype),
        }
