"""House numbers: the proxy task by which ARC's authors chose among their controllers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from torch import Tensor, nn

from glideslope.tasks.augmentation import COVERED_SIDE, covered_corners
from glideslope.tasks.classification import Classification
from glideslope.tasks.crops import covered
from glideslope.tasks.image_sets import CIFAR_SIDE, SVHN, SVHN_CLASSES, image_splits
from glideslope.tasks.models import Standardise
from glideslope.tasks.residual import wide_resnet
from glideslope.trials.task import Default, Noise, Splits, seeded_model

MEAN = (0.4377, 0.4438, 0.4728)
STD = (0.1980, 0.2010, 0.1970)
DEPTH = 28


@final
@dataclass(frozen=True)
class SVHNWRN28(Classification):
    """A wide residual network 28 layers deep on the cropped digits of SVHN: batch 128, 30 epochs.

    68,257 images to train on, 5,000 to choose rates by, the published 26,032 to report on. In training a square of
    8 x 8 pixels of each image is black, and nothing is mirrored. That, the epochs and the width are those of the
    authors' code, which trains with Adam from 0.1, 0.001 and 0.00001 and counts the accuracy on the test set; its
    network differs in where norms and ReLUs stand, and has pools for strides.

    Args:
        width: times as many channels as 16, 32 and 64, from 1 to 20. 2 makes 1,467,610 parameters, 10 makes 36,479,194.

    Source: Dong et al., "To Raise or Not To Raise: The Autonomous Learning Rate Question", 2021; the network of
        Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016.
    """

    name: ClassVar[str] = "svhn-wrn28"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "SVHN (Netzer et al., 2011)"
    needs: ClassVar[str | None] = SVHN.name
    maximum_epochs: ClassVar[int] = 30
    batch_size: ClassVar[int] = 128
    evaluation_batch: ClassVar[int] = 512
    whole_epochs: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    width: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.width <= 20:
            raise ValueError(f"`width` is {self.width}, but must satisfy 1 <= width <= 20.")

    def splits(self) -> Splits:
        return image_splits(SVHN)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(
            seed, lambda: nn.Sequential(Standardise(MEAN, STD), wide_resnet(DEPTH, self.width, SVHN_CLASSES))
        )

    def shown(self, inputs: Tensor, noise: Noise) -> Tensor:
        return covered(inputs, noise["covered"], COVERED_SIDE, inputs.new_zeros(3))

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        """ "covered": first row and column of the square that hides, (num_samples, 2)."""
        return {"covered": covered_corners(generator, num_samples, CIFAR_SIDE)}
