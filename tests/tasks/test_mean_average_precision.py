"""Mean average precision: by hand, by laws, and against reference libraries where they are installed."""

import contextlib
import io

import numpy as np
import pytest
import torch

from glideslope.tasks.detection.boxes import CLASS, IGNORED, NO_CLASS, SCORE
from glideslope.tasks.detection.mean_average_precision import (
    coco_mean_average_precision,
    voc_mean_average_precision,
)

METRICS = [coco_mean_average_precision, voc_mean_average_precision]
every_metric = pytest.mark.parametrize("metric", METRICS)

A, B, C, D = ([0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9], [0.2, 0.2, 0.6, 0.7], [0.7, 0.1, 0.9, 0.3])
SIDE = 500
"""Of a picture, in pixels."""


def padded(pictures, most):
    """Rows of several pictures: (pictures, most, 6)."""
    table = torch.zeros(len(pictures), most, 6, dtype=torch.float64)
    table[..., CLASS] = NO_CLASS
    for rows, found in zip(table, pictures, strict=True):
        if found:
            rows[: len(found)] = torch.tensor(found, dtype=torch.float64)
    return table


def evaluated(found, truth):
    return {"detections": padded(found, 100), "truth": padded(truth, max(1, *map(len, truth)))}


def made_up(seed, num_pictures=25, num_classes=4, ignored=0.15):
    """Pictures with boxes, most of which are found more or less, some twice, and much that is not.

    No side is a whole pixel: where an overlap is a threshold to the bit, libraries differ by how they round.
    """
    generator = np.random.default_rng(seed)

    def box():
        first = generator.uniform(0, SIDE - 80, 2)
        return [*first, *(first + generator.uniform(20, 80, 2))]

    def near(sides):
        left, top, right, bottom = (side + generator.uniform(-8, 8) for side in sides)
        return [left, top, max(right, left + 1), max(bottom, top + 1)]

    found, truth = [], []
    for _ in range(num_pictures):
        boxes = [(box(), int(generator.integers(num_classes))) for _ in range(generator.integers(0, 8))]
        truth.append([[*sides, label, float(generator.random() < ignored)] for sides, label in boxes])
        hits = [(near(sides), label) for sides, label in boxes for _ in range(generator.integers(0, 4))]
        noise = [(box(), int(generator.integers(num_classes))) for _ in range(generator.integers(0, 5))]
        found.append([[*sides, label, generator.random()] for sides, label in (*hits, *noise)])
    for pictures in (found, truth):
        for row in (row for rows in pictures for row in rows):
            row[:4] = [side / SIDE for side in row[:4]]
    return evaluated(found, truth)


def hand_worked():
    """Three boxes that count, A and B in one picture and C in another, which also has D, to be ignored.

    Best first: A is found (1 of 1 right), once more (1 of 2), C is found (2 of 3), D is found (ignored), nothing is
    found (2 of 4). B never is. So precision is 1 up to a recall of 1/3, 2/3 up to 2/3, and 0 behind.
    """
    found = [[[*A, 0, 0.9], [*A, 0, 0.8]], [[*C, 0, 0.7], [*D, 0, 0.6], [0.0, 0.8, 0.1, 0.9, 0, 0.5]]]
    return evaluated(found, [[[*A, 0, 0], [*B, 0, 0]], [[*C, 0, 0], [*D, 0, 1]]])


def test_voc_by_hand():
    # The area: 1/3 at 1, 1/3 at 2/3.
    assert voc_mean_average_precision(hand_worked()) == pytest.approx(100 * (1 / 3 + 2 / 9))


def test_coco_by_hand():
    # All boxes are found to the point, so ten overlaps give the same. Recalls 0 … 0.33 read 1, 0.34 … 0.66 read 2/3.
    assert coco_mean_average_precision(hand_worked()) == pytest.approx(100 * (34 + 33 * 2 / 3) / 101)
    # One box, found at an overlap of 0.72: right at 0.5, 0.55, 0.6, 0.65 and 0.7, and wrong at the other five.
    near = evaluated([[[0, 0, 0.72, 1, 0, 0.9]]], [[[0, 0, 1, 1, 0, 0]]])
    assert coco_mean_average_precision(near) == pytest.approx(50)


def test_a_second_detection_may_take_another_box_of_cocos_and_not_of_vocs():
    """Both overlap most with the first box, by 1 and 0.8; the second overlaps with the other box by 0.6."""
    truth = [[[0, 0, 1, 0.5, 0, 0], [0, 0.15, 1, 0.55, 0, 0]]]
    found = evaluated([[[0, 0, 1, 0.5, 0, 0.9], [0, 0, 1, 0.4, 0, 0.8], [0, 0.1, 1, 0.5, 0, 0.7]]], truth)
    # COCO, at overlaps of 0.5 … 0.75: the third is [0.1, 0.5], 0.35 / 0.45 of the other box: recall 1, at 2 of 3 right,
    # or with the second, 0.25 / 0.55 of it, never. At 0.8 and more only the first is right: 51 points read 1.
    half = 51 / 101
    both = (51 + 50 * 2 / 3) / 101
    assert coco_mean_average_precision(found) == pytest.approx(100 * (6 * both + 4 * half) / 10)
    # VOC: the third overlaps with the first box by 0.4 / 0.5 = 0.8, more than by 0.78 with the other.
    assert voc_mean_average_precision(found) == pytest.approx(50)


def test_a_crowd_takes_all_that_lies_in_it():
    crowd = [0.0, 0.0, 1.0, 1.0, 0, 1]
    parts = [[0.1 * k, 0.0, 0.1 * k + 0.1, 0.1, 0, 0.9] for k in range(8)]
    alone = evaluated([[[*B, 0, 0.5]]], [[[*B, 0, 0]]])
    crowded = evaluated([[*parts, [*B, 0, 0.5]]], [[crowd, [*B, 0, 0]]])
    assert coco_mean_average_precision(alone) == coco_mean_average_precision(crowded) == pytest.approx(100)


@every_metric
def test_perfect_detections_make_100(metric):
    truth = made_up(0, ignored=0)["truth"]
    found = truth.clone()
    found[..., SCORE] = torch.where(truth[..., CLASS] == NO_CLASS, 0, 0.5)
    assert metric({"detections": found, "truth": truth}) == pytest.approx(100)


@every_metric
def test_nothing_found_makes_0(metric):
    truth = made_up(0)["truth"]
    assert metric({"detections": padded([[]] * len(truth), 100), "truth": truth}) == 0


@every_metric
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_pictures_and_of_rows_does_not_matter(metric, seed):
    both = made_up(seed)
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randperm(len(both["truth"]), generator=generator)
    mixed = {name: rows[pictures][:, torch.randperm(rows.shape[1], generator=generator)] for name, rows in both.items()}
    assert metric(mixed) == pytest.approx(metric(both), rel=1e-12)


@every_metric
@pytest.mark.parametrize("seed", range(3))
def test_only_the_order_of_scores_matters(metric, seed):
    both = made_up(seed)
    before = metric(both)
    both["detections"][..., SCORE] = both["detections"][..., SCORE].exp().square() - 1
    assert metric(both) == before


@every_metric
def test_finding_a_box_twice_is_wrong(metric):
    truth = [[[*A, 0, 0], [*B, 0, 0]]]
    once = [[[*A, 0, 0.9], [*B, 0, 0.7]]]
    twice = [[*once[0], [*A, 0, 0.8]]]
    assert metric(evaluated(once, truth)) == pytest.approx(100)
    # 1 of 1, then 2 of 3 right.
    assert metric(evaluated(twice, truth)) < 85


@every_metric
@pytest.mark.parametrize("seed", range(3))
def test_ignored_boxes_count_neither_way_found_or_not(metric, seed):
    both = made_up(seed, ignored=0)
    count = len(both["truth"])
    far = padded([[[0.995, 0.995, 1, 1, 0, 1]]] * count, 1)  # where `made_up` puts nothing
    found = padded([[[0.995, 0.995, 1, 1, 0, 0.99]]] * count, 1)
    missed = {**both, "truth": torch.cat([both["truth"], far], dim=1)}
    taken = {**missed, "detections": torch.cat([both["detections"], found], dim=1)}
    assert metric(missed) == metric(taken) == metric(both)


@every_metric
def test_without_a_box_that_counts_there_is_no_metric(metric):
    nothing = evaluated([[[*A, 0, 0.9]], []], [[[*A, 0, 1]], []])
    with pytest.raises(ValueError, match="none of the 2 pictures has a box that counts"):
        metric(nothing)


def slow_voc(both):
    """The algorithm as it is described, one detection after the other."""
    precisions = []
    truth, found = both["truth"].numpy(), both["detections"].numpy()
    for label in np.unique(truth[(truth[..., CLASS] != NO_CLASS) & (truth[..., IGNORED] == 0)][:, CLASS]):
        boxes = [[row for row in rows if row[CLASS] == label] for rows in truth]
        count = sum(row[IGNORED] == 0 for rows in boxes for row in rows)
        listed = [(row[SCORE], at, row) for at, rows in enumerate(found) for row in rows if row[CLASS] == label]
        used, right, wrong, curve = set(), 0, 0, []
        for _, at, row in sorted(listed, key=lambda entry: -entry[0]):
            overlaps = []
            for box in boxes[at]:
                width, height = (min(row[k + 2], box[k + 2]) - max(row[k], box[k]) for k in (0, 1))
                shared = max(0, width) * max(0, height)
                union = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (row, box)) - shared
                overlaps.append(shared / union)
            best = int(np.argmax(overlaps)) if overlaps else -1
            if overlaps and overlaps[best] >= 0.5:
                if boxes[at][best][IGNORED]:
                    continue
                fresh = (at, best) not in used
                used.add((at, best))
                right, wrong = right + fresh, wrong + (not fresh)
            else:
                wrong += 1
            curve.append((right / count, right / (right + wrong)))
        area, reached = 0.0, 0.0
        for index, (recall, _) in enumerate(curve):
            area += (recall - reached) * max(precision for _, precision in curve[index:])
            reached = recall
        precisions.append(area)
    return 100 * np.mean(precisions)


@pytest.mark.parametrize("seed", range(4))
def test_voc_is_that_of_a_slow_twin(seed):
    both = made_up(seed)
    assert 5 < slow_voc(both) < 95
    assert voc_mean_average_precision(both) == pytest.approx(slow_voc(both), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_coco_is_that_of_its_own_library(seed):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    both = made_up(seed)

    def entries(pictures):
        for at, rows in enumerate(pictures.numpy()):
            for row in rows[rows[:, CLASS] != NO_CLASS]:
                left, top, right, bottom = SIDE * row[:4]
                box = [left, top, right - left, bottom - top]
                yield {"image_id": at, "category_id": int(row[CLASS]), "bbox": box, "area": box[2] * box[3]}, row[5]

    said = coco.COCO()
    said.dataset = {
        "images": [{"id": at} for at in range(len(both["truth"]))],
        "categories": [{"id": label} for label in range(4)],
        "annotations": [
            {**entry, "id": number, "iscrowd": int(ignored)}
            for number, (entry, ignored) in enumerate(entries(both["truth"]), 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        said.createIndex()
        found = said.loadRes([{**entry, "score": score} for entry, score in entries(both["detections"])])
        judge = cocoeval.COCOeval(said, found, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert 5 < 100 * judge.stats[0] < 95
    assert coco_mean_average_precision(both) == pytest.approx(100 * judge.stats[0], rel=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
def test_voc_is_that_of_a_library(seed):
    """Without boxes to be ignored, which that library counts among those to be found."""
    library = pytest.importorskip("mean_average_precision")
    both = made_up(seed, ignored=0)
    judge = library.MetricBuilder.build_evaluation_metric("map_2d", num_classes=4)
    for found, truth in zip(both["detections"].numpy(), both["truth"].numpy(), strict=True):
        found, truth = (rows[rows[:, CLASS] != NO_CLASS] * [*[SIDE] * 4, 1, 1] for rows in (found, truth))
        found[:, 2:4] -= 1  # it takes the last pixel of a box for part of it
        truth[:, 2:4] -= 1
        judge.add(found, np.hstack([truth, np.zeros((len(truth), 1))]))
    area = judge.value(iou_thresholds=0.5)["mAP"]
    assert voc_mean_average_precision(both) == pytest.approx(100 * area, rel=1e-5)  # it computes in float32
