"""How equal members of populations are to their trials run alone, beside what two ordinary ways of PyTorch differ by.

    python benchmarks/equality.py            # every dense family: about 2 minutes on 2 cores

For each family and optimizer, K = 16 trials of different rates, schedules and seeds are run three times: as a
population, alone, and alone by PyTorch's unfused optimizer, which rounds differently and is as right. The table shows
the largest relative difference of a training loss over the first 20, 100 and 400 updates, and of the last validation
loss. Rounding errors grow along a trajectory, as between any two machines; the last columns say how much of that is
the trajectory's own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from glideslope.core.spec import parse_policy
from glideslope.studies.provenance import provenance
from glideslope.studies.setting import Setting
from glideslope.trials.optimizers import OptimizerSpec
from glideslope.trials.population import run_population
from glideslope.trials.record import Record
from glideslope.trials.run import run_trial
from glideslope.trials.trial import Seeds, TrialSpec

MEMBERS = 16
SPANS = (20, 100, 400)
FAMILIES = ("mnist1d-mlp", "digits-mlp", "digits-autoencoder", "digits-vae")
OPTIMIZERS = ("sgdm", "adam")
SCHEDULES = ("linear", "one_cycle", "rex+warmup(10%)", "constant")


def specs_of(task: str, optimizer: str) -> list[TrialSpec]:
    setting = Setting.of(task, (optimizer,))
    base = setting.trial(optimizer, 1.0)
    return [
        replace(
            base,
            policy=parse_policy(SCHEDULES[index % len(SCHEDULES)]),
            rate=base.rate / 3 ** (index % 3),
            seeds=Seeds.all(index),
            updates=SPANS[-1],
            eval_every=SPANS[-1],
        )
        for index in range(MEMBERS)
    ]


def differences(found: Sequence[Record], right: Sequence[Record]) -> list[float]:
    """Largest relative difference of training losses over each span, and of the last validation loss."""
    worst = [0.0] * (len(SPANS) + 1)
    for one, other in zip(found, right, strict=True):
        updates = np.array(one.series.updates)
        a, b = np.array(one.series.train_loss), np.array(other.series.train_loss)
        apart = np.abs(a - b) / np.abs(b)
        for index, span in enumerate(SPANS):
            worst[index] = max(worst[index], float(apart[updates < span].max()))
        last, wanted = one.validation[-1].loss, other.validation[-1].loss
        worst[-1] = max(worst[-1], abs(last - wanted) / abs(wanted))
    return worst


def main() -> None:
    facts = provenance()
    print(f"{facts['hardware']}; {facts['versions']}; commit {facts['commit']}")
    print(f"largest relative difference over K = {MEMBERS} members, float32")
    spans = [f"{span} upd." for span in SPANS] + ["last val."]
    print(f"{'family':20}{'':6}{'path':9}" + "".join(f"{name:>10}" for name in spans), end="   ")
    print("fused against unfused, alone" + "".join(f"{name:>10}" for name in spans))
    for task in FAMILIES:
        for optimizer in OPTIMIZERS:
            specs = specs_of(task, optimizer)
            alone = [run_trial(spec) for spec in specs]
            unfused = OptimizerSpec.parse(f"{optimizer}(fused=false)")
            other = [run_trial(replace(spec, optimizer=unfused)) for spec in specs]
            together = run_population(specs)
            row = f"{task:20}{optimizer:6}{together[0].path['method']:9}"
            row += "".join(f"{value:10.1e}" for value in differences(together, alone))
            row += " " * 31 + "".join(f"{value:10.1e}" for value in differences(other, alone))
            print(row, flush=True)


if __name__ == "__main__":
    sys.exit(main())
