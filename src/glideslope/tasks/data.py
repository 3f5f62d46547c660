"""The data folder: data sets too large to embed, as files the user brings, or downloaded where there is a network."""

from __future__ import annotations

import gzip
import importlib.util
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import file_digest, md5, sha256
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from glideslope.tasks.cache import Arrays, cached

FOLDER_VARIABLE = "GLIDESLOPE_DATA"
UNREADABLE = (ValueError, KeyError, EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error)
"""What NumPy and the decompressors raise for a file that is cut short, damaged, or something else."""


class MissingDataError(FileNotFoundError):
    """A file of the data folder is not there, and could not be downloaded either."""


class DataFormatError(ValueError):
    """A file of the data folder is there, but is not what it should be."""


class OtherDataWarning(UserWarning):
    """A file can be read, but its checksum is not the known one: it may be cut short, and scores on it may differ."""


def data_folder() -> Path | None:
    """What `FOLDER_VARIABLE` names; None where it is not set."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else None


def file_sha256(path: Path) -> str:
    """Of a file's contents."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, partial(md5, usedforsecurity=False)).hexdigest()


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
        md5: of parts, as published.
        layouts: other forms of the same data set, under names of their own. The first that is there is read.
    """

    name: str
    decode: Callable[[Path], Arrays]
    download: Callable[[], Arrays] | None
    obtain: str
    parts: tuple[str, ...] = ()
    sha256: str = ""
    md5: Mapping[str, str] = field(default_factory=dict)
    layouts: tuple[DataFile, ...] = ()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The file's contents, memory-mapped from the cache; converted (or downloaded and converted) the first time.

        Raises:
            MissingDataError: neither it nor another layout of it is there, or a part of it.
            DataFormatError: it is damaged, or another file.
        """
        return self.present._own_arrays()

    @property
    def present(self) -> DataFile:
        """Itself, or the layout of it that is there: the one that lacks least."""
        there = [(form, form.path) for form in (self, *self.layouts) if form.path and form.path.exists()]
        return min(there, key=lambda found: len(found[0].missing_parts(found[1])), default=(self, None))[0]

    def _own_arrays(self) -> dict[str, NDArray[Any]]:
        path = self.path
        if path is not None and path.exists():
            self._check_parts(path)
            # Size and time, not a hash of the contents: that would cost every worker a quarter of a second on CIFAR-10.
            stats = [status for part in self.parts or ("",) for status in _statuses(path / part)]
            facts = " ".join(f"{status.st_size} {status.st_mtime_ns}" for status in stats)
            identity = sha256(f"{path.resolve()} {facts}".encode()).hexdigest()
            return cached(f"{self.name.replace('/', '-')}-{identity[:16]}", lambda: self._decoded(path))
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
        """Both checksums, where a file is not the one that was used here or published; empty where all are known.

        The same contents, packed by somebody else, have another.
        """
        if self.sha256 and (found := file_sha256(path)) != self.sha256:
            return f"its sha256 is {found}, and {self.sha256} that of the one used here"
        for part, published in self.md5.items():
            if (path / part).exists() and (found := _file_md5(path / part)) != published:
                return f"the md5 of {part} is {found}, and {published} that of the published one"
        return ""

    def _check_parts(self, path: Path) -> None:
        if missing := self.missing_parts(path):
            raise MissingDataError(f"{path} lacks {', '.join(missing)}. {self.obtain}")

    def _decoded(self, path: Path) -> Arrays:
        try:
            arrays = self.decode(path)
        except UNREADABLE as error:
            reason = "; ".join(filter(None, [str(error), self.difference(path)]))
            raise DataFormatError(f"{path} cannot be read as {self.name}: {reason}. {self.obtain}") from error
        if difference := self.difference(path):
            warn(f"{path} is another {self.name} than is known: {difference}.", OtherDataWarning, stacklevel=2)
        return arrays

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


def _decode_text(path: Path) -> Arrays:
    with gzip.open(path, "rb") as file:
        return {"bytes": np.frombuffer(file.read(), dtype=np.uint8)}


TINY_SHAKESPEARE = DataFile(
    "tinyshakespeare.txt.gz",
    _decode_text,
    None,
    "It is the file data/tinyshakespeare/input.txt of github.com/karpathy/char-rnn, compressed with gzip.",
    sha256="13125fe8f49092165d7d489e3944db52d1ba546e64a60080cc9523bcd0c5e46a",
)
