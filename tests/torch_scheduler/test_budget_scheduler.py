"""BudgetScheduler: a drop-in LRScheduler that writes the closed form into the groups and owns its base values."""

import json

import pytest
import torch

from glideslope import Absolute, Epochs, Linear, Plan, Preamble, Relative, Rex, Samples, Steps, Tokens, one_cycle
from glideslope.torch import SGDW, BudgetMismatch, BudgetScheduler, Clock

STOPPED = Clock(monotonic=lambda: 0.0, wall=lambda: 0.0)


def weight(size=1):
    return torch.nn.Parameter(torch.zeros(size))


def sgd(lr=0.1, momentum=0.9):
    return torch.optim.SGD([weight()], lr=lr, momentum=momentum)


def test_it_is_an_lr_scheduler_that_leaves_the_optimizer_alone():
    optimizer = sgd()
    step = optimizer.step
    scheduler = BudgetScheduler(optimizer, "rex", "10ba")
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert optimizer.step == step
    assert not hasattr(optimizer.step, "_wrapped_by_lr_sched")
    assert scheduler.optimizer is optimizer


def test_it_has_no_total_steps_which_accelerate_would_act_on():
    assert not hasattr(BudgetScheduler(sgd(), "rex", "10ba"), "total_steps")


def test_stepping_before_the_optimizer_warns_of_nothing():
    scheduler = BudgetScheduler(sgd(), "rex", "10ba")
    scheduler.step()
    scheduler.step()
    assert scheduler.last_epoch == 2


@pytest.mark.parametrize("name", ["progress", "exhausted", "gain", "base_lrs", "budget", "plan"])
def test_what_is_counted_cannot_be_set(name):
    with pytest.raises(AttributeError):
        setattr(BudgetScheduler(sgd(), "rex", "10ba"), name, 1)


def test_update_k_of_n_runs_at_the_rate_of_k_over_n():
    optimizer = sgd(lr=0.3)
    scheduler = BudgetScheduler(optimizer, Rex(), Steps(10))
    for update in range(10):
        assert scheduler.progress == update / 10
        assert not scheduler.exhausted
        assert optimizer.param_groups[0]["lr"] == 0.3 * Rex()(update / 10)
        assert scheduler.get_last_lr() == scheduler.get_lr() == [optimizer.param_groups[0]["lr"]]
        scheduler.step()
    assert scheduler.exhausted
    assert scheduler.progress == 1.0
    assert scheduler.get_last_lr() == [0.0]


def test_each_group_keeps_its_own_base_rate():
    optimizer = torch.optim.SGD([{"params": [weight()], "lr": 0.1}, {"params": [weight()], "lr": 0.01}], lr=1.0)
    scheduler = BudgetScheduler(optimizer, "linear", "4ba")
    assert scheduler.base_lrs == [0.1, 0.01]
    scheduler.step()
    assert scheduler.get_last_lr() == [0.1 * 0.75, 0.01 * 0.75]


def test_base_values_are_the_schedulers_own():
    optimizer = sgd(lr=0.1)
    scheduler = BudgetScheduler(optimizer, "linear", "4ba")
    optimizer.param_groups[0]["lr"] = 99.0
    optimizer.param_groups[0]["initial_lr"] = 99.0
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.1 * 0.75


def test_the_initial_rate_that_other_schedulers_left_is_the_base():
    optimizer = sgd(lr=0.1)
    BudgetScheduler(optimizer, "linear", "4ba").step()
    assert BudgetScheduler(optimizer, "linear", "4ba").base_lrs == [0.1]


def test_momentum_means_momentum_for_sgd():
    optimizer = sgd()
    scheduler = BudgetScheduler(optimizer, one_cycle(), "4ba")
    seen = []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["momentum"])
        scheduler.step()
    assert seen == pytest.approx([0.95, 0.9, 0.85, 0.9, 0.95], rel=1e-15)


@pytest.mark.parametrize("cls", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam])
def test_momentum_means_beta_1_for_adam_and_leaves_beta_2(cls):
    optimizer = cls([weight()], lr=0.1, betas=(0.9, 0.98))
    scheduler = BudgetScheduler(optimizer, "one_cycle", "4ba")
    seen = []
    for _ in range(5):
        seen.append(optimizer.param_groups[0]["betas"])
        scheduler.step()
    assert [first for first, _ in seen] == pytest.approx([0.95, 0.9, 0.85, 0.9, 0.95], rel=1e-15)
    assert {second for _, second in seen} == {0.98}
    assert "momentum" not in optimizer.param_groups[0]


def test_any_number_of_a_group_can_follow_a_schedule():
    optimizer = torch.optim.AdamW([weight()], lr=0.1, weight_decay=0.05)
    plan = Plan({"lr": Linear(), "weight_decay": Relative(Linear()), "eps": Absolute(Linear(), 1e-8, 1e-6)})
    scheduler = BudgetScheduler(optimizer, plan, "2ba")
    scheduler.step()
    group = optimizer.param_groups[0]
    assert group["weight_decay"] == 0.025
    assert group["eps"] == pytest.approx(5.05e-7)


def test_a_plan_without_the_rate_leaves_the_rate():
    optimizer = sgd(lr=0.1)
    scheduler = BudgetScheduler(optimizer, Plan({"momentum": Absolute(Linear(), 0.5, 0.9)}), "2ba")
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert scheduler.get_last_lr() == [0.1]
    assert optimizer.param_groups[0]["momentum"] == pytest.approx(0.7)


def test_a_tensor_rate_is_filled_in_place():
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam([weight()], lr=rate, capturable=False, foreach=False)
    scheduler = BudgetScheduler(optimizer, "linear", "4ba")
    for update in range(1, 5):
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] is rate
        assert rate.item() == pytest.approx(0.1 * (1 - update / 4), rel=1e-6)
    assert scheduler.base_lrs == [pytest.approx(0.1)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("momentun", r"unknown hyperparameter of this optimizer 'momentun'\. Did you mean 'momentum'\?"),
        ("weightdecay", r"unknown .* 'weightdecay'\. Did you mean 'weight_decay'\? Known: .*lr.*momentum"),
        ("nesterov", r"unknown hyperparameter of this optimizer 'nesterov'"),
        ("params", r"unknown hyperparameter of this optimizer 'params'"),
        ("initial_lr", r"unknown hyperparameter of this optimizer 'initial_lr'"),
    ],
)
def test_a_hyperparameter_that_the_optimizer_lacks_is_named(name, message):
    for optimizer in (sgd(), torch.optim.Adam([weight()])):
        with pytest.raises(ValueError, match=r"unknown hyperparameter of this optimizer"):
            BudgetScheduler(optimizer, Plan({name: Linear()}), "4ba")
    with pytest.raises(ValueError, match=message):
        BudgetScheduler(sgd(), Plan({name: Linear()}), "4ba")


def test_momentum_of_an_optimizer_without_any_is_refused():
    with pytest.raises(ValueError, match=r"unknown hyperparameter of this optimizer 'momentum'"):
        BudgetScheduler(torch.optim.Adagrad([weight()]), one_cycle(), "4ba")


def test_the_position_is_counted_and_not_set():
    with pytest.raises(ValueError, match=r"step\(epoch=3\): the position in the budget is counted, not set\."):
        BudgetScheduler(sgd(), "rex", "10ba").step(3)


@pytest.mark.parametrize(("budget", "amount"), [(Samples(64), "samples"), (Tokens(64), "tokens")])
def test_a_budget_in_samples_or_tokens_is_told_them(budget, amount):
    scheduler = BudgetScheduler(sgd(), "linear", budget)
    with pytest.raises(ValueError, match=rf"counts {amount}: call step\({amount}=…\)"):
        scheduler.step()
    assert scheduler.progress == 0
    scheduler.step(**{amount: 16})
    assert scheduler.progress == 0.25
    scheduler.step(**{amount: torch.tensor(16)})
    assert scheduler.progress == 0.5
    json.dumps(scheduler.state_dict())


def test_only_an_optimizer_can_be_scheduled():
    with pytest.raises(TypeError, match=r"`optimizer` is a list, but must be a torch.optim.Optimizer\."):
        BudgetScheduler([weight()], "rex", "10ba")


@pytest.mark.parametrize(
    ("schedule", "budget", "message"),
    [
        ("cosin", "10ba", r"Did you mean 'cosine'"),
        ("rex", "10", r"cannot read the budget '10'"),
    ],
)
def test_a_bad_schedule_or_budget_is_refused_at_construction(schedule, budget, message):
    with pytest.raises(ValueError, match=message):
        BudgetScheduler(sgd(), schedule, budget)


def yolo(length, budget):
    optimizer = sgd(lr=1e-3)
    return optimizer, BudgetScheduler(optimizer, Plan({"lr": Linear()}, Preamble(length, 1e-5, 1e-4)), budget)


def test_a_preamble_runs_at_absolute_rates_before_the_budget_begins():
    optimizer, scheduler = yolo(Steps(3), Steps(4))
    rates, progress = [], []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        progress.append(scheduler.progress)
        scheduler.step()
    assert rates[:3] == pytest.approx([1e-5, 4e-5, 7e-5])
    assert rates[3:] == [1e-3, 1e-3 * 0.75, 1e-3 * 0.5, 1e-3 * 0.25, 0.0]
    assert progress == [0, 0, 0, 0, 0.25, 0.5, 0.75, 1.0]
    assert scheduler.last_epoch == 8


def test_a_preamble_and_a_budget_each_count_their_own_unit():
    for length, budget in ((Samples(96), Steps(4)), (Steps(3), Samples(128)), (Epochs(1), Epochs(2, 3))):
        _, scheduler = yolo(length, budget)
        for _ in range(3):
            assert scheduler.progress == 0
            scheduler.step(samples=32)
        scheduler.step(samples=32)
        assert 0 < scheduler.progress < 1
    _, scheduler = yolo(Samples(96), Steps(4))
    with pytest.raises(ValueError, match=r"the budget 96sp counts samples: call step\(samples=…\)"):
        scheduler.step()


def test_the_state_is_json_and_its_position_holds_no_budget():
    scheduler = BudgetScheduler(torch.optim.Adam([weight()]), "one_cycle | plateau", "10ba")
    scheduler.step(loss=torch.tensor(1.5))
    scheduler.observe(val_loss=2.0)
    scheduler.step(loss=torch.tensor(float("nan")))
    scheduler.step(loss=float("-inf"))
    state = scheduler.state_dict()
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    assert state["budget"] == "10ba"
    assert state["position"]["updates"] == 3
    assert "10ba" not in json.dumps(state["position"])


def test_a_state_survives_torch_save_without_pickled_classes(tmp_path):
    scheduler = BudgetScheduler(sgd(), "one_cycle", "10ba", clock=STOPPED)
    scheduler.step()
    torch.save(scheduler.state_dict(), tmp_path / "state.pt")
    other = BudgetScheduler(sgd(), "one_cycle", "10ba", clock=STOPPED)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.state_dict() == scheduler.state_dict()


def saved(schedule="rex | plateau", budget="10ba", optimizer=None):
    return BudgetScheduler(optimizer or sgd(), schedule, budget).state_dict()


def test_another_budget_is_refused_with_both_and_the_way_out():
    with pytest.raises(
        BudgetMismatch, match=r"made for Steps\(count=10\) .* into Steps\(count=20\)[\s\S]*budget='10ba'"
    ):
        BudgetScheduler(sgd(), "rex | plateau", "20ba").load_state_dict(saved())


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("linear | plateau", r"made with another plan: .*rex.* there, .*linear.* here"),
        ("rex(beta=0.9) | plateau", r"made with another plan: .*0\.5.* there, .*0\.9.* here"),
        ("rex", r"made with another controller: .*plateau.* there, null here"),
        ("rex | plateau(patience=7)", r"made with another controller: .*5.* there, .*7.* here"),
    ],
)
def test_another_plan_or_controller_is_refused(schedule, message):
    scheduler = BudgetScheduler(sgd(), schedule, "10ba", clock=STOPPED)
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match=message):
        scheduler.load_state_dict(saved())
    assert scheduler.state_dict() == before


def test_another_number_of_groups_is_refused():
    two = torch.optim.SGD([{"params": [weight()]}, {"params": [weight()]}], lr=0.1)
    with pytest.raises(ValueError, match=r"this checkpoint has 1 parameter groups, the optimizer 2\."):
        BudgetScheduler(two, "rex | plateau", "10ba").load_state_dict(saved())


def test_a_state_of_another_version_is_refused():
    with pytest.raises(ValueError, match=r"this state has version 2; this glideslope reads version 1\."):
        BudgetScheduler(sgd(), "rex | plateau", "10ba").load_state_dict({**saved(), "version": 2})
    with pytest.raises(ValueError, match=r"this state has version None"):
        BudgetScheduler(sgd(), "rex", "10ba").load_state_dict({})


def test_sgdw_decays_weights_with_the_schedule_and_not_with_the_size_of_the_rate():
    def trained(lr, make_rate=lambda lr: lr):
        parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = SGDW([parameter], lr=make_rate(lr), momentum=0.5, weight_decay=0.01)
        scheduler = BudgetScheduler(optimizer, "linear", "5ba")
        for update in range(5):
            parameter.grad = torch.full_like(parameter, 0.1 * (update + 1)) / lr
            optimizer.step()
            scheduler.step()
        return parameter.detach()

    weights, velocity = 1.0, 0.0
    for update in range(5):
        velocity = 0.5 * velocity + 0.1 * (update + 1)
        weights = weights * (1 - 0.01 * (1 - update / 5)) - (1 - update / 5) * velocity
    for lr in (1.0, 0.25):
        torch.testing.assert_close(trained(lr), torch.full((3,), weights, dtype=torch.float64), rtol=1e-12, atol=0)
    tensor_rate = trained(0.25, lambda lr: torch.tensor(lr, dtype=torch.float64))
    torch.testing.assert_close(tensor_rate, trained(0.25), rtol=1e-12, atol=0)


def test_sgdw_decays_a_group_that_comes_later():
    optimizer = SGDW([weight()], lr=0.1)
    late = torch.nn.Parameter(torch.ones(1))
    optimizer.add_param_group({"params": [late], "lr": 0.5, "weight_decay": 0.25})
    late.grad = torch.zeros(1)
    optimizer.step()
    assert late.item() == 0.75
