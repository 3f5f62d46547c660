"""Detection sets: PASCAL VOC and COCO in their own layouts, as names of pictures and boxes in shares of their sides."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray

from glideslope.tasks.cache import Arrays
from glideslope.tasks.columns import ImageFiles
from glideslope.tasks.data import DataFile, DataFormatError
from glideslope.tasks.detection.boxes import NO_CLASS, NUM_COLUMNS
from glideslope.tasks.image_sets import num_held_out
from glideslope.tasks.parts import shuffled
from glideslope.trials.task import Part, Splits

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
NUM_COCO_CLASSES = 80

VOC_LISTS = {"train": ("VOC2007/trainval", "VOC2012/trainval"), "test": ("VOC2007/test",)}
COCO_FOLDERS = {"train": "train2017", "test": "val2017"}

Row = tuple[float, float, float, float, float, float]
"""Left, top, right, bottom in shares, class, 1 if it is to be ignored."""


def detection_splits(file: DataFile, side: int) -> Splits:
    """Pictures squeezed into squares, (n, 3, side, side) in [0, 1], and their truths, (n, most, 6) float32.

    The published test set whole; of the training set, in one fixed random order, 5,000 pictures or a tenth are for
    validation.

    Args:
        file: `VOC` or `COCO`.
        side: in pixels.
    """
    folder, arrays = file.path, file.arrays()
    assert folder is not None  # there were arrays

    def part(split: str, rows: NDArray[np.int64] | slice) -> Part:
        names = cast("Sequence[str]", arrays[f"{split}_names"][rows])
        return ImageFiles(folder, names, side), torch.from_numpy(arrays[f"{split}_truth"][rows])

    order = shuffled(len(arrays["train_names"])).numpy()
    held_out = num_held_out(len(order))
    return Splits(part("train", order[held_out:]), part("train", order[:held_out]), part("test", slice(None)))


def _decode_voc(path: Path) -> Arrays:
    return _arrays(path, {split: _voc_pictures(path, lists) for split, lists in VOC_LISTS.items()})


def _voc_pictures(path: Path, lists: Sequence[str]) -> dict[str, list[Row]]:
    pictures = {}
    for year, which in (entry.split("/") for entry in lists):
        for line in (path / year / f"ImageSets/Main/{which}.txt").read_text("utf-8").split():
            pictures[f"{year}/JPEGImages/{line}.jpg"] = _voc_rows(path, f"{year}/Annotations/{line}.xml")
    return pictures


def _voc_rows(path: Path, name: str) -> list[Row]:
    """The objects of one file. Pixels are numbered from 1 there, and a box reaches to the far side of its last ones."""
    try:
        root = ElementTree.parse(path / name).getroot()
    except OSError as error:
        raise DataFormatError(f"{name} cannot be read, and a list names it: {error}") from error
    except ElementTree.ParseError as error:
        raise DataFormatError(f"{name} is no XML, or cut short: {error}") from error
    width, height = (_number(root, f"size/{side}", name) for side in ("width", "height"))
    rows = []
    for entry in root.findall("object"):
        kind = (entry.findtext("name") or "").strip()
        if kind not in VOC_CLASSES:
            raise DataFormatError(f"{name} has an object {kind!r}, which is none of: {', '.join(VOC_CLASSES)}")
        left, top, right, bottom = (_number(entry, f"bndbox/{side}", name) for side in ("xmin", "ymin", "xmax", "ymax"))
        ignored = (entry.findtext("difficult") or "0").strip() == "1"
        sides = _in_shares((left - 1, top - 1, right, bottom), (width, height), f"{name}: {kind}")
        rows.append((*sides, float(VOC_CLASSES.index(kind)), float(ignored)))
    return rows


def _number(entry: ElementTree.Element, tag: str, name: str) -> float:
    text = entry.findtext(tag)
    try:
        return float(text or "")
    except ValueError as error:
        raise DataFormatError(f"{name} says {text!r} for {tag}, and a number is needed") from error


def _decode_coco(path: Path) -> Arrays:
    return _arrays(path, {split: _coco_pictures(path, folder) for split, folder in COCO_FOLDERS.items()})


def _coco_pictures(path: Path, folder: str) -> dict[str, list[Row]]:
    name = f"annotations/instances_{folder}.json"
    try:
        found = json.loads((path / name).read_bytes())
    except ValueError as error:
        raise DataFormatError(f"{name} is no JSON, or cut short: {error}") from error
    if not isinstance(found, dict) or (lacks := {"images", "annotations", "categories"} - found.keys()):
        raise DataFormatError(f"{name} lacks {', '.join(sorted(lacks)) if isinstance(found, dict) else 'everything'}")
    # Their numbers have gaps: 1 … 90.
    labels = {number: label for label, number in enumerate(sorted(entry["id"] for entry in found["categories"]))}
    if len(labels) != NUM_COCO_CLASSES:
        raise DataFormatError(f"{name} has {len(labels)} categories, and COCO {NUM_COCO_CLASSES}")
    images = {entry["id"]: entry for entry in found["images"]}
    pictures: dict[str, list[Row]] = {f"{folder}/{entry['file_name']}": [] for entry in found["images"]}
    for entry in found["annotations"]:
        where = f"{name}: annotation {entry['id']}"
        if entry["category_id"] not in labels:
            raise DataFormatError(f"{where} is of the category {entry['category_id']}, which the file does not list")
        if entry["image_id"] not in images:
            raise DataFormatError(f"{where} is of the image {entry['image_id']}, which the file does not list")
        image = images[entry["image_id"]]
        left, top, width, height = entry["bbox"]
        if width == 0 or height == 0:
            continue  # a few of COCO's boxes are lines, and no detection could overlap with them
        sides = _in_shares((left, top, left + width, top + height), (image["width"], image["height"]), where)
        crowd = float(bool(entry.get("iscrowd", 0)))
        pictures[f"{folder}/{image['file_name']}"].append((*sides, float(labels[entry["category_id"]]), crowd))
    return pictures


def _in_shares(
    box: tuple[float, float, float, float], size: tuple[float, float], where: str
) -> tuple[float, float, float, float]:
    """A box in pixels, left, top, right and bottom, as shares of a picture's width and height, cut off at its sides."""
    width, height = size
    if not (width > 0 and height > 0):
        raise DataFormatError(f"{where} is in a picture of {width:g} x {height:g} pixels")
    left, right = (min(max(side / width, 0.0), 1.0) for side in (box[0], box[2]))
    top, bottom = (min(max(side / height, 0.0), 1.0) for side in (box[1], box[3]))
    if not (left < right and top < bottom):
        raise DataFormatError(
            f"{where} has the box {', '.join(f'{side:g}' for side in box)} (left, top, right, bottom), and nothing of "
            f"it lies in its picture of {width:g} x {height:g} pixels"
        )
    return left, top, right, bottom


def _arrays(path: Path, splits: dict[str, dict[str, list[Row]]]) -> Arrays:
    """By split: "…_names", (n,) text, and "…_truth", (n, most, 6) float32."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, pictures in splits.items():
        if len(pictures) < 2:
            raise DataFormatError(f"it lists {len(pictures)} pictures for {split}, and two at least are needed")
        _check_files(path, pictures)
        most = max(1, *(len(rows) for rows in pictures.values()))
        truth = np.zeros((len(pictures), most, NUM_COLUMNS), np.float32)
        truth[..., 4] = NO_CLASS
        for padded, rows in zip(truth, pictures.values(), strict=True):
            padded[: len(rows)] = np.reshape(np.array(rows, np.float32), (-1, NUM_COLUMNS))
        arrays |= {f"{split}_names": np.array(list(pictures)), f"{split}_truth": truth}
    return arrays


def _check_files(path: Path, names: Iterable[str]) -> None:
    # One listing for each folder: 118,287 questions to a network's file system would take minutes.
    there: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in there:
            there[folder] = {entry.name for entry in (path / folder).iterdir()}
        if file not in there[folder]:
            raise DataFormatError(f"{name} is not there, and a list names it")


VOC = DataFile(
    "VOCdevkit",
    _decode_voc,
    None,
    "It is the folder VOCdevkit that VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar and "
    "VOCtrainval_11-May-2012.tar of the PASCAL VOC challenges 2007 and 2012 unpack into, all three at one place.",
    parts=tuple(
        f"{year}/{part}"
        for year, lists in (("VOC2007", ("trainval", "test")), ("VOC2012", ("trainval",)))
        for part in ("JPEGImages", "Annotations", *(f"ImageSets/Main/{name}.txt" for name in lists))
    ),
)
COCO = DataFile(
    "coco",
    _decode_coco,
    None,
    "It is a folder with train2017, val2017 and annotations, out of train2017.zip, val2017.zip and "
    'annotations_trainval2017.zip of cocodataset.org, "Download", unpacked.',
    parts=tuple(part for name in COCO_FOLDERS.values() for part in (name, f"annotations/instances_{name}.json")),
)
