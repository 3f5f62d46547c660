"""What a cluster adds to trials: time per trial, and bytes per record, on a Ray cluster of this machine.

    python benchmarks/cluster.py            # 9 rounds: a few minutes
    python benchmarks/cluster.py --rounds 3

One worker computes trials that cost next to nothing, through planner and store as every study does; the same trials are
computed without either in this process. Both take turns, so that a busy machine slows both; medians over rounds.

- direct: ms per trial, `run_population` of 64 at a time or `run_trial`
- on Ray: ms per trial, from the first question of the planner to the last record in the store
- overhead: the difference
- driver: ms of processor time of this process per trial, Ray's threads included: what bounds a large cluster
- wire: bytes of JSON per trial between driver and worker, there and back
- store: bytes on disk per trial

Last, the memory of this process: bytes per trial that is queued, and per trial that is done.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from glideslope.core.spec import canonical
from glideslope.studies.provenance import provenance
from glideslope.studies.setting import Setting
from glideslope.trials.executors import RayCluster
from glideslope.trials.executors.groups import MOST_MEMBERS, Groups
from glideslope.trials.optimizers import OptimizerSpec
from glideslope.trials.planner import run_study
from glideslope.trials.population import run_population
from glideslope.trials.record import Record
from glideslope.trials.run import run_trial
from glideslope.trials.store import Store
from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task, seeded_model
from glideslope.trials.trial import Seeds, TrialSpec

NUM_FEATURES = 4
LONE_OPTIMIZER = "torch.optim:Rprop"
"""Has no batched form: its trials run one by one."""


@final
@dataclass(frozen=True)
class Trivial(Task):
    """A linear regression of 5 weights on 64 examples."""

    name: ClassVar[str] = "trivial"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "made up"
    maximum_epochs: ClassVar[int] = 1
    batch_size: ClassVar[int] = 8
    metric: ClassVar[Metric] = Metric("squared_error")
    defaults: ClassVar[Mapping[str, Default]] = {"sgdm": Default(0.03)}

    def splits(self) -> Splits:
        generator = np.random.default_rng(0)
        inputs = torch.from_numpy(generator.normal(size=(64, NUM_FEATURES))).float()
        batch = inputs, inputs.sum(1)
        return Splits(batch, batch, batch)

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: nn.Linear(NUM_FEATURES, 1))

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return self._errors(model, batch).mean()

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        errors = self._errors(model, batch)
        return {"loss": errors, self.metric.name: errors}

    def _errors(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return (model(inputs)[:, 0] - targets).square()


@dataclass(frozen=True)
class Kind:
    """What is run in a round: `trials` of `updates` each, validated `looks` times."""

    name: str
    trials: int
    updates: int
    looks: int
    together: bool


KINDS = (
    Kind("1 update, together", 512, 1, 1, True),
    Kind("1 update, one by one", 512, 1, 1, False),
    Kind("256 updates, together", 256, 256, 16, True),
)


@dataclass(frozen=True)
class Cell:
    """Wants its trials at once, and nothing later; whether each is there would be the cell's work, not the engine's."""

    specs: list[TrialSpec]

    def next_specs(self, records: Mapping[str, Record]) -> list[TrialSpec]:
        return [] if records else self.specs


@dataclass(frozen=True)
class Seen:
    """One round of one kind; see the top of this file."""

    direct: float
    on_ray: float
    driver: float
    wire: float
    store: float


def specs_of(kind: Kind, first_seed: int) -> list[TrialSpec]:
    base = Setting.of("cluster:Trivial", ("sgdm",)).trial("sgdm", 1.0)
    base = replace(base, updates=kind.updates, eval_every=kind.updates // kind.looks)
    if not kind.together:
        base = replace(base, optimizer=OptimizerSpec.parse(LONE_OPTIMIZER))
    return [replace(base, seeds=Seeds.all(first_seed + index)) for index in range(kind.trials)]


def measure(kind: Kind, executor: RayCluster, first_seed: int) -> Seen:
    specs = specs_of(kind, first_seed)
    started = time.perf_counter()
    if kind.together:
        for first in range(0, len(specs), MOST_MEMBERS):
            run_population(specs[first : first + MOST_MEMBERS])
    else:
        for spec in specs:
            run_trial(spec)
    direct = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        with Store(folder) as store:
            started, worked = time.perf_counter(), time.process_time()
            run_study([Cell(specs)], store, executor)
            on_ray, driver = time.perf_counter() - started, time.process_time() - worked
            records = store.records()
        on_disk = sum(path.stat().st_size for path in Path(folder).iterdir() if path.is_file())
    wire = sum(len(canonical(item.to_json())) for item in (*specs, *records.values()))
    number = len(specs)
    return Seen(1e3 * direct / number, 1e3 * on_ray / number, 1e3 * driver / number, wire / number, on_disk / number)


def memory(kind: Kind) -> tuple[float, float]:
    """Bytes per trial that is queued, and of the summary of one that is done."""
    (record,) = run_population(specs_of(kind, 0)[:1])
    text = canonical(record.to_json())
    tracemalloc.start()
    groups, specs = Groups(), specs_of(kind, 0)
    for spec in specs:
        groups.push(spec)
    queued, _ = tracemalloc.get_traced_memory()
    # From text, as they come from a worker: no two share a string.
    summaries = {str(number): Record.from_json(json.loads(text)).summary for number in range(kind.trials)}
    both, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return queued / len(specs), (both - queued) / len(summaries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    facts = provenance()
    print(f"{facts['hardware']}; {facts['versions']}; {facts['commit']}")
    print(f"per trial, median of {options.rounds} interleaved rounds\n")
    seeds = count(0, 10_000)
    seen: dict[str, list[Seen]] = {kind.name: [] for kind in KINDS}
    with RayCluster("local", num_workers=1) as executor:
        for number in range(options.rounds + 1):  # the first round warms up
            for kind in KINDS:
                result = measure(kind, executor, next(seeds))
                if number:
                    seen[kind.name].append(result)
    print(f"{'trials':<24}{'direct ms':>10}{'on Ray ms':>11}{'overhead ms':>13}", end="")
    print(f"{'driver ms':>11}{'wire bytes':>12}{'store bytes':>13}")
    for name, rounds in seen.items():
        columns = {field: statistics.median(getattr(each, field) for each in rounds) for field in rounds[0].__dict__}
        overhead = statistics.median(each.on_ray - each.direct for each in rounds)
        print(f"{name:<24}{columns['direct']:>10.2f}{columns['on_ray']:>11.2f}{overhead:>13.2f}", end="")
        print(f"{columns['driver']:>11.2f}{columns['wire']:>12.0f}{columns['store']:>13.0f}")
    queued, done = memory(KINDS[-1])
    print(f"\nbytes of memory per trial: {queued:.0f} queued, {done:.0f} done")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # for the task above, by name
    torch.set_num_threads(1)
    main()
