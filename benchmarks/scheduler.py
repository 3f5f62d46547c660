"""What a scheduler adds to an update: `python benchmarks/scheduler.py [--rounds 41]`.

Each round times, in turn, bare updates, updates with PyTorch's LambdaLR and updates with BudgetScheduler, on optimizers
of their own. What a scheduler adds is its time less the bare time of the same round, so what it adds to
`optimizer.step` itself (hooks, wrappers) is included. Medians over rounds, and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LambdaLR

from glideslope.torch import BudgetScheduler

warnings.simplefilter("ignore")  # LambdaLR's remarks about tensor rates
FOREVER = 10**9


def make(groups: int, tensors: bool) -> torch.optim.Optimizer:
    rate = torch.tensor(0.1) if tensors else 0.1
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(groups)]
    entries = [{"params": [weight], "lr": rate.clone() if tensors else rate} for weight in weights]
    return torch.optim.SGD(entries, lr=0.1, foreach=tensors)


def seconds(update: Callable[[], object], schedule: Callable[[], object] | None, repeats: int) -> float:
    started = time.perf_counter()
    if schedule is None:
        for _ in range(repeats):
            update()
    else:
        for _ in range(repeats):
            update()
            schedule()
    return (time.perf_counter() - started) / repeats


def filler(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """The least that tensor rates cost: one multiplication and one `fill_` per group."""
    groups = optimizer.param_groups
    position = 0

    def fill() -> None:
        nonlocal position
        position += 1
        multiplier = 1 - position / FOREVER
        for group in groups:
            group["lr"].fill_(0.1 * multiplier)

    return fill


def measure(groups: int, tensors: bool, rounds: int) -> str:
    bare, theirs, ours, least = (make(groups, tensors) for _ in range(4))
    torch_step = LambdaLR(theirs, lambda k: 1 - k / FOREVER).step
    our_step = BudgetScheduler(ours, "linear", f"{FOREVER}ba").step
    repeats = max(100, 2000 // groups)
    rows = []
    for _ in range(rounds):
        base = seconds(bare.step, None, repeats)
        rows.append(
            (
                seconds(theirs.step, torch_step, repeats) - base,
                seconds(ours.step, our_step, repeats) - base,
                seconds(least.step, filler(least), repeats) - base if tensors else float("nan"),
            )
        )
    lambda_lr, mine, loop = (1e6 * statistics.median(column) for column in zip(*rows, strict=True))
    against = 2 if tensors else 0
    ratio = statistics.median(row[1] / row[against] for row in rows if row[against] > 0)
    kind, reference = ("tensor", "the fill_ loop") if tensors else ("float", "LambdaLR")
    fill = f"{loop:9.2f}" if tensors else " " * 9
    return f"{kind:6} {groups:6d} {lambda_lr:11.2f} {mine:16.2f} {fill} {ratio:8.2f} of {reference}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("rates  groups LambdaLR µs BudgetScheduler µs fill_ µs    ratio")
    for tensors in (False, True):
        for groups in (1, 100):
            print(measure(groups, tensors, rounds), flush=True)


if __name__ == "__main__":
    main()
