"""Plans: the 1cycle family as its sources mean it, courses, and which names a plan takes."""

import math

import numpy as np
import pytest
import torch

from glideslope import Absolute, Epochs, Linear, Plan, Preamble, Relative, Steps, for_budget, one_cycle, parse
from glideslope.core.catalog import NAMED, one_cycle_pytorch, one_cycle_smith

SHARES = np.arange(1001) / 1000


def values(plan, name, base):
    return np.array([plan[name].value(share, base) for share in SHARES.tolist()])


def test_one_cycle_is_the_triangle_of_the_rex_paper():
    highest, beta_highest, beta_lowest = 0.3, 0.95, 0.85
    lowest = 0.1 * highest
    rise = 1 - np.abs(2 * SHARES - 1)
    np.testing.assert_allclose(values(one_cycle(), "lr", highest), lowest + (highest - lowest) * rise, rtol=1e-14)
    np.testing.assert_allclose(
        values(one_cycle(), "momentum", 0.5), beta_highest - (beta_highest - beta_lowest) * rise, rtol=1e-15
    )


def test_one_cycle_starts_and_ends_on_its_named_values_exactly():
    plan = one_cycle()
    assert [plan["lr"].value(share, 1.0) for share in (0.0, 0.5, 1.0)] == [0.1, 1.0, 0.1]
    assert [plan["momentum"].value(share, 0.9) for share in (0.0, 0.5, 1.0)] == [0.95, 0.85, 0.95]


def test_one_cycle_does_not_jump_in_the_middle_as_the_printed_formula_does():
    assert np.abs(np.diff(values(one_cycle(), "lr", 1.0))).max() < 0.002
    assert np.abs(np.diff(values(one_cycle(), "momentum", 1.0))).max() < 0.0003


def test_smiths_form_ends_in_annihilation_at_the_highest_momentum():
    plan = one_cycle_smith()
    assert [plan["lr"].value(share, 1.0) for share in (0.0, 0.45, 0.9, 1.0)] == [0.1, 1.0, 0.1, 0.001]
    assert [plan["momentum"].value(share, 0.9) for share in (0.0, 0.45, 0.9, 1.0)] == [0.95, 0.85, 0.95, 0.95]
    assert (np.diff(values(plan, "lr", 1.0)[900:]) < 0).all()


def test_pytorchs_form_is_one_cycle_lr_once_its_off_by_one_is_undone():
    # PyTorch ends its phases at pct·T − 1 and T − 1 instead of pct·T and T: each of its steps is moved to our share.
    total, rise = 200, 0.3
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    twin = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.7, total_steps=total, pct_start=rise)
    plan, turn = one_cycle_pytorch(), rise * total - 1
    for step in range(total):
        share = rise * step / turn if step <= turn else rise + (1 - rise) * (step - turn) / (total - 1 - turn)
        group = optimizer.param_groups[0]
        assert plan["lr"].value(share, 0.7) == pytest.approx(group["lr"], rel=1e-9)
        assert plan["momentum"].value(share, 0.9) == pytest.approx(group["momentum"], rel=1e-12)
        optimizer.step()
        if step < total - 1:
            twin.step()


def test_a_relative_course_scales_the_base_and_an_absolute_one_ignores_it():
    assert Relative(Linear()).value(0.25, base=0.4) == pytest.approx(0.3)
    for base in (0.0, 0.9, 5.0):
        assert Absolute(Linear(), low=0.95, high=0.85).value(0.0, base) == 0.85
        assert Absolute(Linear(), low=0.95, high=0.85).value(1.0, base) == 0.95


def test_courses_take_arrays():
    np.testing.assert_allclose(
        one_cycle()["momentum"].value(SHARES, 0.9), values(one_cycle(), "momentum", 0.9), rtol=1e-15
    )


def test_a_plan_is_looked_up_by_name():
    plan = one_cycle()
    assert "lr" in plan
    assert "weight_decay" not in plan
    assert plan["lr"] == dict(plan.courses)["lr"]


def test_a_preamble_rises_in_a_straight_line_between_absolute_rates():
    preamble = Preamble(Steps(10), 1e-5, 1e-4)
    assert [preamble.rate(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([1e-5, 5.5e-5, 1e-4], rel=1e-15)


def test_a_preamble_in_epochs_learns_their_length_from_the_budget():
    plan = Plan({"lr": Linear()}, Preamble(Epochs(1), 1e-5, 1e-4))
    assert for_budget(plan, Epochs(90, 391)).preamble.length == Epochs(1, 391)


def test_the_catalog_has_every_schedule_of_the_issue():
    named = "none step plateau linear cosine exponential one_cycle rex delayed_linear triangular sgdr wsd fractal"
    assert set(named.split()) <= set(NAMED)
    assert list(NAMED)[:8] == ["none", "step", "plateau", "linear", "cosine", "exponential", "one_cycle", "rex"]
    assert math.isclose(parse("exponential")(1.0), math.exp(-3))
