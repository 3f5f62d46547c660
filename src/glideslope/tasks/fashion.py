"""Fashion-MNIST: at 14 x 14 pixels, seconds to train, for studies of many runs; whole, for a convolutional network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn
from torch.nn import functional

from glideslope.tasks.classification import NUM_CLASSES, Classification
from glideslope.tasks.image_sets import image_splits
from glideslope.tasks.models import image_cnn, mlp
from glideslope.tasks.parts import cut, labelled
from glideslope.tasks.reconstruction import Reconstruction
from glideslope.tasks.small_image_sets import FASHION_MNIST
from glideslope.trials.task import Batch, Default, Part, Splits, seeded_model

SOURCE = "Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017), MIT licence"
SIDE = 14


def _small(num_train: int) -> Splits:
    """Images (n, 1, 14, 14) in [0, 1] and labels (n,)."""
    arrays = FASHION_MNIST.arrays()

    def part(name: str, most: int) -> Batch:
        images, labels = labelled(arrays, name, most)
        return functional.avg_pool2d(images, 2), labels

    return cut(part("train", 10_000), part("test", 5000), num_train)


@final
@dataclass(frozen=True)
class FashionSmall(Classification):
    """Two convolutions of 8 and 16 channels (2,698 parameters) on 2,000 images of Fashion-MNIST at 14 x 14."""

    name: ClassVar[str] = "fashion-small"
    version: ClassVar[int] = 1
    source: ClassVar[str] = SOURCE
    needs: ClassVar[str | None] = FASHION_MNIST.name
    maximum_epochs: ClassVar[int] = 60
    batch_size: ClassVar[int] = 50
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.03),
        "adam": Default(0.005),
        "adamw": Default(0.005),
    }

    def splits(self) -> Splits:
        return _small(num_train=2000)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: image_cnn(SIDE, (8, 16), NUM_CLASSES))


@final
@dataclass(frozen=True)
class FashionAutoencoder(Reconstruction):
    """A dense autoencoder 196-64-16-64-196 (27,476 parameters) on 2,000 images of Fashion-MNIST at 14 x 14."""

    name: ClassVar[str] = "fashion-autoencoder"
    version: ClassVar[int] = 1
    source: ClassVar[str] = SOURCE
    needs: ClassVar[str | None] = FASHION_MNIST.name
    maximum_epochs: ClassVar[int] = 60
    batch_size: ClassVar[int] = 50
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.01),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }

    def splits(self) -> Splits:
        def images(part: Part) -> Batch:
            return (part[0][:].flatten(1),)

        whole = _small(num_train=2000)
        return Splits(images(whole.train), images(whole.validation), images(whole.test))

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: mlp((SIDE**2, 64, 16, 64, SIDE**2), linear_after=(1,)))


@final
@dataclass(frozen=True)
class FashionCNN(Classification):
    """Two convolutions of 16 and 32 channels and a dense layer of 64 (105,866 parameters) on Fashion-MNIST.

    55,000 images to train on, 5,000 to choose rates by, the published 10,000 to report on. Labels are left as they are:
    the classes overlap enough (shirt, pullover, coat) that schedules separate without help.

    Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017.
    """

    name: ClassVar[str] = "fashion-cnn"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017), MIT licence"
    needs: ClassVar[str | None] = FASHION_MNIST.name
    maximum_epochs: ClassVar[int] = 20
    batch_size: ClassVar[int] = 100
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }

    def splits(self) -> Splits:
        return image_splits(FASHION_MNIST)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: image_cnn(28, (16, 32), NUM_CLASSES, hidden=64))
