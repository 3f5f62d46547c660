"""The formats in which authors give out small images: records, IDX files, pickled batches, MATLAB's."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glideslope.tasks.data import DataFormatError

_IDX_BYTES = 0x08
"""The code of IDX for unsigned bytes."""


def checked_labels(labels: NDArray[Any], first: int, num_classes: int, where: str) -> NDArray[np.int64]:
    """Labels from `first` on as labels from 0 on.

    Args:
        labels: (n,) integers.
        first: the label of the first class.
        num_classes: labels after the last of them are refused.
        where: the file, for the error message.

    Raises:
        DataFormatError: a label is of no class.
    """
    last = first + num_classes - 1
    if outside := sorted({int(label) for label in np.unique(labels) if not first <= label <= last}):
        raise DataFormatError(
            f"{where} holds the label {outside[0]}, but labels of {num_classes} classes are {first} … {last}"
        )
    return labels.astype(np.int64) - first


def records(path: Path, size: int, what: str) -> NDArray[np.uint8]:
    """A file of records, all of one size in bytes: (n, size).

    Raises:
        DataFormatError: the file is empty, or ends within a record.
    """
    found = np.fromfile(path, np.uint8)
    if not len(found) or len(found) % size:
        raise DataFormatError(
            f"{path.name} has {len(found):,} bytes, and not a multiple of {size:,}, the size of {what}: "
            "it is cut short, or another file"
        )
    return found.reshape(-1, size)


def idx(path: Path) -> NDArray[np.uint8]:
    """The bytes of an IDX file in their shape; compressed with gzip where the name ends so.

    Source: the page "The MNIST Database of Handwritten Digits".

    Raises:
        DataFormatError: it is another file, or cut short.
    """
    contents = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(contents) < 4 or contents[:3] != bytes((0, 0, _IDX_BYTES)) or not contents[3]:
        raise DataFormatError(
            f"{path.name} is no IDX file of bytes: it begins with {contents[:4].hex(' ') or 'nothing'}"
        )
    start = 4 + 4 * contents[3]
    shape = np.frombuffer(contents[4:start], ">u4").tolist()
    if len(contents) != start + np.prod(shape, dtype=int):
        raise DataFormatError(
            f"{path.name} has {len(contents) - start:,} bytes behind its head, which promises an array of {shape}: "
            "it is cut short, or another file"
        )
    return np.frombuffer(contents, np.uint8, offset=start).reshape(shape)


def pickled_batch(path: Path, labels: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images of 32 x 32 pixels and their labels, pickled by Python 2 as CIFAR's authors did. Nothing in it can be run.

    Args:
        path: of the file.
        labels: the entry that has them: "labels" of CIFAR-10, "fine_labels" of CIFAR-100.

    Returns:
        (n, 3, 32, 32) and (n,).

    Raises:
        DataFormatError: it is cut short, another file, or asks for more than arrays.
    """
    try:
        with path.open("rb") as file:
            found = _Arrays(file, encoding="bytes").load()
        images = found[b"data"].values().reshape(-1, 3, 32, 32)
        numbers = np.array(found[labels.encode()], np.int64)
    # Whatever the unpickler stumbles over in bytes that are none of its own.
    except Exception as error:
        raise DataFormatError(
            f"{path.name} is cut short, or no pickled images of 32 x 32 with {labels} ({type(error).__name__}: {error})"
        ) from error
    if len(images) != len(numbers):
        raise DataFormatError(f"{path.name} has {len(images)} images, but {len(numbers)} labels")
    return images, numbers


class _Dtype:
    """Stands for NumPy's: unsigned bytes alone. NumPy's own believes what a pickle says of memory."""

    def __init__(self, kind: str | bytes, *_: Any) -> None:
        if kind not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"its array is of {kind!r}, and not of bytes")

    def __setstate__(self, state: Any) -> None:
        pass


class _Array:
    """Stands for NumPy's, and keeps what a pickle says of it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.by_column, self.raw = state

    def values(self) -> NDArray[np.uint8]:
        if not isinstance(self.dtype, _Dtype) or not isinstance(self.raw, bytes) or self.by_column:
            raise pickle.UnpicklingError("its array is not of bytes, row by row")
        return np.frombuffer(self.raw, np.uint8).reshape(self.shape)


class _Arrays(pickle.Unpickler):
    """Makes lists, dictionaries, numbers, text and arrays of bytes, and runs nothing that a file names."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _Array
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Array if name == "ndarray" else _Dtype
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def matlab(path: Path) -> dict[str, NDArray[Any]]:
    """The variables of a MATLAB file, X and y among them.

    Raises:
        DataFormatError: it is cut short, another file, or lacks one of the two.
        ImportError: SciPy is not installed.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            f'{path.name} is a file of MATLAB, which SciPy reads: pip install "glideslope[studies]".'
        ) from error
    try:
        found: dict[str, NDArray[Any]] = loadmat(path)
    # SciPy lets through whatever its parser stumbles over: six kinds of error, by where the file is cut.
    except Exception as error:
        raise DataFormatError(f"{path.name} is cut short, or no file of MATLAB ({error})") from error
    if lacking := {"X", "y"} - found.keys():
        raise DataFormatError(f"{path.name} has no variable {' and no '.join(sorted(lacking))}")
    return found
