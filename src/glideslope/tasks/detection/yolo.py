"""YOLOv3: Darknet-53, a detector at each of three scales, and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from glideslope.tasks.detection.boxes import (
    CLASS,
    LARGEST_LOG_SCALE,
    detections,
    from_centres,
    intersections_over_unions,
    learned,
)
from glideslope.tasks.residual import AddedTo

STRIDES = (8, 16, 32)
"""Pixels from one cell to the next, at each scale."""
ANCHORS = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
"""Widths and heights in pixels of a picture of `ANCHORED_SIDE`, three for each scale; those of the paper, from COCO."""
ANCHORED_SIDE = 416
ANCHORS_PER_CELL = 3
NUM_GEOMETRY = 5
"""Of one prediction: x and y in the cell, width and height beside the anchor, objectness. Classes follow."""

IGNORED_OVERLAP = 0.5
"""A prediction that overlaps more with some box is no background, even if that box is another one's to find."""
LEAST_SCORE = 0.005
SUPPRESSED_OVERLAP = 0.45


def darknet53(width: int = 32, blocks: Sequence[int] = (1, 2, 8, 8, 4)) -> nn.ModuleList:
    """The trunk, in five stages, each of half the sides and twice the channels.

    Args:
        width: channels before the first stage.
        blocks: residual blocks of each stage.

    >>> sum(parameter.numel() for parameter in darknet53().parameters())
    40584928

    Source: Redmon, Farhadi, "YOLOv3: An Incremental Improvement", 2018, Table 1.
    """
    stages = nn.ModuleList()
    for stage, count in enumerate(blocks):
        inputs = width * 2**stage
        stem = [_layer(3, width, 3)] if stage == 0 else []
        residual = [
            AddedTo(nn.Sequential(_layer(2 * inputs, inputs, 1), _layer(inputs, 2 * inputs, 3))) for _ in range(count)
        ]
        stages.append(nn.Sequential(*stem, _layer(inputs, 2 * inputs, 3, stride=2), *residual))
    return stages


class YOLOv3(nn.Module):
    """Detectors at strides 32, 16 and 8; each but the first also sees what the one before it made, twice as large.

    Args:
        num_classes: at least 1.
        width, blocks: see `darknet53`.

    >>> sum(parameter.numel() for parameter in YOLOv3(num_classes=80).parameters())
    61949149

    Source: Redmon, Farhadi, "YOLOv3: An Incremental Improvement", 2018, Section 2.3.
    """

    def __init__(self, num_classes: int, width: int = 32, blocks: Sequence[int] = (1, 2, 8, 8, 4)) -> None:
        super().__init__()
        self.num_predicted = NUM_GEOMETRY + num_classes
        self.trunk = darknet53(width, blocks)
        self.necks, self.readouts, self.laterals = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for channels in (16 * width, 8 * width, 4 * width):
            # The trunk's map has twice as many channels; the one from the scale before adds as many as the neck has.
            inputs = (3 if self.necks else 2) * channels
            if self.necks:
                self.laterals.append(_layer(2 * channels, channels, 1))
            self.necks.append(
                nn.Sequential(
                    _layer(inputs, channels, 1),
                    _layer(channels, 2 * channels, 3),
                    _layer(2 * channels, channels, 1),
                    _layer(channels, 2 * channels, 3),
                    _layer(2 * channels, channels, 1),
                )
            )
            outputs = nn.Conv2d(2 * channels, ANCHORS_PER_CELL * self.num_predicted, 1)
            self.readouts.append(nn.Sequential(_layer(channels, 2 * channels, 3), outputs))

    def forward(self, images: Tensor) -> Tensor:
        """What is predicted, not yet squashed: (batch, predictions, 5 + classes), in the order of `Cells`.

        Args:
            images: (batch, 3, height, width) in [0, 1]; sides divisible by 32.
        """
        maps = []
        hidden = images
        for stage in self.trunk:
            hidden = stage(hidden)
            maps.append(hidden)
        predicted: list[Tensor] = []
        for scale, (neck, readout) in enumerate(zip(self.necks, self.readouts, strict=True)):
            if scale:
                above = functional.interpolate(self.laterals[scale - 1](hidden), scale_factor=2, mode="nearest")
                hidden = torch.cat([above, maps[-1 - scale]], dim=1)
            hidden = neck(hidden)
            by_anchor = readout(hidden).unflatten(1, (ANCHORS_PER_CELL, self.num_predicted))
            predicted.insert(0, by_anchor.permute(0, 3, 4, 1, 2).flatten(1, 3))
        return torch.cat(predicted, dim=1)


@dataclass(frozen=True)
class Cells:
    """Where each prediction is made: fine scale first, then row by row, three anchors in each cell.

    Attributes:
        corners: left and top of the cell, (predictions, 2), in shares of the picture's sides, as all of these.
        sizes: width and height of the cell, (predictions, 2).
        anchors: width and height of the anchor, (predictions, 2).
        grids: columns and rows of each scale, (3, 2) int64.
        starts: number of each scale's first prediction, (3,) int64.
    """

    corners: Tensor
    sizes: Tensor
    anchors: Tensor
    grids: Tensor
    starts: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Cells:
        """Those of pictures, (batch, 3, height, width)."""
        height, width = images.shape[-2:]
        corners, sizes, anchors, grids, starts = [], [], [], [], [0]
        for shapes, stride in zip(_anchors(images.device).reshape(-1, ANCHORS_PER_CELL, 2), STRIDES, strict=True):
            columns, rows = width // stride, height // stride
            size = torch.tensor([1 / columns, 1 / rows], device=images.device)
            row, column = torch.meshgrid(
                torch.arange(rows, device=images.device), torch.arange(columns, device=images.device), indexing="ij"
            )
            corner = torch.stack([column, row], dim=-1).reshape(-1, 1, 2) * size
            shape = (rows * columns, ANCHORS_PER_CELL, 2)
            corners.append(corner.expand(shape).flatten(0, 1))
            sizes.append(size.expand(shape).flatten(0, 1))
            anchors.append(shapes.expand(shape).flatten(0, 1))
            grids.append((columns, rows))
            starts.append(starts[-1] + rows * columns * ANCHORS_PER_CELL)
        return cls(
            torch.cat(corners),
            torch.cat(sizes),
            torch.cat(anchors),
            torch.tensor(grids, device=images.device),
            torch.tensor(starts[:-1], device=images.device),
        )


def yolo_losses(predicted: Tensor, truth: Tensor, cells: Cells) -> Tensor:
    r"""Each picture's loss: (batch,).

    The box of a truth is for one prediction to find: that of the cell where its centre lies, at the anchor whose shape
    is most like it. With the weight :math:`\lambda = 2 - w h`, which is the authors' code's, that gives

    .. math:: \tfrac{\lambda}{2} \left[ (\sigma(t_x) - \hat x)^2 + (\sigma(t_y) - \hat y)^2
              + (t_w - \hat t_w)^2 + (t_h - \hat t_h)^2 \right]

    and the cross-entropy of its classes, each for itself. All predictions are charged the cross-entropy of their
    objectness, but for those that find nothing and yet overlap with some box by more than a half. Of two boxes
    for one prediction the later one counts.

    Args:
        predicted: what `YOLOv3` returns, (batch, predictions, 5 + classes).
        truth: (batch, most, 6), most >= 1; boxes to be ignored are background.
        cells: where predictions are made.

    Source: Redmon, Farhadi, "YOLOv3: An Incremental Improvement", 2018, Sections 2.1 and 2.2.
    """
    there = learned(truth)
    corners, shapes = truth[..., :4], truth[..., 2:4] - truth[..., :2]
    rows = _responsible((corners[..., :2] + corners[..., 2:]) / 2, shapes, cells)
    taken_later = ((rows[:, :, None] == rows[:, None, :]) & there[:, None, :]).triu(diagonal=1).any(dim=2)
    there = there & ~taken_later

    picked = predicted.gather(1, rows[..., None].expand(-1, -1, predicted.shape[-1]))
    # Rows without a box take the anchor for one: a logarithm of nothing would make their gradients NaN, masked or not.
    wanted = torch.log(torch.where(there[..., None], shapes / cells.anchors[rows], 1))
    places = ((corners[..., :2] + corners[..., 2:]) / 2 - cells.corners[rows]) / cells.sizes[rows]
    offsets = (torch.sigmoid(picked[..., :2]) - places).square().sum(-1)
    scales = (picked[..., 2:4] - wanted).square().sum(-1)
    labels = functional.one_hot(truth[..., CLASS].long().clamp(min=0), predicted.shape[-1] - NUM_GEOMETRY)
    entropies = functional.binary_cross_entropy_with_logits(
        picked[..., NUM_GEOMETRY:], labels.to(picked.dtype), reduction="none"
    )
    weights = 1 - shapes.prod(-1) / 2
    of_boxes = torch.where(there, weights * (offsets + scales) + entropies.sum(-1), 0).sum(1)

    objects = torch.zeros(len(rows), predicted.shape[1] + 1, device=rows.device)  # the last one is nobody's
    objects = objects.scatter(1, torch.where(there, rows, predicted.shape[1]), 1)[:, :-1]
    with torch.no_grad():
        overlaps = intersections_over_unions(_boxes(predicted, cells), corners).masked_fill(~learned(truth)[:, None], 0)
        charged = (objects > 0) | (overlaps.amax(dim=2) <= IGNORED_OVERLAP)
    objectness = functional.binary_cross_entropy_with_logits(predicted[..., 4], objects, reduction="none")
    return of_boxes + (objectness * charged).sum(1)


def yolo_detections(predicted: Tensor, cells: Cells) -> Tensor:
    """What is found, (batch, 100, 6): the score of a class is its probability times that of an object.

    Args:
        predicted, cells: see `yolo_losses`.
    """
    scores = torch.sigmoid(predicted[..., 4:5]) * torch.sigmoid(predicted[..., NUM_GEOMETRY:])
    return detections(_boxes(predicted, cells), scores, LEAST_SCORE, SUPPRESSED_OVERLAP)


def _layer(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1))


def _anchors(device: torch.device) -> Tensor:
    """Widths and heights in shares of the picture's sides, (9, 2)."""
    return torch.tensor(ANCHORS, device=device) / ANCHORED_SIDE


def _responsible(centres: Tensor, shapes: Tensor, cells: Cells) -> Tensor:
    """Numbers of the predictions that are to find boxes, (batch, most), by centres and shapes, (batch, most, 2)."""
    anchors = _anchors(shapes.device)
    shared = torch.minimum(shapes[..., None, :], anchors).prod(-1)
    unions = shapes.prod(-1)[..., None] + anchors.prod(-1) - shared
    anchor = (shared / unions).argmax(-1)
    scale = anchor // ANCHORS_PER_CELL
    grid = cells.grids[scale]
    place = torch.minimum((centres * grid).long(), grid - 1).clamp(min=0)
    cell = place[..., 1] * grid[..., 0] + place[..., 0]
    return cells.starts[scale] + cell * ANCHORS_PER_CELL + anchor % ANCHORS_PER_CELL


def _boxes(predicted: Tensor, cells: Cells) -> Tensor:
    """(batch, predictions, 4)."""
    centres = cells.corners + torch.sigmoid(predicted[..., :2]) * cells.sizes
    return from_centres(centres, cells.anchors * predicted[..., 2:4].clamp(max=LARGEST_LOG_SCALE).exp())
