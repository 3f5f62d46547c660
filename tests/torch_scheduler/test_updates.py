"""Updates: what counts is what the optimizer did."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch.optim.lr_scheduler import SequentialLR

from glideslope import Linear, Plan, Relative, Steps
from glideslope.torch import BudgetScheduler


def weight():
    return torch.nn.Parameter(torch.zeros(1))


def sgd(lr=1.0, **settings):
    return torch.optim.SGD([weight()], lr=lr, **settings)


def test_calls_beyond_the_updates_count_nothing():
    optimizer = sgd()
    scheduler = BudgetScheduler(optimizer, "linear", Steps(10))
    for _ in range(5):
        optimizer.step()
        for _ in range(4):  # Accelerate calls once per process
            scheduler.step()
    assert scheduler.last_epoch == 5
    assert scheduler.get_last_lr() == [0.5]


def test_several_updates_between_two_calls_all_count():
    optimizer = sgd()
    scheduler = BudgetScheduler(optimizer, "linear", Steps(10))
    for _ in range(6):
        optimizer.step()
    scheduler.step()
    assert scheduler.progress == 0.6


def test_without_any_update_reported_calls_count():
    scheduler = BudgetScheduler(sgd(), "linear", Steps(4))
    rates = []
    while not scheduler.exhausted:
        rates += scheduler.get_last_lr()
        scheduler.step()
    assert rates == [1.0, 0.75, 0.5, 0.25]


def test_accumulation_needs_nothing():
    for schedule in ("linear", "linear | plateau"):  # the short path and the long one
        optimizer = sgd()
        rates = []
        optimizer.register_step_post_hook(lambda stepped, *_, rates=rates: rates.append(stepped.param_groups[0]["lr"]))
        scheduler = BudgetScheduler(optimizer, schedule, Steps(4))
        for micro_batch in range(16):
            if micro_batch % 4 == 3:
                optimizer.step()
            scheduler.step()
            if micro_batch == 1:
                assert scheduler.last_epoch == 2  # nothing reported yet: calls count, and are taken back in time
        assert rates == [1.0, 0.75, 0.5, 0.25]
        assert scheduler.last_epoch == 4


def test_steps_skipped_before_the_first_update_are_taken_back():
    optimizer = sgd()
    scheduler = BudgetScheduler(optimizer, "linear", Steps(10))
    for _ in range(3):
        scheduler.step()  # GradScaler starts high and skips
    updates = 0
    while not scheduler.exhausted:
        optimizer.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1 - updates / 10)
        scheduler.step()
        updates += 1
    assert updates == 10


@pytest.mark.parametrize("schedule", ["rex", "one_cycle | plateau"])
def test_a_copy_and_a_pickle_are_runs_of_their_own(schedule):
    optimizer = sgd(momentum=0.9)
    scheduler = BudgetScheduler(optimizer, schedule, Steps(10))
    optimizer.step()
    scheduler.step()
    before = scheduler.get_last_lr()
    for twin in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        assert twin.optimizer is not optimizer
        for _ in range(3):
            twin.optimizer.step()
            twin.step()
        assert (twin.last_epoch, scheduler.last_epoch) == (4, 1)
        assert scheduler.get_last_lr() == before


def test_a_step_skipped_by_amp_is_no_update():
    optimizer = sgd(fused=True)
    scheduler = BudgetScheduler(optimizer, "linear", Steps(10))
    optimizer.param_groups[0]["params"][0].grad = torch.ones(1)
    for overflow in (0.0, 1.0, 0.0):
        optimizer.grad_scale, optimizer.found_inf = None, torch.tensor(overflow)
        optimizer.step()
        scheduler.step()
    assert scheduler.last_epoch == 2


def test_an_optimizer_that_calls_its_parent_makes_one_update():
    class Child(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    sgd()  # so that the parent's step is hooked as well
    optimizer = Child([weight()], lr=1.0)
    scheduler = BudgetScheduler(optimizer, "linear", Steps(10))
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    assert scheduler.last_epoch == 3


def test_a_step_that_fails_is_no_update_and_harms_no_count():
    optimizer = sgd()
    scheduler = BudgetScheduler(optimizer, "linear", Steps(10))
    optimizer.step()

    def fail():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        optimizer.step(fail)
    optimizer.step()
    scheduler.step()
    assert scheduler.last_epoch == 2


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}])
def test_a_group_added_later_follows_from_its_own_rate(settings):
    optimizer = sgd(lr=1.0, **settings)
    scheduler = BudgetScheduler(optimizer, "linear", Steps(10))
    in_force = []
    optimizer.register_step_post_hook(lambda *_: in_force.append(scheduler.get_last_lr()))
    for update in range(10):
        if update == 4:
            optimizer.add_param_group({"params": [weight()], "lr": 0.1})
        optimizer.step()
        scheduler.step()
        left = 1 - update / 10
        assert in_force[-1] == pytest.approx([left, 0.1 * left] if update >= 4 else [left], abs=1e-15)
    assert scheduler.get_last_lr() == [0.0, 0.0]


def test_each_group_may_have_a_schedule_of_its_own():
    optimizer = torch.optim.SGD([{"params": [weight()], "lr": 1.0}, {"params": [weight()], "lr": 0.5}], lr=1.0)
    scheduler = BudgetScheduler(optimizer, ["linear", "constant"], Steps(4))
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.75, 0.5]
    with pytest.raises(ValueError, match="3 schedules for 2 parameter groups"):
        BudgetScheduler(optimizer, ["linear"] * 3, Steps(4))


def test_any_numeric_key_of_a_group_can_be_scheduled():
    optimizer = torch.optim.AdamW([weight()], lr=1e-3, weight_decay=0.1)
    scheduler = BudgetScheduler(optimizer, "plan(lr=rex, weight_decay=linear)", Steps(4))
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.075)


def test_tensor_rates_are_filled_in_place():
    rate = torch.tensor(0.5)
    optimizer = torch.optim.Adam([weight()], lr=rate, capturable=False, foreach=False)
    scheduler = BudgetScheduler(optimizer, "linear", Steps(4))
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == 0.375


def test_a_rate_loaded_with_the_optimizer_alone_gives_way_to_the_schedules():
    other = sgd(lr=1.0)
    other.param_groups[0]["lr"] = 1e-9  # another run's last rate
    optimizer = sgd(lr=1.0)
    scheduler = BudgetScheduler(optimizer, "linear", Steps(4))
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    assert scheduler.get_last_lr() == [1.0]


def test_sequential_lr_around_it_is_refused_with_the_way_out():
    optimizer = sgd()
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer)
    with pytest.raises(TypeError, match="Put the schedules together instead of the schedulers"):
        SequentialLR(optimizer, [warmup, BudgetScheduler(optimizer, Linear(), Steps(10))], milestones=[2])


def test_two_optimizers_count_their_own_updates():
    players = {name: torch.nn.Parameter(torch.ones(1)) for name in ("generator", "critic")}
    optimizers = {name: torch.optim.Adam([weight], lr=1.0) for name, weight in players.items()}
    generator = BudgetScheduler(optimizers["generator"], "linear", "10ba")
    critic = BudgetScheduler(optimizers["critic"], "rex", "50ba")
    while not generator.exhausted:
        assert critic.last_epoch == 5 * generator.last_epoch
        for _ in range(5):
            optimizers["critic"].step()
            critic.step()
        optimizers["generator"].step()
        generator.step()
    assert critic.exhausted
    assert generator.last_epoch == 10


def test_two_schedulers_on_one_optimizer_share_its_updates():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    rates = BudgetScheduler(optimizer, "linear", "4ba")
    momenta = BudgetScheduler(optimizer, Plan({"momentum": Relative(Linear())}), "8ba")
    for _ in range(4):
        optimizer.step()
        rates.step()
        momenta.step()
    assert (rates.exhausted, momenta.progress) == (True, 0.5)
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.45)


def test_a_scheduler_that_was_dropped_leaves_its_optimizer_alone():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    dropped = BudgetScheduler(optimizer, "linear", "4ba")
    for _ in range(2):
        optimizer.step()
        dropped.step()
    gone = weakref.ref(dropped)
    del dropped
    gc.collect()
    assert gone() is None
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 0.123
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.123
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_load_state_dict_post_hooks
