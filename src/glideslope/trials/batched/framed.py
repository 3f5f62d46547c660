"""Frames: populations that keep their width, and whose updates run on the device alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from glideslope.trials.batched.optimizers import Values
from glideslope.trials.batched.programs import Program
from glideslope.trials.batched.replay import Replay, Row
from glideslope.trials.batched.training import CHECK_EVERY, PopulationTraining
from glideslope.trials.task import Task
from glideslope.trials.trial import TrialSpec


@dataclass(frozen=True)
class Frame:
    """The width and the place of a population that keeps its width, as all do on CUDA.

    Libraries of a GPU choose kernels by shape, so a member's last bits depend on how many are computed. In a frame they
    always are equally many: empty places are filled up, and members that are done stay, as ballast.

    Args:
        width: members that are computed, whether wanted or not.
        device: "cpu" or "cuda".
        graphs: whether updates are replayed as a CUDA graph.
    """

    width: int
    device: str
    graphs: bool


class FramedTraining(PopulationTraining):
    """Trials in training in a `Frame`: their updates run from tables, on the device alone.

    Args:
        task: of all.
        way: how losses are computed.
        specs: of one `population_key`, at most as many as the frame is wide.
        frame: see there.
    """

    def __init__(self, task: Task, way: type[Program], specs: Sequence[TrialSpec], frame: Frame) -> None:
        ballast = [specs[row % len(specs)] for row in range(frame.width - len(specs))]
        super().__init__(task, way, [*specs, *ballast], frame.device)
        self.members = list(range(len(specs)))
        scheduled = {name for spec in specs for name, _ in spec.policy.plan.courses} | {"lr", "momentum"}
        numbers = self.optimizer.numbers
        constant = self.plans.between(0, 1, self.rows)
        self.idle = {name for name in numbers if name not in scheduled and not constant[name].any()}
        self.replay = Replay(self._tabled, CHECK_EVERY, frame.device, frame.graphs)

    @property
    def rows(self) -> list[int]:
        return list(range(len(self.specs)))

    def train(self) -> None:
        try:
            super().train()
        finally:
            self.replay.close()

    def _updates(self, start: int, stop: int, values: Values) -> dict[str, NDArray[np.float64]]:
        kind = self.program.weights.dtype
        picked, noise = self.data.between(start, stop, self.active)
        tables = {f"noise {name}": draws for name, draws in noise.items()}
        for name, block in values.items():
            if name not in self.idle:
                tables[f"column {name}"] = torch.from_numpy(block).to(kind)[:, :, None]
        self.replay.start({"picked": picked, **tables})
        self.data.make_ahead(stop)
        return {name: table.double().numpy() for name, table in self.replay.finish().items()}

    def _tabled(self, row: Row, is_first: bool) -> Row:
        """One update, from its row of the tables."""
        noise = {name.removeprefix("noise "): draw for name, draw in row.items() if name.startswith("noise ")}
        at = {name.removeprefix("column "): column for name, column in row.items() if name.startswith("column ")}
        return self._update(self.data.gathered(row["picked"]), noise, at, is_first)

    def _keep(self, wanted: list[bool]) -> None:
        self.members = [member for member, stays in zip(self.members, wanted, strict=True) if stays]

    @contextmanager
    def _only(self, members: list[int]) -> Iterator[None]:
        yield  # of some alone, a GPU would compute other bits
