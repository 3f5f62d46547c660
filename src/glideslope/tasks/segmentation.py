"""Segmentation: which pixels of a noisy image are ink? A small U-Net with the Dice loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.mnist import mnist_images
from glideslope.tasks.parts import cut, shuffled
from glideslope.tasks.small_image_sets import MNIST
from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task, seeded_model

INK = 0.5
CONTRAST = 0.4
NOISE = 0.35
NOISE_SEED = 0


class UNet(nn.Module):
    """Two levels: convolutions on the way down, nearest neighbours and skip connections on the way up.

    Source: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())

        self.outer = block(1, channels)
        self.inner = block(channels, 2 * channels)
        self.up = block(3 * channels, channels)
        self.readout = nn.Conv2d(channels, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of ink, (batch, height, width), of images, (batch, 1, height, width), sides divisible by 2."""
        outer = self.outer(images)
        inner = self.inner(functional.max_pool2d(outer, 2))
        wide = inner.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
        return cast(Tensor, self.readout(self.up(torch.cat([outer, wide], dim=1))).squeeze(1))


@final
@dataclass(frozen=True)
class MNISTUNet(Task):
    r"""A U-Net on 400 digits of MNIST at 14 x 14, faint and under fixed noise; judged by 100 (1 − Dice).

    .. math:: \mathrm{Dice} = \frac{2 \sum p y + 1}{\sum p + \sum y + 1}

    for each image, with the probabilities p in the loss and the verdicts p > 1/2 in the metric.

    Source: Milletari, Navab, Ahmadi, "V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
    Segmentation", 2016, for the loss.
    """

    name: ClassVar[str] = "mnist-unet"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "MNIST (LeCun, Cortes, Burges, 1998), made faint and noisy"
    needs: ClassVar[str | None] = MNIST.name
    maximum_epochs: ClassVar[int] = 60
    batch_size: ClassVar[int] = 20
    metric: ClassVar[Metric] = Metric("miss", unit="%")
    defaults: ClassVar[Mapping[str, Default]] = {
        "sgdm": Default(0.1),
        "adam": Default(0.003),
        "adamw": Default(0.003),
    }

    def splits(self) -> Splits:
        train, test = mnist_images()
        # From the other end of the order that `mnist-mlp` takes its images from.
        late = shuffled(len(train[0])).flip(0)[: min(2000, len(train[0]))]
        return cut(_noisy(train[0][late], 0), _noisy(test[0][:1000], 1), num_train=400)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: UNet(8))

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return self.evaluate(model, batch, noise)["loss"].mean()

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        """ "loss": 1 − Dice of the probabilities; "miss": 100 (1 − Dice) of the verdicts."""
        images, ink = batch
        logits = model(images)
        verdicts = (logits > 0).to(logits.dtype)
        return {"loss": 1 - _dice(torch.sigmoid(logits), ink), "miss": 100 * (1 - _dice(verdicts, ink))}


def _dice(found: Tensor, ink: Tensor) -> Tensor:
    """(batch, height, width) each → (batch,)."""
    overlap = (found * ink).sum((-2, -1))
    return (2 * overlap + 1) / (found.sum((-2, -1)) + ink.sum((-2, -1)) + 1)


def _noisy(images: Tensor, part: int) -> Batch:
    """Images (n, 1, 14, 14), faint and noisy, and where there is ink, (n, 14, 14)."""
    generator = torch.Generator().manual_seed(NOISE_SEED + part)
    small = functional.avg_pool2d(images, 2)
    return CONTRAST * small + NOISE * torch.randn(small.shape, generator=generator), (small[:, 0] > INK).float()
