"""What pictures with boxes look like in training: mirrored, moved and scaled, in other colours."""

from __future__ import annotations

import torch
from torch import Tensor

from glideslope.tasks.crops import cut_out, mirrored
from glideslope.tasks.detection.boxes import CLASS, NO_CLASS, centres_and_sizes

GREY = 0.5


def mirrored_with_boxes(images: Tensor, truth: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right exchanged where `flip`, (batch,) booleans, is True.

    Args:
        images: (batch, 3, side, side).
        truth: (batch, most, 6).
    """
    left, top, right, bottom, *rest = truth.unbind(-1)
    turned = torch.stack([1 - right, top, 1 - left, bottom, *rest], dim=-1)
    return mirrored(images, flip), torch.where(flip[:, None, None], turned, truth)


def moved_with_boxes(images: Tensor, truth: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """What is seen through a window that is scaled to the whole square; grey where it sticks out of the picture.

    Boxes are cut off at its sides; those whose centre lies outside are gone.

    Args:
        images: (batch, 3, side, side).
        truth: (batch, most, 6).
        edges: how far the window's left, top, right and bottom lie to the right of the picture's or below, in shares of
            its sides, between -1/2 and 1/2: (batch, 4).
    """
    first, sizes = edges[:, :2], 1 + edges[:, 2:] - edges[:, :2]
    side = images.shape[-1]
    seen = cut_out(images, torch.cat([first, sizes], dim=1), side)
    middles = first[:, :, None] + sizes[:, :, None] * (torch.arange(side, device=images.device) + 0.5) / side
    across, down = ((middles > 0) & (middles < 1)).unbind(1)
    seen = torch.where((down[:, :, None] & across[:, None, :])[:, None], seen, GREY)
    boxes = (truth[..., :4] - first.repeat(1, 2)[:, None]) / sizes.repeat(1, 2)[:, None]
    centres, _ = centres_and_sizes(boxes)
    inside = ((centres > 0) & (centres < 1)).all(dim=-1)
    classes = torch.where(inside, truth[..., CLASS], NO_CLASS)
    return seen, torch.cat([boxes.clamp(0, 1), classes[..., None], truth[..., CLASS + 1 :]], dim=-1)


def recoloured(images: Tensor, saturation: Tensor, exposure: Tensor) -> Tensor:
    """Saturation and value (as in HSV) of each image times a factor of its own, at most 1.

    Args:
        images: red, green and blue in [0, 1], (batch, 3, height, width).
        saturation, exposure: factors > 0, (batch,).
    """
    value, lowest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    # In HSV: s = (v - lowest) / v. A colour's distance from v grows with s, as hue and value stay.
    most = value / (value - lowest).clamp(min=torch.finfo(images.dtype).tiny)
    factor = torch.minimum(saturation[:, None, None, None], most)
    brighter = torch.minimum(value * exposure[:, None, None, None], torch.ones_like(value))
    ratio = brighter / value.clamp(min=torch.finfo(images.dtype).tiny)
    return (value - factor * (value - images)) * ratio
