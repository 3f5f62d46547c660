"""Which gamma, horizon ratio, window and fraction `anytime` should have: on two tasks that no table counts.

    python benchmarks/anytime.py --out runs/anytime       # some minutes on 2 cores; run again to go on

For each setting: its cost, mean gap to the separate runs in seed standard deviations, mean |gap| with noise taken off,
how often its intervals hold the mean of the separate runs, how often its self-check failed. Rates are tuned for each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from glideslope.report.fidelity import fidelity
from glideslope.studies import tradeoff
from glideslope.studies.setting import Setting
from glideslope.tasks.models import mlp
from glideslope.trials import planner
from glideslope.trials.executors import Populations
from glideslope.trials.store import Store
from glideslope.trials.task import Batch, Default, Metric, Noise, Splits, Task, seeded_model

TASKS = ("digits-mlp", "anytime:Friedman")


@final
@dataclass(frozen=True)
class Friedman(Task):
    """Regression of a smooth function of five of ten numbers, with noise, by a dense network 10-32-32-1.

    Source: Friedman, "Multivariate Adaptive Regression Splines", The Annals of Statistics, 1991 (problem 1).
    """

    name: ClassVar[str] = "friedman"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "Friedman (1991), problem 1, generated"
    maximum_epochs: ClassVar[int] = 25
    batch_size: ClassVar[int] = 50
    metric: ClassVar[Metric] = Metric("squared_error")
    defaults: ClassVar[Mapping[str, Default]] = {"sgdm": Default(0.03), "adam": Default(0.01)}

    def splits(self) -> Splits:
        generator = np.random.default_rng(0)

        def split(count: int) -> Batch:
            inputs = generator.random((count, 10))
            first, second, third, fourth, fifth = inputs[:, :5].T
            values = 10 * np.sin(np.pi * first * second) + 20 * (third - 0.5) ** 2 + 10 * fourth + 5 * fifth
            targets = (values - 14.4 + generator.normal(size=count)) / 5
            return torch.from_numpy(2 * inputs - 1).float(), torch.from_numpy(targets).float()

        return Splits(split(4000), split(1000), split(4000))

    def model(self, seed: int) -> nn.Module:
        return seeded_model(seed, lambda: mlp((10, 32, 32, 1)))

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return self.evaluate(model, batch, noise)["loss"].mean()

    def evaluate(self, model: nn.Module, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        inputs, targets = batch
        errors = (model(inputs)[:, 0] - targets) ** 2
        return {"loss": errors, "squared_error": errors}


def settings() -> list[str]:
    """What is tried."""
    shapes = [
        f"anytime(gamma={gamma}, horizon_ratio={ratio})"
        for gamma, ratio in ((0.0, 8), (0.25, 8), (0.5, 2), (0.5, 8), (0.5, 32), (1.0, 8))
    ]
    return [*shapes, "anytime(gamma=0.5, horizon_ratio=8, fraction=0.1, anchors=2)", "cooldown(0.1)", "average"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/anytime"))
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    question = tradeoff.Question(
        tuple(Setting.of(name, ("sgdm",)) for name in TASKS),
        (tradeoff.REFERENCE, *settings()),
        ("sgdm",),
        num_seeds=options.seeds,
        num_tuning_seeds=2,
    )
    with Populations() as executor, Store(options.out) as store:
        records = planner.run_study(tradeoff.cells(question).values(), store, executor)
    found = tradeoff.answer(question, records)
    print(f"{'task':<18}{'estimator':<58}{'cost':>6}{'gap/sd':>8}{'|bias|':>8}{'cover':>7}{'fallen':>8}")
    for line in fidelity(found.results):
        gaps = [
            (result, other)
            for result in found.results
            for other in found.results
            if (result.task, result.estimator) == (line.task, line.estimator)
            and (other.task, other.variant, other.seed, other.estimator)
            == (line.task, result.variant, result.seed, tradeoff.REFERENCE)
        ]
        mean = np.mean([np.subtract(a.values, b.values) for a, b in gaps], axis=0)
        deviation = np.std([b.values for _, b in gaps], axis=0, ddof=1)
        fallen = sum(place.estimator == line.estimator and place.task == line.task for place, _ in found.fallbacks)
        print(
            f"{line.task:<18}{line.estimator:<58}{line.planned_cost:>6.2f}{float(np.mean(mean / deviation)):>8.2f}"
            f"{line.bias_seed_sd.value:>8.2f}{line.coverage.value:>7.2f}{fallen:>5}/{len(gaps)}"
        )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
