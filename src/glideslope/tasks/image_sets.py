"""Image data sets of the papers, each as its authors give it out; and what of them is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from glideslope.tasks.cache import Arrays
from glideslope.tasks.columns import Pixels, opened
from glideslope.tasks.data import DataFile, DataFormatError
from glideslope.tasks.image_formats import checked_labels, matlab, pickled_batch, records
from glideslope.tasks.parts import shuffled
from glideslope.trials.task import Part, Splits

NUM_VALIDATION = 5000
CIFAR100_CLASSES = 100
STL10_CLASSES = 10
SVHN_CLASSES = 10
TINY_IMAGENET_CLASSES = 200
IMAGENET_CLASSES = 1000
CIFAR_SIDE = 32
STL10_SIDE = 96
TINY_IMAGENET_SIDE = 64


def num_held_out(num_images: int) -> int:
    """Images of a training set that are for validation: 5,000, or a tenth where that is less."""
    return min(NUM_VALIDATION, num_images // 10)


def image_splits(file: DataFile) -> Splits:
    """The test set of the file whole; the last 5,000 images of the training set, or a tenth, for validation.

    Images of a file that are kept as bytes are read as they are asked for.
    """
    arrays = file.arrays()
    num_train = len(arrays["train_labels"]) - num_held_out(len(arrays["train_labels"]))

    def part(name: str, rows: slice) -> Part:
        images, labels = arrays[f"{name}_inputs"][rows], torch.from_numpy(arrays[f"{name}_labels"][rows])
        return (Pixels(images) if images.dtype == np.uint8 else torch.from_numpy(images)), labels

    return Splits(part("train", slice(num_train)), part("train", slice(num_train, None)), part("test", slice(None)))


def _arrays(parts: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.int64]]]) -> Arrays:
    """By split: images (n, 3, side, side) uint8 and labels (n,) int64."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, images, labels in parts:
        arrays |= {f"{split}_inputs": np.ascontiguousarray(images), f"{split}_labels": labels}
    return arrays


def _decode_cifar100(path: Path) -> Arrays:
    parts = []
    for split in ("train", "test"):
        file = path / f"{split}.bin"
        # The coarse label, the fine one, then red, green and blue, each row by row.
        found = records(file, 2 + 3 * CIFAR_SIDE**2, "one image and its two labels")
        labels = checked_labels(found[:, 1], 0, CIFAR100_CLASSES, file.name)
        parts.append((split, found[:, 2:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE), labels))
    return _arrays(parts)


def _decode_pickled_cifar100(path: Path) -> Arrays:
    parts = []
    for split in ("train", "test"):
        images, labels = pickled_batch(path / split, "fine_labels")
        parts.append((split, images, checked_labels(labels, 0, CIFAR100_CLASSES, split)))
    return _arrays(parts)


def _decode_stl10(path: Path) -> Arrays:
    parts = []
    for split in ("train", "test"):
        images = records(path / f"{split}_X.bin", 3 * STL10_SIDE**2, "one image")
        labels = records(path / f"{split}_y.bin", 1, "one label")[:, 0]
        if len(images) != len(labels):
            raise DataFormatError(f"{split}_X.bin has {len(images)} images, but {split}_y.bin {len(labels)} labels")
        by_column = images.reshape(-1, 3, STL10_SIDE, STL10_SIDE)
        parts.append(
            (split, by_column.transpose(0, 1, 3, 2), checked_labels(labels, 1, STL10_CLASSES, f"{split}_y.bin"))
        )
    return _arrays(parts)


def _decode_svhn(path: Path) -> Arrays:
    parts = []
    for split in ("train", "test"):
        file = path / f"{split}_32x32.mat"
        found = matlab(file)
        images, labels = found["X"], found["y"].reshape(-1)
        if images.shape != (CIFAR_SIDE, CIFAR_SIDE, 3, len(labels)) or images.dtype != np.uint8:
            raise DataFormatError(
                f"{file.name} holds X of shape {images.shape} and type {images.dtype} and {len(labels)} labels, but X "
                f"must be ({CIFAR_SIDE}, {CIFAR_SIDE}, 3, labels) and uint8"
            )
        digits = checked_labels(labels, 1, SVHN_CLASSES, file.name)
        # The digit 0 has the label 10 there, and 0 here.
        parts.append((split, images.transpose(3, 2, 0, 1), (digits + 1) % SVHN_CLASSES))
    return _arrays(parts)


def _decode_tiny_imagenet(path: Path) -> Arrays:
    kinds = sorted((path / "wnids.txt").read_text(encoding="utf-8").split())
    _check_classes(kinds, TINY_IMAGENET_CLASSES, "wnids.txt lists", "classes")
    number = {kind: index for index, kind in enumerate(kinds)}
    train = [
        (f"train/{kind}/images/{name}", number[kind])
        for kind in kinds
        for name in _images_of(path / "train" / kind / "images")
    ]
    train = [train[index] for index in shuffled(len(train)).tolist()]
    test = []
    for line in (path / "val/val_annotations.txt").read_text(encoding="utf-8").splitlines():
        name, kind, *_ = [*line.split("\t"), ""]
        if kind not in number:
            raise DataFormatError(f"val/val_annotations.txt says {line!r}, and {kind!r} is not in wnids.txt")
        test.append((f"val/images/{name}", number[kind]))
    return _arrays(
        (split, _small_images(path, [name for name, _ in found]), np.array([label for _, label in found], np.int64))
        for split, found in (("train", train), ("test", test))
    )


def _small_images(path: Path, names: Sequence[str]) -> NDArray[np.uint8]:
    images = np.empty((len(names), 3, TINY_IMAGENET_SIDE, TINY_IMAGENET_SIDE), np.uint8)
    for row, name in zip(images, names, strict=True):
        with opened(path / name) as image:
            if image.size != (TINY_IMAGENET_SIDE, TINY_IMAGENET_SIDE):
                raise DataFormatError(
                    f"{name} has {image.size[0]} x {image.size[1]} pixels, "
                    f"and not {TINY_IMAGENET_SIDE} x {TINY_IMAGENET_SIDE}"
                )
            row[:] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return images


def _decode_imagenet(path: Path) -> Arrays:
    """Of each image the name in the folder, its label and its proportions; those of training in one random order.

    "…_names": (n,) text; "…_labels": (n,) int64; "…_proportions": width / height, (n,) float32.
    """
    arrays: dict[str, NDArray[Any]] = {}
    kinds: list[str] = []
    for split, folder in (("train", "train"), ("test", "val")):
        found = sorted(entry.name for entry in (path / folder).iterdir() if entry.is_dir())
        _check_classes(found, IMAGENET_CLASSES, f"{folder} holds", "folders, one for each class")
        if split == "test" and found != kinds:
            raise DataFormatError(f"val has a folder {min(set(found) - set(kinds))}, and train has none")
        kinds = found
        with ThreadPoolExecutor() as readers:
            by_class = list(readers.map(lambda kind, at=folder: _headers(path, f"{at}/{kind}"), kinds))
        rows = [(name, label, width / height) for label, one in enumerate(by_class) for name, width, height in one]
        if split == "train":
            rows = [rows[index] for index in shuffled(len(rows)).tolist()]
        arrays |= {
            f"{split}_names": np.array([name for name, _, _ in rows]),
            f"{split}_labels": np.array([label for _, label, _ in rows], np.int64),
            f"{split}_proportions": np.array([proportion for _, _, proportion in rows], np.float32),
        }
    return arrays


def _headers(path: Path, folder: str) -> list[tuple[str, int, int]]:
    """Name, width and height of every image of a class."""
    found = []
    for name in _images_of(path / folder):
        with opened(path / folder / name) as image:
            found.append((f"{folder}/{name}", *image.size))
    return found


def _check_classes(found: Sequence[str], wanted: int, where: str, what: str) -> None:
    if len(found) != wanted:
        raise DataFormatError(f"{where} {len(found)} {what}, and not {wanted:,}")


def _images_of(folder: Path) -> list[str]:
    found = sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".JPEG") if folder.is_dir() else []
    if not found:
        raise DataFormatError(f"{folder} holds no image (.JPEG)")
    return found


CIFAR100 = DataFile(
    "cifar-100-binary",
    _decode_cifar100,
    None,
    'It is the folder of the "CIFAR-100 binary version" of Alex Krizhevsky\'s page "The CIFAR-10 and CIFAR-100 '
    'datasets", unpacked: train.bin and test.bin, 3,074 bytes an image. The folder cifar-100-python of its "python '
    'version", as torchvision has it, does as well.',
    parts=("train.bin", "test.bin"),
    layouts=(
        DataFile(
            "cifar-100-python",
            _decode_pickled_cifar100,
            None,
            'It is the "CIFAR-100 python version" of the same page, unpacked: train and test.',
            parts=("train", "test"),
            md5={"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        ),
    ),
)
STL10 = DataFile(
    "stl10_binary",
    _decode_stl10,
    None,
    'It is the folder of the "binary files" of the page "STL-10 dataset" of Stanford University, unpacked: '
    "train_X.bin and test_X.bin, 27,648 bytes an image, train_y.bin and test_y.bin, a byte a label.",
    parts=("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"),
    md5={
        "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
        "train_y.bin": "5a34089d4802c674881badbb80307741",
        "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
        "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
    },
)
SVHN = DataFile(
    "svhn",
    _decode_svhn,
    None,
    'It is a folder with train_32x32.mat and test_32x32.mat, "Format 2: Cropped Digits" of the page "The Street View '
    'House Numbers (SVHN) Dataset" of Stanford University.',
    parts=("train_32x32.mat", "test_32x32.mat"),
    md5={
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
)
TINY_IMAGENET = DataFile(
    "tiny-imagenet-200",
    _decode_tiny_imagenet,
    None,
    "It is the folder of tiny-imagenet-200.zip of Stanford University's course CS231n, unpacked: wnids.txt, "
    "train/CLASS/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt.",
    parts=("wnids.txt", "train", "val/images", "val/val_annotations.txt"),
)
IMAGENET = DataFile(
    "imagenet",
    _decode_imagenet,
    None,
    'It is a folder with train/CLASS/*.JPEG and val/CLASS/*.JPEG, of 1,000 classes: "ILSVRC2012" of image-net.org, '
    "after registration. The script valprep.sh that goes with PyTorch's ImageNet example sorts the images for "
    "validation into folders.",
    parts=("train", "val"),
)
