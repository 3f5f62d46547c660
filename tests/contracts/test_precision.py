"""Precision: at the fraction k/N the multiplier is right to 2.3e-16 of the peak, where the shape allows it at all.

k/N reaches the profile rounded to a double, off by up to 5.6e-17, which a slope multiplies. Every shape whose slope
stays at or below 2 keeps the promise. Steeper ones keep it at the double itself; at k/N their slope × 5.6e-17 is added.
"""

from fractions import Fraction

import mpmath
import numpy as np
import pytest

from glideslope import Cosine, Exponential, Linear, OneMinusSqrt, Polynomial, Reflected, Rex

PROMISE = 2.3e-16
HALF_ULP = 2.0**-54

EXACT = {
    Linear(): lambda s: 1 - s,
    Reflected(Linear()): lambda s: s,
    Cosine(): lambda s: (1 + mpmath.cos(mpmath.pi * s)) / 2,
    Exponential(-0.5): lambda s: mpmath.exp(-s / 2),
    Rex(): lambda s: (1 - s) / (1 - s / 2),
    Rex(0.25): lambda s: (1 - s) / (1 - s / 4),
    Polynomial(2): lambda s: (1 - s) ** 2,
}
STEEP = {
    # The constants are taken as the doubles they are: that is the formula the user wrote.
    Rex(0.9): (lambda s: (1 - s) / (1 - mpmath.mpf(0.9) * s), lambda s: 10),
    Exponential(): (lambda s: mpmath.exp(-3 * s), lambda s: 3),
    Exponential(-12.0): (lambda s: mpmath.exp(-12 * s), lambda s: 12),
    OneMinusSqrt(): (lambda s: 1 - mpmath.sqrt(s), lambda s: 0.5 / mpmath.sqrt(s)),
}


def fractions():
    """Updates of budgets from 1 to 10^8: both ends and a random sample in between."""
    generator = np.random.default_rng(0)
    for updates in (1, 2, 3, 7, 10, 97, 1000, 2000, 99_991, 10**8):
        some = generator.integers(0, updates + 1, size=150)
        for update in {0, 1, updates - 1, updates, *map(int, some)}:
            yield Fraction(update, updates)


def number(share):
    return mpmath.mpf(share.numerator) / share.denominator


@pytest.fixture(autouse=True)
def many_digits():
    with mpmath.workdps(40):
        yield


@pytest.mark.parametrize("shape", EXACT, ids=str)
def test_a_profile_is_right_to_the_promised_precision_at_every_update(shape):
    worst = max(abs(shape(float(share)) - EXACT[shape](number(share))) for share in fractions())
    assert worst <= PROMISE


@pytest.mark.parametrize("shape", STEEP, ids=str)
def test_a_steep_profile_is_right_at_the_double_and_adds_its_slope_at_the_fraction(shape):
    exact, slope = STEEP[shape]
    for share in fractions():
        value = shape(float(share))
        assert abs(value - exact(mpmath.mpf(float(share)))) <= PROMISE
        if share > 0:
            assert abs(value - exact(number(share))) <= PROMISE + slope(number(share)) * HALF_ULP


@pytest.mark.parametrize("power", [3.0, 5.0, 9.5])
def test_a_high_power_multiplies_two_roundings_that_of_the_fraction_and_that_of_one_minus_it(power):
    for share in fractions():
        exact = (1 - number(share)) ** mpmath.mpf(power)
        assert abs(Polynomial(power)(float(share)) - exact) <= PROMISE + 2 * power * HALF_ULP
