"""The meter: observed spending in, progress out; never beyond 1, never backwards, position apart from budget."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glideslope import Epochs, Meter, Samples, Steps, Tokens, WallClock


class Clock:
    """A clock that stands where it is told to."""

    def __init__(self, now=1000.0):
        self.now = now

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_800_000_000.0 + self.now


def test_each_budget_counts_its_own_unit():
    meters = {Meter(budget): share for budget, share in {
        Steps(4): 2 / 4, Samples(100): 64 / 100, Tokens(1000): 600 / 1000, Epochs(2, updates_per_epoch=5): 2 / 10
    }.items()}  # fmt: skip
    for meter, share in meters.items():
        for _ in range(2):
            meter.advance(samples=32, tokens=300)
        assert meter.progress == share
        assert meter.updates == 2
        assert not meter.exhausted


def test_progress_stops_at_1_when_the_last_batch_overshoots():
    meter = Meter(Samples(100))
    for _ in range(4):
        meter.advance(samples=32)
    assert (meter.spent, meter.progress, meter.exhausted) == (128, 1.0, True)


def test_a_budget_is_exhausted_by_its_last_update_and_not_before():
    meter = Meter(Steps(3))
    seen = []
    for _ in range(4):
        seen.append((meter.progress, meter.exhausted))
        meter.advance()
    assert seen == [(0.0, False), (1 / 3, False), (2 / 3, False), (1.0, True)]


def test_what_is_spent_cannot_be_given_back():
    with pytest.raises(ValueError, match=r"`samples` is -1, but must satisfy samples >= 0\."):
        Meter(Samples(10)).advance(samples=-1)


def test_amounts_counted_by_any_library_leave_a_state_of_json_types():
    meter = Meter(Tokens(10))
    meter.advance(np.int64(1), samples=np.int32(2), tokens=np.int64(5))
    position = json.loads(json.dumps(meter.state_dict()))["position"]
    assert [position[name] for name in ("updates", "samples", "tokens")] == [1, 2, 5]


def test_wall_clock_counts_from_construction_whatever_the_clock_shows():
    clock = Clock(now=1e6)
    meter = Meter(WallClock(seconds=10), clock)
    assert meter.progress == 0
    clock.now += 4
    assert (meter.progress, meter.exhausted) == (0.4, False)
    clock.now += 6
    assert (meter.progress, meter.exhausted) == (1.0, True)


@given(st.lists(st.floats(-100, 100), max_size=30))
def test_progress_never_goes_back_however_the_clock_jumps(jumps):
    clock = Clock()
    meter = Meter(WallClock(seconds=50), clock)
    seen = []
    for jump in jumps:
        clock.now += jump
        seen.append(meter.progress)
    assert seen == sorted(seen)
    assert all(0 <= share <= 1 for share in seen)


def test_only_time_running_counts_over_a_break():
    clock = Clock()
    first = Meter(WallClock(seconds=10), clock)
    clock.now += 3
    state = first.state_dict()
    clock.now += 1000
    second = Meter(WallClock(seconds=10), clock)
    second.load_state_dict(json.loads(json.dumps(state)))
    assert second.progress == 0.3
    clock.now += 2
    assert second.progress == 0.5


@pytest.mark.parametrize("budget", [Steps(7), Samples(70), Tokens(700), Epochs(0.7, updates_per_epoch=10)], ids=str)
def test_the_saved_position_is_all_a_meter_needs_and_holds_no_budget(budget):
    meter, other = Meter(budget), Meter(budget)
    for _ in range(3):
        meter.advance(samples=10, tokens=100)
    state = json.loads(json.dumps(meter.state_dict()))
    assert str(budget) not in json.dumps(state["position"])
    other.load_state_dict(state)
    assert other.progress == meter.progress == 3 / 7


def test_a_state_loaded_in_a_pause_is_what_counts_on():
    clock = Clock()
    meter = Meter(WallClock(10), clock)
    clock.now += 7
    saved = meter.state_dict()
    resumed = Meter(WallClock(10), clock)
    with resumed.paused():
        resumed.load_state_dict(saved)
        clock.now += 100
    clock.now += 1
    assert resumed.spent == 8
