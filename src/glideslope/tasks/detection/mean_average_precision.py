"""Mean average precision: how well a detector finds what there is, over all pictures of a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glideslope.tasks.detection.boxes import (
    CLASS,
    IGNORED,
    NO_CLASS,
    SCORE,
    areas,
    intersections,
    intersections_over_unions,
    learned,
)

COCO_OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).tolist())
COCO_POINTS = 101
VOC_OVERLAP = 0.5
SMALLEST_AREA = 1e-12
"""Of a detection: one without area lies in nothing."""
PICTURES_AT_ONCE = 256
"""That are compared at a time: 100 detections with 60 boxes of each make 12 MB."""

Outcomes = tuple[Tensor, Tensor]
"""Which detections are right, and which are wrong, at several overlaps: (pictures, detections, overlaps) booleans."""


def coco_mean_average_precision(evaluated: Mapping[str, Tensor]) -> float:
    """COCO's AP@[.5:.95]: the mean, over classes and ten overlaps, of the precision at 101 recalls, in percent.

    Best first, each detection takes the box of its class that it overlaps with most and that is not taken yet. It takes
    one that is ignored (a crowd) only where there is no other; a crowd takes any number of detections, by the share of
    them that lies in it, and none of these counts.

    Args:
        evaluated: "detections" and "truth", (pictures, any >= 1, 6) each, as in `glideslope.tasks.detection.boxes`.

    Raises:
        ValueError: no picture has a box that counts.

    Source: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and its `pycocotools`, which gives the
        same number where no picture has more than 100 detections.
    """
    return _mean(evaluated, _coco_outcomes, COCO_POINTS)


def voc_mean_average_precision(evaluated: Mapping[str, Tensor]) -> float:
    """PASCAL VOC's mAP: the area below precision over recall at an overlap of 1/2, the mean over classes, in percent.

    Each detection stands for the box of its class that it overlaps with most. Of several that stand for one box the
    best is right and the others are wrong; a box that is ignored (a difficult one), and what stands for it, count
    neither way.

    Args:
        evaluated: see `coco_mean_average_precision`.

    Raises:
        ValueError: no picture has a box that counts.

    Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, Section 4.2; the area is
        the one of VOC 2010 and later, below the highest precision at this recall or any greater one.
    """
    return _mean(evaluated, _voc_outcomes, None)


def _mean(evaluated: Mapping[str, Tensor], outcomes: Callable[[Tensor, Tensor], Outcomes], points: int | None) -> float:
    found, truth = _best_first(evaluated["detections"].double()), evaluated["truth"].double()
    wanted = truth[..., CLASS][learned(truth)]
    if len(wanted) == 0:
        raise ValueError(f"none of the {len(truth)} pictures has a box that counts, so there is no average precision.")
    both = [
        outcomes(*part) for part in zip(*(torch.split(rows, PICTURES_AT_ONCE) for rows in (found, truth)), strict=True)
    ]
    right, wrong = (torch.cat(side).flatten(0, 1).numpy() for side in zip(*both, strict=True))
    listed = found.flatten(0, 1)
    order = np.argsort(-listed[:, SCORE].numpy(), kind="stable")
    classes = listed[:, CLASS].numpy()[order]
    precisions = []
    for label, count in zip(*np.unique(wanted.numpy(), return_counts=True), strict=True):
        picked = order[classes == label]
        precisions.append(_average_precision(right[picked], wrong[picked], int(count), points))
    return 100 * float(np.mean(precisions))


def _best_first(detections: Tensor) -> Tensor:
    """Each picture's detections in falling order of their scores; equal ones as they come."""
    order = detections[..., SCORE].argsort(dim=1, descending=True, stable=True)
    return detections.gather(1, order[..., None].expand(detections.shape))


def _average_precision(right: NDArray[np.bool_], wrong: NDArray[np.bool_], count: int, points: int | None) -> float:
    """Mean over overlaps.

    Args:
        right, wrong: detections of one class, best first: (detections, overlaps).
        count: boxes of the class that count, >= 1.
        points: at how many recalls from 0 to 1 precision is read; None for the area.
    """
    hits, misses = right.cumsum(axis=0), wrong.cumsum(axis=0)
    recalls = hits / count
    precisions = hits / np.maximum(hits + misses, 1)
    highest = np.maximum.accumulate(precisions[::-1], axis=0)[::-1]
    if points is None:
        return float(np.mean(np.sum(np.diff(recalls, axis=0, prepend=0) * highest, axis=0)))
    # Where a recall is never reached, precision is 0.
    padded = np.vstack([highest, np.zeros((1, highest.shape[1]))])
    asked = np.linspace(0, 1, points)
    read = [padded[np.searchsorted(recalls[:, column], asked), column] for column in range(recalls.shape[1])]
    return float(np.mean(read))


def _coco_outcomes(found: Tensor, truth: Tensor) -> Outcomes:
    counted = learned(truth)[:, None, :]
    shares = intersections(found[..., :4], truth[..., :4]) / areas(found[..., :4]).clamp(min=SMALLEST_AREA)[..., None]
    overlaps = torch.where(counted, intersections_over_unions(found[..., :4], truth[..., :4]), shares)
    overlaps = overlaps.masked_fill(~_comparable(found, truth), -1)
    thresholds = torch.tensor(COCO_OVERLAPS, dtype=overlaps.dtype)[:, None]
    boxes = torch.arange(truth.shape[1])
    free = torch.ones(len(truth), len(thresholds), len(boxes), dtype=torch.bool)
    right, wrong = (torch.zeros(*found.shape[:2], len(thresholds), dtype=torch.bool) for _ in range(2))
    for rank in range(found.shape[1]):
        overlap = overlaps[:, rank, None, :]
        # A box that counts comes before all that are ignored: overlaps are 1 at most.
        worth, taken = torch.where(free & (overlap >= thresholds), overlap + 2 * counted, -1).max(dim=2)
        right[:, rank] = worth >= 2
        wrong[:, rank] = (worth < 0) & (found[:, rank, None, CLASS] != NO_CLASS)
        free &= ~(right[:, rank, :, None] & (taken[..., None] == boxes))
    return right, wrong


def _voc_outcomes(found: Tensor, truth: Tensor) -> Outcomes:
    overlaps = intersections_over_unions(found[..., :4], truth[..., :4]).masked_fill(~_comparable(found, truth), -1)
    most, box = overlaps.max(dim=2)
    stands = most >= VOC_OVERLAP
    ignored = stands & (truth[..., IGNORED].gather(1, box) != 0)
    earlier = (box[:, :, None] == box[:, None, :]) & stands[:, None, :]
    right = stands & ~ignored & ~earlier.tril(diagonal=-1).any(dim=2)
    wrong = (found[..., CLASS] != NO_CLASS) & ~right & ~ignored
    return right[..., None], wrong[..., None]


def _comparable(found: Tensor, truth: Tensor) -> Tensor:
    """Which detections and boxes are of one class: (pictures, detections, boxes) booleans."""
    classes = found[..., :, None, CLASS]
    return (classes == truth[..., None, :, CLASS]) & (classes != NO_CLASS)
