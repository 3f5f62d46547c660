"""The cache folder: arrays that are slow to make, made once per machine and memory-mapped by every process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class CacheError(OSError):
    """The cache folder cannot be written: no permission, or no space left."""


def cache_folder() -> Path:
    """Where converted data lies: `GLIDESLOPE_CACHE`, else `XDG_CACHE_HOME`/glideslope, else ~/.cache/glideslope."""
    if chosen := os.environ.get("GLIDESLOPE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glideslope"


def cached(key: str, build: Callable[[], Arrays]) -> dict[str, NDArray[Any]]:
    """The arrays of `build()`, read from the cache folder if they are there, else built and put there first.

    Safe when several processes ask at once: each builds into a folder of its own, the first one to finish renames its
    folder into place, and the others drop theirs. A reader therefore sees all of an entry or nothing.

    Args:
        key: a folder name that says everything the arrays depend on; a changed source must have a changed key.
        build: makes the arrays, by name. Called at most once.

    Returns:
        The arrays, memory-mapped copy-on-write: processes share their pages, and what one writes stays its own.
    """
    entry = cache_folder() / key
    if not entry.is_dir():
        arrays = build()
        try:
            _write(entry, arrays)
        except OSError as error:
            raise CacheError(
                f"cannot write the cache folder {entry.parent}: {error}. "
                "Set GLIDESLOPE_CACHE to a folder that can be written and has room."
            ) from error
    # "c" and not "r": torch.from_numpy warns about arrays that cannot be written.
    return {path.stem: np.load(path, mmap_mode="c", allow_pickle=False) for path in sorted(entry.glob("*.npy"))}


def _write(entry: Path, arrays: Arrays) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    # Beside its destination, because a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=f".{entry.name}-", dir=entry.parent, ignore_cleanup_errors=True) as folder:
        draft = Path(folder) / entry.name
        draft.mkdir()
        for name, array in arrays.items():
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
        try:
            draft.rename(entry)
        except OSError:
            # A folder that is not empty cannot be renamed onto: another process was first, and wrote the same bytes.
            if not entry.is_dir():
                raise
