"""Images from the data folder: MNIST, Fashion-MNIST and CIFAR-10, in settings near those of the papers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from glideslope.tasks.augmentation import CropAndFlip
from glideslope.tasks.classification import NUM_CLASSES, Classification
from glideslope.tasks.data import CIFAR10, FASHION_MNIST, MNIST, DataFile
from glideslope.tasks.models import Standardise, VariationalAutoencoder, cifar_resnet, image_cnn, mlp
from glideslope.tasks.parts import cut, labelled
from glideslope.tasks.reconstruction import VariationalReconstruction
from glideslope.trials.task import Batch, Default, Part, Splits, seeded_model

NUM_VALIDATION = 5000
CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)


def _image_splits(file: DataFile) -> Splits:
    """The published test set whole; the last 5,000 images of the published training set for validation.

    A file with few images (a test's, a first try's) gives a tenth of them instead.
    """
    arrays = file.arrays()
    inputs, labels = labelled(arrays, "train")
    num_train = len(inputs) - min(NUM_VALIDATION, len(inputs) // 10)
    return Splits(
        train=(inputs[:num_train], labels[:num_train]),
        validation=(inputs[num_train:], labels[num_train:]),
        test=labelled(arrays, "test"),
    )


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
        return _image_splits(FASHION_MNIST)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: image_cnn(28, (16, 32), NUM_CLASSES, hidden=64))


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
class CIFAR10CNN(Classification):
    """Three convolutions and a dense layer on CIFAR-10, unaugmented: a small net for quick curves.

    Args:
        width: channels of the first convolution, at least 1; the others have twice and four times as many. 8 makes
            24,362 parameters.
        num_train: images to train on, at most 45,000.
    """

    name: ClassVar[str] = "cifar10-cnn"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "CIFAR-10 (Krizhevsky, 2009)"
    needs: ClassVar[str | None] = CIFAR10.name
    maximum_epochs: ClassVar[int] = 30
    batch_size: ClassVar[int] = 100
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.03),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }

    width: int = 8
    num_train: int = 10_000

    def __post_init__(self) -> None:
        for name, limit in (("width", 1024), ("num_train", 45_000)):
            if not 1 <= getattr(self, name) <= limit:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must satisfy 1 <= {name} <= {limit}.")

    def splits(self) -> Splits:
        whole = _image_splits(CIFAR10)
        return Splits(tuple(tensor[: self.num_train] for tensor in whole.train), whole.validation, whole.test)

    def model(self, seed: int) -> nn.Module:
        channels = (self.width, 2 * self.width, 4 * self.width)
        return seeded_model(
            seed,
            lambda: nn.Sequential(
                Standardise(CIFAR10_MEAN, CIFAR10_STD), *image_cnn(32, channels, NUM_CLASSES, hidden=32, colours=3)
            ),
        )


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
        labelled = _image_splits(MNIST)

        def images(part: Part) -> Batch:
            return (part[0][:].flatten(1),)

        return Splits(train=images(labelled.train), validation=images(labelled.validation), test=images(labelled.test))

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: VariationalAutoencoder((784, 512, 256), self.latent_size))


@final
@dataclass(frozen=True)
class CIFAR10ResNet20(CropAndFlip, Classification):
    """ResNet-20 (269,722 parameters) on CIFAR-10, after He et al.: batch 128, random crop and flip.

    45,000 images to train on, 5,000 to choose rates by, the published test set to report on.

    The recipe's weight decay, 1e-4, belongs to the optimizer: enter it as `sgdm(weight_decay=1e-4)`.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Section 4.2; 300
        epochs as in Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022.
    """

    name: ClassVar[str] = "cifar10-resnet20"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "CIFAR-10 (Krizhevsky, 2009)"
    needs: ClassVar[str | None] = CIFAR10.name
    maximum_epochs: ClassVar[int] = 300
    batch_size: ClassVar[int] = 128
    whole_epochs: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    def splits(self) -> Splits:
        return _image_splits(CIFAR10)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: nn.Sequential(Standardise(CIFAR10_MEAN, CIFAR10_STD), cifar_resnet(20)))
