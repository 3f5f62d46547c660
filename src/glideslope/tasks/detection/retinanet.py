"""RetinaNet: a pyramid of maps over a residual network, a detector on each of them, and the focal loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.detection.boxes import CLASS, assigned, decoded, detections, encoded, from_centres
from glideslope.tasks.residual import imagenet_resnet

LEVELS = (3, 4, 5, 6, 7)
"""Of the pyramid: level l has a cell every 2^l pixels."""
SIZE_IN_CELLS = 4
"""Side of the smallest anchor of a level: 32 pixels on level 3, 512 on level 7."""
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
PROPORTIONS = (0.5, 1.0, 2.0)
"""Height over width."""
ANCHORS_PER_CELL = len(SCALES) * len(PROPORTIONS)
NUM_SIDES = 4
"""The first columns of a prediction are the box, the others the classes."""

BACKGROUND_OVERLAP, OBJECT_OVERLAP = 0.4, 0.5
POSITIVE_SHARE = 0.25
FOCUS = 2.0
SMOOTH = 0.1
"""Where the smooth L1 loss becomes straight."""
PRIOR = 0.01
"""Probability of each class before training."""
LEAST_SCORE = 0.05
SUPPRESSED_OVERLAP = 0.5

RESNET50_TAPS = (10, 16, 19)
"""Last blocks of the three stages that the pyramid stands on, behind four layers of stem."""
RESNET50_CHANNELS = (512, 1024, 2048)


def resnet50_trunk() -> nn.Sequential:
    """ResNet-50 for ImageNet without its pool and its readout, and with its names of the weights."""
    return nn.Sequential(*list(imagenet_resnet(50))[: RESNET50_TAPS[-1] + 1])


class RetinaNet(nn.Module):
    """A feature pyramid over any trunk, with two towers of convolutions that are the same on all levels.

    Args:
        num_classes: at least 1.
        trunk: layers, one behind the other.
        taps: numbers of the layers behind which maps have strides of 8, 16 and 32 pixels.
        channels: of these maps.
        width: channels of the pyramid and the towers.
        depth: convolutions of each tower before its readout.

    Source: Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", ICCV 2017, Section 4.
    """

    def __init__(
        self,
        num_classes: int,
        trunk: nn.Sequential,
        taps: Sequence[int] = RESNET50_TAPS,
        channels: Sequence[int] = RESNET50_CHANNELS,
        width: int = 256,
        depth: int = 4,
    ) -> None:
        super().__init__()
        self.trunk, self.taps = trunk, tuple(taps)
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, width, 1) for inputs in channels)
        self.outputs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.coarser = nn.ModuleList(
            nn.Conv2d(inputs, width, 3, stride=2, padding=1) for inputs in (channels[-1], width)
        )
        for module in (*self.laterals, *self.outputs, *self.coarser):
            nn.init.kaiming_uniform_(module.weight, a=1)
            nn.init.zeros_(module.bias)
        self.boxes = _tower(width, depth, NUM_SIDES, 0.0)
        self.classes = _tower(width, depth, num_classes, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, images: Tensor) -> Tensor:
        """Four offsets from the anchor and a logit for each class: (batch, anchors, 4 + classes), as in `anchors`.

        Args:
            images: (batch, 3, height, width), standardised.
        """
        maps = self._pyramid(images)
        predicted = [
            torch.cat([_by_anchor(tower(level)) for tower in (self.boxes, self.classes)], dim=-1) for level in maps
        ]
        return torch.cat(predicted, dim=1)

    def _pyramid(self, images: Tensor) -> list[Tensor]:
        tapped = []
        hidden = images
        for number, layer in enumerate(self.trunk):
            hidden = layer(hidden)
            if number in self.taps:
                tapped.append(hidden)
        merged: list[Tensor] = []
        for lateral, level in zip(reversed(self.laterals), reversed(tapped), strict=True):
            here = lateral(level)
            if merged:
                here = here + functional.interpolate(merged[0], size=here.shape[-2:], mode="nearest")
            merged.insert(0, here)
        maps = [output(level) for output, level in zip(self.outputs, merged, strict=True)]
        maps.append(self.coarser[0](tapped[-1]))
        maps.append(self.coarser[1](functional.relu(maps[-1])))
        return maps


def anchors(images: Tensor) -> Tensor:
    """The anchors of pictures, (batch, 3, height, width): fine level first, then row by row, nine in each cell.

    Returns:
        (anchors, 4), in shares of the pictures' sides.
    """
    height, width = images.shape[-2:]
    shapes = torch.tensor(
        [(scale * proportion**-0.5, scale * proportion**0.5) for scale in SCALES for proportion in PROPORTIONS],
        device=images.device,
    )
    sides = torch.tensor([width, height], device=images.device)
    levels = []
    for level in LEVELS:
        stride = 2**level
        row, column = (
            torch.arange(math.ceil(length / stride), device=images.device) + 0.5 for length in (height, width)
        )
        centres = torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1).reshape(-1, 1, 2) * stride / sides
        sizes = SIZE_IN_CELLS * stride * shapes / sides
        shape = (len(centres), ANCHORS_PER_CELL, 2)
        levels.append(from_centres(centres.expand(shape), sizes.expand(shape)).flatten(0, 1))
    return torch.cat(levels)


def retinanet_losses(predicted: Tensor, truth: Tensor, anchors: Tensor) -> Tensor:
    r"""Each picture's loss, (batch,): focal loss of the classes plus smooth L1 loss of the boxes.

    .. math:: -\alpha_t (1 - p_t)^2 \log p_t

    is summed over classes and all anchors but those between background and object; the other sum is over the
    anchors that are to find a box. Both are divided by the number of these, at least 1.

    Args:
        predicted: what `RetinaNet` returns, (batch, anchors, 4 + classes).
        truth: (batch, most, 6), most >= 1; boxes to be ignored are background.
        anchors: (anchors, 4).

    Source: Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", ICCV 2017, Sections 3 and 4; the
        smooth L1 loss is straight from 0.1 on, as in the code to Dong et al., 2021.
    """
    with torch.no_grad():
        rows, found = assigned(anchors, truth, BACKGROUND_OVERLAP, OBJECT_OVERLAP)
        positive = found == 1
        wanted = truth.gather(1, rows[..., None].expand(-1, -1, truth.shape[-1]))
        # Anchors that find nothing are their own boxes: a logarithm of nothing would make gradients NaN, masked or not.
        boxes = encoded(torch.where(positive[..., None], wanted[..., :NUM_SIDES], anchors), anchors)
        labels = functional.one_hot(wanted[..., CLASS].long().clamp(min=0), predicted.shape[-1] - NUM_SIDES)
        targets = (labels * positive[..., None]).to(predicted.dtype)
    logits = predicted[..., NUM_SIDES:]
    entropies = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    wrong = torch.sigmoid(logits) * (1 - targets) + torch.sigmoid(-logits) * targets
    balance = torch.where(targets > 0, POSITIVE_SHARE, 1 - POSITIVE_SHARE)
    focal = (balance * wrong**FOCUS * entropies).sum(-1) * (found >= 0)
    sides = functional.smooth_l1_loss(predicted[..., :NUM_SIDES], boxes, beta=SMOOTH, reduction="none").sum(-1)
    return (focal + sides * positive).sum(1) / positive.sum(1).clamp(min=1)


def retinanet_detections(predicted: Tensor, anchors: Tensor) -> Tensor:
    """What is found, (batch, 100, 6), with scores above 0.05.

    Args:
        predicted, anchors: see `retinanet_losses`.
    """
    boxes = decoded(predicted[..., :NUM_SIDES], anchors)
    return detections(boxes, torch.sigmoid(predicted[..., NUM_SIDES:]), LEAST_SCORE, SUPPRESSED_OVERLAP)


def _tower(width: int, depth: int, outputs: int, bias: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    tower = nn.Sequential(*layers, nn.Conv2d(width, ANCHORS_PER_CELL * outputs, 3, padding=1))
    for name, weight in tower.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(weight, std=0.01)
        else:
            nn.init.constant_(weight, bias if name == f"{len(layers)}.bias" else 0.0)
    return tower


def _by_anchor(values: Tensor) -> Tensor:
    """(batch, 9 columns, height, width) → (batch, 9 height width, columns)."""
    batch, channels, height, width = values.shape
    by_anchor = values.reshape(batch, ANCHORS_PER_CELL, channels // ANCHORS_PER_CELL, height, width)
    return by_anchor.permute(0, 3, 4, 1, 2).flatten(1, 3)
