"""MNIST: a small dense network, and the variational autoencoder of the REX paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from glideslope.tasks.classification import NUM_CLASSES, Classification
from glideslope.tasks.image_sets import image_splits
from glideslope.tasks.models import VariationalAutoencoder, mlp
from glideslope.tasks.parts import cut, labelled
from glideslope.tasks.reconstruction import VariationalReconstruction
from glideslope.tasks.small_image_sets import MNIST
from glideslope.trials.task import Batch, Default, Part, Splits, seeded_model


@final
@dataclass(frozen=True)
class MNISTMLP(Classification):
    """A dense network 784-32-10 (25,450 parameters) on 2,000 images of MNIST: enough to be learned by heart."""

    name: ClassVar[str] = "mnist-mlp"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "MNIST (LeCun, Cortes, Burges, 1998)"
    needs: ClassVar[str | None] = MNIST.name
    maximum_epochs: ClassVar[int] = 60
    batch_size: ClassVar[int] = 50
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.03),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }

    def splits(self) -> Splits:
        return cut(*mnist_images(), num_train=2000)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: nn.Sequential(nn.Flatten(), *mlp((784, 32, NUM_CLASSES)).children()))


def mnist_images() -> tuple[Batch, Batch]:
    """The published training and test sets: images (n, 1, 28, 28) in [0, 1], labels (n,)."""
    arrays = MNIST.arrays()
    return labelled(arrays, "train"), labelled(arrays, "test")


@final
@dataclass(frozen=True)
class MNISTVAE(VariationalReconstruction):
    """The variational autoencoder of the REX paper: 784-512-256-2 and back, judged by its loss on the test set.

    Three dense layers each way, latent size 2, batch 100. 55,000 images to train on, 5,000 to choose rates by, the
    published 10,000 to report on. Pixels are intensities in [0, 1], not binarised.

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022.
        The widths of the hidden layers are not given there; these are ours.
    """

    name: ClassVar[str] = "mnist-vae"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "MNIST (LeCun, Cortes, Burges, 1998)"
    needs: ClassVar[str | None] = MNIST.name
    maximum_epochs: ClassVar[int] = 200
    batch_size: ClassVar[int] = 100
    whole_epochs: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.001),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    def splits(self) -> Splits:
        labelled = image_splits(MNIST)

        def images(part: Part) -> Batch:
            return (part[0][:].flatten(1),)

        return Splits(train=images(labelled.train), validation=images(labelled.validation), test=images(labelled.test))

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: VariationalAutoencoder((784, 512, 256), self.latent_size))
