"""Adversarial training: every training image is moved towards what the network gets wrong most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.classification import NUM_CLASSES, Classification
from glideslope.tasks.mnist import mnist_images
from glideslope.tasks.models import image_cnn
from glideslope.tasks.parts import cut, shuffled
from glideslope.tasks.small_image_sets import MNIST
from glideslope.trials.task import Batch, Default, Noise, Splits, seeded_model


@final
@dataclass(frozen=True)
class MNISTAdversarial(Classification):
    """A convolution of 8 channels on 1,000 images of MNIST at 14 x 14, trained on images moved by the gradient's sign.

    Judged on images as they are. Validation losses are those of plain images too.

    Args:
        strength: of the move, in units of the intensity, 0 <= strength <= 1.

    Source: Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.
    """

    name: ClassVar[str] = "mnist-adversarial"
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

    strength: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(f"`strength` is {self.strength}, but must satisfy 0 <= strength <= 1.")
        object.__setattr__(self, "strength", float(self.strength))

    def splits(self) -> Splits:
        train, test = mnist_images()
        late = shuffled(len(train[0])).flip(0)[: min(2000, len(train[0]))]
        small = (functional.avg_pool2d(train[0][late], 2), train[1][late])
        return cut(small, (functional.avg_pool2d(test[0][:2000], 2), test[1][:2000]), num_train=1000)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: image_cnn(14, (8,), NUM_CLASSES))

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        images, labels = batch
        tried = images.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(functional.cross_entropy(model(tried), labels), tried)
        moved = (images + self.strength * slope.sign()).clamp(0, 1).detach()
        return functional.cross_entropy(model(moved), labels)
