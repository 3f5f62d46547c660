"""Plateau: PyTorch's ReduceLROnPlateau where that is right, and a rule for the losses on which it is not."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope import Observation, Plateau


def gains(rule, losses):
    """The gain in force after each validation loss."""
    state, gain, seen = rule.start(), 1.0, []
    for update, loss in enumerate(losses):
        decision, state = rule.decide(Observation(update, 0.0, 0.1, gain, val_loss=loss), state)
        gain = decision.gain
        seen.append(gain)
    return seen


def twin_gains(rule, losses):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    twin = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=rule.patience, factor=rule.factor, threshold=rule.threshold, eps=0.0
    )
    seen = []
    for loss in losses:
        twin.step(loss)
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


@pytest.mark.parametrize("patience", [0, 1, 5, 10])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_it_decays_when_reduce_lr_on_plateau_does(patience, threshold, seed):
    generator = np.random.default_rng(seed)
    losses = np.exp(-np.arange(600) / 150) + 0.05 * generator.random(600)
    losses[generator.integers(0, 600, 20)] = math.nan
    losses[generator.integers(0, 600, 20)] = math.inf
    rule = Plateau(patience, factor=0.9, threshold=threshold)
    assert gains(rule, losses.tolist()) == twin_gains(rule, losses.tolist())


@given(st.lists(st.floats(0, 100) | st.sampled_from([math.nan, math.inf]), max_size=60), st.integers(0, 4))
def test_it_decays_when_reduce_lr_on_plateau_does_whatever_the_losses(losses, patience):
    rule = Plateau(patience, factor=0.5)
    assert gains(rule, losses) == twin_gains(rule, losses)


@given(st.lists(st.floats(-100, 100), max_size=60), st.integers(0, 4))
def test_negative_losses_agree_too_when_the_threshold_is_0(losses, patience):
    rule = Plateau(patience, factor=0.5, threshold=0.0)
    assert gains(rule, losses) == twin_gains(rule, losses)


def test_a_negative_loss_must_fall_by_the_threshold_where_the_twin_lets_it_rise():
    # PyTorch's best × (1 − threshold) lies above a negative best: there a loss that creeps up counts as better.
    rule, creeping = Plateau(patience=2, threshold=0.1), [-10 * 0.95**k for k in range(20)]
    assert min(twin_gains(rule, creeping)) == 1.0
    assert gains(rule, creeping)[:4] == [1.0, 1.0, 1.0, 0.1]
    falling = [-10 * 1.2**k for k in range(20)]
    assert gains(rule, falling) == [1.0] * 20


def test_the_gain_stays_above_0_through_any_number_of_decays():
    # Thousands of epochs without improvement are no reason to stop a training with an error.
    assert min(gains(Plateau(patience=0), [1.0] * 2000)) > 0


def test_observations_without_a_validation_loss_change_nothing():
    rule = Plateau(patience=1)
    with_pauses = [loss for value in [3.0, 2.0, 2.0, 2.0, 1.0] for loss in (None, value, None)]
    assert gains(rule, with_pauses)[1::3] == gains(rule, [3.0, 2.0, 2.0, 2.0, 1.0])


def test_losses_that_are_not_finite_from_the_start_are_no_improvement_and_no_error():
    decision, _ = Plateau(patience=0).decide(Observation(1, 0.1, 0.1, 1.0, val_loss=math.nan), Plateau().start())
    assert decision.gain == 0.1
    assert decision.reason == "no finite loss yet in 1 observations"


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40), st.integers(0, 40))
def test_a_rule_goes_on_from_its_saved_state(losses, cut):
    rule = Plateau(patience=1, factor=0.5)
    state, gain, seen = rule.start(), 1.0, []
    for update, loss in enumerate(losses):
        if update == cut:
            state = json.loads(json.dumps(state, allow_nan=False))
        decision, state = rule.decide(Observation(update, 0.0, 0.1, gain, val_loss=loss), state)
        gain = decision.gain
        seen.append(gain)
    assert seen == gains(rule, losses)


def test_deciding_changes_no_state_in_place():
    rule = Plateau()
    state = rule.start()
    rule.decide(Observation(1, 0.1, 0.1, 1.0, val_loss=1.0), state)
    assert state == rule.start()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Plateau(patience=-1), r"`patience` is -1, but must satisfy patience >= 0\."),
        (lambda: Plateau(factor=1.0), r"`factor` is 1.0, but must satisfy 0 < factor < 1\."),
        (lambda: Plateau(threshold=1.0), r"`threshold` is 1.0, but must satisfy 0 <= threshold < 1\."),
    ],
)
def test_a_rule_out_of_bounds_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
