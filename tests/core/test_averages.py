"""Averages of weights: coefficients sum to 1, have the age they should, and imitate the decay they are made from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope import EMA, LAWA, WSM, Cosine, Cycles, Linear, Polynomial, Rex
from glideslope.core.averages import exponential, imitating, mean_age, uniform

AVERAGES = [kind(window) for kind in (LAWA, EMA, WSM) for window in (0.05, 0.4, 1.0)]
averages = pytest.mark.parametrize("average", AVERAGES, ids=str)


@averages
@pytest.mark.parametrize("updates", [1, 2, 7, 100, 5000])
def test_coefficients_sum_to_one_are_never_negative_and_fit_into_the_run(average, updates):
    coefficients = average.coefficients(updates)
    assert coefficients.sum() == pytest.approx(1, abs=1e-12)
    assert coefficients.min() >= 0
    assert 1 <= len(coefficients) <= updates


@pytest.mark.parametrize("window", [0.05, 0.4, 0.99, 1.0])
@pytest.mark.parametrize("updates", [1, 3, 50, 4000])
def test_the_moving_average_has_the_mean_age_of_the_uniform_one(window, updates):
    young, flat = EMA(window).coefficients(updates), LAWA(window).coefficients(updates)
    assert mean_age(flat) == pytest.approx((len(flat) - 1) / 2)
    assert mean_age(young) == pytest.approx(mean_age(flat), rel=1e-9, abs=1e-9)


def test_the_moving_average_falls_by_one_factor():
    coefficients = exponential(50, age=8.0)
    ratios = coefficients[:-1] / coefficients[1:]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-12)
    assert 0 < ratios[0] < 1
    # The plain recursion with that factor, started from nothing and divided by what it has seen.
    mean = 0.0
    for update in range(50):
        mean = ratios[0] * mean + (1 - ratios[0]) * update
    assert coefficients @ np.arange(50) == pytest.approx(mean / (1 - ratios[0] ** 50))


def test_the_moving_average_ends_at_the_newest_and_at_the_uniform_one():
    assert exponential(4, age=0).tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(exponential(4, age=1.5), uniform(4), rtol=1e-9)


@given(
    count=st.integers(1, 200),
    profile=st.sampled_from([Linear(), Cosine(), Rex(0.9), Polynomial(0.5), WSM().profile]),
)
def test_an_imitation_counts_every_update_as_the_decay_would_have(count, profile):
    coefficients = imitating(profile, count)
    # Update j stands in all the weights after it: the sum of their coefficients is its multiplier.
    counted = np.cumsum(coefficients[::-1])[::-1]
    np.testing.assert_allclose(counted, profile.sample(count), rtol=0, atol=1e-13)


def test_an_imitation_is_the_cooldown_where_gradients_do_not_change():
    gradients = np.random.default_rng(0).normal(size=30)
    trunk = np.cumsum(gradients)
    landed = (WSM().profile.sample(12) * gradients[18:]).sum() + trunk[17]
    assert WSM(0.4).coefficients(30) @ trunk[18:] == pytest.approx(landed)


def test_the_uniform_average_imitates_a_straight_line():
    np.testing.assert_allclose(imitating(Linear(), 9), uniform(9), rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LAWA(0.0), r"`window` is 0.0, but must satisfy 0 < window <= 1\."),
        (lambda: EMA(1.5), r"`window` is 1.5, but must satisfy 0 < window <= 1\."),
        (lambda: LAWA().coefficients(0), r"`updates` is 0, but must satisfy updates >= 1\."),
        (lambda: uniform(0), r"`count` is 0, but must satisfy count >= 1\."),
        (lambda: exponential(3, 1.2), r"`age` is 1.2, but must satisfy 0 <= age <= 1.0, half the span\."),
        (lambda: imitating(Cycles(Linear(), 0.5), 8), r"`profile` is 'cycles\(.*\)', but must satisfy a decay, which"),
    ],
)
def test_an_average_of_nothing_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
