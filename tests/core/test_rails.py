"""Rails: whatever a controller wants, and whatever is observed, `Clamped` keeps the gain between its bounds."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope import Clamped, Controller, Decision, Observation, Plateau

ANY = st.floats(allow_nan=True, allow_infinity=True)
observations = st.builds(
    Observation,
    update=st.integers(0, 10**9),
    progress=st.floats(0, 1),
    rate=ANY,
    gain=ANY,
    train_losses=st.lists(ANY, max_size=3).map(tuple),
    val_loss=st.none() | ANY,
)


@dataclass(frozen=True)
class Wants(Controller):
    """Wants one gain, always, and counts how often it was asked."""

    wish: object = None

    def start(self):
        return {"asked": 0}

    def decide(self, observation, state):
        return Decision(self.wish, "a wish", (0.2, 0.3, 0.5)), {"asked": state["asked"] + 1}


@given(wish=ANY, low=st.floats(1e-6, 1), high=st.floats(1, 1e6), observation=observations)
def test_no_wish_leaves_the_rails(wish, low, high, observation):
    rails = Clamped(Wants(wish), low, high)
    decision, state = rails.decide(observation, rails.start())
    assert low <= decision.gain <= high
    if low <= wish <= high:
        assert decision == Decision(wish, "a wish", (0.2, 0.3, 0.5))
    assert decision.probabilities == (0.2, 0.3, 0.5)
    assert state == {"asked": 1}


@given(st.lists(observations, max_size=20))
def test_no_history_of_observations_leaves_the_rails(history):
    rails = Clamped(Plateau(patience=0), low=0.01, high=2.0)
    state = rails.start()
    for observation in history:
        decision, state = rails.decide(observation, state)
        assert 0.01 <= decision.gain <= 2.0


def test_a_wish_that_is_no_number_becomes_the_low_bound():
    rails = Clamped(Wants(math.nan), low=0.25, high=4.0)
    assert rails.decide(Observation(1, 0.1, 0.1, 1.0), rails.start())[0].gain == 0.25


def test_what_was_clamped_is_said():
    rails = Clamped(Wants(100.0), low=0.25, high=4.0)
    assert rails.decide(Observation(1, 0.1, 0.1, 1.0), rails.start())[0].reason == "a wish (clamped from 100)"


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_rails_that_are_none_are_refused(low, high):
    with pytest.raises(ValueError, match=r"`low, high` is .*, but must satisfy 0 < low <= high\."):
        Clamped(Plateau(), low, high)
