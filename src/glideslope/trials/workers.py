"""Workers: processes of one thread each, forked from a server that has imported PyTorch before they are wanted."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    # The blocks of a population are larger than the 128 kB above which glibc gives memory back at once, and are wanted
    # again at every operation: 140 page faults an update, a quarter of its time.
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
PRELOADED = ["glideslope.trials.population"]


def prepare_workers() -> None:
    """Start the server, if it does not run: it imports what workers need while this process goes on."""
    # Not a fork of this process, whose thread pools would be copied in mid-flight: the server has none.
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    with environment(SETTINGS), _interrupt_held():
        forkserver.ensure_running()


def start_worker(work: Callable[..., None], *args: Any) -> BaseProcess:
    """A process that calls `work(*args)` in the environment of this one, with `SETTINGS`; it ends with this one.

    Args:
        work: a function at the top of a module.
        args: what can be pickled, or handed to a child: pipes.
    """
    prepare_workers()
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_enter, args=({**os.environ, **SETTINGS}, work, *args), daemon=True)
    with _interrupt_held():
        process.start()
    return process


def _enter(surroundings: dict[str, str], work: Callable[..., None], *args: Any) -> None:
    # The server's environment is that of the moment at which it was started.
    os.environ.clear()
    os.environ.update(surroundings)
    work(*args)


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables for the children started inside; thread pools read them when libraries are loaded."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block. Children started inside never see it: it is the driver's to handle."""
    resource_tracker.ensure_running()  # it lets signals through again when it starts, so it has to start before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
