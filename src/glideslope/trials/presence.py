"""Presence: a driver's sign of life, which ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import platform
from pathlib import Path
from typing import final
from uuid import uuid4

FOLDER = "drivers"


@final
class Presence:
    """A file in the store's folder that this driver holds locked.

    The kernel lifts the lock when the process is gone (kill -9 included) and not before. So a driver's claims become
    void at once, and never while it lives, stopped or suspended. A heartbeat would have to choose between waiting for
    its lease and running twice what a sleeping machine is at. SQLite in WAL mode binds all drivers to one machine
    anyway, which is as far as such a lock reaches everywhere.

    Args:
        folder: of the store.
    """

    def __init__(self, folder: Path) -> None:
        self.driver = uuid4().hex
        self._path = _path(folder, self.driver)
        self._path.parent.mkdir(exist_ok=True)
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.write(self._file, f"process {os.getpid()} on {platform.node()}".encode())

    def close(self) -> None:
        """Give the sign up: claims that are left are void."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def is_present(folder: Path, driver: str) -> bool:
    """Whether a driver lives. The file of one that does not is removed."""
    path = _path(folder, driver)
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        path.unlink(missing_ok=True)
        return False
    finally:
        os.close(file)


def described(folder: Path, driver: str) -> str:
    """Who a driver is, for messages."""
    try:
        return _path(folder, driver).read_text()
    except FileNotFoundError:
        return "a driver that has ended"


def _path(folder: Path, driver: str) -> Path:
    return folder / FOLDER / driver
