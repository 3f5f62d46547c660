"""One process of a job of `torchrun`, which starts it: `-m glideslope.trials.executors.rank FOLDER`."""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from glideslope.core.spec import canonical
from glideslope.torch.distributed import RankLost, joined_ranks
from glideslope.trials.arithmetic import ARITHMETICS
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.executors.torchrun import ORDER, OTHERS_LOST, RECORD, Torchrun
from glideslope.trials.record import Record
from glideslope.trials.run import run_trial
from glideslope.trials.share import Share
from glideslope.trials.trial import TrialSpec


def work(folder: Path) -> int:
    """Compute this rank's part of the job in a folder. Returns: the exit code."""
    order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    spec = TrialSpec.from_json(order["spec"])
    checkpoints = Checkpoints.from_json(order["checkpoints"]) if order["checkpoints"] else None
    device = torch.device("cpu")
    if order["device"] == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    try:
        with joined_ranks("nccl" if device.type == "cuda" else "gloo") as (rank, count):
            record = run_trial(spec, checkpoints, Share(ARITHMETICS[spec.precision], rank, count, device))
            if rank == 0 or record.status == "failed":
                _leave(folder, rank, replace(record, path={**record.path, "executor": Torchrun.name}))
            if record.status == "failed":
                return 1  # without meeting the others, who may never come
    except RankLost:
        traceback.print_exc()
        return OTHERS_LOST
    return 0


def _leave(folder: Path, rank: int, record: Record) -> None:
    """The record, whole; where several ranks leave one, the first stands."""
    mine = folder / f"rank-{rank}.json"
    mine.write_text(canonical(record.to_json()), encoding="utf-8")
    with suppress(FileExistsError):
        os.link(mine, folder / RECORD)


def _follow_driver() -> None:
    """End when the driver closes its end of the standard input, as it does also by being killed."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_follow_driver, daemon=True).start()
    code = work(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # gloo's threads sometimes abort an ordinary exit: "terminate called without an active exception"
