"""Find a learning rate for a task: a range test on its model and data, from fresh weights."""

from __future__ import annotations

from typing import Literal

from glideslope.core.value import require
from glideslope.torch.range_test import RangeTest, range_test
from glideslope.trials.lookup import find_task, task_splits
from glideslope.trials.optimizers import OptimizerSpec
from glideslope.trials.run import batches, evaluate, make_update, one_thread, set_training, updates_per_epoch
from glideslope.trials.task import Metric
from glideslope.trials.trial import Seeds


def find_rate(
    task_name: str,
    optimizer: str = "sgdm",
    start: float = 1e-6,
    stop: float = 10.0,
    *,
    num_updates: int | None = None,
    spacing: Literal["exponential", "linear"] = "exponential",
    with_accuracy: bool = False,
    seed: int = 0,
) -> RangeTest:
    """Train a task from scratch for a few updates at a rising rate.

    Args:
        task_name: a registered task or "package.module:attribute".
        optimizer: as in a trial, e.g. "adamw(weight_decay=0.05)".
        start, stop: first and last rate, 0 < start < stop.
        num_updates: length of the test; one epoch, but at least 100 updates, if left out.
        spacing: "exponential" or "linear".
        with_accuracy: measure the accuracy on the validation split after every update, for
            `RangeTest.accuracy_peak`. Only for tasks that have one.
        seed: decides weights, data order and noise.

    Raises:
        ValueError: an argument is out of its bounds, or the task has no accuracy.

    >>> find_rate("digits-mlp", num_updates=50).minimum_over_ten().rate is None
    False
    """
    task = find_task(task_name)
    splits = task_splits(task)
    length = max(100, updates_per_epoch(task, splits.train)) if num_updates is None else num_updates
    require(length >= 2, "num_updates", length, "num_updates >= 2")
    if with_accuracy:
        _accuracy(task.metric, 0.0)
    seeds = Seeds(seed, seed, seed)
    model = task.model(seeds.init)
    built = OptimizerSpec.parse(optimizer).build([p for p in model.parameters() if p.requires_grad], start)
    data = batches(task, splits.train, seeds, length)

    def model_step() -> float:
        set_training(model, built, True)
        return make_update(task, model, built, *next(data))

    def accuracy() -> float:
        set_training(model, built, False)
        return _accuracy(task.metric, evaluate(task, model, splits.validation, seeds, 0).metric)

    with one_thread():
        return range_test(
            model_step,
            built,
            start,
            stop,
            stateful=[model],
            num_updates=length,
            spacing=spacing,
            accuracy=accuracy if with_accuracy else None,
        )


def _accuracy(metric: Metric, value: float) -> float:
    """What is to be as high as can be: the metric itself, or what an error in per cent leaves of 100."""
    if metric.higher_is_better:
        return value
    if metric.unit == "%":
        return 100.0 - value
    raise ValueError(f"the metric {metric.name!r} is no accuracy. Leave `with_accuracy` out.")
