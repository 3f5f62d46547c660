"""How fast populations are: time per trial and update, side by side with ordinary loops of PyTorch.

    python benchmarks/engine.py            # every family, 5 rounds: some minutes on 2 cores
    python benchmarks/engine.py --quick    # two families, 2 rounds

Ways, in rounds one after the other, so that a busy machine slows all of them; medians over rounds:

- loop: one process, one trial after the other, nothing but forward, backward, optimizer and a rate per update
- 2 loops: the same in two processes of one thread each
- run_trial: as `loop`, with schedule, records and divergence, as `--executor processes` runs it
- baddbmm, vmap: two processes with one population of K trials each

On a CUDA GPU: `benchmarks/device.py`.

Evaluations are left out of all of them. Losses of batching are shown as they are: they are why `choose_program` has
limits.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import nn

from glideslope.studies.provenance import provenance
from glideslope.studies.setting import Setting
from glideslope.tasks.digits import NUM_PIXELS, DigitsClassification
from glideslope.tasks.models import mlp
from glideslope.trials.batched.choice import choose_program
from glideslope.trials.batched.programs import StackedProgram, VmapProgram
from glideslope.trials.batched.stacked import Unstackable
from glideslope.trials.lookup import find_task, task_splits
from glideslope.trials.population import run_population
from glideslope.trials.run import batches, one_thread, run_trial
from glideslope.trials.task import Default, seeded_model
from glideslope.trials.trial import Seeds, TrialSpec
from glideslope.trials.workers import SETTINGS, environment


@dataclass(frozen=True)
class _Wide(DigitsClassification):
    version: ClassVar[int] = 1
    maximum_epochs: ClassVar[int] = 42
    defaults: ClassVar[Mapping[str, Default]] = {"sgdm": Default(0.03), "adam": Default(0.003)}
    width: ClassVar[int]

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: mlp((NUM_PIXELS, self.width, self.width, 10)))


@final
@dataclass(frozen=True)
class Wide128(_Wide):
    """64-128-128-10: 26,122 weights."""

    name: ClassVar[str] = "64-128-128-10"
    width: ClassVar[int] = 128


@final
@dataclass(frozen=True)
class Wide256(_Wide):
    """64-256-256-10: 85,002 weights."""

    name: ClassVar[str] = "64-256-256-10"
    width: ClassVar[int] = 256


@final
@dataclass(frozen=True)
class Wide512(_Wide):
    """64-512-512-10: 301,066 weights."""

    name: ClassVar[str] = "64-512-512-10"
    width: ClassVar[int] = 512


@dataclass(frozen=True)
class Family:
    """A task, and how much of it is run: `members` trials at once, `updates` each."""

    task: str
    members: int
    updates: int
    optimizer: str = "sgdm"


QUICK = (Family("mnist1d-mlp", 64, 60), Family("digits-cnn", 16, 10))
ALL = (
    Family("mnist1d-mlp", 64, 100),
    Family("mnist1d-mlp", 64, 100, "adam"),
    Family("digits-autoencoder", 64, 100),
    Family("digits-autoencoder", 64, 100, "adam"),
    Family("digits-mlp", 64, 100),
    Family("digits-vae", 64, 50),
    Family("engine:Wide128", 16, 50),
    Family("engine:Wide256", 16, 20),
    Family("engine:Wide512", 16, 10),
    Family("digits-cnn", 16, 20),
    Family("mnist1d-cnn", 16, 10),
)
LOOP_TRIALS = 2


def specs_of(family: Family, count: int) -> list[TrialSpec]:
    base = Setting.of(family.task, (family.optimizer,)).trial(family.optimizer, 1.0)
    base = replace(base, updates=family.updates, eval_every=family.updates)
    return [replace(base, rate=base.rate * (1 + index % 5) / 5, seeds=Seeds.all(index)) for index in range(count)]


def loop(family: Family) -> float:
    """Seconds per trial and update of an ordinary loop."""
    seconds = 0.0
    for spec in specs_of(family, LOOP_TRIALS):
        task = find_task(family.task)
        model = task.model(spec.seeds.init)
        optimizer = spec.optimizer.build(model.parameters(), spec.rate)
        train = task_splits(task).train
        started = time.perf_counter()
        for update, (batch, noise) in enumerate(batches(task, train, spec.seeds, spec.updates)):
            optimizer.param_groups[0]["lr"] = spec.rate * (1 - update / spec.updates)
            optimizer.zero_grad()
            task.loss(model, batch, noise).backward()
            optimizer.step()
        seconds += time.perf_counter() - started
    return seconds / LOOP_TRIALS / family.updates


def alone(family: Family) -> float:
    records = [run_trial(spec) for spec in specs_of(family, LOOP_TRIALS)]
    return sum(record.cost.training_seconds for record in records) / LOOP_TRIALS / family.updates


def baddbmm(family: Family) -> float:
    return _population(family, StackedProgram)


def vmap(family: Family) -> float:
    return _population(family, VmapProgram)


def _population(family: Family, way: type[StackedProgram] | type[VmapProgram]) -> float:
    try:
        records = run_population(specs_of(family, family.members), way)
    except Unstackable:
        return float("nan")
    if records[0].path["method"] != way.method:
        return float("nan")  # cannot be computed this way
    return sum(record.cost.training_seconds for record in records) / family.members / family.updates


def in_worker(way: Callable[[Family], float], family: Family) -> float:
    with one_thread():
        return way(family)


def both(pool: ProcessPoolExecutor, way: Callable[[Family], float], family: Family) -> float:
    """Seconds per trial and update of two workers at it at the same time."""
    futures = [pool.submit(in_worker, way, family) for _ in range(2)]
    return statistics.mean(future.result() for future in futures) / 2


def measure(pool: ProcessPoolExecutor, family: Family, rounds: int) -> dict[str, float]:
    ways: dict[str, Callable[[], float]] = {
        "loop": lambda: pool.submit(in_worker, loop, family).result(),
        "2 loops": lambda: both(pool, loop, family),
        "2 run_trial": lambda: both(pool, alone, family),
        "baddbmm": lambda: both(pool, baddbmm, family),
        "vmap": lambda: both(pool, vmap, family),
    }
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first round warms up: imports, data, memory
        for name, way in ways.items():
            seconds = way()
            if number:
                seen[name].append(seconds)
    return {name: statistics.median(values) for name, values in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    facts = provenance()
    print(f"{facts['hardware']}; {facts['versions']}; {facts['commit']}")
    print(f"microseconds per trial and update, median of {2 if options.quick else options.rounds} interleaved rounds\n")
    print(
        f"{'family':<28}{'weights':>8}{'K':>4}{'loop':>8}{'2 loops':>9}{'2 run_trial':>12}{'baddbmm':>9}{'vmap':>8}",
        end="",
    )
    print(f"{'× loop':>9}{'× 2 loops':>11}  chosen")
    with environment(SETTINGS):
        pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
        for family in QUICK if options.quick else ALL:
            seen = measure(pool, family, 2 if options.quick else options.rounds)
            task = find_task(family.task)
            weights = sum(weight.numel() for weight in task.model(0).parameters())
            way = choose_program(task)
            best = min(seconds for name in ("baddbmm", "vmap") if (seconds := seen[name]) == seconds)
            row = f"{task.name + ' ' + family.optimizer:<28}{weights:>8}{family.members:>4}"
            for name, width in (("loop", 8), ("2 loops", 9), ("2 run_trial", 12), ("baddbmm", 9), ("vmap", 8)):
                row += f"{1e6 * seen[name]:>{width}.0f}"
            row += f"{seen['loop'] / best:>9.1f}{seen['2 loops'] / best:>11.1f}  {way.method if way else 'loop'}"
            print(row, flush=True)
        pool.shutdown()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # for the tasks above, by name
    torch.set_num_threads(1)
    main()
