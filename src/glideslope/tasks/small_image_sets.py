"""MNIST, Fashion-MNIST and CIFAR-10: packed in one archive, as their authors give them out, or from the network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glideslope.tasks.cache import Arrays
from glideslope.tasks.classification import NUM_CLASSES
from glideslope.tasks.data import DataFile, archived
from glideslope.tasks.image_formats import idx, pickled_batch, records

GREY_SHAPE, COLOUR_SHAPE = (1, 28, 28), (3, 32, 32)
"""Of the images of MNIST and Fashion-MNIST, and of CIFAR-10."""
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_IDX_PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

Labelled = tuple[NDArray[Any], NDArray[Any]]


def _image_arrays(
    train: NDArray[Any],
    train_labels: NDArray[Any],
    test: NDArray[Any],
    test_labels: NDArray[Any],
    shape: tuple[int, ...],
) -> Arrays:
    """Bytes (n, channels, height, width) and labels as the tasks use them: float32 in [0, 1] and int64.

    Float32 in the cache takes four times the room of bytes, but is memory-mapped as it is: no worker spends time or
    memory of its own on a conversion.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, images, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} {name} images, but {len(labels)} labels")
        if images.shape[1:] != shape:
            raise ValueError(f"{name} images are of shape {images.shape[1:]}, and not {shape}")
        if len(labels) and not 0 <= labels.min() <= labels.max() < NUM_CLASSES:
            least, most = labels.min(), labels.max()
            raise ValueError(f"{name} labels go from {least} to {most}, but there are {NUM_CLASSES} classes")
        arrays[f"{name}_inputs"] = np.divide(images, np.float32(255), dtype=np.float32)
        arrays[f"{name}_labels"] = labels.astype(np.int64)
    return arrays


def _grey(train: NDArray[Any], train_labels: NDArray[Any], test: NDArray[Any], test_labels: NDArray[Any]) -> Arrays:
    return _image_arrays(train[:, None], train_labels, test[:, None], test_labels, GREY_SHAPE)


def _decode_grey(path: Path) -> Arrays:
    found = archived(path)
    return _grey(found["train_images"], found["train_labels"], found["test_images"], found["test_labels"])


def _decode_cifar10(path: Path) -> Arrays:
    def unpacked(delta: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(3, n, 32, 32) of differences → (n, 3, 32, 32). All sums are meant to wrap around at 256."""
        planes = np.cumsum(np.cumsum(delta, 2, dtype=np.uint8), 3, dtype=np.uint8)
        return np.stack([planes[0] + planes[1], planes[1], planes[2] + planes[1]], axis=1)

    found = archived(path)
    return _image_arrays(
        unpacked(found["train_delta"]),
        found["train_labels"],
        unpacked(found["test_delta"]),
        found["test_labels"],
        COLOUR_SHAPE,
    )


def _decode_idx(path: Path, *, compressed: bool) -> Arrays:
    ending = ".gz" if compressed else ""
    return _grey(*(idx(path / f"{part}{ending}") for part in _IDX_PARTS))


def _binary_batch(path: Path) -> Labelled:
    """Of each image the label, then red, green and blue, each row by row."""
    found = records(path, 1 + prod(COLOUR_SHAPE), "one image and its label")
    return found[:, 1:].reshape(-1, *COLOUR_SHAPE), found[:, 0]


def _decode_batches(path: Path, read: Callable[[Path], Labelled], ending: str = "") -> Arrays:
    *train, test = [read(path / f"{name}{ending}") for name in _BATCHES]
    images, labels = (np.concatenate(each) for each in zip(*train, strict=True))
    return _image_arrays(images, labels, *test, COLOUR_SHAPE)


def _from_hugging_face(repository: str, image_column: str, shape: tuple[int, ...]) -> Callable[[], Arrays]:
    def download() -> Arrays:
        from datasets import load_dataset

        dataset = load_dataset(repository)
        parts: list[NDArray[Any]] = []
        for split in ("train", "test"):
            # Row by row, so that only one image at a time is a PIL object.
            rows = [(np.asarray(row[image_column], dtype=np.uint8), row["label"]) for row in dataset[split]]
            images = np.stack([image for image, _ in rows])
            parts += [images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)]
            parts += [np.array([label for _, label in rows])]
        train, train_labels, test, test_labels = parts
        return _image_arrays(train, train_labels, test, test_labels, shape)

    return download


def _archive(layout: str) -> str:
    return f"It is a NumPy archive with {layout} (uint8, no pickles)."


def _grey_set(name: str, set_name: str, repository: str, folder: str, sha256: str, md5: tuple[str, ...]) -> DataFile:
    """A set of handwriting or clothes: one archive, or four IDX files where torchvision puts them.

    Args:
        name: of the archive.
        set_name: for error messages.
        repository: on Hugging Face.
        folder: of the IDX files.
        sha256: of the archive.
        md5: of the four IDX files as they are published, compressed.
    """
    layout = _archive("train_images (60000, 28, 28), train_labels, test_images (10000, 28, 28), test_labels")
    obtain = f"They are the four IDX files of {set_name}, as torchvision downloads them."
    compressed = tuple(f"{part}.gz" for part in _IDX_PARTS)
    known = dict(zip(compressed, md5, strict=True))
    return DataFile(
        name,
        _decode_grey,
        _from_hugging_face(repository, "image", GREY_SHAPE),
        f"{layout} The folder {folder} of torchvision, with the four IDX files, does as well.",
        sha256=sha256,
        layouts=(
            DataFile(folder, partial(_decode_idx, compressed=True), None, obtain, compressed, md5=known),
            DataFile(folder, partial(_decode_idx, compressed=False), None, obtain, _IDX_PARTS),
        ),
    )


MNIST = _grey_set(
    "mnist.npz",
    "MNIST",
    "ylecun/mnist",
    "MNIST/raw",
    "8bed24bad4c1f6851ac2b48b9d39fea03331998b1a4276d17fd71bceedb1ec6c",
    (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
FASHION_MNIST = _grey_set(
    "fashion_mnist.npz",
    "Fashion-MNIST",
    "zalando-datasets/fashion_mnist",
    "FashionMNIST/raw",
    "a91c2a3b9e63c96e651e04ab74dee7c0260814edae01a4ecdad792258f8fcff0",
    (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
_CIFAR_PAGE = 'of Alex Krizhevsky\'s page "The CIFAR-10 and CIFAR-100 datasets", unpacked'
CIFAR10 = DataFile(
    "cifar10.npz",
    _decode_cifar10,
    _from_hugging_face("uoft-cs/cifar10", "img", COLOUR_SHAPE),
    _archive(
        "train_delta (3, 50000, 32, 32), train_labels, test_delta (3, n, 32, 32), test_labels: "
        "green, and red and blue less green, as differences along rows and columns, modulo 256"
    )
    + f" The folder cifar-10-batches-py or cifar-10-batches-bin {_CIFAR_PAGE}, does as well.",
    sha256="8d6df122f79afb6cb3f481f0b06cd702e346a1d35d0fae1d469e28ca4afce03d",
    layouts=(
        DataFile(
            "cifar-10-batches-py",
            partial(_decode_batches, read=partial(pickled_batch, labels="labels")),
            None,
            f'It is the "CIFAR-10 python version" {_CIFAR_PAGE}.',
            _BATCHES,
            md5={
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                "test_batch": "40351d587109b95175f43aff81a1287e",
            },
        ),
        DataFile(
            "cifar-10-batches-bin",
            partial(_decode_batches, read=_binary_batch, ending=".bin"),
            None,
            f'It is the "CIFAR-10 binary version" {_CIFAR_PAGE}: 3,073 bytes an image.',
            tuple(f"{name}.bin" for name in _BATCHES),
        ),
    ),
)
"""The archive that our results were made with has 9,980 of the 10,000 test images; all other forms have them all."""
