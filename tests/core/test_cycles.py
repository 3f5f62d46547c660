"""Cycles: restarts fall on their very update, walked here in integers and fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope import Constant, Cosine, Cycles, Linear, Schedule


def walked(first, multiplier, updates, peak_decay=1.0):
    """Multipliers of linear cycles over `updates` updates, by walking from restart to restart in exact fractions."""
    start, length, peak, values = Fraction(0), Fraction(first), 1.0, []
    for update in range(updates):
        while update >= start + length:
            start, length, peak = start + length, length * multiplier, peak * peak_decay
        values.append(peak * float(1 - (update - start) / length))
    return np.array(values)


def check(first, multiplier, updates, peak_decay=1.0):
    cycles = Cycles(Linear(), first / updates, float(multiplier), peak_decay)
    # A restart on the wrong update is off by about 1; rounding of progress / period by less than 1e-11.
    expected = walked(first, multiplier, updates, peak_decay)
    np.testing.assert_allclose(cycles.sample(updates), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("first", "multiplier", "restart"),
    [(7, 3, 847), (1, 3, 121), (1, 10, 111), (5, 3, 605), (3, 7, 171), (3, 7, 1200)],
)
@pytest.mark.parametrize("beyond", [0, 1, 2, 7, 153, 1000, 4000, 8009])
def test_hard_restarts_fall_on_their_update(first, multiplier, restart, beyond):
    # These are where the logarithm of PyTorch's and others' closed forms puts the restart one update off.
    updates = restart + beyond
    check(first, multiplier, updates)
    cycles = Cycles(Linear(), first / updates, multiplier)
    if beyond:
        assert cycles(restart / updates) == pytest.approx(1.0, abs=1e-12)
        assert cycles((restart - 1) / updates) < 0.1
    else:
        assert cycles(1.0) == 0.0


@pytest.mark.parametrize(
    "multiplier", [1, 2, 3, 4, 10, Fraction(3, 2), Fraction(11, 10), Fraction(9, 10), Fraction(1, 2)]
)
@pytest.mark.parametrize("first", [1, 2, 3, 7, 10, 100])
def test_restarts_of_any_multiplier_fall_where_walking_puts_them(first, multiplier):
    for updates in (first, first + 1, 2 * first + 1, 100, 171, 605, 847, 1200):
        fills = multiplier >= 1 or first / (1 - multiplier) > updates
        if first <= updates and fills:
            check(first, multiplier, updates)


@given(first=st.integers(1, 60), tenths=st.integers(10, 80), updates=st.integers(60, 900))
def test_restarts_fall_where_walking_puts_them(first, tenths, updates):
    check(first, Fraction(tenths, 10), updates)


@pytest.mark.parametrize("restarts", [0, 1, 2, 3, 6, 9, 12, 48, 92, 99])
@pytest.mark.parametrize("length", [1, 3, 7, 10])
def test_n_restarts_make_n_plus_1_equal_cycles_that_end_with_the_budget(restarts, length):
    cycles = Cycles.evenly(Linear(), restarts).sample((restarts + 1) * length).reshape(restarts + 1, length)
    np.testing.assert_allclose(cycles, np.tile(Linear().sample(length), (restarts + 1, 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("updates", [12, 120, 847])
def test_the_peak_decays_at_each_restart(updates):
    check(Fraction(updates, 4), 1, updates, peak_decay=0.5)
    check(Fraction(updates, 12), Fraction(2), updates, peak_decay=0.7)
    peaks = Cycles.evenly(Constant(), 3, peak_decay=0.5)
    assert [peaks(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1.0, 0.5, 0.25, 0.125, 0.125]


def test_the_end_of_the_budget_is_the_end_of_a_cycle_and_not_the_start_of_another():
    for period, multiplier in ((0.25, 1.0), (1.0, 1.0), (1 / 3, 1.0), (10 / 70, 2.0), (1 / 121, 3.0), (4 / 19, 1.5)):
        assert Cycles(Cosine(), period, multiplier)(1.0) == 0.0


def test_a_cycle_cut_by_the_end_of_the_budget_ends_where_it_is():
    assert Cycles(Linear(), 0.3)(1.0) == pytest.approx(1 - 0.1 / 0.3, abs=1e-14)
    assert Cycles(Linear(), 0.25, multiplier=2)(1.0) == pytest.approx(1 - 0.25 / 1.0, abs=1e-14)


def test_every_cycle_warms_up_when_its_profile_does():
    cycles = Cycles(Schedule(Linear(), warmup=0.2), period=0.25)
    one = Schedule(Linear(), warmup=0.2).sample(10)
    np.testing.assert_allclose(cycles.sample(40), np.tile(one, 4), rtol=0, atol=1e-14)
    assert one[0] == 0.1


def test_cycles_nest():
    inner = Cycles.evenly(Linear(), 1).sample(12)
    np.testing.assert_allclose(
        Cycles.evenly(Cycles.evenly(Linear(), 1), 2).sample(36), np.tile(inner, 3), rtol=0, atol=1e-14
    )


def test_shrinking_cycles_must_fill_the_budget():
    with pytest.raises(ValueError, match=r"sum of all cycles > 1, or they end before the budget"):
        Cycles(Cosine(), period=0.1, multiplier=0.89)
    check(Fraction(30), Fraction(8, 10), 120)
