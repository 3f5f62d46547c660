"""Drivers that tests kill, stop and let race: a module of its own, so that new processes can import it.

They are forked from a server that has imported PyTorch once: a driver that is ready after milliseconds can be killed at
any moment of its life, and often.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from specs import SUPPORT, make_spec
from waiting import wait_until

from glideslope.core.spec import canonical
from glideslope.trials import population  # noqa: F401 - workers that are forked have it then
from glideslope.trials.executors import InProcess, Populations, Processes
from glideslope.trials.executors.base import Executor
from glideslope.trials.planner import run_study
from glideslope.trials.record import Record
from glideslope.trials.run import run_trial
from glideslope.trials.shelf import StoreView
from glideslope.trials.store import FILE, Store, StoreError
from glideslope.trials.trial import TrialSpec
from glideslope.trials.workers import environment

EXECUTORS = {"in-process": InProcess, "processes": lambda: Processes(2), "population": lambda: Populations(2)}


@dataclass(frozen=True)
class Chain:
    """A cell that wants its specs two at a time, the next two when it has the last."""

    specs: tuple[TrialSpec, ...]

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        for start in range(0, len(self.specs), 2):
            missing = [spec for spec in self.specs[start : start + 2] if spec.trial_id not in records]
            if missing:
                return missing
        return []


def chains(number: int, length: int, updates: int = 4, eval_every: int = 4) -> list[Chain]:
    """Cells that share no trial."""
    seeds = range(number * length)
    specs = [make_spec("dense_tasks:Dense", seed=seed, updates=updates, eval_every=eval_every) for seed in seeds]
    return [Chain(tuple(specs[start : start + length])) for start in range(0, len(specs), length)]


def fork_server() -> ForkServerContext:
    """Where drivers come from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "under_fire", "dense_tasks", "torch._dynamo"])
    with environment({"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]), "OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()  # Python 3.11 does not tell it the path in another way
    return context


def drive(
    cells: list[Chain],
    folder: Path,
    kind: str,
    log: Path,
    checkpoint_seconds: float = 60.0,
    variables: Mapping[str, str] | None = None,
    company: int = 1,
    allowance: Path | None = None,
) -> None:
    """What a driver does: all of the study that is missing. Every start of a trial is one line of the log.

    With ``company`` no driver runs a trial before so many drivers have one: a late driver is not left without. With
    ``allowance``, a file, none is run beyond as many starts as it says: a late killer is not left without.
    """
    os.environ.update(variables or {})
    torch.set_num_threads(1)
    if kind != "in-process":
        # The workers too; nothing has started threads here that a fork could catch in mid-flight.
        multiprocessing.get_context = lambda method=None: multiprocessing.context._concrete_contexts["fork"]
    with EXECUTORS[kind]() as executor, Store(folder) as store:
        _log_starts(executor, log, company, allowance)
        run_study(cells, store, executor, checkpoint_seconds=checkpoint_seconds)


def _log_starts(executor: Executor, log: Path, company: int, allowance: Path | None) -> None:
    begin = executor.begin

    def begin_logged(admit: Any, checkpoints: Any) -> None:
        def admit_logged(specs: list[TrialSpec]) -> list[TrialSpec]:
            admitted = admit(specs)
            with log.open("a") as file:  # one write: lines of several drivers do not mix
                file.write(" ".join([str(os.getpid()), *(spec.trial_id for spec in admitted)]) + "\n")
            if admitted:
                wait_until(lambda: len({start.driver for start in started(log)}) >= company, 600)
                wait_until(lambda: allowance is None or len(started(log)) <= int(allowance.read_text()), 3600)
            return admitted

        begin(admit_logged, checkpoints)

    executor.begin = begin_logged  # type: ignore[method-assign]


@dataclass(frozen=True)
class Started:
    """Trials that left a queue together: one, or a population."""

    driver: int
    trials: tuple[str, ...]


def started(log: Path) -> list[Started]:
    """Every start so far."""
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [Started(int(driver), tuple(trials)) for driver, *trials in lines if trials]


def starts(log: Path) -> Counter[str]:
    """How often each trial was started."""
    return Counter(trial for start in started(log) for trial in start.trials)


def stored(folder: Path) -> dict[str, tuple[str, str]]:
    """Trial id → status and outcome."""
    if not (folder / FILE).exists():
        return {}
    try:
        with StoreView(folder) as store:
            return {key: (record.status, canonical(record.outcome)) for key, record in store.records().items()}
    except StoreError as error:
        if "just being made" in str(error):
            return {}
        raise


def is_sound(folder: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file."""
    connection = sqlite3.connect(folder / FILE)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


def children(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(folder.name))
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextmanager
def running(process: BaseProcess) -> Iterator[BaseProcess]:
    """A process that does not outlive the block."""
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def open_often(folder: Path, number: int, seed: int) -> None:
    """Open that many new stores, all at the moments when others do, and put a trial into each."""
    spec = make_spec(seed=seed)
    record = run_trial(spec)
    for name in range(number):
        while time.time() % 0.05 > 0.005:
            time.sleep(0.001)
        with Store(folder / str(name)) as store:
            store.put(spec, record)
