"""The closed loop: what a controller is shown, what its gain acts on, and what no controller can do."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope import Clamped, Controller, Decision, Plateau, Rex, parse_policy
from glideslope.torch import BudgetScheduler


@dataclass(frozen=True)
class Script(Controller):
    """Wants the scripted gains, one after another, and keeps what it was shown."""

    gains: tuple[object, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "shown", [])

    def start(self):
        return {"next": 0}

    def decide(self, observation, state):
        self.shown.append(observation)
        return Decision(self.gains[state["next"]], "as scripted"), {"next": state["next"] + 1}


def steered(controller, schedule="rex", lr=0.2, updates=10):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    return optimizer, BudgetScheduler(optimizer, schedule, f"{updates}ba", controller)


def test_the_gain_scales_the_rate_at_once_and_leaves_the_momentum():
    optimizer, scheduler = steered(Script((0.5,)), "one_cycle", lr=0.2)
    plain_optimizer, plain = steered(None, "one_cycle", lr=0.2)
    scheduler.observe(val_loss=1.0)
    for _ in range(12):
        mine, other = optimizer.param_groups[0], plain_optimizer.param_groups[0]
        assert mine["lr"] == other["lr"] * 0.5
        assert mine["momentum"] == other["momentum"]
        scheduler.step()
        plain.step()


def test_a_controller_on_a_profile_still_lands_at_zero():
    _, scheduler = steered(Script((3.0, 0.1)))
    scheduler.observe(val_loss=1.0)
    for _ in range(10):
        scheduler.step()
    scheduler.observe(val_loss=1.0)
    assert scheduler.get_last_lr() == [0.0]


def test_the_controller_is_shown_what_happened_since_the_observation_before():
    script = Script((0.5, 1.0, 2.0))
    _, scheduler = steered(script)
    scheduler.step(loss=torch.tensor(3.0, requires_grad=True))
    scheduler.step(loss=2.0)
    scheduler.observe(val_loss=torch.tensor(7.0))
    scheduler.step(loss=1.0)
    scheduler.step()
    scheduler.observe()
    scheduler.observe(val_loss=float("nan"))
    first, second, third = script.shown
    assert (first.update, first.progress, first.gain) == (2, 0.2, 1.0)
    assert (first.train_losses, first.val_loss) == ((3.0, 2.0), 7.0)
    assert first.rate == 0.2 * Rex()(0.2)
    assert (second.update, second.gain, second.train_losses, second.val_loss) == (4, 0.5, (1.0,), None)
    assert second.rate == 0.2 * Rex()(0.4) * 0.5
    assert third.train_losses == ()
    assert third.val_loss != third.val_loss
    assert all(type(loss) is float for loss in first.train_losses)


def test_a_loss_is_kept_detached_so_that_its_graph_is_freed():
    _, scheduler = steered(Script((1.0,)))
    weight = torch.ones(1, requires_grad=True)
    scheduler.step(loss=(2 * weight).sum())
    (kept,) = scheduler._unseen_losses
    assert kept.grad_fn is None
    assert not kept.requires_grad


def test_a_loss_is_read_only_when_a_controller_decides():
    class Unread(torch.Tensor):
        def __float__(self):
            raise AssertionError("read")

        item = __float__

    loss = torch.zeros(()).as_subclass(Unread)
    _, scheduler = steered(None)
    scheduler.step(loss=loss)
    _, scheduler = steered(Script((1.0,)))
    scheduler.step(loss=loss)
    with pytest.raises(AssertionError, match="read"):
        scheduler.observe()


def test_without_a_controller_losses_are_not_piled_up_and_nothing_is_decided():
    _, scheduler = steered(None)
    for _ in range(5):
        scheduler.step(loss=1.0)
    assert scheduler.state_dict()["unseen_losses"] == []
    assert scheduler.observe(val_loss=1.0) is None
    assert scheduler.decisions == []
    assert scheduler.gain == 1.0


def test_decisions_are_kept_in_order():
    _, scheduler = steered(Script((0.5, 0.25)))
    made = [scheduler.observe(val_loss=1.0), scheduler.observe(val_loss=1.0)]
    assert scheduler.decisions == made
    assert [decision.gain for decision in made] == [0.5, 0.25]
    assert scheduler.gain == 0.25


@pytest.mark.parametrize("gain", [float("nan"), float("inf"), -float("inf"), 0.0, -1.0])
def test_a_gain_that_is_none_is_refused_and_changes_nothing(gain):
    _, scheduler = steered(Script((0.5, gain)))
    scheduler.observe(val_loss=1.0)
    scheduler.step(loss=1.0)
    before = (scheduler.gain, scheduler.get_last_lr(), scheduler.decisions.copy())
    with pytest.raises(ValueError, match=r"`gain` is .*, but must satisfy 0 < gain < inf\."):
        scheduler.observe(val_loss=1.0)
    assert (scheduler.gain, scheduler.get_last_lr(), scheduler.decisions) == before
    assert before[0] == 0.5


@given(
    gains=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=15),
    losses=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=15, max_size=15),
)
def test_rails_bound_the_rate_by_base_times_the_highest_gain_times_the_profile(gains, losses):
    _, scheduler = steered(Clamped(Script(tuple(gains)), low=0.1, high=4.0), lr=0.2, updates=10)
    for update, loss in zip(range(len(gains)), losses, strict=False):
        scheduler.observe(val_loss=loss)
        profile = Rex()(min(update / 10, 1.0))
        # The product is rounded twice: an ulp or two on each side.
        assert 0.2 * 0.1 * profile * (1 - 1e-15) <= scheduler.get_last_lr()[0] <= 0.2 * 4.0 * profile * (1 + 1e-15)
        scheduler.step(loss=loss)


def test_a_policy_brings_its_controller_and_a_second_one_is_refused():
    optimizer, scheduler = steered(None, "constant | plateau(patience=0)")
    for _ in range(3):
        scheduler.observe(val_loss=1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * 0.01)
    with pytest.raises(ValueError, match=r"constant \| plateau brings its own controller; leave `controller` out"):
        steered(Plateau(), parse_policy("constant | plateau"))


def test_a_controller_without_a_name_cannot_be_saved_and_the_error_says_how_it_could():
    with pytest.raises(TypeError, match=r"a Script has no JSON form\. Give its class a name with `@registered"):
        steered(Script((1.0,)))[1].state_dict()
