"""CIFAR-10 and CIFAR-100 in the papers' settings: residual networks, VGG, and ResNet-9 that is done in 30 epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from glideslope.tasks.augmentation import COVERED_SIDE, CropAndFlip, covered_corners
from glideslope.tasks.classification import NUM_CLASSES, Classification
from glideslope.tasks.crops import covered
from glideslope.tasks.image_sets import CIFAR100, CIFAR100_CLASSES, CIFAR_SIDE, image_splits
from glideslope.tasks.models import Standardise, cifar_resnet, image_cnn
from glideslope.tasks.residual import cifar_resnet18, resnet9
from glideslope.tasks.small_image_sets import CIFAR10
from glideslope.tasks.vgg import vgg16
from glideslope.trials.task import Default, Noise, Splits, seeded_model

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)
CIFAR100_STD = (0.2673, 0.2564, 0.2762)


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
        whole = image_splits(CIFAR10)
        return Splits(tuple(tensor[: self.num_train] for tensor in whole.train), whole.validation, whole.test)

    def model(self, seed: int) -> nn.Module:
        channels = (self.width, 2 * self.width, 4 * self.width)
        return seeded_model(
            seed,
            lambda: nn.Sequential(
                Standardise(CIFAR10_MEAN, CIFAR10_STD), *image_cnn(32, channels, NUM_CLASSES, hidden=32, colours=3)
            ),
        )


class CIFARSetting(CropAndFlip, Classification):
    """A setting of the papers on 32 x 32 images: 45,000 to train on, 5,000 to choose rates by, the published test set.

    Batch 128, random crop and flip; 300 epochs where a final class says nothing else.
    """

    maximum_epochs: ClassVar[int] = 300
    batch_size: ClassVar[int] = 128
    whole_epochs: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }


class CIFAR10Setting(CIFARSetting):
    """On CIFAR-10."""

    source: ClassVar[str] = "CIFAR-10 (Krizhevsky, 2009)"
    needs: ClassVar[str | None] = CIFAR10.name

    def splits(self) -> Splits:
        return image_splits(CIFAR10)


class CIFAR100Setting(CIFARSetting):
    """On CIFAR-100."""

    source: ClassVar[str] = "CIFAR-100 (Krizhevsky, 2009)"
    needs: ClassVar[str | None] = CIFAR100.name

    def splits(self) -> Splits:
        return image_splits(CIFAR100)


@final
@dataclass(frozen=True)
class CIFAR10ResNet20(CIFAR10Setting):
    """ResNet-20 (269,722 parameters) on CIFAR-10, after He et al.: batch 128, random crop and flip.

    45,000 images to train on, 5,000 to choose rates by, the published test set to report on.

    The recipe's weight decay, 1e-4, belongs to the optimizer: enter it as `sgdm(weight_decay=1e-4)`.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Section 4.2; 300
        epochs as in Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022.
    """

    name: ClassVar[str] = "cifar10-resnet20"
    version: ClassVar[int] = 1

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: nn.Sequential(Standardise(CIFAR10_MEAN, CIFAR10_STD), cifar_resnet(20)))


@final
@dataclass(frozen=True)
class CIFAR10ResNet38(CIFAR10Setting):
    """ResNet-38 (561,370 parameters) on CIFAR-10, on which the REX paper compares how often a schedule is read.

    45,000 images to train on, 5,000 to choose rates by, the published test set to report on. Batch 128, random crop
    and flip; a weight decay belongs to the optimizer.

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022, Table 2,
        Figures 2 and 3; the network after He et al., CVPR 2016, Section 4.2, with n = 6.
    """

    name: ClassVar[str] = "cifar10-resnet38"
    version: ClassVar[int] = 1

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: nn.Sequential(Standardise(CIFAR10_MEAN, CIFAR10_STD), cifar_resnet(38)))


@final
@dataclass(frozen=True)
class CIFAR10ResNet18(CIFAR10Setting):
    """ResNet-18 at full width (11,173,962 parameters) on CIFAR-10: the setting that budgeted training was studied on.

    45,000 images to train on, 5,000 to choose rates by, the published test set to report on. The paper sets 5,000 aside
    at random; here they are the last ones. Batch 128, random crop and flip.

    Momentum 0.9 and weight decay 5e-4 belong to the optimizer: enter it as `sgdm(weight_decay=5e-4)`, at the rate 0.1.

    Source: Li, Yumer, Ramanan, "Budgeted Training: Rethinking Deep Neural Network Training Under Resource Constraints",
        ICLR 2020, Section 4.
    """

    name: ClassVar[str] = "cifar10-resnet18"
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 200

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: nn.Sequential(Standardise(CIFAR10_MEAN, CIFAR10_STD), cifar_resnet18()))


@final
@dataclass(frozen=True)
class CIFAR10ResNet9(CIFAR10Setting):
    """ResNet-9 (6,573,130 parameters) on CIFAR-10 for 30 epochs: the setting in which ARC steers the classifier.

    45,000 images to train on, 5,000 to choose rates by and to show to the controller, the published test set to report
    on. Batch 128. Training images are cropped and mirrored at random, and a square of 8 x 8 pixels is covered with the
    mean colour, as in the authors' code; padding is black here.

    Source: Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021, Section 4.1, with
        Adam.
    """

    name: ClassVar[str] = "cifar10-resnet9"
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 30
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.03),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: nn.Sequential(Standardise(CIFAR10_MEAN, CIFAR10_STD), resnet9()))

    def shown(self, inputs: Tensor, noise: Noise) -> Tensor:
        colour = torch.tensor(CIFAR10_MEAN, device=inputs.device)
        return covered(super().shown(inputs, noise), noise["covered"], COVERED_SIDE, colour)

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        """As `CropAndFlip`, and "covered": first row and column of the square that hides, (num_samples, 2)."""
        corners = covered_corners(generator, num_samples, CIFAR_SIDE)
        return {**super().augmentation(generator, num_samples), "covered": corners}


@final
@dataclass(frozen=True)
class CIFAR100VGG16(CIFAR100Setting):
    """VGG-16 with batch normalisation (14,774,436 parameters) on CIFAR-100: batch 128, 300 epochs.

    45,000 images to train on, 5,000 to choose rates by, the published test set to report on. Random crop and flip, and
    one dense layer behind the convolutions: these are ours.

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022, Table 3.
    """

    name: ClassVar[str] = "cifar100-vgg16"
    version: ClassVar[int] = 1
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.0003),
        "adamw": Default(0.0003),
    }

    def model(self, seed: int) -> nn.Module:
        return seeded_model(
            seed, lambda: nn.Sequential(Standardise(CIFAR100_MEAN, CIFAR100_STD), vgg16(CIFAR100_CLASSES))
        )


@final
@dataclass(frozen=True)
class CIFAR100ResNet38(CIFAR100Setting):
    """ResNet-38 (567,220 parameters) on CIFAR-100, on which the REX paper compares how often a schedule is read.

    45,000 images to train on, 5,000 to choose rates by, the published test set to report on. Batch 128, random crop
    and flip; a weight decay belongs to the optimizer.

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022, Table 2,
        Figures 2 and 3; the network after He et al., CVPR 2016, Section 4.2, with n = 6.
    """

    name: ClassVar[str] = "cifar100-resnet38"
    version: ClassVar[int] = 1

    def model(self, seed: int) -> nn.Module:
        return seeded_model(
            seed,
            lambda: nn.Sequential(Standardise(CIFAR100_MEAN, CIFAR100_STD), cifar_resnet(38, CIFAR100_CLASSES)),
        )
