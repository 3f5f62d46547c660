"""Rebudget: the budget changes in mid-run, and progress goes on as the policy says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glideslope import BudgetExhausted, Cycles, Deadline, Epochs, Linear, Rex, Steps, WallClock, one_cycle
from glideslope.torch import BudgetMismatch, BudgetScheduler, Clock


class FakeClock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 1_800_000_000.0 + self.now


def sgd(lr=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def run(scheduler, updates):
    for _ in range(updates):
        scheduler.optimizer.step()
        scheduler.step()


def rate(scheduler):
    return scheduler.get_last_lr()[0]


@given(spent=st.integers(0, 99), total=st.integers(1, 400))
def test_continuous_keeps_progress_and_runs_on_to_the_new_end(spent, total):
    scheduler = BudgetScheduler(sgd(), "linear", Steps(100))
    run(scheduler, spent)
    before = scheduler.progress
    scheduler.rebudget(Steps(total))
    if total <= spent:
        assert scheduler.exhausted
        assert scheduler.progress == 1.0
        assert rate(scheduler) == 0.0
        return
    assert scheduler.progress == before
    run(scheduler, 1)
    assert scheduler.progress == pytest.approx(before + (1 - before) / (total - spent), rel=1e-12)
    run(scheduler, total - spent - 1)
    assert scheduler.exhausted
    assert rate(scheduler) == 0.0


@pytest.mark.parametrize("schedule", [Rex(), Cycles.evenly(Rex(), 3), one_cycle()], ids=str)
def test_continuous_makes_nothing_jump_cycles_and_momentum_included(schedule):
    scheduler = BudgetScheduler(sgd(), schedule, Steps(1000))
    run(scheduler, 333)
    group = scheduler.optimizer.param_groups[0]
    before = group["lr"], group["momentum"]
    scheduler.rebudget("5000ba")
    assert (group["lr"], group["momentum"]) == pytest.approx(before, rel=1e-12)


def test_rescale_is_as_if_the_new_budget_had_always_been():
    scheduler, other = BudgetScheduler(sgd(), "rex", Steps(100)), BudgetScheduler(sgd(), "rex", Steps(400))
    run(scheduler, 50)
    scheduler.rebudget(Steps(400), policy="rescale")
    run(other, 50)
    for _ in range(400):
        assert rate(scheduler) == rate(other)
        run(scheduler, 1)
        run(other, 1)


def test_keep_runs_the_old_curve_then_holds_until_the_new_end():
    scheduler, other = (
        BudgetScheduler(sgd(), "exponential", Steps(10)),
        BudgetScheduler(sgd(), "exponential", Steps(10)),
    )
    run(scheduler, 4)
    run(other, 4)
    scheduler.rebudget(Steps(15), policy="keep")
    for update in range(4, 15):
        assert not scheduler.exhausted
        assert rate(scheduler) == rate(other)
        assert scheduler.progress == min(update / 10, 1.0)
        run(scheduler, 1)
        run(other, 1)
    assert scheduler.exhausted


def test_an_exhausted_run_raises_and_names_rewarm_which_goes_on():
    scheduler = BudgetScheduler(sgd(), "linear", Steps(10))
    run(scheduler, 12)
    with pytest.raises(BudgetExhausted, match=r"rewarm\('30ba', from_progress=0\.5\)"):
        scheduler.rebudget(Steps(30))
    scheduler.rewarm(Steps(32), from_progress=0.5)
    assert rate(scheduler) == 0.5
    run(scheduler, 10)
    assert rate(scheduler) == 0.25
    run(scheduler, 10)
    assert scheduler.exhausted
    assert rate(scheduler) == 0.0


def test_the_unit_may_change_from_updates_to_minutes():
    clock = FakeClock()
    scheduler = BudgetScheduler(sgd(), "linear", Steps(100), clock=clock)
    clock.now = 60.0
    run(scheduler, 50)
    scheduler.rebudget("3min")
    assert scheduler.progress == 0.5
    clock.now = 120.0
    run(scheduler, 1)
    assert scheduler.progress == 0.75
    assert rate(scheduler) == 0.25
    clock.now = 180.0
    run(scheduler, 1)
    assert scheduler.exhausted


def test_a_changed_budget_survives_saving_and_another_is_refused():
    scheduler = BudgetScheduler(sgd(), "linear", Steps(100))
    run(scheduler, 50)
    scheduler.rebudget(Steps(200))
    run(scheduler, 50)
    resumed = BudgetScheduler(sgd(), "linear", Steps(200))
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.progress == scheduler.progress == 2 / 3
    with pytest.raises(BudgetMismatch, match=r"rebudget\('100ba', policy=\"continuous\"\)"):
        BudgetScheduler(sgd(), "linear", Steps(100)).load_state_dict(scheduler.state_dict())


def test_an_unknown_policy_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Did you mean 'continuous'\? Known: continuous, keep, rescale"):
        BudgetScheduler(sgd(), "linear", Steps(10)).rebudget(Steps(20), policy="continous")


def test_a_pause_does_not_count_for_wall_clock_but_does_for_a_deadline():
    clock = FakeClock()
    running = BudgetScheduler(sgd(), "linear", WallClock(seconds=100), clock=clock)
    moment = BudgetScheduler(sgd(), "linear", Deadline(clock.wall() + 100), clock=clock)
    clock.now = 20.0
    with running.paused(), moment.paused():
        clock.now = 50.0
        assert running.progress == 0.2
        with running.paused():
            clock.now = 60.0
    assert (running.progress, moment.progress) == (0.2, 0.6)
    clock.now = 70.0
    assert (running.progress, moment.progress) == (0.3, 0.7)


def test_downtime_counts_for_a_deadline_alone():
    clock = FakeClock()
    budgets = WallClock(seconds=100), Deadline(clock.wall() + 100)
    first = [BudgetScheduler(sgd(), "linear", budget, clock=clock) for budget in budgets]
    clock.now = 10.0
    states = [scheduler.state_dict() for scheduler in first]
    clock.now = 60.0
    resumed = [BudgetScheduler(sgd(), "linear", budget, clock=clock) for budget in budgets]
    for scheduler, state in zip(resumed, states, strict=True):
        scheduler.load_state_dict(state)
    assert [scheduler.progress for scheduler in resumed] == [0.1, 0.6]


def test_a_reserve_is_kept_back_for_what_comes_after():
    clock = FakeClock()
    scheduler = BudgetScheduler(sgd(), "linear", "2min reserve 20sec", clock=clock)
    clock.now = 50.0
    assert scheduler.progress == 0.5
    clock.now = 100.0
    assert scheduler.exhausted


def test_a_run_ends_within_one_update_of_its_deadline_whatever_updates_take():
    clock = FakeClock()
    scheduler = BudgetScheduler(sgd(), Linear(), "10sec", clock=clock)
    seconds = iter([0.5, 3.0, 0.1, 2.2, 4.0, 1.0, 1.0, 1.0])
    last = 0.0
    while not scheduler.exhausted:
        last = next(seconds)
        clock.now += last
        run(scheduler, 1)
    assert 0 <= clock.now - 10 < last
    assert rate(scheduler) == 0.0


def test_a_budget_in_epochs_learns_their_length_and_says_so(caplog):
    scheduler = BudgetScheduler(sgd(), "linear", "4ep")
    with caplog.at_level("INFO", logger="glideslope"):
        run(scheduler, 7)
        assert (scheduler.progress, scheduler.exhausted) == (0.0, False)
        scheduler.end_epoch()
    assert "an epoch has 7 updates: the budget is 4ep*7ba" in caplog.text
    assert scheduler.budget == Epochs(4, updates_per_epoch=7)
    assert scheduler.progress == 0.25
    run(scheduler, 7)
    scheduler.end_epoch()
    assert scheduler.progress == 0.5
    resumed = BudgetScheduler(sgd(), "linear", "4ep")
    resumed.load_state_dict(scheduler.state_dict())
    run(resumed, 14)
    assert resumed.exhausted


def test_no_drift_over_a_hundred_million_updates():
    scheduler = BudgetScheduler(sgd(), "linear", Steps(10**8))
    for position in (1, 12_345_678, 99_999_998, 99_999_999):
        scheduler._meter.amounts["updates"] = position - 1
        run(scheduler, 1)
        assert abs(rate(scheduler) - (10**8 - position) / 10**8) <= 2.3e-16


def test_the_clock_is_the_systems_own_unless_injected():
    assert BudgetScheduler(sgd(), "rex", "45h").progress < 1e-3
    assert isinstance(Clock().wall(), float)
