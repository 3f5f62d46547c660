"""Augmentation: what images look like in training, by draws that come in from outside."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from glideslope.trials.task import Noise, Task

PADDING = 4
COVERED_SIDE = 8
"""Of the square that hides a part of a training image, in pixels."""


class CropAndFlip(Task):
    """A task on small images that are shifted by up to four pixels, and mirrored half of the time: `shown` says how.

    Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, Section 4.2.
    """

    def shown(self, inputs: Tensor, noise: Noise) -> Tensor:
        return cropped_and_flipped(inputs, noise["shift"], noise["flip"])

    def augmentation(self, generator: np.random.Generator, num_samples: int) -> dict[str, np.ndarray]:
        """ "shift": first row and column of the crop, (num_samples, 2); "flip": mirrored or not, (num_samples,)."""
        return {
            "shift": generator.integers(0, 2 * PADDING + 1, (num_samples, 2)),
            "flip": generator.random(num_samples) < 0.5,
        }


def cropped_and_flipped(images: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Each image padded with black, cropped back to its size at `shift`, and mirrored where `flip` is True.

    Args:
        images: (batch, channels, height, width).
        shift: (batch, 2), integers in [0, 2 * PADDING]: first row and first column of the crop.
        flip: (batch,), booleans.
    """
    batch, channels, height, width = images.shape
    padded = functional.pad(images, (PADDING, PADDING, PADDING, PADDING))
    rows = shift[:, :1] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(batch, width)
    columns = shift[:, 1:] + torch.where(flip[:, None], width - 1 - columns, columns)
    # One gather for the whole batch: a loop over 128 images costs more than the network's first layer.
    which = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return padded[which, channel, rows[:, None, :, None], columns[:, None, None, :]]


def covered_corners(generator: np.random.Generator, num_samples: int, side: int) -> np.ndarray:
    """First row and column of the square of `COVERED_SIDE` pixels that lies somewhere on each image of `side` pixels.

    Returns:
        (num_samples, 2), integers in [0, side - COVERED_SIDE].
    """
    return generator.integers(0, side - COVERED_SIDE + 1, (num_samples, 2))
