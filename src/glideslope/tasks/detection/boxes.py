"""Boxes: where things are in pictures, as left, top, right and bottom in shares of the picture's sides.

What an annotation says is a *truth*, (…, most, 6): a row per box, of its four sides, its class, and 1 where it is to be
ignored, for it counts neither way. What a detector says are *detections*, (…, most, 6): four sides, class, score. Rows
without a box have the class -1 in both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CLASS = 4
IGNORED = 5
SCORE = 5
NUM_COLUMNS = 6
NO_CLASS = -1

MOST_DETECTIONS = 100
"""Of one picture."""
MOST_CANDIDATES = 1000
"""Of one picture, that are compared with each other before the detections are chosen."""
LARGEST_LOG_SCALE = math.log(1000 / 16)
"""A box is at most so many times as large as its anchor: an untrained network's exponentials must not overflow."""


def learned(truth: Tensor) -> Tensor:
    """Which boxes a detector learns: (…, most) booleans of (…, most, 6)."""
    return (truth[..., CLASS] != NO_CLASS) & (truth[..., IGNORED] == 0)


def areas(boxes: Tensor) -> Tensor:
    """(…, n) of (…, n, 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersections(first: Tensor, second: Tensor) -> Tensor:
    """Areas that two boxes share: (…, n, m) of (…, n, 4) and (…, m, 4)."""
    first, second = first[..., :, None, :], second[..., None, :, :]
    widths = torch.minimum(first[..., 2], second[..., 2]) - torch.maximum(first[..., 0], second[..., 0])
    heights = torch.minimum(first[..., 3], second[..., 3]) - torch.maximum(first[..., 1], second[..., 1])
    return widths.clamp(min=0) * heights.clamp(min=0)


def intersections_over_unions(first: Tensor, second: Tensor) -> Tensor:
    """Shared areas as shares of what two boxes cover together: (…, n, m) of (…, n, 4) and (…, m, 4).

    >>> intersections_over_unions(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.5, 1.0]]))
    tensor([[0.5000]])
    """
    shared = intersections(first, second)
    unions = areas(first)[..., :, None] + areas(second)[..., None, :] - shared
    return shared / unions.clamp(min=torch.finfo(shared.dtype).tiny)


def from_centres(centres: Tensor, sizes: Tensor) -> Tensor:
    """Boxes (…, 4) of their centres and their widths and heights, (…, 2) each."""
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1)


def centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres, and widths and heights, (…, 2) each, of boxes (…, 4)."""
    first, last = boxes[..., :2], boxes[..., 2:]
    return (first + last) / 2, last - first


def encoded(boxes: Tensor, anchors: Tensor) -> Tensor:
    r"""Boxes as seen from anchors, (…, 4) each: what a detector predicts.

    .. math:: \frac{x - x_a}{w_a}, \quad \frac{y - y_a}{h_a}, \quad \log\frac{w}{w_a}, \quad \log\frac{h}{h_a}

    Source: Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies for accurate object detection and semantic
        segmentation", CVPR 2014, Appendix C.
    """
    (centres, sizes), (anchor_centres, anchor_sizes) = centres_and_sizes(boxes), centres_and_sizes(anchors)
    return torch.cat([(centres - anchor_centres) / anchor_sizes, torch.log(sizes / anchor_sizes)], dim=-1)


def decoded(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The boxes of what `encoded` has made, (…, 4); none is more than 62.5 times as wide or high as its anchor."""
    centres, sizes = centres_and_sizes(anchors)
    scales = offsets[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp()
    return from_centres(centres + offsets[..., :2] * sizes, sizes * scales)


def assigned(anchors: Tensor, truth: Tensor, lowest: float, highest: float) -> tuple[Tensor, Tensor]:
    """Which box each anchor is to find, and whether it is to find one.

    An anchor belongs to the box that it overlaps with most, by intersection over union, if that is `highest` or more;
    and every box has the anchor that overlaps with it most, however little that is. Below `lowest` an anchor is
    background; in between it learns nothing.

    Args:
        anchors: (anchors, 4).
        truth: (batch, most, 6).
        lowest, highest: 0 < lowest <= highest <= 1.

    Returns:
        Rows of the truth, (batch, anchors) int64, of use where there is something to find; and 1 for an anchor that is
        to find it, 0 for background, -1 for neither: (batch, anchors) int64.

    Source: Lin, Goyal, Girshick, He, Dollár, "Focal Loss for Dense Object Detection", ICCV 2017, Section 4.
    """
    overlaps = intersections_over_unions(anchors, truth[..., :4])
    best = overlaps.argmax(dim=1, keepdim=True)
    # Above all true overlaps, and no two alike: which of two boxes gets an anchor must not be left to chance.
    claims = 2 + torch.arange(truth.shape[1], device=truth.device, dtype=overlaps.dtype)
    overlaps = overlaps.scatter(1, best, claims.expand(best.shape))
    overlaps = overlaps.masked_fill(~learned(truth)[:, None, :], -1)
    most, rows = overlaps.max(dim=2)
    return rows, (most >= highest).long() - ((most >= lowest) & (most < highest)).long()


def unsuppressed(boxes: Tensor, classes: Tensor, overlap: float) -> Tensor:
    """Which boxes remain when each one removes all of its class that come after it and overlap with it too much.

    Args:
        boxes: best ones first, (batch, n, 4).
        classes: (batch, n); boxes of the class -1 remove none, and do not remain.
        overlap: intersection over union above which a box is removed.

    Returns:
        (batch, n) booleans.
    """
    alike = classes[:, :, None] == classes[:, None, :]
    over = ((intersections_over_unions(boxes, boxes) > overlap) & alike).triu(diagonal=1)
    there = classes != NO_CLASS
    remain = there
    # A box remains if none that remains is over it. The first k are right after k rounds, whatever they began with, so
    # what no longer changes is right: a handful of rounds in place of one step for every box.
    while True:
        following = there & ~(over & remain[:, :, None]).any(dim=1)
        if torch.equal(following, remain):
            return remain
        remain = following


def detections(boxes: Tensor, scores: Tensor, least_score: float, overlap: float) -> Tensor:
    """What a detector finds: its best boxes, at most 100 a picture, none of them on another one of the same class.

    Args:
        boxes: (batch, n, 4); what lies outside of the picture is cut off.
        scores: of every class, (batch, n, classes).
        least_score: what has no more counts as nothing, >= 0.
        overlap: see `unsuppressed`. Only the 1,000 best pairs of box and class are looked at.

    Returns:
        Best ones first: (batch, 100, 6).
    """
    num_classes = scores.shape[-1]
    candidates = torch.where(scores > least_score, scores, 0).flatten(1)  # NaN is greater than nothing
    best, pairs = candidates.topk(min(MOST_CANDIDATES, candidates.shape[1]))
    rows = (pairs // num_classes)[..., None].expand(-1, -1, 4)
    found = boxes.gather(1, rows).clamp(0, 1)
    classes = torch.where(best > 0, pairs % num_classes, NO_CLASS)
    best = torch.where(unsuppressed(found, classes, overlap), best, 0)
    best, order = best.topk(min(MOST_DETECTIONS, best.shape[1]))
    found = found.gather(1, order[..., None].expand(-1, -1, 4))
    classes = torch.where(best > 0, classes.gather(1, order), NO_CLASS)
    table = torch.cat([found, classes[..., None].to(found.dtype), best[..., None]], dim=-1)
    nothing = table.new_tensor([0, 0, 0, 0, NO_CLASS, 0])
    table = torch.where(classes[..., None] != NO_CLASS, table, nothing)
    return torch.cat([table, nothing.expand(len(table), MOST_DETECTIONS - table.shape[1], NUM_COLUMNS)], dim=1)
