"""Tiny ImageNet: 200 classes at 64 x 64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from glideslope.tasks.augmentation import CropAndFlip
from glideslope.tasks.classification import Classification
from glideslope.tasks.image_sets import TINY_IMAGENET, TINY_IMAGENET_CLASSES, image_splits
from glideslope.tasks.models import Standardise, cifar_resnet
from glideslope.trials.task import Default, Splits, seeded_model

MEAN = (0.4802, 0.4481, 0.3975)
STD = (0.2770, 0.2691, 0.2821)


@final
@dataclass(frozen=True)
class TinyImageNetResNet56(CropAndFlip, Classification):
    """ResNet-56 (865,368 parameters) on Tiny ImageNet, images of 64 x 64.

    95,000 images to train on, 5,000 to choose rates by, in one random order, as the published ones are sorted by class.
    Reported on the published 10,000 for validation: the published test images have no labels. Batch, epochs, crop and
    flip are those of the ResNet-20 on CIFAR-10, ours.

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022,
        Appendix A; the network after He et al., CVPR 2016, Section 4.2.
    """

    name: ClassVar[str] = "tinyimagenet-resnet56"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "Tiny ImageNet (Stanford CS231n), images of ImageNet (Russakovsky et al., 2015)"
    needs: ClassVar[str | None] = TINY_IMAGENET.name
    maximum_epochs: ClassVar[int] = 300
    batch_size: ClassVar[int] = 128
    evaluation_batch: ClassVar[int] = 512
    whole_epochs: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    def splits(self) -> Splits:
        return image_splits(TINY_IMAGENET)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(
            seed, lambda: nn.Sequential(Standardise(MEAN, STD), cifar_resnet(56, TINY_IMAGENET_CLASSES))
        )
