"""ImageNet: 1.28 million pictures of 1,000 kinds, read from their files as they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast, final

import numpy as np
import torch
from torch import Tensor, nn

from glideslope.tasks.cache import Arrays
from glideslope.tasks.classification import Classification
from glideslope.tasks.columns import ImageFiles
from glideslope.tasks.crops import Crops, centre_boxes, cut_out, mirrored, random_boxes
from glideslope.tasks.image_sets import IMAGENET, num_held_out
from glideslope.tasks.models import Standardise
from glideslope.tasks.residual import imagenet_resnet
from glideslope.trials.task import Default, Noise, Part, Splits, seeded_model

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SQUARE = 320
"""Side of the squares that pictures are squeezed into when they are read, in pixels."""
SIDE = 224
"""Of what the network sees, in pixels."""
CENTRE = 224 / 256
"""Side of what is evaluated, as a share of the picture's shorter side."""


class ImageNet(Classification):
    """Pictures that are cut out and mirrored at random to train on, and cut out of the middle to be judged by.

    Judged by the error of the first guess (top-1). Training pictures but 5,000 are trained on, the 5,000 are there to
    choose rates by, all in one random order, as the folders are sorted by class; what is published for validation is
    the test set. Pictures are read as squares of 320 x 320, and cut out of those, at linear interpolation: common
    practice reads them at full size, so a small part has fewer pixels here.

    Batches of 256, as in PyTorch's example. Final classes give the network, and a recipe of their own.
    """

    source: ClassVar[str] = "ImageNet, ILSVRC 2012 (Russakovsky et al., 2015)"
    needs: ClassVar[str | None] = IMAGENET.name
    maximum_epochs: ClassVar[int] = 90
    evaluation_batch: ClassVar[int] = 128
    whole_epochs: ClassVar[bool] = True
    batch_size: ClassVar[int] = 256
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.001),
        "adamw": Default(0.001),
    }

    @final
    def splits(self) -> Splits:
        folder, arrays = IMAGENET.path, IMAGENET.arrays()
        assert folder is not None  # there were arrays

        def squares(split: str, rows: slice) -> ImageFiles:
            return ImageFiles(folder, cast("Sequence[str]", arrays[f"{split}_names"][rows]), SQUARE)

        def labels(split: str, rows: slice) -> Tensor:
            return torch.from_numpy(arrays[f"{split}_labels"][rows])

        def judged(split: str, rows: slice) -> Part:
            boxes = centre_boxes(arrays[f"{split}_proportions"][rows], CENTRE)
            return Crops(squares(split, rows), boxes, SIDE), labels(split, rows)

        trained = slice(_num_train(arrays))
        return Splits(
            train=(squares("train", trained), labels("train", trained)),
            validation=judged("train", slice(trained.stop, None)),
            test=judged("test", slice(None)),
        )

    @final
    def shown(self, inputs: Tensor, noise: Noise) -> Tensor:
        return mirrored(cut_out(inputs, noise["box"], SIDE), noise["flip"])

    @final
    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        """ "box": the part that is seen, (num_samples, 4), see `random_boxes`; "flip": mirrored or not, (num_samples,).

        Boxes depend on the proportions of the pictures, so they are drawn for the first pictures of the training set.
        """
        proportions = IMAGENET.arrays()["train_proportions"][:num_samples]
        return {"box": random_boxes(generator, proportions), "flip": generator.random(num_samples) < 0.5}


def _num_train(arrays: Arrays) -> int:
    return len(arrays["train_labels"]) - num_held_out(len(arrays["train_labels"]))


def _network(seed: int, depth: int) -> nn.Module:
    return seeded_model(seed, lambda: nn.Sequential(Standardise(MEAN, STD), imagenet_resnet(depth)))


@final
@dataclass(frozen=True)
class ImageNetResNet18(ImageNet):
    """ResNet-18 (11,689,512 parameters) on ImageNet, for budgeted training.

    Network, loader, batch (256) and epochs (90) are those of PyTorch's ImageNet example, which the paper adapts; the
    example's weight decay, 1e-4, belongs to the optimizer: enter it as `sgdm(weight_decay=1e-4)`, at the rate 0.1.

    Source: Li, Yumer, Ramanan, "Budgeted Training: Rethinking Deep Neural Network Training Under Resource Constraints",
        ICLR 2020.
    """

    name: ClassVar[str] = "imagenet-resnet18"
    version: ClassVar[int] = 1

    def model(self, seed: int) -> nn.Module:
        return _network(seed, 18)


@final
@dataclass(frozen=True)
class ImageNetResNet50(ImageNet):
    """ResNet-50 (25,557,032 parameters) on ImageNet, 90 epochs.

    The batch of 256 is that of PyTorch's ImageNet example, as is the weight decay of 1e-4, which belongs to the
    optimizer: enter it as `sgdm(weight_decay=1e-4)`.

    Source: Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule", MLSys 2022, Table 3.
    """

    name: ClassVar[str] = "imagenet-resnet50"
    version: ClassVar[int] = 1

    def model(self, seed: int) -> nn.Module:
        return _network(seed, 50)


@final
@dataclass(frozen=True)
class ImageNetResNet101(ImageNet):
    """ResNet-101 (44,549,160 parameters) on ImageNet, in the recipe of the tradeoff curves by cyclic rates.

    Batch 2048, and SGDW with momentum 0.875 and weight decay 5e-4, which belong to the optimizer: enter it as
    `sgdw(momentum=0.875, weight_decay=5e-4)`, at the rate 2.048. The other rates are ours.

    The recipe warms up for 8 epochs, which belong to the schedule. In a tradeoff curve the warmup lasts half of the
    shortest budget, where each is twice the one before: 16, 32, 64 and 128 epochs have one of 8.

    Source: MosaicML, "Efficiently Estimating Pareto Frontiers with Cyclic Learning Rate Schedules", 2022; the number of
        epochs is that of the recipe for this network in MosaicML's Composer: 8 of warmup, 82 of cosine decay.
    """

    name: ClassVar[str] = "imagenet-resnet101"
    version: ClassVar[int] = 1
    batch_size: ClassVar[int] = 2048
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdw": Default(2.048),
        "sgdm": Default(0.8),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }

    def model(self, seed: int) -> nn.Module:
        return _network(seed, 101)
