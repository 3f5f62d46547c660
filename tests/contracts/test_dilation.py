"""Dilation: a schedule knows progress only, so twice the budget, or another unit, has the same rates."""

import pytest
import torch

from glideslope import Epochs, Samples, Steps, Tokens, WallClock
from glideslope.torch import BudgetScheduler, Clock


def rates(multiplier, budget, updates, seconds=0.0, **amounts):
    """Rate in force during each of the updates, each of which costs `amounts` and `seconds`."""
    now = [0.0]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = BudgetScheduler(
        optimizer, multiplier, budget, clock=Clock(monotonic=lambda: now[0], wall=lambda: now[0])
    )
    seen = []
    for _ in range(updates):
        seen.append(optimizer.param_groups[0]["lr"])
        now[0] += seconds
        scheduler.step(**amounts)
    assert scheduler.exhausted
    return seen


def test_twice_the_budget_has_the_same_rate_at_the_same_progress(multiplier):
    assert rates(multiplier, Steps(120), 120)[::2] == rates(multiplier, Steps(60), 60)


@pytest.mark.parametrize(
    ("budget", "costs"),
    [
        (Samples(1920), {"samples": 32}),
        (Tokens(61440), {"tokens": 1024}),
        (Epochs(4, updates_per_epoch=15), {}),
        (Epochs(2.5, updates_per_epoch=24), {}),
        (WallClock(seconds=30), {"seconds": 0.5}),
    ],
    ids=str,
)
def test_the_unit_of_the_budget_changes_nothing(multiplier, budget, costs):
    assert rates(multiplier, budget, 60, **costs) == rates(multiplier, Steps(60), 60)
