"""Detectors and the data they learn from: formats, losses, that they can learn, and that the settings run."""

import colorsys
import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from smoke import smoke
from torch import nn

from glideslope.tasks.data import DataFormatError, MissingDataError
from glideslope.tasks.detection.augmentation import mirrored_with_boxes, moved_with_boxes, recoloured
from glideslope.tasks.detection.boxes import CLASS, NO_CLASS, assigned, encoded
from glideslope.tasks.detection.retinanet import ANCHORS_PER_CELL, RetinaNet, anchors, resnet50_trunk, retinanet_losses
from glideslope.tasks.detection.sets import COCO, VOC, VOC_CLASSES
from glideslope.tasks.detection.tasks import COCORetinaNet, VOCYOLOv3
from glideslope.tasks.detection.trunk import load_trunk
from glideslope.tasks.detection.yolo import Cells, YOLOv3, darknet53, yolo_losses
from glideslope.trials.task import seeded_model

TASKS = [VOCYOLOv3(), COCORetinaNet()]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)

COCO_NUMBERS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
SIZE = (80, 60)
"""Of the pictures of the tiny data sets, width and height in pixels."""


def write_picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_voc(folder, pictures):
    """A devkit of pictures, {"2007/trainval": {name: [(class, (xmin, ymin, xmax, ymax), difficult), …]}, …}."""
    for which, objects in pictures.items():
        year, split = which.split("/")
        root = folder / "VOCdevkit" / f"VOC{year}"
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (root / part).mkdir(parents=True, exist_ok=True)
        (root / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in objects))
        for seed, (name, rows) in enumerate(objects.items()):
            write_picture(root / f"JPEGImages/{name}.jpg", seed)
            said = ElementTree.Element("annotation")
            ElementTree.SubElement(said, "filename").text = f"{name}.jpg"
            size = ElementTree.SubElement(said, "size")
            for side, value in zip(("width", "height", "depth"), (*SIZE, 3), strict=True):
                ElementTree.SubElement(size, side).text = str(value)
            for kind, box, difficult in rows:
                entry = ElementTree.SubElement(said, "object")
                for tag, value in (("name", kind), ("pose", "Left"), ("truncated", 0), ("difficult", difficult)):
                    ElementTree.SubElement(entry, tag).text = str(value)
                sides = ElementTree.SubElement(entry, "bndbox")
                for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                    ElementTree.SubElement(sides, tag).text = str(value)
                head = ElementTree.SubElement(entry, "part")  # of people, with a box of its own
                ElementTree.SubElement(head, "name").text = "head"
            ElementTree.ElementTree(said).write(root / f"Annotations/{name}.xml")


def write_coco(folder, train, test, categories=COCO_NUMBERS):
    """Pictures of the form {name: [(category, (x, y, width, height), crowd), …]}."""
    (folder / "coco/annotations").mkdir(parents=True, exist_ok=True)
    for split, pictures in (("train2017", train), ("val2017", test)):
        said = {"info": {}, "licenses": [], "categories": [{"id": number, "name": "?"} for number in categories]}
        said["images"] = [
            {"id": 1000 + at, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
            for at, name in enumerate(pictures)
        ]
        rows = [(1000 + at, *row) for at, rows in enumerate(pictures.values()) for row in rows]
        said["annotations"] = [
            {
                "id": number,
                "image_id": image,
                "category_id": kind,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": crowd,
            }
            for number, (image, kind, box, crowd) in enumerate(rows, 1)
        ]
        (folder / f"coco/annotations/instances_{split}.json").write_text(json.dumps(said))
        (folder / "coco" / split).mkdir(exist_ok=True)
        for seed, name in enumerate(pictures):
            write_picture(folder / "coco" / split / name, seed)


VOC_PICTURES = {
    "2007/trainval": {
        "000005": [("chair", (1, 1, 80, 60), 0), ("person", (11, 7, 20, 12), 1)],
        "000007": [("car", (41, 31, 80, 60), 0)],
        **{f"00001{digit}": [("dog", (5, 5, 40 + digit, 40), 0)] for digit in range(8)},
    },
    "2007/test": {"000001": [("dog", (9, 9, 48, 42), 0)], "000002": [("cat", (1, 1, 30, 30), 0)]},
    "2012/trainval": {"2008_000002": [("tvmonitor", ("35.5", 11, 78, 50), 0)], "2008_000003": []},
}
COCO_TRAIN = {
    "000000000009.jpg": [(90, (8.0, 6.0, 40.0, 30.0), 0), (1, (0.0, 0.0, 80.0, 60.0), 1)],
    "000000000025.jpg": [],
    **{f"00000000003{digit}.jpg": [(13, (10.0, 10.0, 20.0 + digit, 20.0), 0)] for digit in range(9)},
}
COCO_TEST = {"000000000139.jpg": [(64, (10.0, 10.0, 30.0, 40.0), 0)], "000000000285.jpg": []}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIDESLOPE_DATA", str(tmp_path))
    monkeypatch.setenv("GLIDESLOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def both(folder):
    write_voc(folder, VOC_PICTURES)
    write_coco(folder, COCO_TRAIN, COCO_TEST)
    return folder


def draws(task, count, seed=0):
    drawn = task.augmentation(np.random.default_rng(seed), count)
    return {name: torch.from_numpy(values) for name, values in drawn.items()}


def still(count):
    """Draws that change nothing."""
    ones = torch.ones(count)
    flip = torch.zeros(count, dtype=torch.bool)
    return {"flip": flip, "edges": torch.zeros(count, 4), "saturation": ones, "exposure": ones}


def test_vocs_boxes_are_shares_of_pictures_with_pixels_numbered_from_1(both):
    arrays = VOC.arrays()
    assert arrays["train_names"][:2].tolist() == ["VOC2007/JPEGImages/000005.jpg", "VOC2007/JPEGImages/000007.jpg"]
    chair, person, padding = arrays["train_truth"][0, 0], arrays["train_truth"][0, 1], arrays["train_truth"][1, 1]
    assert chair.tolist() == [0, 0, 1, 1, VOC_CLASSES.index("chair"), 0]
    # Columns 11 … 20 of 80, rows 7 … 12 of 60.
    np.testing.assert_allclose(person, [10 / 80, 6 / 60, 20 / 80, 12 / 60, VOC_CLASSES.index("person"), 1], rtol=1e-6)
    assert padding.tolist() == [0, 0, 0, 0, NO_CLASS, 0]
    assert arrays["train_names"][-2:].tolist() == [f"VOC2012/JPEGImages/2008_00000{digit}.jpg" for digit in (2, 3)]
    assert arrays["train_truth"][-2, 0, 0] == pytest.approx(34.5 / 80)
    assert arrays["test_truth"][0, 0, CLASS] == VOC_CLASSES.index("dog")


def test_cocos_categories_have_gaps_and_its_crowds_are_ignored(both):
    arrays = COCO.arrays()
    assert arrays["train_names"][0] == "train2017/000000000009.jpg"
    np.testing.assert_allclose(arrays["train_truth"][0, 0], [0.1, 0.1, 0.6, 0.6, 79, 0], rtol=1e-6)
    np.testing.assert_allclose(arrays["train_truth"][0, 1], [0, 0, 1, 1, 0, 1], rtol=1e-6)
    assert (arrays["train_truth"][1, :, CLASS] == NO_CLASS).all()
    assert arrays["train_truth"][2, 0, CLASS] == COCO_NUMBERS.index(13) == 11


def test_boxes_are_cut_off_at_the_sides_and_lines_are_left_out(folder):
    write_voc(folder, {**VOC_PICTURES, "2007/test": {"1": [("cow", (-4, 31, 100, 60), 0)], "2": []}})
    np.testing.assert_allclose(VOC.arrays()["test_truth"][0, 0, :4], [0, 0.5, 1, 1])
    write_coco(folder, COCO_TRAIN, {"1.jpg": [(1, (70, -10, 20, 40), 0), (1, (5, 5, 0, 9), 0)], "2.jpg": []})
    truth = COCO.arrays()["test_truth"]
    assert truth.shape == (2, 1, 6)
    np.testing.assert_allclose(truth[0, 0, :4], [70 / 80, 0, 1, 0.5])


def replaced(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def in_voc(name, old, new):
    return lambda folder: replaced(folder / "VOCdevkit/VOC2007" / name, old, new)


def in_coco(old, new):
    return lambda folder: replaced(folder / "coco/annotations/instances_val2017.json", old, new)


def cut_short(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-40])


CHAIR = "Annotations/000005.xml"


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (VOC, in_voc(CHAIR, "<name>chair", "<name>sofas"), r"000005.xml has an object 'sofas', which is none of: aero"),
        (VOC, in_voc(CHAIR, "<width>80</width>", ""), r"000005.xml says None for size/width, and a number is needed"),
        (VOC, in_voc(CHAIR, "<width>80", "<width>0"), r"000005.xml: chair is in a picture of 0 x 60 pixels"),
        (VOC, in_voc(CHAIR, "<xmin>11", "<xmin>x"), r"000005.xml says 'x' for bndbox/xmin, and a number is needed"),
        (
            VOC,
            in_voc(CHAIR, "<xmin>11", "<xmin>90"),
            r"person has the box 89, 6, 20, 12 .*nothing of it lies in its pic",
        ),
        (VOC, cut_short(f"VOCdevkit/VOC2007/{CHAIR}"), r"000005.xml is no XML, or cut short"),
        (VOC, in_voc("ImageSets/Main/test.txt", "000001", "000009"), r"000009.xml cannot be read, and a list names it"),
        (
            VOC,
            in_voc("ImageSets/Main/test.txt", "000001\n000002\n", ""),
            r"it lists 0 pictures for test, and two at le",
        ),
        (
            COCO,
            in_coco('"category_id": 64', '"category_id": 12'),
            r"annotation 1 is of the category 12, which the file",
        ),
        (
            COCO,
            in_coco('"image_id": 1000', '"image_id": 7'),
            r"annotation 1 is of the image 7, which the file does not",
        ),
        (COCO, in_coco('{"id": 90, "name": "?"}', '{"id": 89, "name": "?"}'), r"has 79 categories, and COCO 80"),
        (COCO, in_coco('"images"', '"pictures"'), r"instances_val2017.json lacks images"),
        (
            COCO,
            in_coco("[10.0, 10.0", "[80.0, 10.0"),
            r"has the box 80, 10, 110, 50 .*nothing of it lies in its picture",
        ),
        (COCO, cut_short("coco/annotations/instances_train2017.json"), r"train2017.json is no JSON, or cut short"),
        (COCO, lambda folder: (folder / "coco/val2017/000000000139.jpg").unlink(), r"139.jpg is not there, and a list"),
    ],
)
def test_data_that_are_not_what_they_should_be_are_told(both, file, damage, message):
    damage(both)
    with pytest.raises(DataFormatError, match=message):
        file.arrays()


@every_task
def test_pictures_are_squares_and_no_picture_is_in_two_splits(both, task):
    splits = task.splits()
    counts = [len(part[0]) for part in (splits.train, splits.validation, splits.test)]
    assert counts == [len(part[1]) for part in (splits.train, splits.validation, splits.test)]
    assert counts == ([11, 1, 2] if task.name == "voc-yolov3" else [10, 1, 2])
    images, truth = splits.train[0][:2], splits.train[1][:2]
    assert images.shape == (2, 3, task.side, task.side)
    assert (truth.dtype, truth.shape[-1]) == (torch.float32, 6)
    rows = torch.cat([splits.train[1], splits.validation[1]]).flatten(1)
    assert len(rows.unique(dim=0)) == counts[0] + counts[1]  # of these data all truths differ


@every_task
def test_one_update_one_evaluation_and_a_resume_at_full_size(both, task):
    numbers = smoke(task, examples=2)
    assert 0 <= numbers["mAP"] <= 100


def test_the_networks_are_those_of_the_papers():
    def size(model):
        return sum(weight.numel() for weight in model.parameters())

    with torch.device("meta"):
        assert size(darknet53()) == 40_584_928
        assert size(YOLOv3(80)) == 61_949_149  # as published
        assert size(YOLOv3(20)) == 61_626_049
        # torchvision's, with weights of batch normalisation, and with level 6 on the trunk's 2,048 channels, as in the
        # paper, in place of the pyramid's 256.
        assert size(RetinaNet(91, resnet50_trunk())) == 34_014_999 + 53_120 + 9 * 256 * (2048 - 256)
        assert size(RetinaNet(80, resnet50_trunk())) == 37_968_692


def small_trunk():
    layers = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 32), (32, 64), (64, 64)):
        convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        layers.append(nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()))
    return nn.Sequential(*layers)


def small_model(task, seed=0):
    """Of three classes, for pictures of 64 x 64."""
    if task.name == "voc-yolov3":
        return seeded_model(seed, lambda: YOLOv3(3, width=8, blocks=(1, 1, 1, 1, 1)))
    return seeded_model(seed, lambda: RetinaNet(3, small_trunk(), (2, 3, 4), (32, 64, 64), width=48, depth=1))


def rectangles(count=6, side=64, seed=0):
    """Red, green and blue rectangles on grey, one to three in a picture, each in a quarter of its own."""
    generator = np.random.default_rng(seed)
    images, truth = torch.full((count, 3, side, side), 0.5), torch.zeros(count, 4, 6)
    truth[..., CLASS] = NO_CLASS
    for picture in range(count):
        for row, quarter in enumerate(generator.permutation(4)[: 1 + picture % 3]):
            colour, (width, height) = int(generator.integers(3)), generator.integers(16, 30, 2)
            left, top = (
                int(start * side // 2 + generator.integers(0, side // 2 - length + 1))
                for start, length in ((quarter % 2, width), (quarter // 2, height))
            )
            images[picture, :, top : top + height, left : left + width] = torch.eye(3)[colour][:, None, None]
            sides = torch.tensor([left, top, left + width, top + height]) / side
            truth[picture, row] = torch.cat([sides, torch.tensor([colour, 0])])
    return images, truth


@every_task
def test_a_detector_learns_a_handful_of_pictures_by_heart(task):
    """Loss, codes, suppression and metric fit together: where one of them is wrong, nothing is found."""
    model, batch = small_model(task), rectangles()
    before = task.metric.over_split(judged(task, model, batch))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    for _ in range(120):
        model.train()
        optimizer.zero_grad()
        task.loss(model, batch, still(len(batch[0]))).backward()
        optimizer.step()
    after = task.metric.over_split(judged(task, model, batch))
    assert before < 5
    assert after > 80


@torch.no_grad()
def judged(task, model, batch):
    model.eval()
    return task.evaluate(model, batch, {})


@every_task
def test_a_loss_is_the_mean_over_the_batch(task):
    model, batch = small_model(task).eval(), rectangles()
    torch.testing.assert_close(task.loss(model, batch, still(6)), judged(task, model, batch)["loss"].mean())


@every_task
def test_an_evaluation_has_one_row_for_each_picture_whatever_the_chunks(task):
    model, batch = small_model(task), rectangles()
    whole = judged(task, model, batch)
    assert {name: value.shape for name, value in whole.items()} == {
        "loss": (6,),
        "detections": (6, 100, 6),
        "truth": (6, 4, 6),
    }
    parts = [judged(task, model, tuple(tensor[rows] for tensor in batch)) for rows in (slice(4), slice(4, 6))]
    for name in ("loss", "truth"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name])


@every_task
def test_pictures_without_a_box_have_a_loss_and_gradients(task):
    images, truth = rectangles(2)
    truth[:, :, :] = torch.tensor([0, 0, 0, 0, NO_CLASS, 0])
    model = small_model(task)
    loss = task.loss(model, (images, truth), draws(task, 2))
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())


@every_task
def test_rows_without_a_box_and_boxes_to_be_ignored_do_not_matter(task):
    images, truth = rectangles()
    model = small_model(task)
    before = judged(task, model, (images, truth))["loss"]
    ignored = torch.tensor([0.1, 0.1, 0.6, 0.9, 1, 1]).expand(6, 1, 6)
    nothing = torch.tensor([0.3, 0.3, 0.3, 0.3, NO_CLASS, 0]).expand(6, 3, 6)
    longer = torch.cat([ignored, truth, nothing], dim=1)
    torch.testing.assert_close(judged(task, model, (images, longer))["loss"], before)


@every_task
def test_draws_come_from_the_generator_with_a_row_for_each_example(task):
    once, again, other = draws(task, 50, 1), draws(task, 50, 1), draws(task, 50, 2)
    assert {len(values) for values in once.values()} == {50}
    assert all(torch.equal(once[name], again[name]) and not torch.equal(once[name], other[name]) for name in once)


def yolo_case():
    """One picture of 416 x 416, one box, and predictions that are all 0, of three classes."""
    cells = Cells.of(torch.zeros(1, 3, 416, 416))
    return torch.zeros(1, len(cells.corners), 8), torch.tensor([[[0.1, 0.2, 0.5, 0.5, 2, 0]]]), cells


def test_yolos_loss_by_hand():
    """Every logit is 0: each cross-entropy is log 2, each prediction its anchor, in the middle of its cell.

    The box is 0.4 x 0.3, 166 x 125 pixels. In shape it shares 0.60 with the anchor of 156 x 198, the second one of the
    coarse scale, and 0.50 with that of 116 x 90. Its centre, (0.3, 0.35), is at (3.9, 4.55) of 13 x 13 cells: in column
    3 and row 4, at (0.9, 0.55) of the cell.
    """
    predicted, truth, cells = yolo_case()
    place = (0.5 - 0.9) ** 2 + (0.5 - 0.55) ** 2 + np.log(0.4 * 416 / 156) ** 2 + np.log(0.3 * 416 / 198) ** 2
    of_box = (1 - 0.4 * 0.3 / 2) * place + 3 * np.log(2)
    centres = cells.corners + cells.sizes / 2
    first, last = centres - cells.anchors / 2, centres + cells.anchors / 2
    shared = (torch.minimum(last, truth[0, 0, 2:4]) - torch.maximum(first, truth[0, 0, :2])).clamp(min=0).prod(-1)
    overlaps = shared / (cells.anchors.prod(-1) + 0.12 - shared)
    # The one that is to find the box is charged whatever it overlaps with.
    responsible = 3 * (52**2 + 26**2) + 3 * (4 * 13 + 3) + 1
    assert overlaps[responsible] > 0.5
    charged = (overlaps <= 0.5) | (torch.arange(len(overlaps)) == responsible)
    assert 10_600 < charged.sum() < len(overlaps) == 3 * (52**2 + 26**2 + 13**2)
    wanted = of_box + int(charged.sum()) * np.log(2)
    assert yolo_losses(predicted, truth, cells).item() == pytest.approx(wanted, rel=1e-6)


def test_of_two_boxes_for_one_prediction_the_later_one_counts():
    predicted, truth, cells = yolo_case()
    predicted[..., 5:] = torch.tensor([3.0, -1.0, 1.0])
    twin = truth.clone()
    twin[..., CLASS] = 0
    first, later = (yolo_losses(predicted, torch.cat(rows, dim=1), cells) for rows in ((truth, twin), (twin, truth)))
    torch.testing.assert_close(first, yolo_losses(predicted, twin, cells))
    torch.testing.assert_close(later, yolo_losses(predicted, truth, cells))


def test_retinanets_loss_by_hand():
    """All logits 0: an entropy is log 2, a chance of being wrong 1/2, so one logit costs log 2 / 4, weighted."""
    grid = anchors(torch.zeros(1, 3, 64, 64))
    truth = torch.tensor([[[0.1, 0.2, 0.6, 0.7, 2, 0]]])
    _, found = assigned(grid, truth, 0.4, 0.5)
    positive, judged_ones = (found == 1).sum().item(), (found >= 0).sum().item()
    assert 1 < positive < 40
    assert judged_ones < len(grid)
    classes = np.log(2) / 4 * (0.25 * positive + 0.75 * (3 * judged_ones - positive))
    offsets = encoded(truth[0, :1, :4].expand(len(grid), 4), grid)[found[0] == 1].abs()
    sides = torch.where(offsets < 0.1, offsets.square() / 0.2, offsets - 0.05).sum().item()
    loss = retinanet_losses(torch.zeros(1, len(grid), 7), truth, grid)
    assert loss.item() == pytest.approx((classes + sides) / positive, rel=1e-5)


def test_anchors_have_the_areas_and_proportions_of_the_paper():
    grid = anchors(torch.zeros(1, 3, 128, 256)) * torch.tensor([256, 128, 256, 128])
    assert len(grid) == ANCHORS_PER_CELL * (32 * 16 + 16 * 8 + 8 * 4 + 4 * 2 + 2 * 1)
    sizes = grid[:, 2:] - grid[:, :2]
    first, last = sizes[:ANCHORS_PER_CELL], sizes[-ANCHORS_PER_CELL:]
    torch.testing.assert_close(first.prod(-1).sqrt()[::3], 32 * torch.tensor([1, 2 ** (1 / 3), 2 ** (2 / 3)]))
    torch.testing.assert_close((first[:, 1] / first[:, 0])[:3], torch.tensor([0.5, 1, 2]))
    torch.testing.assert_close(last, 16 * first)
    centres = (grid[:, 2:] + grid[:, :2]) / 2
    torch.testing.assert_close(centres[: ANCHORS_PER_CELL + 1 : ANCHORS_PER_CELL], torch.tensor([[4.0, 4], [12, 4]]))


def seen_boxes(images, truth):
    """Where the one rectangle of each picture is, by its pixels."""
    found = []
    for image, rows in zip(images, truth, strict=True):
        row, column = torch.where(image[int(rows[0, CLASS])] > 0.75)
        found.append([column.min(), row.min(), column.max() + 1, row.max() + 1])
    return torch.tensor(found) / images.shape[-1]


def one_rectangle_each(count=8):
    images, truth = rectangles(3 * count)
    return images[::3], truth[::3]


def test_boxes_follow_what_is_mirrored_and_moved():
    images, truth = one_rectangle_each()
    flip = torch.arange(8) % 2 == 0
    turned, boxes = mirrored_with_boxes(images, truth, flip)
    torch.testing.assert_close(seen_boxes(turned, boxes), boxes[:, 0, :4])
    assert torch.equal(boxes[~flip], truth[~flip])
    edges = torch.from_numpy(np.random.default_rng(0).uniform(-0.2, 0.2, (8, 4))).float()
    moved, boxes = moved_with_boxes(images, truth, edges)
    there = boxes[:, 0, CLASS] != NO_CLASS
    assert there.sum() >= 6
    found = seen_boxes(moved[there], boxes[there])
    # Up to a pixel of a side of 64, as edges are blurred.
    torch.testing.assert_close(found, boxes[there][:, 0, :4], rtol=0, atol=1.01 / 64)


def test_a_move_by_nothing_changes_nothing():
    images, truth = rectangles()
    moved, boxes = moved_with_boxes(images, truth, torch.zeros(6, 4))
    torch.testing.assert_close(moved, images)
    torch.testing.assert_close(boxes, truth)


def test_boxes_whose_centre_has_left_the_picture_are_gone():
    truth = torch.tensor([[[0.0, 0.0, 0.2, 0.2, 1, 0], [0.1, 0.0, 0.5, 0.2, 1, 0]]])
    edges = torch.tensor([[0.2, 0.0, 0.0, 0.0]])
    _, boxes = moved_with_boxes(torch.zeros(1, 3, 64, 64), truth, edges)
    assert boxes[0, :, CLASS].tolist() == [NO_CLASS, 1]
    torch.testing.assert_close(boxes[0, 1, :4], torch.tensor([0, 0, 0.375, 0.2]))


def test_colours_change_as_in_hsv():
    images = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    saturation, exposure = torch.tensor([1.0, 1.5, 0.7, 1.3]), torch.tensor([1.0, 1.2, 0.8, 1.5])
    found = recoloured(images, saturation, exposure)
    for at in range(4):
        for pixel, wanted in zip(images[at].flatten(1).T.tolist(), found[at].flatten(1).T.tolist(), strict=True):
            hue, colour, value = colorsys.rgb_to_hsv(*pixel)
            changed = (hue, min(1, colour * saturation[at].item()), min(1, value * exposure[at].item()))
            assert wanted == pytest.approx(colorsys.hsv_to_rgb(*changed), abs=1e-5)
    black = torch.zeros(1, 3, 2, 2)
    assert torch.equal(recoloured(black, saturation[1:2], exposure[1:2]), black)


def test_a_trunk_begins_with_the_weights_of_a_file(folder):
    other = seeded_model(9, resnet50_trunk)
    state = {name: value for name, value in other.state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(state, folder / "resnet50.safetensors")
    task = COCORetinaNet(pretrained="resnet50.safetensors")
    detector = task.model(0)[1]
    assert all(torch.equal(detector.trunk.state_dict()[name], value) for name, value in state.items())
    fresh = COCORetinaNet().model(0)[1]
    assert torch.equal(detector.classes[0].weight, fresh.classes[0].weight)
    assert len(task.pretrained_sha256()) == 64
    assert COCORetinaNet().pretrained_sha256() == ""


def test_weights_of_something_else_are_told(folder, monkeypatch):
    trunk = small_trunk()
    state = dict(trunk.state_dict())
    save_file({**state, "9.weight": torch.zeros(1), "0.0.weight": torch.zeros(2, 3)}, folder / "other.safetensors")
    with pytest.raises(
        DataFormatError, match=r"9.weight is not known; 0.0.weight has the shape \(2, 3\), and not \(16,"
    ):
        load_trunk(trunk, "other.safetensors")
    save_file({"9.weight": torch.zeros(1)}, folder / "other.safetensors")
    with pytest.raises(DataFormatError, match=r"0.0.weight is missing; .*, and 23 more"):
        load_trunk(trunk, "other.safetensors")
    (folder / "other.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataFormatError, match="cannot be read as safetensors"):
        load_trunk(trunk, "other.safetensors")
    with pytest.raises(MissingDataError, match=r"'none\.safetensors' are not in the data folder"):
        VOCYOLOv3(pretrained="none.safetensors").pretrained_sha256()
    monkeypatch.delenv("GLIDESLOPE_DATA")
    with pytest.raises(MissingDataError, match="and none is set"):
        load_trunk(trunk, "other.safetensors")
