"""Trials that several processes share, each a job of `torchrun`: for models that one device trains too slowly."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, final

import torch

from glideslope.core.spec import canonical
from glideslope.core.value import require
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.executors.base import Executor, NothingLeft
from glideslope.trials.executors.pool import lost
from glideslope.trials.executors.queue import LongestFirst
from glideslope.trials.record import Record
from glideslope.trials.trial import TrialSpec
from glideslope.trials.workers import SETTINGS

ORDER, RECORD, LOG = "order.json", "record.json", "log"
"""Files in a job's folder: what to compute, what came of it, and what was printed."""
OTHERS_LOST = 70
"""Exit code of a rank that ends because another one has: not the one to ask what happened."""
LOG_TAIL = 4000
"""Characters of the log that go into the record of a trial that its ranks have left without a word."""
ENDING_SECONDS = 10.0
"""So long a job may take to end when it is told to."""


@final
class Torchrun(Executor):
    """One trial at a time, its batches divided between ranks: processes that `torchrun` starts on this machine.

    The trial is the one that `InProcess` would run: the same batches in the same order, and updates of the whole batch
    (see `Share`). Sums over the ranks are taken in another order than sums over a batch, so losses agree to 1e-5 over a
    short run; a single rank computes the same bits. Ranks talk through gloo, each with one thread, where there is no
    GPU; through NCCL, each with a GPU of its own, where there are.

    Models with batch normalisation run on GPUs, converted to `SyncBatchNorm`; several ranks on a CPU refuse them. A
    rank that raises or dies ends the job, and the trial comes back as a failed record.

    Args:
        ranks: how many processes share a trial; no more than this machine has GPUs, if it has any.
    """

    name: ClassVar[str] = "torchrun"

    def __init__(self, ranks: int) -> None:
        require(ranks >= 1, "ranks", ranks, "ranks >= 1")
        gpus = torch.cuda.device_count()
        if 0 < gpus < ranks:
            raise ValueError(
                f"`ranks` is {ranks}, but must satisfy ranks <= {gpus}, the number of GPUs: each rank takes one. "
                "Set CUDA_VISIBLE_DEVICES to nothing to run ranks on the processor."
            )
        self._ranks = ranks
        self._device = "cuda" if gpus else "cpu"
        self._queue = LongestFirst()

    def submit(self, spec: TrialSpec) -> None:
        self._queue.push(spec)

    def next(self) -> tuple[TrialSpec, Record]:
        while self._queue:
            for spec in self._admit([self._queue.pop()]):
                return spec, self._run(spec)
        raise NothingLeft

    def close(self) -> None:
        self._queue.clear()

    def _run(self, spec: TrialSpec) -> Record:
        with tempfile.TemporaryDirectory(prefix="glideslope-") as name:
            folder = Path(name)
            checkpoints = None if self._checkpoints is None else self._checkpoints.to_json()
            order = {"spec": spec.to_json(), "checkpoints": checkpoints, "device": self._device}
            (folder / ORDER).write_text(canonical(order), encoding="utf-8")
            exit_code = self._launch(folder)
            if (folder / RECORD).exists():
                return Record.from_json(json.loads((folder / RECORD).read_text(encoding="utf-8")))
            log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        record = lost(spec, self.name, _first_exit_code(log, exit_code))
        path = {**record.path, "ranks": self._ranks, "device": self._device}
        return replace(record, path=path, error=f"{log[-LOG_TAIL:]}\n{record.error}")

    def _launch(self, folder: Path) -> int:
        """Run the job to its end. Returns: the exit code of `torchrun`."""
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self._ranks}"]
        # The ranks find what this process finds; -m alone would put the working folder before the libraries.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        settings = {**SETTINGS, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1"}
        with (folder / LOG).open("wb") as log:
            job = subprocess.Popen(
                [*command, "-m", "glideslope.trials.executors.rank", str(folder)],
                env={**os.environ, **settings},
                stdin=subprocess.PIPE,  # never written to: ranks end when it closes, however this process ends
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process
            )
        try:
            return job.wait()
        finally:
            _end(job)


def shared_records(specs: Sequence[TrialSpec], ranks: int, checkpoints: Checkpoints | None) -> list[Record]:
    """Records of trials that ranks on this machine share, one trial after the other."""
    with Torchrun(ranks) as executor:
        executor.begin(list, checkpoints)
        records = {}
        for spec in specs:
            executor.submit(spec)
        for _ in specs:
            spec, record = executor.next()
            records[spec.trial_id] = record
    return [records[spec.trial_id] for spec in specs]


def _end(job: subprocess.Popen[bytes]) -> None:
    """Have a job ended; it usually is."""
    if job.stdin is not None:
        job.stdin.close()
    if job.poll() is None:
        job.terminate()
    try:
        job.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def _first_exit_code(log: str, otherwise: int) -> int:
    """Exit code of the rank that ended first, by what `torchrun` has said about all that did.

    >>> _first_exit_code("failed (exitcode: 70) local_rank: 0\\n  exitcode  : -9 (pid: 4)", 1)
    -9
    """
    codes = [int(code) for code in re.findall(r"exitcode\s*: (-?\d+)", log)]
    return next((code for code in codes if code != OTHERS_LOST), codes[0] if codes else otherwise)
