"""STL-10: 5,000 images of 96 x 96, few enough that a wide network learns them by heart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

from torch import nn

from glideslope.tasks.augmentation import CropAndFlip
from glideslope.tasks.classification import Classification
from glideslope.tasks.image_sets import STL10, STL10_CLASSES, image_splits
from glideslope.tasks.models import Standardise
from glideslope.tasks.residual import wide_resnet
from glideslope.trials.task import Default, Splits, seeded_model

MEAN = (0.4467, 0.4398, 0.4066)
STD = (0.2603, 0.2566, 0.2713)


@final
@dataclass(frozen=True)
class STL10WRN(CropAndFlip, Classification):
    """WRN-16-8 (10,961,370 parameters) on STL-10: batch 64, 200 epochs, images of 96 x 96.

    4,500 labelled images to train on, 500 to choose rates by, the published 8,000 to report on; the 100,000 without
    labels are left out. Random crop and flip as on CIFAR-10, ours.

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022, Table 3.
        The 500 and 800 images it names are those of each class: 5,000 and 8,000 in all.
    """

    name: ClassVar[str] = "stl10-wrn16-8"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "STL-10 (Coates, Lee, Ng, 2011)"
    needs: ClassVar[str | None] = STL10.name
    maximum_epochs: ClassVar[int] = 200
    batch_size: ClassVar[int] = 64
    evaluation_batch: ClassVar[int] = 128
    whole_epochs: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    def splits(self) -> Splits:
        return image_splits(STL10)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: nn.Sequential(Standardise(MEAN, STD), wide_resnet(16, 8, STL10_CLASSES)))
