"""Tasks for the tests of trials that ranks share, and what each of those ranks does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed
from checkpoint_tasks import Drawing
from dense_tasks import NUM_CLASSES, NUM_FEATURES
from tiny_tasks import Correlated, Regression
from torch import Tensor, nn

from glideslope.core.spec import canonical
from glideslope.trials import run as run_module
from glideslope.trials.arithmetic import ARITHMETICS
from glideslope.trials.checkpoint import Checkpoints
from glideslope.trials.run import run_trial
from glideslope.trials.share import Share
from glideslope.trials.task import Batch, Metric, Noise, seeded_model
from glideslope.trials.trial import TrialSpec

RANKS = 2


@dataclass(frozen=True)
class Odd(Drawing):
    """Batches that do not divide by two, in double precision, where two orders of a sum differ by 1e-16."""

    batch_size: ClassVar[int] = 9
    double: bool = True

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        doubled = {name: draw.double() for name, draw in noise.items()}
        return super().loss(model, batch, doubled)


@dataclass(frozen=True)
class Pair(Regression):
    """A batch of two."""

    batch_size: ClassVar[int] = 2


class TwoHeads(nn.Module):
    """The second head is for examples of one kind: few batches have any, fewer have some in both halves."""

    def __init__(self) -> None:
        super().__init__()
        self.common, self.special = nn.Linear(NUM_FEATURES, NUM_CLASSES), nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.common(inputs)
        special = inputs[:, :1] > 1.5
        return logits + special * self.special(inputs) if special.any() else logits


@dataclass(frozen=True)
class Special(Odd):
    """Weights that some batches do not reach, and others in one rank only."""

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, TwoHeads).to(self.kind)


def in_order(values: Mapping[str, Tensor]) -> float:
    """No mean of anything that one example has, and another one where examples change places."""
    return float(values["predicted"] @ torch.arange(len(values["predicted"]), dtype=torch.float32))


@dataclass(frozen=True)
class Ordered(Correlated):
    """Judged over the whole split, in five chunks of which the last is shorter."""

    metric: ClassVar[Metric] = Metric("in_order", over_split=in_order)
    evaluation_batch: ClassVar[int] = 7


@dataclass(frozen=True)
class RaisingLast(Regression):
    """The loss raises, in the last rank only."""

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        if os.environ.get("RANK") == str(RANKS - 1):
            raise RuntimeError("no loss in this rank")
        return super().loss(model, batch, noise)


@dataclass(frozen=True)
class KillingLast(Regression):
    """Kills the last rank."""

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        if os.environ.get("RANK") == str(RANKS - 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(model, batch, noise)


@contextmanager
def interrupted_after(updates: int | None) -> Iterator[None]:
    """Have a trial end after so many updates, as if it were killed."""
    real, left = run_module.make_update, [updates]

    def update(*arguments: Any) -> float:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] = None if left[0] is None else left[0] - 1
        return real(*arguments)

    run_module.make_update = update
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        run_module.make_update = real


def run_share(spec: TrialSpec, rank: int, count: int, checkpoints: Checkpoints | None = None) -> Mapping[str, Any]:
    share = Share(ARITHMETICS[spec.precision], rank, count, torch.device("cpu"))
    return run_trial(spec, checkpoints, share).to_json()


def work(rank: int, folder: str) -> None:
    """Compute this rank's share of the trials in a folder's file, and leave their records in another."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    records = {}
    for name, data in json.loads(Path(folder, "specs.json").read_text()).items():
        spec, checkpoints = TrialSpec.from_json(data), None
        if name == "resumed":
            checkpoints = Checkpoints(Path(folder, "checkpoints"), every_seconds=0.0, largest_share=1e9)
            with interrupted_after(11):
                run_share(spec, rank, RANKS, checkpoints)
            torch.distributed.barrier()  # rank 0 has written
        records[name] = run_share(spec, rank, RANKS, checkpoints)
    Path(folder, f"{rank}.json").write_text(canonical(records))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # gloo's threads sometimes abort an ordinary exit: "terminate called without an active exception"
