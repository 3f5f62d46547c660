"""Handwritten digits, 8 x 8 pixels: the 1,797 images that come with scikit-learn, so nothing is downloaded."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from glideslope.tasks.cache import Arrays
from glideslope.tasks.classification import NUM_CLASSES, NoisyClassification
from glideslope.tasks.models import VariationalAutoencoder, image_cnn, mlp, orthogonalise
from glideslope.tasks.reconstruction import Reconstruction, VariationalReconstruction
from glideslope.trials.task import Default, Splits, seeded_model

SOURCE = "UCI optical digits (Alpaydin and Kaynak, 1998), 8 x 8, from scikit-learn"
NUM_PIXELS = 64
NUM_TRAIN, NUM_VALIDATION = 1200, 297
"""1,200 examples make 24 updates of 50; 300 are left for the test."""
ORDER_SEED = 0


@dataclass(frozen=True)
class DigitsClassification(NoisyClassification):
    """Which digit is it? With clean labels every schedule is right on 97 %, so training labels are wrong on purpose."""

    source: ClassVar[str] = SOURCE
    batch_size: ClassVar[int] = 50

    @final
    def splits(self) -> Splits:
        return self.cut(_examples(), NUM_TRAIN, NUM_VALIDATION)


@final
@dataclass(frozen=True)
class DigitsMLP(DigitsClassification):
    """A dense network 64-32-10 (2,410 parameters) on digits. TODO"""

    name: ClassVar[str] = "digits-mlp"
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 84
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.01),
        "adamw": Default(0.01),
    }

    label_noise: float = 0.3

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: mlp((NUM_PIXELS, 32, NUM_CLASSES)))


@final
@dataclass(frozen=True)
class DigitsCNN(DigitsClassification):
    """Two convolutions of 8 and 16 channels (1,898 parameters) on digits. TODO"""

    name: ClassVar[str] = "digits-cnn"
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 84
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.01),
        "adamw": Default(0.01),
    }

    label_noise: float = 0.3

    def shaped(self, inputs: Tensor) -> Tensor:
        return inputs.view(-1, 1, 8, 8)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: image_cnn(8, (8, 16), NUM_CLASSES))


@final
@dataclass(frozen=True)
class DigitsAutoencoder(Reconstruction):
    """A dense autoencoder 64-20-6-20-64 (2,910 parameters) on digits: one of the two default tasks.

    TODO
    """

    name: ClassVar[str] = "digits-autoencoder"
    version: ClassVar[int] = 1
    source: ClassVar[str] = SOURCE
    maximum_epochs: ClassVar[int] = 84
    batch_size: ClassVar[int] = 50
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.027, warmup_fraction=0.1),
        "adam": Default(0.027, warmup_fraction=0.1),
        "adamw": Default(0.027, warmup_fraction=0.1),
    }

    def splits(self) -> Splits:
        return _images_alone()

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: orthogonalise(mlp((NUM_PIXELS, 20, 6, 20, NUM_PIXELS), linear_after=(1,))))


@final
@dataclass(frozen=True)
class DigitsVAE(VariationalReconstruction):
    """TODO"""

    name: ClassVar[str] = "digits-vae"
    version: ClassVar[int] = 1
    source: ClassVar[str] = SOURCE
    maximum_epochs: ClassVar[int] = 84
    batch_size: ClassVar[int] = 50
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.003),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }

    def splits(self) -> Splits:
        return _images_alone()

    def model(self, seed: int) -> nn.Module:
        def build() -> nn.Module:
            network = VariationalAutoencoder((NUM_PIXELS, 64, 32), self.latent_size)
            orthogonalise(network.encoder)
            orthogonalise(network.decoder)
            return network

        return seeded_model(seed, build)


def _images_alone() -> Splits:
    inputs = torch.from_numpy(_examples()["inputs"])
    test = NUM_TRAIN + NUM_VALIDATION
    return Splits(train=(inputs[:NUM_TRAIN],), validation=(inputs[NUM_TRAIN:test],), test=(inputs[test:],))


@functools.cache
def _examples() -> Arrays:
    """ "inputs" (1797, 64) float32 in [0, 1] and "labels" (1797,) int64, in one fixed random order.

    The original order goes by writer. Shuffled, the three parts hold the same hands: an easier question, but one whose
    answer depends less on which writers fall into the test.
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    inputs, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(ORDER_SEED).permutation(len(labels))
    return {"inputs": (inputs[order] / 16).astype(np.float32), "labels": labels[order].astype(np.int64)}
