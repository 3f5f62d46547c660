"""Sampling: idempotent, never ahead of progress, and each boundary crossed by its very update, for every budget."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glideslope import SAMPLING_RATES, EveryStep, Linear, Milestones, Plateaus, Reflected, Schedule

BUDGETS = [*range(1, 400), 847, 1000, 1200, 2000, 4999, 10_000, 39_100, 99_991]


def exact_reading(sampling, numerators, denominator):
    """The progress that is read at the fractions `numerators / denominator`: the definition, in integers."""
    if isinstance(sampling, Plateaus):
        return numerators * sampling.n // denominator / sampling.n
    if isinstance(sampling, Milestones):
        result = np.zeros(len(numerators))
        for at in sampling.at:
            share = as_written(at)
            result[numerators * share.denominator >= share.numerator * denominator] = at
        return result
    assert isinstance(sampling, EveryStep)
    return numerators / denominator


def as_written(number):
    """0.1 means one tenth, whatever its double is."""
    return Fraction(repr(number))


@given(share=st.floats(0, 1))
@settings(max_examples=30)
def test_reading_twice_changes_nothing(sampling, share):
    once = sampling(share)
    assert sampling(once) == once


def test_reading_twice_changes_nothing_on_the_grid_of_any_budget(sampling):
    for updates in BUDGETS:
        once = sampling(np.arange(updates + 1) / updates)
        np.testing.assert_array_equal(sampling(once), once)


@given(share=st.floats(0, 1))
@settings(max_examples=30)
def test_what_is_read_lies_in_the_budget_and_never_ahead_of_progress(sampling, share):
    assert 0.0 <= sampling(share) <= min(1.0, share + 1e-9)


def test_boundaries_are_crossed_by_their_very_update_for_every_budget(sampling):
    for updates in BUDGETS:
        update = np.arange(updates + 1)
        # Readings are at least 1/1000 apart or, with every step, rounded once: 1e-12 tells a neighbour from rounding.
        np.testing.assert_allclose(
            sampling(update / updates), exact_reading(sampling, update, updates), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("warmup", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("delay", [0.0, 0.07])
@pytest.mark.parametrize("name", SAMPLING_RATES)
def test_boundaries_are_exact_behind_a_warmup_and_a_delay(name, warmup, delay):
    sampling = SAMPLING_RATES[name]
    schedule = Schedule(Linear(), sampling, warmup=warmup, delay=delay)
    held = as_written(warmup) + as_written(delay)
    for updates in BUDGETS:
        update = np.arange(ceil(updates * held), updates + 1)
        numerators = update * held.denominator - held.numerator * updates
        expected = 1 - exact_reading(sampling, numerators, updates * (held.denominator - held.numerator))
        np.testing.assert_allclose(schedule(update / updates), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_boundaries_are_exact_in_a_budget_of_a_hundred_million_updates(warmup):
    updates, held = 10**8, as_written(warmup)
    for sampling in SAMPLING_RATES.values():
        schedule = Schedule(Linear(), sampling, warmup=warmup)
        boundary = ceil(updates * held) + np.arange(101) * int(updates * (1 - held)) // 100
        update = np.clip(np.concatenate([boundary - 1, boundary, boundary + 1]), ceil(updates * held), updates)
        numerators = update * held.denominator - held.numerator * updates
        expected = 1 - exact_reading(sampling, numerators, updates * (held.denominator - held.numerator))
        np.testing.assert_allclose(schedule(update / updates), expected, rtol=0, atol=1e-12)


def test_table_2_has_its_seven_rates_and_each_reads_as_often_as_its_name_says():
    readings = {
        name: len(set(np.round(rate(np.arange(1000) / 1000), 12).tolist())) for name, rate in SAMPLING_RATES.items()
    }
    assert readings == {
        "50-75": 3, "33-66": 3, "25-50-75": 4, "10-10": 10, "5-25": 20, "1-100": 100, "every": 1000
    }  # fmt: skip


def test_a_schedule_reads_its_profile_where_its_sampling_says(sampling):
    growth = Schedule(Reflected(Linear()), sampling)
    for share in np.arange(101) / 100:
        assert growth(float(share)) == pytest.approx(sampling(float(share)), abs=2.3e-16)


def test_a_plain_floor_would_misplace_some_percent_of_the_boundaries():
    # Why the slack exists: over all n that divide N < 300, floor(k/N·n) is one plateau late on about 3 %.
    plain = slack = boundaries = 0
    for updates in range(1, 300):
        for n in (n for n in range(1, updates + 1) if updates % n == 0):
            update = np.arange(0, updates, updates // n)
            exact = update * n // updates
            plain += int((np.floor(update / updates * n) != exact).sum())
            slack += int((np.rint(Plateaus(n)(update / updates) * n) != exact).sum())
            boundaries += n
    assert 0.02 < plain / boundaries < 0.05
    assert slack == 0
