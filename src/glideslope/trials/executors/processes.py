"""Trials in worker processes of one thread each. A worker that dies costs its own trial only."""

from __future__ import annotations

import heapq
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from glideslope.core.spec import canonical
from glideslope.trials.executors.base import Executor
from glideslope.trials.record import Cost, Record, Series
from glideslope.trials.trial import TrialSpec

_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    spec: TrialSpec | None = None


class Processes(Executor):
    """N worker processes, each with one BLAS and OpenMP thread: the default, one worker per core.

    Specs and records travel as JSON. A worker that dies (out of memory, a crash in native code, kill -9) is replaced;
    its trial is recorded as failed.

    Args:
        num_workers: how many; None means one per usable core.
    """

    def __init__(self, num_workers: int | None = None) -> None:
        self._count = num_workers or len(os.sched_getaffinity(0))
        self._queue: list[tuple[int, int, TrialSpec]] = []
        self._order = count()
        self._workers: list[_Worker] = []

    def submit(self, spec: TrialSpec) -> None:
        heapq.heappush(self._queue, (-spec.updates, next(self._order), spec))

    def next(self) -> tuple[TrialSpec, Record]:
        self._feed()
        busy = {worker.pipe: worker for worker in self._workers if worker.spec is not None}
        ready = wait(list(busy))[0]
        worker = busy[ready]  # type: ignore[index]
        spec = worker.spec
        if spec is None:
            raise RuntimeError("a worker without a trial reported one")
        worker.spec = None
        try:
            record = Record.from_json(json.loads(worker.pipe.recv_bytes()))
        except (EOFError, OSError):
            worker.process.join()
            self._workers.remove(worker)
            return spec, _lost(spec, worker.process.exitcode)
        self._feed()
        return spec, replace(record, path={**record.path, "executor": "processes"})

    def close(self) -> None:
        self._queue.clear()
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _feed(self) -> None:
        """Give every idle worker a trial; start workers while there are trials for them."""
        while self._queue:
            idle = next((worker for worker in self._workers if worker.spec is None), None)
            if idle is None:
                if len(self._workers) >= self._count:
                    return
                idle = _start_worker()
                self._workers.append(idle)
            spec = heapq.heappop(self._queue)[2]
            idle.spec = spec
            try:
                idle.pipe.send_bytes(canonical(spec.to_json()).encode())
            except OSError:
                continue  # it has died: `next` finds its pipe closed and records the trial as lost


def _start_worker() -> _Worker:
    context = multiprocessing.get_context("spawn")  # fork would copy PyTorch's thread pools in mid-flight
    mine, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    with _environment(_ONE_THREAD):
        process.start()
    theirs.close()
    return _Worker(process, mine)


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
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


def _work(pipe: Connection) -> None:
    """A worker's life: a spec in, a record out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    threading.Thread(target=_follow_parent, daemon=True).start()
    from glideslope.trials.run import run_trial  # imports torch, which reads the thread settings only now

    while True:
        try:
            data = pipe.recv_bytes()
        except EOFError:
            return
        record = run_trial(TrialSpec.from_json(json.loads(data)))
        pipe.send_bytes(canonical(record.to_json()).encode())


def _follow_parent() -> None:
    """End when the driver does, even if it was killed in the middle of a long trial."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _lost(spec: TrialSpec, exit_code: int | None) -> Record:
    return Record(
        trial_id=spec.trial_id,
        trajectory_id=spec.trajectory_id,
        status="failed",
        series=Series((), (), ()),
        validation=(),
        test=None,
        decisions=(),
        cost=Cost(0.0, 0.0, 0),
        path={"executor": "processes", "device": "cpu", "K": 1},
        versions={},
        error=f"the worker process ended with exit code {exit_code} during this trial (negative: the signal that killed it).",
    )
