"""Clock: a wall-clock budget lands when its time is up, by a fake clock, with jitter, never backwards."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope import Linear, Plan, Preamble, Steps, WallClock
from glideslope.torch import BudgetScheduler


class Clock:
    def __init__(self):
        self.now = 5000.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_800_000_000.0 + self.now


def scheduled(clock, plan="linear", budget="10sec"):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return BudgetScheduler(optimizer, plan, budget, clock=clock)


def test_the_rate_lands_when_the_time_is_up_however_long_an_update_takes():
    clock = Clock()
    scheduler = scheduled(clock)
    for seconds, rate in ((1.0, 0.9), (0.0, 0.9), (4.0, 0.5), (2.5, 0.25), (7.0, 0.0), (50.0, 0.0)):
        clock.now += seconds
        scheduler.step()
        assert scheduler.get_last_lr() == [pytest.approx(rate, abs=1e-12)]
    assert scheduler.exhausted


def test_the_rate_has_landed_when_the_loop_sees_that_time_is_up():
    clock = Clock()
    scheduler = scheduled(clock)
    clock.now += 9.9
    scheduler.step()
    assert not scheduler.exhausted
    clock.now += 0.2  # between `step` and the question
    assert scheduler.exhausted
    assert scheduler.get_last_lr() == [0.0]


@given(st.lists(st.floats(-5, 5), max_size=40))
def test_a_decay_never_rises_however_the_clock_jumps(jumps):
    clock = Clock()
    scheduler = scheduled(clock)
    rates = [scheduler.get_last_lr()[0]]
    for jump in jumps:
        clock.now += jump
        scheduler.step()
        rates += scheduler.get_last_lr()
    assert rates == sorted(rates, reverse=True)
    assert min(rates) >= 0


def test_a_break_costs_no_time():
    clock = Clock()
    scheduler = scheduled(clock)
    clock.now += 4
    scheduler.step()
    state = json.loads(json.dumps(scheduler.state_dict()))
    clock.now += 3600
    resumed = scheduled(clock)
    resumed.load_state_dict(state)
    assert resumed.progress == 0.4
    assert resumed.get_last_lr() == scheduler.get_last_lr()
    clock.now += 1
    assert resumed.progress == 0.5


def test_the_preamble_costs_the_budget_no_time():
    clock = Clock()
    scheduler = scheduled(clock, Plan({"lr": Linear()}, Preamble(Steps(3), 0.0, 0.5)))
    for _ in range(3):
        assert scheduler.progress == 0
        clock.now += 100
        scheduler.step()
    assert (scheduler.progress, scheduler.exhausted, scheduler.get_last_lr()) == (0.0, False, [1.0])
    clock.now += 5
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5]


@pytest.mark.parametrize("budget", ["4ba", "20sec"])
def test_the_update_that_begins_in_a_preamble_by_the_clock_is_not_the_budgets(budget):
    clock = Clock()
    scheduler = scheduled(clock, Plan({"lr": Linear()}, Preamble(WallClock(10), 0.0, 0.5)), budget)
    rates = []
    for _ in range(5):
        rates += scheduler.get_last_lr()
        clock.now += 5
        scheduler.step()
    assert rates == [0.0, 0.25, 1.0, 0.75, 0.5]


def test_the_clock_is_saved_in_the_middle_of_a_preamble():
    clock = Clock()
    plan = Plan({"lr": Linear()}, Preamble(WallClock(10), 0.0, 0.5))
    scheduler = scheduled(clock, plan)
    clock.now += 4
    scheduler.step()
    state = json.loads(json.dumps(scheduler.state_dict()))
    clock.now += 1000
    resumed = scheduled(clock, plan)
    resumed.load_state_dict(state)
    assert resumed.get_last_lr() == scheduler.get_last_lr() == [0.2]
    assert resumed.progress == 0
