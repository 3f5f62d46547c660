"""The data folder: data sets too large to embed, as files the user brings, or downloaded where there is a network."""

from __future__ import annotations

import gzip
import importlib.util
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from glideslope.tasks.cache import Arrays, cached
from glideslope.tasks.classification import NUM_CLASSES

FOLDER_VARIABLE = "GLIDESLOPE_DATA"
GREY_SHAPE, COLOUR_SHAPE = (28, 28), (32, 32, 3)
"""Of the images of MNIST and Fashion-MNIST, and of CIFAR-10."""
UNREADABLE = (ValueError, KeyError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error)
"""What NumPy and the decompressors raise for a file that is cut short, damaged, or something else."""


class MissingDataError(FileNotFoundError):
    """A file of the data folder is not there, and could not be downloaded either."""


class DataFormatError(ValueError):
    """A file of the data folder is there, but is not what it should be."""


def data_folder() -> Path | None:
    """What `FOLDER_VARIABLE` names; None where it is not set."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else None


def file_sha256(path: Path) -> str:
    """Of a file's contents."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class DataFile:
    """One file of the data folder, or one folder in the data set's usual layout, and everything that is known about it.

    Args:
        name: of the file, or of the folder.
        decode: file or folder → arrays, in the form in which they are kept in the cache.
        download: nothing → the same arrays, from the network; None where no dependable source is known.
        obtain: how a user gets the file, for the error message.
        parts: of a folder: files and folders in it without which it is not whole.
        sha256: of the file that all numbers of the project were made with; empty where it had none.
    """

    name: str
    decode: Callable[[Path], Arrays]
    download: Callable[[], Arrays] | None
    obtain: str
    parts: tuple[str, ...] = ()
    sha256: str = ""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The file's contents, memory-mapped from the cache; converted (or downloaded and converted) the first time."""
        path = self.path
        if path is not None and path.exists():
            self._check_parts(path)
            # Size and time, not a hash of the contents: that would cost every worker a quarter of a second on CIFAR-10.
            stats = [status for part in self.parts or ("",) for status in _statuses(path / part)]
            facts = " ".join(f"{status.st_size} {status.st_mtime_ns}" for status in stats)
            identity = sha256(f"{path.resolve()} {facts}".encode()).hexdigest()
            return cached(f"{self.name}-{identity[:16]}", lambda: self._decoded(path))
        return cached(f"{self.name}-downloaded", lambda: self._downloaded(path))

    @property
    def path(self) -> Path | None:
        """Where it is looked for; None where no data folder is set."""
        folder = data_folder()
        return folder / self.name if folder else None

    def missing_parts(self, path: Path) -> list[str]:
        """What a folder lacks."""
        return [part for part in self.parts if not (path / part).exists()]

    def difference(self, path: Path) -> str:
        """Both checksums, where the file is not the one that was used here; empty where it is, or where none is known.

        The same contents, packed by somebody else, have another.
        """
        if not self.sha256:
            return ""
        found = file_sha256(path)
        return "" if found == self.sha256 else f"its sha256 is {found}, and {self.sha256} that of the one used here"

    def _check_parts(self, path: Path) -> None:
        if missing := self.missing_parts(path):
            raise MissingDataError(f"{path} lacks {', '.join(missing)}. {self.obtain}")

    def _decoded(self, path: Path) -> Arrays:
        try:
            return self.decode(path)
        except UNREADABLE as error:
            reason = "; ".join(filter(None, [str(error), self.difference(path)]))
            raise DataFormatError(f"{path} cannot be read as {self.name}: {reason}. {self.obtain}") from error

    def _downloaded(self, path: Path | None) -> Arrays:
        looked = (
            f"{self.name} is not in the data folder {path.parent}"
            if path
            else f"{self.name} needs a data folder, and none is set"
        )
        way_out = f"{self.obtain} Then name its folder with --data DIR or the environment variable {FOLDER_VARIABLE}."
        if self.download is None:
            raise MissingDataError(f"{looked}. {way_out}")
        if not _hugging_face_is_installed():
            raise MissingDataError(
                f"{looked}. {way_out} Or `pip install datasets`, and it is downloaded from Hugging Face."
            )
        try:
            return self.download()
        # Whatever goes wrong on the way (no network, a proxy, a changed repository) has one answer: bring the file.
        except Exception as error:
            reason = f"downloading it from Hugging Face failed ({type(error).__name__}: {error})"
            raise MissingDataError(f"{looked}, and {reason}. {way_out}") from error


def _statuses(path: Path) -> list[os.stat_result]:
    """Of a file, or of a folder and the folders in it, whose times change when something is put there or taken away."""
    if not path.is_dir():
        return [path.stat()]
    with os.scandir(path) as entries:
        folders = sorted((entry for entry in entries if entry.is_dir()), key=lambda entry: entry.name)
        return [path.stat(), *(entry.stat() for entry in folders)]


def _hugging_face_is_installed() -> bool:
    return importlib.util.find_spec("datasets") is not None


def archived(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a NumPy archive, by name."""
    # Opened here: on a damaged archive `np.load` leaves a file that it opened itself to the garbage collector.
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise DataFormatError("it holds one array, and not an archive of several")
        return dict(archive)


def _image_arrays(
    train: NDArray[Any],
    train_labels: NDArray[Any],
    test: NDArray[Any],
    test_labels: NDArray[Any],
    shape: tuple[int, ...],
) -> Arrays:
    """Raw pixels and labels as the tasks use them: (n, channels, height, width) float32 in [0, 1] and int64.

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
        by_channel = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        arrays[f"{name}_inputs"] = np.divide(by_channel, np.float32(255), dtype=np.float32)
        arrays[f"{name}_labels"] = labels.astype(np.int64)
    return arrays


def _decode_grey(path: Path) -> Arrays:
    found = archived(path)
    return _image_arrays(
        found["train_images"], found["train_labels"], found["test_images"], found["test_labels"], GREY_SHAPE
    )


def _decode_cifar10(path: Path) -> Arrays:
    def unpacked(delta: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(3, n, 32, 32) of differences → (n, 32, 32, 3). All sums are meant to wrap around at 256."""
        planes = np.cumsum(np.cumsum(delta, 2, dtype=np.uint8), 3, dtype=np.uint8)
        return np.stack([planes[0] + planes[1], planes[1], planes[2] + planes[1]], axis=-1)

    found = archived(path)
    return _image_arrays(
        unpacked(found["train_delta"]),
        found["train_labels"],
        unpacked(found["test_delta"]),
        found["test_labels"],
        COLOUR_SHAPE,
    )


def _decode_text(path: Path) -> Arrays:
    with gzip.open(path, "rb") as file:
        return {"bytes": np.frombuffer(file.read(), dtype=np.uint8)}


def _from_hugging_face(repository: str, image_column: str) -> Callable[[], Arrays]:
    def download() -> Arrays:
        from datasets import load_dataset

        dataset = load_dataset(repository)
        parts = []
        for split in ("train", "test"):
            # Row by row, so that only one image at a time is a PIL object.
            rows = [(np.asarray(row[image_column], dtype=np.uint8), row["label"]) for row in dataset[split]]
            parts += [np.stack([image for image, _ in rows]), np.array([label for _, label in rows])]
        train, train_labels, test, test_labels = parts
        return _image_arrays(train, train_labels, test, test_labels, train.shape[1:])

    return download


def _archive(layout: str) -> str:
    return f"It is a NumPy archive with {layout} (uint8, no pickles)."


_GREY_LAYOUT = _archive("train_images (60000, 28, 28), train_labels, test_images (10000, 28, 28), test_labels")

MNIST = DataFile(
    "mnist.npz",
    _decode_grey,
    _from_hugging_face("ylecun/mnist", "image"),
    _GREY_LAYOUT,
    sha256="8bed24bad4c1f6851ac2b48b9d39fea03331998b1a4276d17fd71bceedb1ec6c",
)
FASHION_MNIST = DataFile(
    "fashion_mnist.npz",
    _decode_grey,
    _from_hugging_face("zalando-datasets/fashion_mnist", "image"),
    _GREY_LAYOUT,
    sha256="a91c2a3b9e63c96e651e04ab74dee7c0260814edae01a4ecdad792258f8fcff0",
)
CIFAR10 = DataFile(
    "cifar10.npz",
    _decode_cifar10,
    _from_hugging_face("uoft-cs/cifar10", "img"),
    _archive(
        "train_delta (3, 50000, 32, 32), train_labels, test_delta, test_labels: "
        "green, and red and blue less green, as differences along rows and columns, modulo 256"
    ),
    sha256="8d6df122f79afb6cb3f481f0b06cd702e346a1d35d0fae1d469e28ca4afce03d",
)
TINY_SHAKESPEARE = DataFile(
    "tinyshakespeare.txt.gz",
    _decode_text,
    None,
    "It is the file data/tinyshakespeare/input.txt of github.com/karpathy/char-rnn, compressed with gzip.",
    sha256="13125fe8f49092165d7d489e3944db52d1ba546e64a60080cc9523bcd0c5e46a",
)
