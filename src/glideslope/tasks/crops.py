"""Crops: which part of a picture is seen, in shares of its sides, and which is covered."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from glideslope.trials.task import Column

SMALLEST_AREA = 0.08
"""Of a random part, as a share of the picture; the largest is all of it."""
WIDEST = 4 / 3
"""Of a random part: most pixels across for one down; and as many down for one across."""
ATTEMPTS = 10


def random_boxes(generator: np.random.Generator, proportions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Parts of pictures of random area, proportions and place, as the Inception networks were trained on.

    The area is drawn evenly from 8 to 100 % of the picture, the proportions, by their logarithm, from 3 : 4 to 4 : 3.
    What does not fit into the picture is drawn again, ten times at most; then it is the largest part in the middle
    whose proportions are in that range.

    Args:
        proportions: of the pictures, width / height: (pictures,).

    Returns:
        left, top, width and height, in shares of the picture's sides: (pictures, 4).

    Source: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, Section 6; the attempts are those of
        torchvision's `RandomResizedCrop`.
    """
    count = len(proportions)
    widths, heights = np.minimum(1, WIDEST / proportions), np.minimum(1, WIDEST * proportions)
    places = np.full((2, count), 0.5, np.float32)
    open_ones = np.arange(count)
    for _ in range(ATTEMPTS):
        areas = generator.uniform(SMALLEST_AREA, 1, len(open_ones))
        shapes = np.exp(generator.uniform(-np.log(WIDEST), np.log(WIDEST), len(open_ones)))
        across = np.sqrt(areas * shapes / proportions[open_ones])
        down = np.sqrt(areas / shapes * proportions[open_ones])
        fits = (across <= 1) & (down <= 1)
        decided = open_ones[fits]
        widths[decided], heights[decided] = across[fits], down[fits]
        places[:, decided] = generator.random((2, len(decided)))
        open_ones = open_ones[~fits]
    return np.stack([places[0] * (1 - widths), places[1] * (1 - heights), widths, heights], axis=1, dtype=np.float32)


def centre_boxes(proportions: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The square in the middle of each picture whose side is a share of the picture's shorter side.

    Args:
        proportions: of the pictures, width / height: (pictures,).
        share: 0 < share <= 1; scaling the shorter side to 256 pixels and cutting out 224 x 224 is 224 / 256.

    Returns:
        left, top, width and height, in shares of the picture's sides: (pictures, 4).
    """
    widths, heights = share * np.minimum(1, 1 / proportions), share * np.minimum(1, proportions)
    return np.stack([(1 - widths) / 2, (1 - heights) / 2, widths, heights], axis=1, dtype=np.float32)


def cut_out(images: Tensor, boxes: Tensor, side: int) -> Tensor:
    """A part of each image, scaled to a square by linear interpolation along both axes.

    It is as if the part had been cut out first: pixels outside of it do not shine in. Nothing is blurred before it is
    made smaller; at ratios below 2 every pixel still counts.

    Args:
        images: (batch, channels, height, width).
        boxes: left, top, width and height, in shares of the image's sides: (batch, 4).
        side: of the square, in pixels.

    Returns:
        (batch, channels, side, side).
    """
    height, width = images.shape[-2:]
    middles = (torch.arange(side, device=images.device) + 0.5) / side
    across, down = (
        (start + length * middles).clamp(start + 0.5 / pixels, start + length - 0.5 / pixels)
        for start, length, pixels in ((boxes[:, :1], boxes[:, 2:3], width), (boxes[:, 1:2], boxes[:, 3:], height))
    )
    shape = (len(images), side, side)
    grid = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=-1)
    # In the units of `grid_sample`: -1 and 1 are the outer edges of the image.
    return functional.grid_sample(images, 2 * grid - 1, padding_mode="border", align_corners=False)


def mirrored(images: Tensor, flip: Tensor) -> Tensor:
    """Images (batch, channels, height, width), left and right exchanged where `flip`, (batch,) booleans, is True."""
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


def covered(images: Tensor, corners: Tensor, side: int, colour: Tensor) -> Tensor:
    """Each image with a square of one colour on it.

    Args:
        images: (batch, channels, height, width).
        corners: (batch, 2), integers: first row and first column of the square.
        side: of the square, in pixels.
        colour: (channels,).

    Source: DeVries, Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - corners[:, :1]
    columns = torch.arange(width, device=images.device) - corners[:, 1:]
    inside_rows, inside_columns = ((offsets >= 0) & (offsets < side) for offsets in (rows, columns))
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return torch.where(inside, colour[:, None, None], images)


@final
class Crops(Column):
    """One part of each image of another column.

    Args:
        images: what the parts are cut out of.
        boxes: of the parts: left, top, width and height, in shares of the image's sides: (n, 4) float32.
        side: of the squares that are given, in pixels.
    """

    def __init__(self, images: Column, boxes: NDArray[np.float32], side: int) -> None:
        self._images, self._boxes, self._side = images, torch.from_numpy(boxes), side

    def __len__(self) -> int:
        return len(self._boxes)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        return cut_out(self._images[rows], self._boxes[rows], self._side)

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256(f"{self._images.sha256} {self._side}".encode())
        digest.update(self._boxes.contiguous().numpy().data)
        return digest.hexdigest()
