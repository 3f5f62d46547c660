"""Boxes: overlaps, codes, anchors and suppression, by hand and against slow twins."""

import math

import pytest
import torch

from glideslope.tasks.detection.boxes import (
    IGNORED,
    MOST_DETECTIONS,
    NO_CLASS,
    SCORE,
    assigned,
    decoded,
    detections,
    encoded,
    intersections_over_unions,
    learned,
    unsuppressed,
)


def random_boxes(*shape, seed=0):
    """Of 0.05 to 0.45 on each side."""
    generator = torch.Generator().manual_seed(seed)
    corners = 0.5 * torch.rand(*shape, 2, generator=generator)
    return torch.cat([corners, corners + 0.05 + 0.4 * torch.rand(*shape, 2, generator=generator)], dim=-1)


def slow_overlap(first, second):
    """Of two boxes, in plain arithmetic."""
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / (both - width * height)


def test_overlaps_by_hand():
    square = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    others = torch.tensor(
        [
            [0.0, 0.0, 0.5, 0.5],  # itself
            [0.25, 0.0, 0.75, 0.5],  # shares 1/8 of 1/4 + 1/4 - 1/8
            [0.5, 0.0, 1.0, 0.5],  # touches it
            [0.1, 0.1, 0.1, 0.1],  # has no area
        ]
    )
    torch.testing.assert_close(intersections_over_unions(square, others), torch.tensor([[1, 1 / 3, 0, 0]]))


def test_overlaps_are_those_of_a_slow_twin():
    first, second = random_boxes(2, 5), random_boxes(2, 7, seed=1)
    found = intersections_over_unions(first, second)
    for picture in range(2):
        for row in range(5):
            for column in range(7):
                wanted = slow_overlap(first[picture, row].tolist(), second[picture, column].tolist())
                assert found[picture, row, column].item() == pytest.approx(wanted, rel=1e-5)


def test_decoding_undoes_encoding():
    boxes, anchors = random_boxes(50), random_boxes(50, seed=1)
    torch.testing.assert_close(decoded(encoded(boxes, anchors), anchors), boxes, rtol=1e-5, atol=1e-6)


def test_codes_by_hand():
    anchor = torch.tensor([0.2, 0.2, 0.4, 0.6])  # centre 0.3, 0.4; 0.2 x 0.4
    box = torch.tensor([0.3, 0.2, 0.7, 0.4])  # centre 0.5, 0.3; 0.4 x 0.2
    wanted = torch.tensor([1.0, -0.25, math.log(2), -math.log(2)])
    torch.testing.assert_close(encoded(box, anchor), wanted)


def test_an_untrained_networks_exponentials_do_not_overflow():
    assert decoded(torch.tensor([0.0, 0.0, 1e4, 1e4]), torch.tensor([0.4, 0.4, 0.6, 0.6])).isfinite().all()


def truth_of(*rows):
    """One picture's, with a row without a box behind."""
    return torch.tensor([[*rows, [0, 0, 0, 0, NO_CLASS, 0]]], dtype=torch.float32)


def test_what_is_learned_is_there_and_not_ignored():
    truth = truth_of([0, 0, 1, 1, 3, 0], [0, 0, 1, 1, 3, 1])
    assert learned(truth).tolist() == [[True, False, False]]


def test_anchors_by_hand():
    # Strips of one height; overlaps with the box [0, 0.4]: 1, 0.3 / 0.5 = 0.6, 0.25 / 0.55 = 0.4545, 0.2 / 0.6, 0.
    anchors = torch.tensor([[left, 0, left + 0.4, 1] for left in (0.0, 0.1, 0.15, 0.2, 0.6)])
    rows, found = assigned(anchors, truth_of([0, 0, 0.4, 1, 2, 0]), 0.4, 0.5)
    assert found.tolist() == [[1, 1, -1, 0, 0]]
    assert rows[0, :2].tolist() == [0, 0]


def test_every_box_has_an_anchor_however_little_they_overlap():
    anchors = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    small = [0.6, 0.6, 0.65, 0.65, 1, 0]
    rows, found = assigned(anchors, truth_of([0, 0, 0.5, 0.5, 0, 0], small), 0.4, 0.5)
    assert (rows.tolist(), found.tolist()) == ([[0, 1]], [[1, 1]])


def test_of_two_boxes_with_one_best_anchor_the_later_one_has_it():
    anchors = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]])
    rows, found = assigned(anchors, truth_of([0, 0, 0.5, 0.5, 0, 0], [0.1, 0.1, 0.2, 0.2, 1, 0]), 0.4, 0.5)
    assert (rows[0, 0].item(), found.tolist()) == (1, [[1, 0]])


def test_a_picture_without_boxes_and_ignored_boxes_have_no_anchors():
    anchors = random_boxes(20)
    for truth in (truth_of(), truth_of([*anchors[3].tolist(), 0, 1])):
        assert not assigned(anchors, truth, 0.4, 0.5)[1].any()


def slow_suppression(boxes, classes, overlap):
    """Greedy, one box after the other."""
    kept = []
    for index, (box, label) in enumerate(zip(boxes, classes, strict=True)):
        rivals = (boxes[other] for other in kept if classes[other] == label)
        if label != NO_CLASS and all(slow_overlap(box, rival) <= overlap for rival in rivals):
            kept.append(index)
    return [index in kept for index in range(len(boxes))]


@pytest.mark.parametrize("overlap", [0.1, 0.45, 0.9])
def test_suppression_is_that_of_a_slow_twin(overlap):
    boxes = random_boxes(3, 120)
    classes = torch.randint(NO_CLASS, 3, (3, 120), generator=torch.Generator().manual_seed(2))
    found = unsuppressed(boxes, classes, overlap)
    for picture in range(3):
        assert found[picture].tolist() == slow_suppression(boxes[picture].tolist(), classes[picture].tolist(), overlap)


def test_a_chain_of_boxes_is_suppressed_link_by_link():
    """Each removes the next one, if it is not removed itself: every second one remains."""
    lefts = 0.05 * torch.arange(10)
    boxes = torch.stack([lefts, torch.zeros(10), lefts + 0.2, torch.ones(10)], dim=-1)[None]
    assert unsuppressed(boxes, torch.zeros(1, 10), 0.5).tolist() == [[True, False] * 5]


def test_detections_are_the_best_boxes_of_each_class_and_padded():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.01, 0.0, 0.5, 0.5], [0.5, 0.5, 1.5, 1.5]]])
    scores = torch.tensor([[[0.9, 0.2], [0.8, 0.3], [0.01, 0.7]]])
    found = detections(boxes, scores, least_score=0.05, overlap=0.5)
    assert found.shape == (1, MOST_DETECTIONS, 6)
    wanted = [[0.0, 0.0, 0.5, 0.5, 0, 0.9], [0.5, 0.5, 1.0, 1.0, 1, 0.7], [0.01, 0.0, 0.5, 0.5, 1, 0.3]]
    torch.testing.assert_close(found[0, :3], torch.tensor(wanted))
    assert (found[0, 3:] == torch.tensor([0, 0, 0, 0, NO_CLASS, 0])).all()


def test_at_most_a_hundred_are_found_best_first():
    found = detections(random_boxes(1, 400), torch.rand(1, 400, 5, generator=torch.Generator().manual_seed(0)), 0, 0.99)
    assert (found[..., 4] != NO_CLASS).all()
    assert (found[0, :, SCORE].diff() <= 0).all()


def test_scores_that_are_no_numbers_find_nothing():
    found = detections(random_boxes(1, 4), torch.full((1, 4, 2), torch.nan), 0.05, 0.5)
    assert (found[..., 4] == NO_CLASS).all()
    assert (found[..., SCORE] == 0).all()
    assert IGNORED == SCORE  # one column: a truth has no scores
