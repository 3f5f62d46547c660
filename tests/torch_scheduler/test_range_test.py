"""Range test: finds the edge of divergence, and leaves no trace."""

import math
import random

import numpy as np
import pytest
import torch

from glideslope.torch import BudgetScheduler, RangeTest, range_test


def problem(seed=0, dropout=0.1):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(dropout), torch.nn.Linear(16, 1)
    )
    inputs = torch.randn(64, 8)
    targets = inputs.sum(1, keepdim=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step():
        rows = torch.randint(0, 64, (16,))
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs[rows]), targets[rows])
        loss.backward()
        optimizer.step()
        random.random(), np.random.rand()
        return loss

    return model, optimizer, step


def train(step, scheduler, updates):
    losses = []
    for _ in range(updates):
        losses.append(float(step().detach()))
        scheduler.step()
    return losses


def test_it_leaves_no_trace_in_weights_buffers_moments_generators_or_scheduler():
    runs = []
    for tested in (False, True):
        random.seed(1), np.random.seed(1)
        model, optimizer, step = problem()
        scheduler = BudgetScheduler(optimizer, "rex", "40ba")
        before = train(step, scheduler, 10)
        if tested:
            found = range_test(step, optimizer, 1e-4, 10.0, stateful=[model, scheduler], num_updates=30)
            assert len(found.rates) > 3
        after = train(step, scheduler, 30)
        assert scheduler.exhausted
        runs.append((before, after, random.random(), np.random.rand(), float(torch.rand(1))))
    assert runs[0] == runs[1]


def test_it_is_undone_when_the_step_fails():
    model, optimizer, _ = problem()
    before = [weight.clone() for weight in model.parameters()]

    def fail():
        with torch.no_grad():
            next(model.parameters()).add_(1)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        range_test(fail, optimizer, 1e-4, 1.0, stateful=[model])
    assert all(torch.equal(new, old) for new, old in zip(model.parameters(), before, strict=True))
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_it_stops_when_the_loss_runs_away_and_suggests_below_that():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = 0.5 * (weight**2).sum() + 0.1  # diverges above a rate of 2
        loss.backward()
        optimizer.step()
        return loss

    found = range_test(step, optimizer, 1e-3, 100.0, stateful=[], num_updates=200)
    assert found.diverged
    assert 2 < found.rates[-1] < 100
    assert 0 < found.steepest().rate < 2
    assert 0 < found.minimum_over_ten().rate < 2


def test_groups_keep_their_ratio_and_spacing_is_as_asked():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weights[0]], "lr": 1.0}, {"params": [weights[1]], "lr": 0.1}], lr=1.0)
    seen = []
    step = lambda: seen.append([group["lr"] for group in optimizer.param_groups]) or 1.0  # noqa: E731
    range_test(step, optimizer, 0.1, 0.5, stateful=[], num_updates=5, spacing="linear")
    assert np.array(seen) == pytest.approx(np.array([[rate, 0.1 * rate] for rate in (0.1, 0.2, 0.3, 0.4, 0.5)]))
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.1]


RATES = tuple(np.geomspace(1e-4, 1.0, 20))


@pytest.mark.parametrize(
    ("found", "name", "reason"),
    [
        (RangeTest(RATES, tuple(map(float, range(20))), (), False), "steepest", "falls by 0"),
        (RangeTest((1, 2), (1.0, 0.5), (), False), "steepest", "2 finite losses"),
        (RangeTest(RATES, tuple(-(1.5 ** float(k)) for k in range(20)), (), False), "steepest", "at the last rate"),
        (RangeTest(RATES, tuple(math.exp(-k) for k in range(20)), (), False), "steepest", "at the first rate"),
        (RangeTest(RATES, tuple(map(float, range(20, 0, -1))), (), False), "minimum_over_ten", "at the last rate"),
        (RangeTest((1,), (float("nan"),), (), True), "minimum_over_ten", "0 finite losses"),
        (RangeTest((1, 2), (1.0, 0.5), (), False), "accuracy_peak", "no accuracy was measured"),
        (RangeTest((1, 2), (1.0, 0.5), (0.1, 0.2), False), "accuracy_peak", "highest at the last rate"),
    ],
)
def test_what_cannot_be_told_is_said_with_the_reason(found, name, reason):
    suggestion = getattr(found, name)()
    assert suggestion.rate is None
    assert reason in suggestion.reason


def test_the_accuracy_peak_is_the_rate_of_the_highest():
    assert RangeTest((1, 2, 3), (1.0, 0.5, 2.0), (0.1, 0.9, 0.2), False).accuracy_peak().rate == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 1.0, "stop": 0.1}, "0 < start < stop"),
        ({"num_updates": 1}, "num_updates >= 2"),
        ({"divergence": 1.0}, "divergence > 1"),
        ({"spacing": "cubic"}, "unknown spacing 'cubic'"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    _, optimizer, step = problem()
    with pytest.raises(ValueError, match=message):
        range_test(step, optimizer, **{"start": 1e-3, "stop": 1.0, "stateful": [], **settings})


def test_noise_alone_suggests_nothing_and_a_fall_within_noise_does():
    def tested(seed, depth):
        generator = np.random.default_rng(seed)
        rates = np.geomspace(1e-6, 1.0, 100)
        losses = 2.3 - depth / (1 + (1e-2 / rates) ** 2) + 5.0 * (rates > 0.3) + generator.normal(0, 0.05, 100)
        return RangeTest(tuple(rates), tuple(losses), (), False)

    assert sum(tested(seed, 0.0).minimum_over_ten().rate is not None for seed in range(100)) <= 1
    suggested = [tested(seed, 0.3).minimum_over_ten().rate for seed in range(100)]
    assert sum(rate is None for rate in suggested) <= 5
    assert all(1e-3 < rate < 0.1 for rate in suggested if rate is not None)
