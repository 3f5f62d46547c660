"""Ends: every profile starts at 1, decays land on exactly 0, all stay in [0, 1], and the end is held for ever after."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope import Cycles, Linear, Polynomial, Rex, Steps
from glideslope.torch import BudgetScheduler


def test_a_profile_starts_at_the_base_rate(profile):
    assert profile(0.0) == 1.0


def test_a_decay_lands_on_exactly_zero_unless_its_class_means_not_to(profile):
    if type(profile).lands:
        assert profile(1.0) == 0.0


def test_the_trait_lands_exempts_no_class_that_always_lands(examples):
    for given_examples in examples["profile"].values():
        ends = [example(1.0) for example in given_examples]
        assert type(given_examples[0]).lands == all(end == 0.0 for end in ends)


def test_multipliers_stay_between_0_and_1(multiplier):
    shares = np.concatenate([np.arange(201) / 200, np.arange(122) / 121, np.nextafter(np.arange(1, 21) / 20, 0)])
    for share in shares:
        assert 0.0 <= multiplier(float(share)) <= 1.0


def test_the_end_is_approached_as_the_formula_says_and_not_jumped_to(profile):
    # No landing by decree: next to the end the profile is already there, as far as its slope allows.
    near = profile(1 - 1e-12)
    assert abs(near - profile(1.0)) <= 1e-5


def test_the_scheduler_lands_on_the_end_and_holds_it(multiplier):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = BudgetScheduler(optimizer, multiplier, Steps(7))
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(25):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == 0.3 * multiplier(0.0)
    assert rates[:7] == [0.3 * multiplier(k / 7) for k in range(7)]
    assert rates[7:] == [0.3 * multiplier(1.0)] * 19
    assert min(rates) >= 0


@pytest.mark.parametrize("restarts", [0, 1, 2, 3, 6, 9, 48, 92, 98, 104, 116, 999])
def test_equal_cycles_land_on_exactly_zero_with_the_budget(restarts):
    assert Cycles.evenly(Linear(), restarts)(1.0) == 0.0


@given(
    first=st.integers(1, 50),
    multiplier=st.sampled_from([2, 3, 1.5, 1.1, 0.9]),
    count=st.integers(1, 6),
    shape=st.sampled_from([Linear(), Rex(0.9), Polynomial(0.5)]),
)
def test_growing_cycles_that_fill_the_budget_land_on_exactly_zero(first, multiplier, count, shape):
    updates = math.fsum(first * multiplier**index for index in range(count))
    assert Cycles(shape, period=first / updates, multiplier=multiplier)(1.0) == 0.0
