"""Early stopping: only what is seen where the rate has landed counts."""

import json
import math

import pytest

from glideslope import (
    Constant,
    Cosine,
    Cycles,
    EarlyStopping,
    InversePower,
    Linear,
    Scaled,
    Schedule,
    Sequence,
    Truncated,
    one_cycle,
)


class TestLandings:
    @pytest.mark.parametrize(
        ("schedule", "landings"),
        [
            (Linear(), (1.0,)),
            (Cycles(Cosine(), period=0.25), (0.25, 0.5, 0.75, 1.0)),
            (Cycles(Cosine(), period=0.4), (0.4, 0.8, 1.0)),
            (Cycles(Cosine(), period=1 / 7, multiplier=2), (1 / 7, 3 / 7, 1.0)),
            (Schedule(Cycles(Cosine(), period=0.5), warmup=0.1, delay=0.1), (0.6, 1.0)),
            (Sequence((Constant(), Cycles(Cosine(), period=0.5)), at=(0.2,)), (0.6, 1.0)),
            (Truncated(Cycles(Cosine(), period=0.25), of=2.0), (0.5, 1.0)),
            (Scaled(Cycles(Cosine(), period=0.25), 0.5), (0.25, 0.5, 0.75, 1.0)),
            (InversePower(0.5, horizon_ratio=8), (1.0,)),
        ],
    )
    def test_they_are_where_the_rate_is_about_to_rise_again(self, schedule, landings):
        assert schedule.landings == pytest.approx(landings, rel=1e-12)

    def test_the_rate_is_lowest_just_before_each(self):
        schedule = Cycles(Cosine(), period=0.1, multiplier=1.7)
        for landing in schedule.landings[:-1]:
            assert schedule(landing - 1e-6) < 1e-6 < schedule(landing + 1e-6)


def test_patience_is_counted_in_cycles_not_in_observations():
    stopping = EarlyStopping(Cycles(Cosine(), period=0.25), patience=1)
    # Falls within each cycle, and its ends rise: 1.0, 1.1, 1.2. Each restart throws the loss up.
    verdicts = {}
    for step in range(1, 101):
        progress = step / 100
        within = (step - 1) % 25 / 24
        verdicts[step] = stopping.observe(progress, val_loss=1.0 + 0.1 * ((step - 1) // 25) + 5 * (1 - within))
    assert [step for step, stop in verdicts.items() if stop] == list(range(75, 101))
    assert stopping.best == 1.0


def test_it_is_due_once_a_landing_even_if_the_landing_was_missed():
    stopping = EarlyStopping("cycles(linear, period=0.25)")
    assert not stopping.due(0.24)
    assert stopping.due(0.25)
    assert stopping.due(0.31)
    stopping.observe(0.31, 1.0)
    assert not stopping.due(0.49)
    assert stopping.due(0.75)
    stopping.observe(0.75, 1.0)  # two landings at once are one observation
    assert not stopping.due(0.76)


@pytest.mark.parametrize("updates", [3, 7, 391, 10_007])
def test_it_is_due_at_the_very_update_of_a_restart(updates):
    schedule = Cycles.evenly(Cosine(), restarts=2)
    stopping = EarlyStopping(schedule)
    due = [k for k in range(1, updates + 1) if stopping.due(k / updates) and not stopping.observe(k / updates, -k)]
    assert due == [math.ceil(updates / 3), math.ceil(2 * updates / 3), updates]


def test_without_cycles_every_observation_counts():
    stopping = EarlyStopping(patience=1)
    assert [stopping.observe(0.1 * k, loss) for k, loss in enumerate([3.0, 2.0, 2.5, 1.9, math.nan, 2.0])] == [
        False,
        False,
        False,
        False,
        False,
        True,
    ]


def test_a_small_improvement_may_be_none():
    stopping = EarlyStopping(patience=0, min_improvement=0.1)
    assert not stopping.observe(0.1, 1.0)
    assert stopping.observe(0.2, 0.95)


def test_its_state_goes_through_json():
    whole, resumed = EarlyStopping("cycles(cosine, period=0.25)", 0), EarlyStopping("cycles(cosine, period=0.25)", 0)
    for stopping in (whole, resumed):
        stopping.load_state_dict(json.loads(json.dumps(EarlyStopping().state_dict(), allow_nan=False)))
    whole.observe(0.25, 1.0)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert [resumed.due(0.3), resumed.best, resumed.observe(0.5, 2.0)] == [False, 1.0, True]


def test_a_plan_counts_the_landings_of_its_rate():
    stopping = EarlyStopping(one_cycle())
    assert not stopping.due(0.9)
    assert stopping.due(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"patience": -1}, "patience >= 0"), ({"min_improvement": -1.0}, "min_improvement")]
)
def test_mistakes(arguments, message):
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**arguments)
