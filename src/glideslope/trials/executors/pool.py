"""Pool: worker processes of one thread each, which take trials and hand back records."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import ClassVar

import torch

from glideslope.core.spec import canonical
from glideslope.core.value import require
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.device import arithmetic_on
from glideslope.trials.executors.base import Executor, NothingLeft
from glideslope.trials.record import Cost, Record, Series
from glideslope.trials.run import run_trial
from glideslope.trials.trial import TrialSpec
from glideslope.trials.workers import start_worker, usable_cores


@dataclass
class Worker:
    """A process, the trials it is at, and its number among the workers."""

    process: BaseProcess
    pipe: Connection
    specs: list[TrialSpec]
    slot: int


class Pool(Executor):
    """N worker processes, each with one BLAS and OpenMP thread.

    Specs and records travel as JSON. A worker that dies (out of memory, a crash in native code, kill -9) is replaced.

    Args:
        num_workers: how many; None means one per usable core, or per GPU.
        device: "cpu" or "cuda", where workers take the GPUs in turn.
    """

    name: ClassVar[str]

    def __init__(self, num_workers: int | None = None, device: str = "cpu") -> None:
        require(num_workers is None or num_workers >= 1, "num_workers", num_workers, "num_workers >= 1")
        self._device = device
        self._count = num_workers or (max(1, torch.cuda.device_count()) if device == "cuda" else usable_cores())
        self._workers: list[Worker] = []
        self._finished: deque[tuple[TrialSpec, Record]] = deque()

    @abstractmethod
    def _take(self) -> list[TrialSpec]:
        """What an idle worker does next, out of the queue: nothing, one trial, or a population."""

    def _has_plenty(self) -> bool:
        """Whether the next orders would be no larger if more were queued."""
        return True

    def _return(self, specs: list[TrialSpec]) -> None:
        """A worker will not take these trials together: queue them again one by one."""
        raise RuntimeError(f"a worker has handed back {len(specs)} trials")

    @abstractmethod
    def _bury(self, specs: list[TrialSpec], exit_code: int | None) -> None:
        """A worker has died at these trials: queue them again, or put their records among the finished ones."""

    def next(self) -> tuple[TrialSpec, Record]:
        # Idle workers wait until all that is finished has been handed out: what the planner asks for in return is
        # queued by then, and larger populations can be made of it. They do not wait where there is plenty.
        if self._finished and self._has_plenty():
            self._feed()
        while not self._finished:
            self._feed()
            if not any(worker.specs for worker in self._workers):
                raise NothingLeft
            self._collect()
        return self._finished.popleft()

    def _collect(self) -> None:
        busy = {worker.pipe: worker for worker in self._workers if worker.specs}
        for ready in wait(list(busy)):
            worker = busy[ready]  # type: ignore[index]
            specs, worker.specs = worker.specs, []
            try:
                data = json.loads(worker.pipe.recv_bytes())
            except (EOFError, OSError):
                worker.process.join()
                worker.pipe.close()
                self._workers.remove(worker)
                self._bury(specs, worker.process.exitcode)
                continue
            if data is None:
                self._return(specs)
            else:
                # Large orders come back in parts, each as soon as it is done: what has come is safe.
                worker.specs = specs[len(data) :]
                self._finished += zip(specs[: len(data)], map(Record.from_json, data), strict=True)

    def close(self) -> None:
        self._finished.clear()
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _feed(self) -> None:
        """Give every idle worker something to do; start workers while there are trials for them."""
        self._workers = [worker for worker in self._workers if worker.specs or worker.process.is_alive()]
        while True:
            idle = next((worker for worker in self._workers if not worker.specs), None)
            if idle is None and len(self._workers) >= self._count:
                return
            specs = self._take()
            if not specs:
                return
            specs = self._admit(specs)
            if not specs:
                continue
            if idle is None:
                idle = _start_worker(self.name, self._device, self._free_slot())
                self._workers.append(idle)
            idle.specs = specs
            checkpoints = None if self._checkpoints is None else self._checkpoints.to_json()
            order = {"specs": [spec.to_json() for spec in specs], "checkpoints": checkpoints}
            try:
                idle.pipe.send_bytes(canonical(order).encode())
            except OSError:
                continue  # it has died: `next` finds its pipe closed

    def _free_slot(self) -> int:
        """The lowest number that no worker has."""
        taken = {worker.slot for worker in self._workers}
        return next(slot for slot in range(self._count) if slot not in taken)


def _start_worker(name: str, device: str, slot: int) -> Worker:
    mine, theirs = multiprocessing.Pipe()
    process = start_worker(_work, theirs, name, device, slot)
    theirs.close()
    return Worker(process, mine, [], slot)


def _work(pipe: Connection, name: str, device: str, slot: int) -> None:
    """A worker's life: specs in, records out (null for a population that does not pay), until the pipe closes."""
    threading.Thread(target=_follow_parent, daemon=True).start()
    # The driver has no use for it.
    from glideslope.trials.population import pays, populations

    if device == "cuda":  # here and not before the fork: a child cannot use its parent's context
        torch.cuda.set_device(slot % torch.cuda.device_count())
    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        order = json.loads(data)
        specs = [TrialSpec.from_json(item) for item in order["specs"]]
        checkpoints = Checkpoints.from_json(order["checkpoints"]) if order["checkpoints"] else None
        if name != "population":
            for spec in specs:
                _send(pipe, [_alone(spec, checkpoints, device)])
        elif pays(specs[0], device):
            for records in populations(specs, device=device):
                _send(pipe, records)
        elif len(specs) == 1:
            record = _alone(specs[0], checkpoints, device)
            _send(pipe, [replace(record, path={**record.path, "executor": "population", "method": "loop"})])
        else:
            pipe.send_bytes(b"null")


def _send(pipe: Connection, records: list[Record]) -> None:
    pipe.send_bytes(canonical([record.to_json() for record in records]).encode())


def _alone(spec: TrialSpec, checkpoints: Checkpoints | None, device: str) -> Record:
    """A trial by itself, which leaves checkpoints."""
    return run_trial(spec, checkpoints, arithmetic_on(device, spec.precision))


def _follow_parent() -> None:
    """End when the driver does, even if it was killed in the middle of a long trial."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def lost(spec: TrialSpec, executor: str, exit_code: int | None, device: str = "cpu") -> Record:
    """The record of a trial that its worker died at."""
    return Record(
        trial_id=spec.trial_id,
        trajectory_id=spec.trajectory_id,
        status="failed",
        series=Series((), (), ()),
        validation=(),
        test=None,
        decisions=(),
        cost=Cost(0.0, 0.0, 0),
        path={"executor": executor, "device": device, "K": 1},
        versions={},
        error=f"the worker ended with exit code {exit_code} during this trial (negative: the signal that killed it).",
    )
