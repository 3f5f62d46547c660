"""Columns: images that are read when they are asked for, from bytes in the cache or from files of their own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glideslope.tasks.data import DataFormatError
from glideslope.trials.task import Column

if TYPE_CHECKING:
    from PIL import Image

BILINEAR: Final = 2
"""`PIL.Image.Resampling.BILINEAR`, without importing it."""


@final
class Pixels(Column):
    """Images kept as bytes, given as float32 in [0, 1]: a quarter of the room.

    Args:
        values: (n, channels, height, width) uint8, memory-mapped where they are many.
    """

    def __init__(self, values: NDArray[np.uint8]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        picked = self._values[rows if isinstance(rows, slice) else rows.numpy()]
        return torch.from_numpy(picked.astype(np.float32)).div_(255)

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256(f"{self._values.shape}{self._values.dtype}".encode())
        digest.update(np.ascontiguousarray(self._values).data)
        return digest.hexdigest()


@final
class ImageFiles(Column):
    """Image files, each squeezed into one square: (rows, 3, side, side) float32 in [0, 1].

    Sides of a file are scaled each by itself, so a part of the square, in shares of its sides, is the same part of the
    picture; whoever cuts one out gives it its proportions back. As many threads as there are cores decode files.

    Args:
        folder: the files' names are relative to it.
        names: of the files.
        side: of the square, in pixels.

    Raises:
        DataFormatError: when a row is read whose file is none, or no image.
    """

    def __init__(self, folder: Path, names: Sequence[str], side: int) -> None:
        self._folder, self._names, self._side = folder, names, side

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        numbers = range(*rows.indices(len(self))) if isinstance(rows, slice) else rows.tolist()
        read = _readers(os.getpid()).map(lambda number: self._read(self._names[number]), numbers)
        squares = np.stack(list(read)) if numbers else np.empty((0, self._side, self._side, 3), np.uint8)
        return torch.from_numpy(squares).permute(0, 3, 1, 2).to(torch.float32).div_(255)

    @cached_property
    def sha256(self) -> str:
        """Of names, sizes of the files and the side: contents would take an hour on ImageNet."""
        digest = hashlib.sha256(str(self._side).encode())
        for name in self._names:
            digest.update(f"{name} {(self._folder / name).stat().st_size}\n".encode())
        return digest.hexdigest()

    def _read(self, name: str) -> NDArray[np.uint8]:
        with opened(self._folder / name) as image:
            image.draft("RGB", (self._side, self._side))  # a JPEG is decoded at a half or a quarter where that does
            return np.asarray(image.convert("RGB").resize((self._side, self._side), BILINEAR))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file; what goes wrong with it, also while its pixels are read, is told with its name.

    Raises:
        ImportError: there is no Pillow.
        DataFormatError: there is no such file, or it is no image, or cut short.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f'{path} is an image file, which Pillow reads: pip install "glideslope[images]".') from error
    try:
        with Image.open(path) as image:
            yield image
    except OSError as error:  # what Pillow raises for all of these
        raise DataFormatError(f"{path} cannot be read as an image ({error})") from error


@cache
def _readers(process: int) -> ThreadPoolExecutor:
    """Threads of a process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(os.cpu_count() or 1)
