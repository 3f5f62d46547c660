"""Profiles: each is its textbook formula, written here a second time."""

import math

import numpy as np
import pytest

from glideslope import Cosine, Exponential, Fractal, InversePower, Knots, Linear, OneMinusSqrt, Polynomial, Rex, Step
from glideslope.core.catalog import step_profile

SHARES = np.arange(101) / 100


FORMULAS = {
    Linear(): lambda s: 1 - s,
    Cosine(): lambda s: 0.5 * (1 + math.cos(math.pi * s)),
    Exponential(): lambda s: math.e ** (-3 * s),
    step_profile(-4.6): lambda s: math.e ** (-4.6 * s),
    Rex(): lambda s: (1 - s) / (0.5 + 0.5 * (1 - s)),
    Rex(0.9): lambda s: (1 - s) / (0.1 + 0.9 * (1 - s)),
    Polynomial(3): lambda s: (1 - s) ** 3,
    OneMinusSqrt(): lambda s: 1 - s**0.5,
    InversePower(0.5, 8): lambda s: 1 / math.sqrt(1 + 8 * s),
    InversePower(2, 3): lambda s: 1 / (1 + 3 * s) ** 2,
    Step((0.3, 0.6), 0.2): lambda s: 1.0 if s < 0.3 else 0.2 if s < 0.6 else 0.04,
}


@pytest.mark.parametrize("profile", FORMULAS, ids=str)
def test_a_profile_is_its_formula(profile):
    values, expected = profile(SHARES), [FORMULAS[profile](s) for s in SHARES]
    # The constants of the second writing are rounded on their own: a few units in the last place.
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-15)


def test_an_inverse_power_has_the_same_rate_at_the_same_update_whatever_the_budget():
    short, long = InversePower(0.7, 4).sample(100), InversePower(0.7, 10).sample(250)
    np.testing.assert_allclose(long[:100], short, rtol=1e-14)
    assert long[-1] < short[-1]


def test_rex_bends_between_the_line_and_a_hold():
    assert Rex(0.0)(0.37) == Linear()(0.37)
    assert Rex(0.9999)(0.9) > 0.99
    heights = [Rex(beta)(0.5) for beta in (0.0, 0.25, 0.5, 0.9)]
    assert heights == sorted(heights)


def test_knots_are_straight_between_their_points_and_exact_on_them():
    points = ((0.0, 0.1), (0.3, 0.7), (0.7, 0.2), (0.9, 0.9), (1.0, 0.001))
    profile = Knots(*points)
    assert [profile(at) for at, _ in points] == [level for _, level in points]
    expected = np.interp(SHARES, *zip(*points, strict=True))
    np.testing.assert_allclose(profile(SHARES), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("updates", [*range(1, 200), 847, 1200])
def test_steps_fall_on_their_very_update_for_every_budget(updates):
    update = np.arange(updates)
    falls = (update * 3 >= updates).astype(int) + (update * 10 >= 7 * updates)
    np.testing.assert_array_equal(Step((1 / 3, 0.7), 0.5).sample(updates), 0.5**falls)


def fractal_order(count):
    """σ of Agarwal, Goel and Zhang, Definition 3, written as they do, by recursion."""
    if count == 1:
        return [1]
    half = fractal_order(count // 2)
    order = []
    for index in half:
        order += [index, count + 1 - index]
    return order


def test_the_fractal_order_of_eight_is_the_papers():
    assert fractal_order(8) == [1, 8, 4, 5, 2, 7, 3, 6]
    nodes = [0.55 - 0.45 * math.cos((t - 0.5) * math.pi / 8) for t in range(1, 9)]
    heights = Fractal(levels=3, ratio=0.1).sample(8)
    assert [1 + int(np.argmin([abs(nodes[0] / node - height) for node in nodes])) for height in heights] == [
        1, 8, 4, 5, 2, 7, 3, 6
    ]  # fmt: skip


@pytest.mark.parametrize("levels", [1, 2, 3, 6, 10])
@pytest.mark.parametrize("smallest", [0.01, 0.5])
def test_fractal_steps_are_the_inverse_chebyshev_nodes_in_fractal_order(levels, smallest):
    count, largest = 2**levels, 1.0
    steps = []
    for t in fractal_order(count):
        node = (largest + smallest) / 2 - (largest - smallest) / 2 * math.cos((t - 0.5) / count * math.pi)
        steps.append(1 / node)
    np.testing.assert_allclose(Fractal(levels, smallest).sample(count), np.array(steps) / max(steps), rtol=1e-13)


def test_fractal_steps_solve_a_quadratic_as_chebyshev_promises():
    # The worst residual |Π(1 − η_t λ)| over curvatures λ in [m, M] is 1 / T_n((M + m) / (M − m)): the reason to exist.
    count, smallest = 16, 0.1
    stable = 1 / (0.55 - 0.45 * math.cos(0.5 * math.pi / count))
    steps = stable * Fractal(4, smallest).sample(count)
    curvature = np.linspace(smallest, 1, 2001)[:, None]
    worst = np.abs(np.prod(1 - steps * curvature, axis=1)).max()
    assert worst == pytest.approx(1 / math.cosh(count * math.acosh(1.1 / 0.9)), rel=1e-9)


def test_sample_needs_a_budget_of_at_least_one_update():
    with pytest.raises(ValueError, match=r"`num_updates` is 0, but must satisfy num_updates >= 1\."):
        Linear().sample(0)
